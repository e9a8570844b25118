// futex_waitv(2): one fiber waits for any of several words.
//
// Each word has a waiter of its own on its list; they stand for the fiber's one wait. The first wake of any of them claims
// the group and readies the fiber, which then takes the others off. A wake that comes too late for that has still woken one,
// as in the kernel.

#include <linux/futex.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>

#include "base/moments.hpp"
#include "base/sys.hpp"
#include "threads/futex_waiters.hpp"
#include "threads/state.hpp"

namespace ringlet::threads {

namespace {
constexpr int nobody = -1, given_up = -2;
}

struct futex_group : futex_waiter {
  futex_waiter* parts = nullptr;
  std::atomic<int> claimed{nobody};  // by the part that was woken first, or by a deadline

  bool claim(int by) noexcept {
    int none = nobody;
    return claimed.compare_exchange_strong(none, by, std::memory_order_acq_rel);
  }
};

void ready_group(futex_waiter& w, bool by_message) noexcept {
  futex_group& g = *w.group;
  if (g.claim(int(&w - g.parts))) ready(g, by_message);
}

namespace {

std::uint32_t now_in(const std::uint32_t* word) noexcept { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }

// Takes the parts off; the first that was woken, or nobody. After it no waker is at any of them.
int take_apart(futex_group& g, unsigned count) noexcept {
  int woken = nobody;
  for (unsigned i = 0; i < count; ++i) {
    if (take_off(g.parts[i])) continue;
    if (woken == nobody) woken = int(i);
    base::lock_guard until_it_is_gone(bucket_of(g.parts[i].word).lock);
  }
  return woken;
}

// Nobody wakes for another process: which part was woken, or has changed, while the group was given up? Opens it again.
int look_again(futex_group& g, const ::futex_waitv* words, unsigned count) noexcept {
  g.claimed.store(nobody, std::memory_order_release);
  for (unsigned i = 0; i < count; ++i)
    if (!__atomic_load_n(&g.parts[i].in, __ATOMIC_ACQUIRE) || now_in(g.parts[i].word) != std::uint32_t(words[i].val))
      if (g.claim(int(i))) return int(i);
  return nobody;  // or somebody readies us now
}

}  // namespace

long futex_waitv(const ::futex_waitv* words, unsigned count, unsigned flags, const timespec* limit, clockid_t clock) noexcept {
  if (!here() || !the_mode.hub->can_park()) return sys::call(SYS_futex_waitv, words, count, flags, limit, clock);
  // With a moment that has passed the kernel says what is wrong with the arguments, or that it would wait.
  const timespec passed{0, 0};
  const long said = sys::call(SYS_futex_waitv, words, count, flags, &passed, limit ? clock : CLOCK_MONOTONIC);
  if (said != -ETIMEDOUT) return said;
  if (limit && !base::is_valid(*limit)) return -EINVAL;
  const deadline until = limit ? base::moment_of(clock, *limit) : never;

  const std::unique_ptr<futex_waiter[]> parts(new (std::nothrow) futex_waiter[count]);
  if (!parts) return -ENOMEM;
  futex_group me;
  me.parts = parts.get();
  me.what = "futex_waitv";
  me.whom = reinterpret_cast<const void*>(words[0].uaddr);
  me.interruptible = false;
  me.withdraw = [](detail::waiter& late) { return static_cast<futex_group&>(late).claim(given_up); };
  me.signals.effect = detail::signal_effect::ends_unless_restarted;
  me.fiber = the_mode.hub->running;
  bool is_shared = false;
  for (unsigned i = 0; i < count; ++i) {
    futex_waiter& part = parts[i];
    part.word = reinterpret_cast<const std::uint32_t*>(words[i].uaddr);
    part.bits = ~0u;
    part.group = &me;
    is_shared |= !(words[i].flags & FUTEX_PRIVATE_FLAG);
    bucket& b = bucket_of(part.word);
    b.lock.acquire();
    const bool as_expected = now_in(part.word) == std::uint32_t(words[i].val);
    if (as_expected) b.append(part);
    b.lock.release();
    if (as_expected) continue;
    if (!me.claim(given_up)) the_mode.hub->wait(me);  // somebody readies us now
    const int woken = take_apart(me, i);
    return woken == nobody ? -EAGAIN : woken;
  }

  auto reason = detail::wake_reason::timed_out;
  for (auto slice = std::chrono::nanoseconds(std::chrono::microseconds(200));;
       slice = std::min<std::chrono::nanoseconds>(slice * 2, longest_shared_slice)) {
    reason = the_mode.hub->wait(me, is_shared ? std::min(until, deadline(slice)) : until);
    if (reason != detail::wake_reason::timed_out || !is_shared || until.has_passed()) break;
    if (const int changed = look_again(me, words, count); changed != nobody) {
      take_apart(me, count);
      return changed;
    }
  }
  const int woken = take_apart(me, count);
  if (woken != nobody) return woken;
  return reason == detail::wake_reason::timed_out ? -ETIMEDOUT : -EINTR;
}

}  // namespace ringlet::threads
