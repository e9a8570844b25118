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

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "hub/hub.hpp"

namespace ringlet::detail {

namespace {
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

// Who finds it held spins, and gives the processor away if the holder lost it. Anything but 0 and ours was left by the parent:
// whoever finds that, and only one can, has written ours over it and so has the lock.
void wait_lock::lock_slowly(std::uint32_t found) noexcept {
  const std::uint32_t mine = this_process();
  for (int spins = 0; found == mine; ++spins) {
    if (spins > 200) sys::call(SYS_sched_yield);
    found = word_.exchange(mine, std::memory_order_acquire);
  }
}

void wait_list::check_nobody_waits() noexcept {
  if (process_ends.load(std::memory_order_relaxed)) return;
  RINGLET_ASSERT(!list_links::first(*this), "an event, lock or queue is destroyed while a fiber waits for it");
}

bool wait_list::wait(wait_lock& held, deadline until, const char* what, const void* whom, void* gift, bool interruptible) {
  hub_state* hub = nullptr;
  try {
    require_can_park(what);
    hub = &hub_state::here();
  } catch (...) {
    held.unlock();
    throw;
  }
  queued w;
  w.lock = &held;
  w.list = this;
  w.gift = gift;
  w.what = what;
  w.whom = whom;
  w.interruptible = interruptible;
  w.fiber = hub->running;
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
  list_links::append(*this, w);
  held.unlock();
  switch (hub->wait(w, until)) {
    case wake_reason::interrupted: hub->throw_interrupt();
    case wake_reason::timed_out: return false;
    default: return true;
  }
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
