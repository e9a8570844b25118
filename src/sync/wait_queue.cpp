// The lists of parked fibers under every sync primitive, and the lock over them.
//
// A waker claims the first waiter under the lock and only then readies it, on whichever hub it belongs to; a timer or a kill
// claims it by taking it out under the same lock. So a waiter is ended exactly once, and one who gave up has taken nothing
// with it.
//
// fork: the child has none of those who wait, for the fiber that forked was running; and whoever held a lock on another
// thread is not there to release it. Locks and lists are therefore marked with the process they belong to. A lock of the
// parent's is taken over; a list of the parent's counts as empty, whatever state it was caught in: its waiters' stacks may
// not even be looked at.

#include <ringlet/sync.hpp>

#include <time.h>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "hub/hub.hpp"
#include "hub/timeout.hpp"

namespace ringlet::detail {

namespace {
// As the waiter's own fiber sees it: nothing but its time has come for it.
bool is_late(const waiter& w) noexcept {
  const fiber_state& f = *w.fiber;
  return !f.kill_pending && !f.hub->ends && !timeout_scope::first_fired(f.scopes);
}

struct queued : waiter {
  wait_lock* lock = nullptr;
  wait_list* list = nullptr;
  queued* before = nullptr;
  queued* after = nullptr;
  std::atomic<bool> in_list{false};
  void* gift = nullptr;
};

std::uint32_t this_process() noexcept { return fork_tag.load(std::memory_order_relaxed); }
}  // namespace

struct list_links {
  static void append(wait_list& q, queued& w) {
    if (q.tag_ != this_process()) {
      q.first_ = q.last_ = nullptr;
      q.tag_ = this_process();
    }
    w.before = static_cast<queued*>(q.last_);
    w.after = nullptr;
    w.in_list.store(true, std::memory_order_relaxed);
    if (w.before)
      w.before->after = &w;
    else
      q.first_ = &w;
    q.last_ = &w;
  }
  static void remove(wait_list& q, queued& w) {
    if (w.before)
      w.before->after = w.after;
    else
      q.first_ = w.after;
    if (w.after)
      w.after->before = w.before;
    else
      q.last_ = w.before;
    w.in_list.store(false, std::memory_order_release);
  }
  static queued* first(wait_list& q) {
    if (q.first_ && __builtin_expect(q.tag_ != this_process(), 0)) q.first_ = q.last_ = nullptr;
    return static_cast<queued*>(q.first_);
  }
};

namespace {
// Nobody holds it for that long who is not stuck. Told once a process; there is nothing that this one could do about it.
void report_long_spin(std::int64_t& since_s) noexcept {
  timespec now;
  sys::call(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  if (since_s == 0) since_s = now.tv_sec;
  static std::atomic<bool> told{false};
  if (now.tv_sec - since_s < 5 || told.exchange(true, std::memory_order_relaxed)) return;
  static constexpr char text[] =
      "ringlet: a thread has tried for 5 s to get the lock of an event, queue or channel, which nobody needs for longer than a moment. "
      "Likely cause: its holder waits, in the move constructor or destructor of an item that is put into a queue or channel, or "
      "was interrupted by a signal handler that uses it. Cure: neither may wait or use ringlet's primitives; a handler may write(2) "
      "to an eventfd that a fiber reads.\n";
  sys::call(SYS_write, 2, text, sizeof text - 1);
}
}  // namespace

// Who finds it held spins, and gives the processor away if the holder lost it; soon by sleeping, for one who only yields
// never lets a holder of a lower real-time priority run, and on a busy machine burns the time that the holder needs.
// Anything but 0 and ours was left by the parent: whoever finds that, and only one can, has written ours over it and so has
// the lock.
void wait_lock::lock_slowly(std::uint32_t found) noexcept {
  const std::uint32_t mine = this_process();
  std::int64_t since_s = 0;
  constexpr unsigned quick = 200, yields = 32;
  constexpr timespec moment{0, 50'000};
  for (unsigned spins = 0; found == mine; ++spins) {
    if (spins > quick + yields)
      sys::call(SYS_nanosleep, &moment, nullptr);
    else if (spins > quick)
      sys::call(SYS_sched_yield);
    if (spins > quick && spins % 16 == 0) report_long_spin(since_s);
    found = word_.exchange(mine, std::memory_order_acquire);
  }
}

void wait_list::check_nobody_waits() noexcept {
  if (process_ends.load(std::memory_order_relaxed)) return;
  RINGLET_REQUIRE(!list_links::first(*this), "an event, lock or queue is destroyed while a fiber waits for it");
}

namespace {
// Joins the list and waits in it, with the lock held; comes back without.
inline bool wait_in(wait_list& list, queued& w, wait_lock& held, deadline until, const char* what, const void* whom, void* gift) {
  hub_state* hub = nullptr;
  try {
    require_can_park(what);
    hub = &hub_state::here();
  } catch (...) {
    held.unlock();
    throw;
  }
  w.lock = &held;
  w.list = &list;
  w.gift = gift;
  w.what = what;
  w.whom = whom;
  w.fiber = hub->running;
  list_links::append(list, w);
  held.unlock();
  switch (hub->wait(w, until)) {
    case wake_reason::interrupted: hub->throw_interrupt();
    case wake_reason::timed_out: return false;
    default: return true;
  }
}
}  // namespace

bool wait_list::wait(wait_lock& held, deadline until, const char* what, const void* whom, void* gift, bool interruptible) {
  queued w;
  w.interruptible = interruptible;
  w.withdraw = [](waiter& x) {
    auto& late = static_cast<queued&>(x);
    // Claimed already, its message under way: what it waited for may be gone.
    if (!late.in_list.load(std::memory_order_acquire)) return false;
    late.lock->lock();
    const bool still_there = late.in_list.load(std::memory_order_relaxed);
    if (still_there) list_links::remove(*late.list, late);
    late.lock->unlock();
    return still_there;
  };
  return wait_in(*this, w, held, until, what, whom, gift);
}

bool wait_list::wait(wait_lock& held, deadline until, const char* what, const void* whom, void* gift, const giving_up& how) {
  struct asking : queued {
    const giving_up* how = nullptr;
  } w;
  w.how = &how;
  w.withdraw = [](waiter& x) {
    auto& leaving = static_cast<asking&>(x);
    if (!leaving.in_list.load(std::memory_order_acquire)) return false;
    wait_lock& lock = *leaving.lock;
    lock.lock();
    const bool leaves = leaving.in_list.load(std::memory_order_relaxed) && leaving.how->may(leaving.gift, is_late(leaving));
    if (leaves) {
      list_links::remove(*leaving.list, leaving);
      leaving.how->done(leaving.gift);
    }
    lock.unlock();
    return leaves;
  };
  return wait_in(*this, w, held, until, what, whom, gift);
}

bool wait_list::wake_one() noexcept {
  auto* w = list_links::first(*this);
  if (!w) return false;
  list_links::remove(*this, *w);
  hub_state::wake_anywhere(*w);
  return true;
}

std::size_t wait_list::wake_all() noexcept {
  std::size_t woken = 0;
  while (wake_one()) ++woken;
  return woken;
}

void* wait_list::first_gift() noexcept {
  auto* w = list_links::first(*this);
  return w ? w->gift : nullptr;
}

const void* wait_list::first_fiber() noexcept {
  auto* w = list_links::first(*this);
  return w ? w->fiber : nullptr;
}

}  // namespace ringlet::detail
