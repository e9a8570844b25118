// futex(2) in user space: who waits is a fiber, on a list by address; who wakes takes it off and readies it.
//
// The check of the word and the queueing are one step under the bucket's lock, as in the kernel, so a wake that follows a
// change is never missed. The helpers' kernel threads (malloc's arenas are shared with them) wait in the kernel: what a
// wake has not used up here is passed on to it, whenever there may be such a thread or the word may be another process's.
//
// A word that may be shared between processes is waited for here and looked at again in slices, since another process
// wakes in the kernel only. Futexes may wake without cause, so nobody can tell, but for a delay of at most one slice.
// Priority inheritance has nothing to inherit among fibers of one thread: those locks are plain ones here, with the owner's
// id in the word as their ABI wants it.

#include <linux/futex.h>
#include <time.h>

#include <algorithm>
#include <climits>

#include "base/lock.hpp"
#include "base/moments.hpp"
#include "base/sys.hpp"
#include "loop/crew.hpp"
#include "threads/futex_waiters.hpp"
#include "threads/state.hpp"

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif

namespace ringlet::threads {

namespace {

constexpr std::size_t bucket_bits = 16;
constinit bucket buckets[std::size_t(1) << bucket_bits];

bool withdraw(detail::waiter& late) { return take_off(static_cast<futex_waiter&>(late)); }

long kernel(const std::uint32_t* word, int operation, std::uint32_t value, std::uintptr_t timeout, const std::uint32_t* word2,
            std::uint32_t value3) noexcept {
  return sys::call(SYS_futex, word, operation, value, timeout, word2, value3);
}

// May a kernel thread or another process wait for this word? No lock is taken: a tick that notes a delay may have met the
// crew with its own held, and what takes the backtrace comes here.
bool kernel_may_have_waiters(int operation) noexcept {
  return !(operation & FUTEX_PRIVATE_FLAG) || loop::helpers() > 0;
}

// The id word of a thread of ours: libc's join waits for it by the shared operation, because the kernel would wake it so.
bool is_id_word(const std::uint32_t* word, std::uint32_t value) noexcept {
  const thread_block* b = find(int(value & FUTEX_TID_MASK));
  return b && reinterpret_cast<const std::uint32_t*>(b->clear_child_id) == word;
}

long wait(const std::uint32_t* word, std::uint32_t expected, std::uint32_t bits, deadline until, bool is_shared) noexcept {
  bucket& b = bucket_of(word);
  futex_waiter me;
  me.word = word;
  me.bits = bits;
  me.what = "futex";
  me.whom = word;
  me.interruptible = false;
  me.withdraw = &withdraw;
  me.signals.effect = until.is_never() ? detail::signal_effect::ends_unless_restarted : detail::signal_effect::ends;
  me.fiber = the_mode.hub->running;
  {
    base::lock_guard hold(b.lock);
    if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != expected) return -EAGAIN;
    if (until == deadline::passed()) return -ETIMEDOUT;
    b.append(me);
  }
  if (!is_shared) {
    the_mode.hub->wait(me, until);
  } else {
    for (auto slice = std::chrono::nanoseconds(std::chrono::microseconds(200));; slice = std::min<std::chrono::nanoseconds>(slice * 2, longest_shared_slice)) {
      const deadline end = std::min(until, deadline(slice));
      if (the_mode.hub->wait(me, end) != detail::wake_reason::timed_out) break;
      if (until.has_passed()) break;
      // Another process has changed the word, or not: then on with it.
      base::lock_guard hold(b.lock);
      if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != expected) return 0;
      b.append(me);
    }
  }
  switch (me.reason) {
    case detail::wake_reason::timed_out: return -ETIMEDOUT;
    case detail::wake_reason::interrupted: return -EINTR;
    default: return 0;
  }
}

long wake(std::uint32_t* word, int operation, std::uint32_t count, std::uint32_t bits) noexcept {
  // A negative count is one; the kernel counts in int.
  const std::size_t most = std::size_t(std::max(int(count), 1));
  std::size_t done = wake_word(word, most, bits);
  if (done < most && kernel_may_have_waiters(operation)) {
    const long more = kernel(word, FUTEX_WAKE_BITSET | (operation & FUTEX_PRIVATE_FLAG), std::uint32_t(most - done), 0, nullptr, bits);
    if (more < 0 && done == 0) return more;
    if (more > 0) done += std::size_t(more);
  }
  return long(done);
}

long requeue(std::uint32_t* from, int operation, std::uint32_t wakes, std::size_t moves, std::uint32_t* to, const std::uint32_t* expected) noexcept {
  if (int(wakes) < 0 || int(moves) < 0) return -EINVAL;
  bucket& a = bucket_of(from);
  bucket& z = bucket_of(to);
  bucket* const first = std::min(&a, &z);
  bucket* const second = std::max(&a, &z);
  long woken = 0, moved = 0;
  {
    base::lock_guard hold(first->lock);
    if (second != first) second->lock.acquire();
    if (expected && __atomic_load_n(from, __ATOMIC_SEQ_CST) != *expected) {
      if (second != first) second->lock.release();
      return -EAGAIN;
    }
    for (futex_waiter* w = a.first; w;) {
      futex_waiter* const next = w->after;
      if (w->word == from) {
        if (woken < long(wakes)) {
          a.remove(*w);
          ++woken;
          ready(*w, false);
        } else if (std::size_t(moved) < moves) {
          a.remove(*w);
          w->word = to;
          w->whom = to;
          z.append(*w);
          ++moved;
        }
      }
      w = next;
    }
    if (second != first) second->lock.release();
  }
  if ((woken < long(wakes) || std::size_t(moved) < moves) && kernel_may_have_waiters(operation)) {
    const long more = kernel(from, FUTEX_REQUEUE | (operation & FUTEX_PRIVATE_FLAG), std::uint32_t(wakes - std::uint32_t(woken)),
                             moves - std::size_t(moved), to, 0);
    if (more > 0) woken += more;
  }
  return expected ? woken + moved : woken;
}

long wake_op(std::uint32_t* word, int operation, std::uint32_t count, std::uint32_t count2, std::uint32_t* word2, std::uint32_t what) noexcept {
  const unsigned how = what >> 28 & 7, comparison = what >> 24 & 15;
  std::uint32_t argument = std::uint32_t(std::int32_t(what << 8) >> 20);
  const auto compared = std::int32_t(what << 20) >> 20;
  if (what & (8u << 28)) argument = 1u << (argument & 31);
  std::uint32_t old = __atomic_load_n(word2, __ATOMIC_SEQ_CST), changed;
  do {
    switch (how) {
      case FUTEX_OP_SET: changed = argument; break;
      case FUTEX_OP_ADD: changed = old + argument; break;
      case FUTEX_OP_OR: changed = old | argument; break;
      case FUTEX_OP_ANDN: changed = old & ~argument; break;
      case FUTEX_OP_XOR: changed = old ^ argument; break;
      default: return -ENOSYS;
    }
  } while (!__atomic_compare_exchange_n(word2, &old, changed, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
  const auto before = std::int32_t(old);
  bool also;
  switch (comparison) {
    case FUTEX_OP_CMP_EQ: also = before == compared; break;
    case FUTEX_OP_CMP_NE: also = before != compared; break;
    case FUTEX_OP_CMP_LT: also = before < compared; break;
    case FUTEX_OP_CMP_LE: also = before <= compared; break;
    case FUTEX_OP_CMP_GT: also = before > compared; break;
    case FUTEX_OP_CMP_GE: also = before >= compared; break;
    default: return -ENOSYS;
  }
  long woken = wake(word, operation, count, ~0u);
  if (also) woken += wake(word2, operation, count2, ~0u);
  return woken;
}

bool has_waiter(const std::uint32_t* word) noexcept {
  bucket& b = bucket_of(word);
  base::lock_guard hold(b.lock);
  for (futex_waiter* w = b.first; w; w = w->after)
    if (w->word == word) return true;
  return false;
}

long lock_pi(std::uint32_t* word, deadline until, bool tries_only) noexcept {
  const auto self = std::uint32_t(current().id);
  while (true) {
    std::uint32_t held = __atomic_load_n(word, __ATOMIC_SEQ_CST);
    if ((held & FUTEX_TID_MASK) == 0) {
      const std::uint32_t mine = self | (held & FUTEX_OWNER_DIED) | (has_waiter(word) ? FUTEX_WAITERS : 0);
      if (__atomic_compare_exchange_n(word, &held, mine, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) return 0;
      continue;
    }
    if ((held & FUTEX_TID_MASK) == self) return -EDEADLK;
    if (!find(int(held & FUTEX_TID_MASK)) && sys::call(SYS_tgkill, the_mode.process, held & FUTEX_TID_MASK, 0) == -ESRCH) return -ESRCH;
    if (tries_only) return -EAGAIN;
    if (!(held & FUTEX_WAITERS)) {
      if (!__atomic_compare_exchange_n(word, &held, held | FUTEX_WAITERS, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) continue;
      held |= FUTEX_WAITERS;
    }
    const long ended = wait(word, held, ~0u, until, false);
    if (ended == -ETIMEDOUT || ended == -EINTR) return ended;
  }
}

long unlock_pi(std::uint32_t* word) noexcept {
  std::uint32_t held = __atomic_load_n(word, __ATOMIC_SEQ_CST);
  if ((held & FUTEX_TID_MASK) != std::uint32_t(current().id)) return -EPERM;
  __atomic_store_n(word, 0, __ATOMIC_SEQ_CST);
  wake_word(word, 1, ~0u);
  return 0;
}

}  // namespace

bucket& bucket_of(const std::uint32_t* word) noexcept {
  return buckets[(reinterpret_cast<std::uintptr_t>(word) * 0x9e3779b97f4a7c15ull) >> (64 - bucket_bits)];
}

void ready(futex_waiter& w, bool by_message) noexcept {
  if (w.group) return ready_group(w, by_message);
  if (!by_message) return detail::hub_state::wake_anywhere(w);
  w.deliver = [](detail::message& m) {
    auto& woken = static_cast<detail::waiter&>(m);
    woken.fiber->hub->wake(woken, detail::wake_reason::woken);
  };
  w.fiber->hub->send(w);
}

// A requeue may move it to another bucket while we come for it.
bool take_off(futex_waiter& w) noexcept {
  while (bucket* b = __atomic_load_n(&w.in, __ATOMIC_ACQUIRE)) {
    base::lock_guard hold(b->lock);
    if (w.in != b) continue;
    b->remove(w);
    return true;
  }
  return false;
}

std::size_t wake_word(const std::uint32_t* word, std::size_t count, std::uint32_t bits, bool by_message) noexcept {
  bucket& b = bucket_of(word);
  std::size_t done = 0;
  base::lock_guard hold(b.lock);
  for (futex_waiter* w = b.first; w && done < count;) {
    futex_waiter* const next = w->after;
    if (w->word == word && (w->bits & bits)) {
      b.remove(*w);
      ++done;
      ready(*w, by_message);
    }
    w = next;
  }
  return done;
}

void forget_futexes_after_fork() noexcept {
  for (bucket& b : buckets)
    if (b.first) {
      b.first = b.last = nullptr;
      b.lock.~lock();
      ::new (&b.lock) base::lock;
    }
}

long futex(std::uint32_t* word, int operation, std::uint32_t value, std::uintptr_t timeout_or_count, std::uint32_t* word2,
           std::uint32_t value3) noexcept {
  const int command = operation & FUTEX_CMD_MASK;
  const bool on_fiber = here() && the_mode.hub->can_park();
  const auto plain = [&] { return kernel(word, operation, value, timeout_or_count, word2, value3); };
  // What is no address of a word is the kernel's to refuse.
  if (reinterpret_cast<std::uintptr_t>(word) < 4096 || reinterpret_cast<std::uintptr_t>(word) % 4 != 0) return plain();
  const auto* limit = reinterpret_cast<const timespec*>(timeout_or_count);
  const clockid_t clock = operation & FUTEX_CLOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC;
  switch (command) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET: {
      if (!on_fiber) return plain();
      if (command == FUTEX_WAIT_BITSET && value3 == 0) return -EINVAL;
      if (limit && !base::is_valid(*limit)) return -EINVAL;
      const deadline until = !limit                  ? never
                             : command == FUTEX_WAIT ? base::after(*limit)
                                                     : base::moment_of(clock, *limit);
      const bool is_shared = !(operation & FUTEX_PRIVATE_FLAG) && !is_id_word(word, value);
      return wait(word, value, command == FUTEX_WAIT ? ~0u : value3, until, is_shared);
    }
    case FUTEX_WAKE: return wake(word, operation, value, ~0u);
    case FUTEX_WAKE_BITSET: return value3 == 0 ? -EINVAL : wake(word, operation, value, value3);
    case FUTEX_REQUEUE: return requeue(word, operation, value, timeout_or_count, word2, nullptr);
    case FUTEX_CMP_REQUEUE: return requeue(word, operation, value, timeout_or_count, word2, &value3);
    case FUTEX_WAKE_OP: return wake_op(word, operation, value, std::uint32_t(timeout_or_count), word2, value3);
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
    case FUTEX_TRYLOCK_PI:
      if (!on_fiber) return plain();
      if (limit && command != FUTEX_TRYLOCK_PI && !base::is_valid(*limit)) return -EINVAL;
      return lock_pi(word, limit && command != FUTEX_TRYLOCK_PI ? base::moment_of(command == FUTEX_LOCK_PI ? CLOCK_REALTIME : clock, *limit) : never,
                     command == FUTEX_TRYLOCK_PI);
    case FUTEX_UNLOCK_PI: return on_fiber ? unlock_pi(word) : plain();
    case FUTEX_WAIT_REQUEUE_PI:
    case FUTEX_CMP_REQUEUE_PI: return -ENOSYS;  // no libc since glibc 2.25 uses them
    default: return plain();
  }
}

}  // namespace ringlet::threads
