#pragma once
// Waiting for each other: event, semaphore, mutex, condition. All are first come, first served; all may be used by fibers
// of any hub and by plain threads (a thread that waits gets a hub). A wait that ends by kill or timeout throws, and
// takes nothing with it.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/wait.hpp>

namespace ringlet {

namespace detail {
struct waiter;
struct queue_links;

// A queue of parked fibers and the tiny lock over it and over its owner's state.
class RINGLET_EXPORT wait_queue {
 public:
  wait_queue() noexcept = default;
  ~wait_queue();
  wait_queue(const wait_queue&) = delete;
  wait_queue& operator=(const wait_queue&) = delete;

  void lock() noexcept;
  void unlock() noexcept;
  // With the lock held: parks until woken (true) or the deadline (false); comes back without the lock. Throws when
  // interrupted. `what` and `whom` name the wait in reports.
  bool wait(deadline until, const char* what, const void* whom, void* gift = nullptr, bool interruptible = true);
  // With the lock held: unlinks the first waiter and readies it; false if there is none.
  bool wake_one() noexcept;
  bool empty() const noexcept { return first_ == nullptr; }
  // The first waiter's gift (what it gave to wait), or null. It stays alive until the waiter has been woken.
  void* first_gift() noexcept;
  // The first waiter's fiber, or null.
  const void* first_fiber() noexcept;

 private:
  friend struct queue_links;
  std::atomic<std::uint32_t> lock_{0};
  waiter* first_ = nullptr;
  waiter* last_ = nullptr;
};
}  // namespace detail

// A flag to wait for. set wakes all who wait now, even if it is cleared before they run.
class RINGLET_EXPORT event {
 public:
  void set() noexcept;
  void clear() noexcept;
  bool is_set() const noexcept { return set_.load(std::memory_order_acquire); }
  // True when set; false when the deadline passed.
  bool wait(deadline until = never);
  // For wait and iwait, as below.
  bool add_listener(detail::listener&) noexcept;
  void remove_listener(detail::listener&) noexcept;

 private:
  std::atomic<bool> set_{false};
  detail::wait_queue waiters_;
  detail::listener_list listeners_;
};

class RINGLET_EXPORT semaphore {
 public:
  explicit semaphore(std::size_t initial = 1) noexcept : count_(initial) {}
  bool acquire(deadline until = never);
  bool try_acquire() noexcept;
  void release(std::size_t n = 1) noexcept;
  std::size_t count() const noexcept { return count_.load(std::memory_order_relaxed); }
  // wait and iwait report it when a release has left something that nobody waits to acquire; they take none of it.
  bool add_listener(detail::listener&) noexcept;
  void remove_listener(detail::listener&) noexcept;

 private:
  std::atomic<std::size_t> count_;
  detail::wait_queue waiters_;
  detail::listener_list listeners_;
};

// Not recursive; the owner is the fiber. Meets Lockable and so works with std::unique_lock. lock by the owner and unlock
// by another throw std::logic_error.
class RINGLET_EXPORT mutex {
 public:
  void lock();
  bool lock_until(deadline until);
  bool try_lock() noexcept;
  void unlock();

 private:
  friend class condition;
  void lock_again();  // not interruptible: a condition's wait ends with the mutex held, whatever ended it
  const void* owner_ = nullptr;
  detail::wait_queue waiters_;
};

class RINGLET_EXPORT condition {
 public:
  // Releases the mutex, waits, locks it again (also when it throws or the deadline passed: false).
  bool wait(mutex& held, deadline until = never);
  template <class Predicate>
  bool wait(mutex& held, deadline until, Predicate done) {
    while (!done())
      if (!wait(held, until)) return done();
    return true;
  }
  void notify_one() noexcept;
  void notify_all() noexcept;

 private:
  detail::wait_queue waiters_;
};

}  // namespace ringlet
