// event and semaphores: each a little state under its wait queue's lock. What is released is handed to the first waiter,
// never put back for whoever comes by: first come, first served.

#include <ringlet/sync.hpp>

#include <mutex>

#include "hub/hub.hpp"

namespace ringlet {

// --- event -----------------------------------------------------------------------------------------------------------

void event::set() noexcept {
  waiters_.lock();
  set_.store(true, std::memory_order_release);
  waiters_.wake_all();
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
  std::lock_guard hold(waiters_);
  give(n);
}

bool semaphore::release_up_to(std::size_t n, std::size_t most) noexcept {
  std::lock_guard hold(waiters_);
  if (n > most - count_.load(std::memory_order_relaxed)) return false;
  give(n);
  return true;
}

void semaphore::give(std::size_t n) noexcept {
  while (n > 0 && waiters_.wake_one()) --n;
  count_.store(count_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  if (n > 0) listeners_.tell_all();
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

void bounded_semaphore::release(std::size_t n) {
  if (!within_.release_up_to(n, initial_))
    throw std::logic_error("ringlet: a bounded semaphore is released more often than it was acquired");
}

}  // namespace ringlet
