// mutex, recursive_mutex and condition: a little state under a wait queue's lock. Who unlocks hands the lock to the first
// waiter, so nobody can overtake one who waits.

#include <mutex>

#include <ringlet/sync.hpp>

#include "base/assert.hpp"
#include "hub/hub.hpp"

namespace ringlet {

using detail::hub_state;

namespace {
const void* running_owner() { return hub_state::here().running; }

// On the hub's own stack, where no fiber runs, nobody could own it.
const void* owner_to_be() {
  const void* self = running_owner();
  if (__builtin_expect(!self, 0)) detail::require_can_park("a mutex");
  return self;
}
}  // namespace

// --- mutex -----------------------------------------------------------------------------------------------------------

void mutex::lock() { lock_until(never); }

bool mutex::try_lock() {
  const void* self = running_owner();
  if (!self) return false;
  std::lock_guard hold(waiters_);
  if (owner_) return false;
  owner_ = self;
  return true;
}

bool mutex::lock_until(deadline until) {
  const void* self = owner_to_be();
  waiters_.lock();
  if (!owner_) {
    owner_ = self;
    waiters_.unlock();
    return true;
  }
  if (owner_ == self) {
    waiters_.unlock();
    throw std::logic_error("ringlet: mutex locked twice by the same fiber; it would wait for itself forever. Cure: a recursive_mutex. (Or it was left locked by a fiber that has ended, in whose place this one was made.)");
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
  if (__builtin_expect(waiters_.empty(), 1)) {
    owner_ = nullptr;
    return;
  }
  owner_ = waiters_.first_fiber();
  waiters_.wake_one();
}

std::size_t mutex::unlock_all() {
  unlock();
  return 1;
}

void mutex::lock_again(std::size_t) {
  const void* self = running_owner();
  waiters_.lock();
  if (!owner_) {
    owner_ = self;
    waiters_.unlock();
    return;
  }
  waiters_.wait(never, "mutex", this, nullptr, false);
}

// --- recursive_mutex -------------------------------------------------------------------------------------------------

void recursive_mutex::lock() { lock_until(never); }

bool recursive_mutex::try_lock() {
  const void* self = running_owner();
  if (!self) return false;
  std::lock_guard hold(waiters_);
  if (owner_ && owner_ != self) return false;
  owner_ = self;
  ++depth_;
  return true;
}

bool recursive_mutex::lock_until(deadline until) {
  const void* self = owner_to_be();
  waiters_.lock();
  if (!owner_ || owner_ == self) {
    owner_ = self;
    ++depth_;
    waiters_.unlock();
    return true;
  }
  if (until == deadline::passed()) {
    waiters_.unlock();
    return false;
  }
  if (!waiters_.wait(until, "recursive_mutex", this)) return false;
  depth_ = 1;
  return true;
}

void recursive_mutex::unlock() {
  const void* self = running_owner();
  std::lock_guard hold(waiters_);
  if (!owner_ || owner_ != self) throw std::logic_error("ringlet: recursive_mutex unlocked by a fiber that does not hold it");
  if (--depth_ > 0) return;
  owner_ = waiters_.first_fiber();
  waiters_.wake_one();
}

std::size_t recursive_mutex::unlock_all() {
  const void* self = running_owner();
  std::lock_guard hold(waiters_);
  if (!owner_ || owner_ != self) throw std::logic_error("ringlet: recursive_mutex unlocked by a fiber that does not hold it");
  const std::size_t depth = std::exchange(depth_, 0);
  owner_ = waiters_.first_fiber();
  waiters_.wake_one();
  return depth;
}

void recursive_mutex::lock_again(std::size_t depth) {
  const void* self = running_owner();
  waiters_.lock();
  if (!owner_) {
    owner_ = self;
    depth_ = depth;
    waiters_.unlock();
    return;
  }
  waiters_.wait(never, "recursive_mutex", this, nullptr, false);
  depth_ = depth;
}

std::size_t recursive_mutex::depth() const noexcept {
  const void* self = hub::running_fiber();
  std::lock_guard hold(waiters_);
  return owner_ && owner_ == self ? depth_ : 0;
}

// --- condition -------------------------------------------------------------------------------------------------------

bool condition::wait_with(void* held, deadline until, std::size_t (*unlock)(void*), void (*lock_again)(void*, std::size_t)) {
  auto& hub = hub_state::here();
  if (hub.can_park() && hub.interrupted()) hub.throw_interrupt();
  waiters_.lock();
  std::size_t depth = 0;
  try {
    depth = unlock(held);
  } catch (...) {
    waiters_.unlock();
    throw;
  }
  bool woken = false;
  try {
    woken = waiters_.wait(until, "condition", this);
  } catch (...) {
    lock_again(held, depth);
    throw;
  }
  lock_again(held, depth);
  return woken;
}

void condition::notify_one() noexcept { notify(1); }

void condition::notify(std::size_t n) noexcept {
  std::lock_guard hold(waiters_);
  while (n > 0 && waiters_.wake_one()) --n;
}

void condition::notify_all() noexcept {
  std::lock_guard hold(waiters_);
  waiters_.wake_all();
}

}  // namespace ringlet
