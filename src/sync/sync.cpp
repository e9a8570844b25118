// event, semaphore, mutex, condition: each a little state under its wait queue's lock. What is released is handed to
// the first waiter, never put back for whoever comes by: first come, first served.

#include <ringlet/sync.hpp>

#include <mutex>

#include "hub/hub.hpp"

namespace ringlet {

using detail::hub_state;

namespace {
// Interrupted already, or waiting not asked for? Then no queue is entered.
void settle_interrupts() {
  if (auto* hub = hub_state::here_or_null(); hub && hub->can_park() && hub->interrupted()) hub->throw_interrupt();
}
const void* running_owner() {
  return hub_state::here().running;
}
}  // namespace

// --- event -----------------------------------------------------------------------------------------------------------

void event::set() noexcept {
  waiters_.lock();
  set_.store(true, std::memory_order_release);
  while (waiters_.wake_one()) {
  }
  listeners_.tell_all();
  waiters_.unlock();
}

bool event::add_listener(detail::listener& l) noexcept {
  std::lock_guard hold(waiters_);
  if (is_set()) return false;
  listeners_.add(l);
  return true;
}

void event::remove_listener(detail::listener& l) noexcept {
  std::lock_guard hold(waiters_);
  listeners_.remove(l);
}

void event::clear() noexcept { set_.store(false, std::memory_order_release); }

bool event::wait(deadline until) {
  if (is_set()) return true;
  waiters_.lock();
  if (is_set() || until == deadline::passed()) {
    waiters_.unlock();
    return is_set();
  }
  return waiters_.wait(until, "event", this);
}

// --- semaphore -------------------------------------------------------------------------------------------------------

bool semaphore::try_acquire() noexcept {
  waiters_.lock();
  const std::size_t n = count_.load(std::memory_order_relaxed);
  if (n > 0) count_.store(n - 1, std::memory_order_relaxed);
  waiters_.unlock();
  return n > 0;
}

bool semaphore::acquire(deadline until) {
  settle_interrupts();
  waiters_.lock();
  const std::size_t n = count_.load(std::memory_order_relaxed);
  if (n > 0) {
    count_.store(n - 1, std::memory_order_relaxed);
    waiters_.unlock();
    return true;
  }
  if (until == deadline::passed()) {
    waiters_.unlock();
    return false;
  }
  return waiters_.wait(until, "semaphore", this);
}

void semaphore::release(std::size_t n) noexcept {
  waiters_.lock();
  while (n > 0 && waiters_.wake_one()) --n;
  count_.store(count_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  if (n > 0) listeners_.tell_all();
  waiters_.unlock();
}

bool semaphore::add_listener(detail::listener& l) noexcept {
  std::lock_guard hold(waiters_);
  if (count() > 0) return false;
  listeners_.add(l);
  return true;
}

void semaphore::remove_listener(detail::listener& l) noexcept {
  std::lock_guard hold(waiters_);
  listeners_.remove(l);
}

// --- mutex -----------------------------------------------------------------------------------------------------------

void mutex::lock() { lock_until(never); }

bool mutex::try_lock() noexcept {
  const void* self = running_owner();
  std::lock_guard hold(waiters_);
  if (owner_) return false;
  owner_ = self;
  return true;
}

bool mutex::lock_until(deadline until) {
  const void* self = running_owner();
  waiters_.lock();
  if (!owner_) {
    owner_ = self;
    waiters_.unlock();
    return true;
  }
  if (owner_ == self) {
    waiters_.unlock();
    throw std::logic_error("ringlet: mutex locked twice by the same fiber; it would wait for itself forever");
  }
  if (until == deadline::passed()) {
    waiters_.unlock();
    return false;
  }
  return waiters_.wait(until, "mutex", this);  // unlock has made us the owner
}

void mutex::unlock() {
  const void* self = running_owner();
  std::lock_guard hold(waiters_);
  if (owner_ != self) throw std::logic_error("ringlet: mutex unlocked by a fiber that does not hold it");
  owner_ = waiters_.first_fiber();
  waiters_.wake_one();
}

void mutex::lock_again() {
  const void* self = running_owner();
  waiters_.lock();
  if (!owner_) {
    owner_ = self;
    waiters_.unlock();
    return;
  }
  waiters_.wait(never, "mutex", this, nullptr, false);
}

// --- condition -------------------------------------------------------------------------------------------------------

bool condition::wait(mutex& held, deadline until) {
  settle_interrupts();
  waiters_.lock();
  try {
    held.unlock();
  } catch (...) {
    waiters_.unlock();
    throw;
  }
  bool woken = false;
  try {
    woken = waiters_.wait(until, "condition", this);
  } catch (...) {
    held.lock_again();
    throw;
  }
  held.lock_again();
  return woken;
}

void condition::notify_one() noexcept {
  std::lock_guard hold(waiters_);
  waiters_.wake_one();
}

void condition::notify_all() noexcept {
  std::lock_guard hold(waiters_);
  while (waiters_.wake_one()) {
  }
}

}  // namespace ringlet
