#pragma once
// A small lock for our own short critical sections between threads. Not std::mutex: pthread_mutex_lock is a name that
// hooks replace, and the runtime must not wait in its own hooks. Spins briefly, then futex(2). Never held over a park.

#include <atomic>
#include <cstdint>

#include "base/shown.hpp"

namespace ringlet::base {

class lock {
 public:
  void acquire() noexcept {
    std::uint32_t free = 0;
    if (!state_.compare_exchange_strong(free, 1, std::memory_order_acquire)) acquire_slow();
  }
  bool try_acquire() noexcept {
    std::uint32_t free = 0;
    return state_.compare_exchange_strong(free, 1, std::memory_order_acquire);
  }
  void release() noexcept {
    if (state_.exchange(0, std::memory_order_release) == 2) wake();
  }

 private:
  RINGLET_SHOWN void acquire_slow() noexcept;
  RINGLET_SHOWN void wake() noexcept;
  std::atomic<std::uint32_t> state_{0};  // 0 free, 1 held, 2 held and somebody sleeps
};

class lock_guard {
 public:
  explicit lock_guard(lock& l) noexcept : l_(l) { l_.acquire(); }
  ~lock_guard() { l_.release(); }
  lock_guard(const lock_guard&) = delete;

 private:
  lock& l_;
};

}  // namespace ringlet::base
