// One queue for readers and writers; whoever leaves the lock serves those at the queue's head. A waiter's gift says which kind
// it is.

#include <ringlet/shared_mutex.hpp>

#include <mutex>
#include <stdexcept>

#include "hub/hub.hpp"

namespace ringlet {

namespace {
const void* running_owner() { return detail::hub_state::here().running; }
char reads, writes;  // gifts
}  // namespace

void shared_mutex::lock() { lock_until(never); }
void shared_mutex::lock_shared() { lock_shared_until(never); }

bool shared_mutex::try_lock() {
  const void* self = running_owner();
  std::lock_guard hold(waiters_);
  if (!self || writer_ || readers_ > 0) return false;
  writer_ = self;
  return true;
}

bool shared_mutex::lock_until(deadline until) {
  const void* self = running_owner();
  if (!self) detail::require_can_park("a mutex");
  waiters_.lock();
  if (!writer_ && readers_ == 0) {
    writer_ = self;
    waiters_.unlock();
    return true;
  }
  if (writer_ == self) {
    waiters_.unlock();
    throw std::logic_error("ringlet: shared_mutex locked twice by the same fiber; it would wait for itself forever");
  }
  return wait_for(until, false);
}

void shared_mutex::unlock() {
  const void* self = running_owner();
  std::lock_guard hold(waiters_);
  if (!writer_ || writer_ != self) throw std::logic_error("ringlet: shared_mutex unlocked by a fiber that does not hold it to write");
  writer_ = nullptr;
  serve_waiters();
}

bool shared_mutex::try_lock_shared() noexcept {
  std::lock_guard hold(waiters_);
  if (writer_ || waiters_.first_gift()) return false;
  ++readers_;
  return true;
}

bool shared_mutex::lock_shared_until(deadline until) {
  waiters_.lock();
  if (!writer_ && !waiters_.first_gift()) {
    ++readers_;
    waiters_.unlock();
    return true;
  }
  if (writer_ && writer_ == hub::running_fiber()) {
    waiters_.unlock();
    throw std::logic_error("ringlet: shared_mutex locked to read by the fiber that holds it to write; it would wait for itself forever");
  }
  return wait_for(until, true);
}

void shared_mutex::unlock_shared() {
  std::lock_guard hold(waiters_);
  if (readers_ == 0) throw std::logic_error("ringlet: shared_mutex unlocked by a reader though nobody reads");
  if (--readers_ == 0) serve_waiters();
}

// With the lock held; comes back without.
bool shared_mutex::wait_for(deadline until, bool to_read) {
  if (until == deadline::passed()) {
    waiters_.unlock();
    return false;
  }
  // Who gives up may have been what kept those behind it waiting: a writer between readers.
  struct on_leaving {
    shared_mutex& left;
    bool served = false;
    ~on_leaving() {
      if (served) return;
      std::lock_guard hold(left.waiters_);
      left.serve_waiters();
    }
  } leaving{*this};
  return leaving.served = waiters_.wait(until, to_read ? "shared_mutex, to read" : "shared_mutex", this, to_read ? &reads : &writes);
}

// With the lock held: as many from the queue's head as may have it now.
void shared_mutex::serve_waiters() noexcept {
  while (void* kind = waiters_.first_gift()) {
    if (writer_ || (kind == &writes && readers_ > 0)) return;
    if (kind == &writes)
      writer_ = waiters_.first_fiber();
    else
      ++readers_;
    waiters_.wake_one();
  }
}

}  // namespace ringlet
