#pragma once
// Waiting for each other: event, semaphores, mutexes, condition. All are first come, first served; all may be used by fibers
// of any hub and by plain threads (a thread that waits gets a hub). A wait that ends by kill or timeout throws, and
// takes nothing with it.
//
// One rule for these and for queues, channels, barriers, results and joins: what is there is taken. A call that can be served at
// once is served, even to a fiber that was killed, or whose timeout has run out, a moment ago; the first call that has to wait
// tells it, before it begins to. (sleep, yield and condition::wait always wait. I/O always tells.) So a fiber that never has to
// wait cannot be killed: a long loop yields now and then.
//
// None of these may be used in a signal handler, which may have interrupted the holder of the very lock that it would wait for.
// There, write(2) to an eventfd or a pipe that a fiber reads; with hooks, sem_post(3) wakes a fiber in sem_wait(3).

#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/wait.hpp>

namespace ringlet {

namespace detail {
struct waiter;
struct list_links;

// Says which process of a line of forks this is; what an older one has left in a lock or a list does not count.
RINGLET_EXPORT extern std::atomic<std::uint32_t> fork_tag;

// The tiny lock over a primitive's state and its lists of waiters: a few instructions long, never held over a wait. One
// that another thread held at fork is free in the child.
class RINGLET_EXPORT wait_lock {
 public:
  wait_lock() noexcept = default;
  wait_lock(const wait_lock&) = delete;
  wait_lock& operator=(const wait_lock&) = delete;
  void lock() noexcept {
    const std::uint32_t found = word_.exchange(fork_tag.load(std::memory_order_relaxed), std::memory_order_acquire);
    if (found != 0) lock_slowly(found);
  }
  void unlock() noexcept { word_.store(0, std::memory_order_release); }

 private:
  void lock_slowly(std::uint32_t found) noexcept;
  std::atomic<std::uint32_t> word_{0};
};

// Parked fibers in the order they came. All members with the owner's wait_lock held.
class RINGLET_EXPORT wait_list {
 public:
  wait_list() noexcept = default;
  ~wait_list() { if (first_) check_nobody_waits(); }
  wait_list(const wait_list&) = delete;
  wait_list& operator=(const wait_list&) = delete;

  // Parks until woken (true) or the deadline (false); comes back without the lock. Throws when interrupted. `what` and
  // `whom` name the wait in reports; `gift` is what the waker is to see.
  bool wait(wait_lock& held, deadline until, const char* what, const void* whom, void* gift = nullptr, bool interruptible = true);
  // What who gives up, by its deadline (late) or otherwise, does to the owner at once: when it runs again that may be gone.
  struct giving_up {
    bool (*may)(void* gift, bool late) noexcept;  // false: it stays, and its deadline no longer counts; only where late
    void (*done)(void* gift) noexcept;            // out of the list; both under the lock
  };
  bool wait(wait_lock& held, deadline until, const char* what, const void* whom, void* gift, const giving_up& how);
  // Unlinks the first waiter and readies it; false if there is none.
  bool wake_one() noexcept;
  std::size_t wake_all() noexcept;
  bool empty() const noexcept { return first_ == nullptr; }  // false for sure; true but for those a fork has left here
  // The first waiter's gift (what it gave to wait), or null. It stays alive until the waiter has been woken.
  void* first_gift() noexcept;
  // The first waiter's fiber, or null.
  const void* first_fiber() noexcept;

 private:
  friend struct list_links;
  void check_nobody_waits() noexcept;
  waiter* first_ = nullptr;
  waiter* last_ = nullptr;
  std::uint32_t tag_ = 0;  // the process whose waiters these are
};

// A lock with one list.
class RINGLET_EXPORT wait_queue : public wait_lock, public wait_list {
 public:
  wait_queue() noexcept = default;
  ~wait_queue() { lock(); }  // who was woken may destroy this at once, while the waker, on another thread, still holds it
  bool wait(deadline until, const char* what, const void* whom, void* gift = nullptr, bool interruptible = true) {
    return wait_list::wait(*this, until, what, whom, gift, interruptible);
  }
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
  friend class bounded_semaphore;
  bool release_up_to(std::size_t n, std::size_t most) noexcept;
  void give(std::size_t n) noexcept;
  std::atomic<std::size_t> count_;
  detail::wait_queue waiters_;
  detail::listener_list listeners_;
};

// A semaphore that is never released more often than it was acquired: that throws std::logic_error and releases nothing.
class RINGLET_EXPORT bounded_semaphore {
 public:
  explicit bounded_semaphore(std::size_t initial = 1) noexcept : within_(initial), initial_(initial) {}
  bool acquire(deadline until = never) { return within_.acquire(until); }
  bool try_acquire() noexcept { return within_.try_acquire(); }
  void release(std::size_t n = 1);
  std::size_t count() const noexcept { return within_.count(); }

 private:
  semaphore within_;
  const std::size_t initial_;
};

namespace detail {
// A moment of any clock, as a deadline; the furthest past is as good as any.
template <class Clock, class Moment>
deadline deadline_at(const Moment& moment) {
  const auto now = Clock::now();
  return moment <= now ? deadline::passed() : deadline(moment - now);
}

// What std::unique_lock and its kin ask of a lock that can wait for a time, in terms of lock_until.
template <class Lock>
struct timed_lockable {
  template <class Rep, class Period>
  bool try_lock_for(const std::chrono::duration<Rep, Period>& time) {
    return static_cast<Lock*>(this)->lock_until(deadline(time));
  }
  template <class Clock, class Duration>
  bool try_lock_until(const std::chrono::time_point<Clock, Duration>& moment) {
    return static_cast<Lock*>(this)->lock_until(detail::deadline_at<Clock>(moment));
  }
};

// What a lock of ours leaves behind while its holder waits for a condition.
template <class Lock>
concept condition_lock = requires(Lock& held, std::size_t depth) {
  { held.unlock_all() } -> std::same_as<std::size_t>;
  held.lock_again(depth);
};
// std::unique_lock, and whatever else knows its lock.
template <class Holder>
concept condition_lock_holder = requires(Holder& h) {
  { *h.mutex() } -> condition_lock;
  { h.owns_lock() } -> std::convertible_to<bool>;
};
}  // namespace detail

// Not recursive; the owner is the fiber. Meets TimedLockable and so works with std::unique_lock. lock by the owner and
// unlock by another throw std::logic_error; the first call of a thread throws what keeps it from having a hub (no fds, no
// memory). One whose owner has ended stays locked for ever, and a fiber that is later made in the owner's place is taken for it.
class RINGLET_EXPORT mutex : public detail::timed_lockable<mutex> {
 public:
  void lock();
  bool lock_until(deadline until);
  bool try_lock();
  void unlock();
  // For condition: gives it up however deep it is held, and takes it again, which nothing can interrupt.
  std::size_t unlock_all();
  void lock_again(std::size_t depth);

 private:
  const void* owner_ = nullptr;
  detail::wait_queue waiters_;
};

// May be locked again by the fiber that holds it, and is free when it has been unlocked as often. unlock by another throws
// std::logic_error.
class RINGLET_EXPORT recursive_mutex : public detail::timed_lockable<recursive_mutex> {
 public:
  void lock();
  bool lock_until(deadline until);
  bool try_lock();
  void unlock();
  std::size_t unlock_all();
  void lock_again(std::size_t depth);
  // How often the running fiber has it; 0 if it has not.
  std::size_t depth() const noexcept;

 private:
  const void* owner_ = nullptr;
  std::size_t depth_ = 0;  // the owner's alone
  mutable detail::wait_queue waiters_;
};

// To wait until something that a lock guards has changed. With a mutex or a recursive_mutex, or a std::unique_lock of one. A
// wait gives the lock up (all of it, if it is recursive), and has it back (as deep as before) on every way out: notified,
// late (false), killed. Waiting without holding the lock throws std::logic_error. Notifying needs no lock.
class RINGLET_EXPORT condition {
 public:
  template <detail::condition_lock Lock>
  bool wait(Lock& held, deadline until = never) {
    return wait_with(&held, until, [](void* l) { return static_cast<Lock*>(l)->unlock_all(); },
                     [](void* l, std::size_t depth) { static_cast<Lock*>(l)->lock_again(depth); });
  }
  template <detail::condition_lock_holder Holder>
  bool wait(Holder& held, deadline until = never) {
    if (!held.owns_lock()) throw std::logic_error("ringlet: a condition is waited for with a lock that is not held");
    return wait(*held.mutex(), until);
  }
  // Waits until done() holds: true; or to the deadline: then what done() says at last.
  template <class Lock, class Predicate>
  bool wait(Lock& held, deadline until, Predicate done) {
    while (!done())
      if (!wait(held, until)) return done();
    return true;
  }
  void notify_one() noexcept;
  void notify(std::size_t n) noexcept;
  void notify_all() noexcept;

 private:
  bool wait_with(void* held, deadline until, std::size_t (*unlock)(void*), void (*lock_again)(void*, std::size_t));
  detail::wait_queue waiters_;
};

}  // namespace ringlet
