// How many are unfinished, and who waits for none.
//
// The one that brings it to zero wakes under the lock; a waiter that is woken may end the countdown's life, whose
// destructor takes the lock once more: so the last done() is out of it by then.

#include <ringlet/future.hpp>

#include <mutex>
#include <new>

#include <time.h>

#include "base/sys.hpp"

namespace ringlet::detail {

errand::~errand() = default;

void countdown::add() noexcept {
  std::lock_guard hold(waiting_);
  ++left_;
}

void countdown::done() noexcept {
  std::lock_guard hold(waiting_);
  if (--left_ > 0) return;
  while (waiting_.wake_one()) {
  }
}

std::size_t countdown::left() const noexcept {
  std::lock_guard hold(waiting_);
  return left_;
}

bool countdown::wait(deadline until, const char* what) {
  waiting_.lock();
  const bool zero = left_ == 0;
  if (zero || until == deadline::passed()) {
    waiting_.unlock();
    return zero;
  }
  return waiting_.wait(until, what, this);
}

void countdown::wait_out(const char* what) noexcept {
  waiting_.lock();
  if (left_ == 0) {
    waiting_.unlock();
    return;
  }
  try {
    waiting_.wait(never, what, this, nullptr, false);
  } catch (...) {  // this thread can have no hub (no fds, no memory)
    const timespec pause{0, 1'000'000};
    while (left() > 0) sys::call(SYS_nanosleep, &pause, nullptr);
  }
}

void countdown::forget_all() noexcept {
  new (&waiting_) wait_queue;  // who held its lock, and who waits in it, is not in this process
  left_ = 0;
}

}  // namespace ringlet::detail
