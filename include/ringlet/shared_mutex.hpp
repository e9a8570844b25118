#pragma once
// A mutex for readers and writers: many may hold it to read, or one to write. Usable from fibers of any hub and from plain
// threads, with std::shared_lock and std::unique_lock (it meets SharedTimedLockable).
//
// Fair: who waits is served in the order of asking, neighbouring readers together. So neither readers nor writers starve;
// and a reader that asks a second time while a writer waits, waits for ever: take it once.

#include <chrono>
#include <cstddef>

#include <ringlet/deadline.hpp>
#include <ringlet/sync.hpp>

namespace ringlet {

class RINGLET_EXPORT shared_mutex : public detail::timed_lockable<shared_mutex> {
 public:
  // To write. The owner is the fiber: lock by it, and unlock by another, throw std::logic_error.
  void lock();
  bool lock_until(deadline until);
  bool try_lock();
  void unlock();

  // To read. unlock_shared without any reader throws std::logic_error; by whom it is called is not checked.
  void lock_shared();
  bool lock_shared_until(deadline until);
  bool try_lock_shared() noexcept;
  void unlock_shared();
  template <class Rep, class Period>
  bool try_lock_shared_for(const std::chrono::duration<Rep, Period>& time) {
    return lock_shared_until(deadline(time));
  }
  template <class Clock, class Duration>
  bool try_lock_shared_until(const std::chrono::time_point<Clock, Duration>& moment) {
    return lock_shared_until(detail::deadline_at<Clock>(moment));
  }

 private:
  bool wait_for(deadline until, bool to_read);
  void serve_waiters() noexcept;

  mutable detail::wait_queue waiters_;
  const void* writer_ = nullptr;
  std::size_t readers_ = 0;
};

}  // namespace ringlet
