#pragma once
// Locks, semaphores, events and conditions between processes. Whoever waits parks its fiber, in each process on whatever hub.
//
//   ringlet::ipc::mutex lock;
//   ringlet::process p([&] { std::lock_guard hold(lock); ... });
//
// Made before the process is started and used in it by reference, as ipc/shared.hpp says. Locks know their owner: a process that
// ends while it holds one, however it ends, does not leave the others waiting. They get the lock, told by owner_died that what
// it guards may be half done; then it is theirs.
//
// Not first come, first served: who comes just as it becomes free may be faster than who waits. Waits are told when things
// change; besides, every waiter looks again ten times a second, so that one whose waker was killed amid it does not
// wait for ever. The model is Python's multiprocessing, where a lock whose owner was killed is lost.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/sync.hpp>

namespace ringlet::ipc {

// Thrown by lock: it is yours now, but the process that had it ended without unlocking it. Repair what it guards, and unlock.
struct RINGLET_EXPORT owner_died : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {
struct shared_state;

// A page that is shared, and an eventfd that wakes: what all of these stand on.
class RINGLET_EXPORT shared_thing {
 public:
  shared_thing(const shared_thing&) = delete;
  shared_thing& operator=(const shared_thing&) = delete;

 protected:
  shared_thing();
  ~shared_thing();
  shared_state* state_;
};
}  // namespace detail

// The owner is a fiber of a process; it may lock again as often as it likes.
class RINGLET_EXPORT recursive_mutex : public detail::shared_thing, public ringlet::detail::timed_lockable<recursive_mutex> {
 public:
  recursive_mutex() = default;
  // Throws owner_died, and then has it.
  void lock() { lock_until(never); }
  bool lock_until(deadline until);
  bool try_lock() { return lock_until(deadline::passed()); }
  void unlock();  // by another than the owner: std::logic_error
  bool is_locked() const noexcept;
  // For condition: gives it up however deep it is held, and takes it again.
  std::size_t unlock_all();
  void lock_again(std::size_t depth);
};

// The same, but to lock what one has is a mistake (std::logic_error).
class RINGLET_EXPORT mutex : public detail::shared_thing, public ringlet::detail::timed_lockable<mutex> {
 public:
  mutex() = default;
  void lock() { lock_until(never); }
  bool lock_until(deadline until);
  bool try_lock() { return lock_until(deadline::passed()); }
  void unlock();
  bool is_locked() const noexcept;
  std::size_t unlock_all();
  void lock_again(std::size_t depth);
};

class RINGLET_EXPORT semaphore : public detail::shared_thing {
 public:
  explicit semaphore(std::size_t initial = 1);
  bool acquire(deadline until = never);
  bool try_acquire() { return acquire(deadline::passed()); }
  void release(std::size_t n = 1);
  std::size_t count() const noexcept;
};

class RINGLET_EXPORT event : public detail::shared_thing {
 public:
  event() = default;
  // Wakes all who wait, even if it is cleared before they run.
  void set();
  void clear() noexcept;
  bool is_set() const noexcept;
  bool wait(deadline until = never);
};

// With either mutex, held as deep as one likes. A wait may also end without a notify: wait for a predicate.
class RINGLET_EXPORT condition : public detail::shared_thing {
 public:
  condition() = default;
  // Throws owner_died as lock does: it has the lock again on every way out.
  template <class Lock>
  bool wait(Lock& held, deadline until = never) {
    const std::uint32_t seen = prepare(held.is_locked());
    const std::size_t depth = held.unlock_all();
    struct again {
      Lock& lock;
      std::size_t depth;
      bool done = false;
      ~again() {
        if (done) return;
        try {
          lock.lock_again(depth);
        } catch (const owner_died&) {  // on the way of another exception; it has the lock, and the guarded thing is as it is
        }
      }
    } back{held, depth};
    const bool notified = wait_change(seen, until);
    back.done = true;
    held.lock_again(depth);
    return notified;
  }
  // True when pred() is; false when the deadline passed and it is not.
  template <class Lock, class Predicate>
  bool wait(Lock& held, Predicate pred, deadline until = never)
    requires requires { static_cast<bool>(pred()); }
  {
    while (!pred())
      if (!wait(held, until)) return static_cast<bool>(pred());
    return true;
  }
  void notify_one();
  void notify_all();

 private:
  std::uint32_t prepare(bool locked);
  bool wait_change(std::uint32_t seen, deadline until);
};

}  // namespace ringlet::ipc
