// The queue of parked fibers under every sync primitive.
//
// A waker claims the first waiter under the queue's lock and only then readies it, on whichever hub it belongs to; a timer
// or a kill claims it by taking it out under the same lock. So a waiter is ended exactly once, and one who gave up has
// taken nothing with it.

#include <ringlet/sync.hpp>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "hub/hub.hpp"

namespace ringlet::detail {

namespace {
struct queued : waiter {
  wait_queue* queue = nullptr;
  queued* before = nullptr;
  queued* after = nullptr;
  bool in_queue = false;
  void* gift = nullptr;
};
}  // namespace

struct queue_links {
  static void append(wait_queue& q, queued& w) {
    w.before = static_cast<queued*>(q.last_);
    w.after = nullptr;
    w.in_queue = true;
    if (w.before)
      w.before->after = &w;
    else
      q.first_ = &w;
    q.last_ = &w;
  }
  static void remove(wait_queue& q, queued& w) {
    if (w.before)
      w.before->after = w.after;
    else
      q.first_ = w.after;
    if (w.after)
      w.after->before = w.before;
    else
      q.last_ = w.before;
    w.in_queue = false;
  }
  // The first one who can be woken. In a forked child, those who waited in the parent are passed over.
  static queued* first(wait_queue& q) {
    auto* w = static_cast<queued*>(q.first_);
    while (w && __builtin_expect(w->fiber->is_ghost(), 0)) {
      remove(q, *w);
      w = static_cast<queued*>(q.first_);
    }
    return w;
  }
};

// Who was woken may destroy the event at once; the waker, on another thread, may still hold the lock.
wait_queue::~wait_queue() {
  lock();
  RINGLET_ASSERT(!queue_links::first(*this), "an event, lock or queue is destroyed while a fiber waits for it");
}

// The sections are a few instructions; who finds it held spins, and gives the processor away if the holder lost it.
void wait_queue::lock() noexcept {
  for (int spins = 0; lock_.exchange(1, std::memory_order_acquire) != 0; ++spins)
    if (spins > 200) sys::call(SYS_sched_yield);
}
void wait_queue::unlock() noexcept { lock_.store(0, std::memory_order_release); }

bool wait_queue::wait(deadline until, const char* what, const void* whom, void* gift, bool interruptible) {
  hub_state* hub = nullptr;
  try {
    require_can_park(what);
    hub = &hub_state::here();
  } catch (...) {
    unlock();
    throw;
  }
  queued w;
  w.queue = this;
  w.gift = gift;
  w.what = what;
  w.whom = whom;
  w.interruptible = interruptible;
  w.fiber = hub->running;
  w.withdraw = [](waiter& x) {
    auto& late = static_cast<queued&>(x);
    late.queue->lock();
    const bool still_there = late.in_queue;
    if (still_there) queue_links::remove(*late.queue, late);
    late.queue->unlock();
    return still_there;
  };
  queue_links::append(*this, w);
  unlock();
  switch (hub->wait(w, until)) {
    case wake_reason::interrupted: hub->throw_interrupt();
    case wake_reason::timed_out: return false;
    default: return true;
  }
}

bool wait_queue::wake_one() noexcept {
  auto* w = queue_links::first(*this);
  if (!w) return false;
  queue_links::remove(*this, *w);
  hub_state::wake_anywhere(*w);
  return true;
}

void* wait_queue::first_gift() noexcept {
  auto* w = queue_links::first(*this);
  return w ? w->gift : nullptr;
}

const void* wait_queue::first_fiber() noexcept {
  auto* w = queue_links::first(*this);
  return w ? w->fiber : nullptr;
}

}  // namespace ringlet::detail
