#pragma once
// How other threads end a hub's sleep: a state word, so that only the one wake that is needed makes a system call, and
// an eventfd for that one. Shared by the uring and epoll engines, which watch fd() edge-triggered: every write is an
// edge, so the counter need never be read.
//
// Always true: a signal() that happens before try_sleep() makes it fail; one that happens after it writes the eventfd.
// signal() is async-signal-safe and may be called on any thread; the rest belongs to the hub's thread.

#include <sys/eventfd.h>

#include <atomic>
#include <cstdint>

#include "base/sys.hpp"

namespace ringlet::loop {

class wakeup {
 public:
  wakeup() = default;
  wakeup(const wakeup&) = delete;
  ~wakeup() { close(); }

  int open() noexcept {  // 0 or -errno
    const int made = int(sys::call(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK));
    fd_.store(made, std::memory_order_relaxed);
    return made < 0 ? made : 0;
  }
  void close() noexcept {
    if (fd() >= 0) sys::call(SYS_close, fd());
    forget();
  }
  void forget() noexcept { fd_.store(-1, std::memory_order_relaxed); }  // the number is somebody else's
  int fd() const noexcept { return fd_.load(std::memory_order_relaxed); }

  void signal() noexcept {
    if (state_.exchange(notified) == sleeping) ring_bell();
  }
  void ring_bell() noexcept {
    const std::uint64_t one = 1;
    sys::call(SYS_write, fd(), &one, sizeof one);
  }
  bool try_sleep() noexcept {
    int expected = awake;
    return state_.compare_exchange_strong(expected, sleeping);
  }
  // Takes what was signalled so far; whoever signalled has made its reason visible to us.
  void awoke() noexcept {
    if (state_.load(std::memory_order_relaxed) != awake) state_.exchange(awake);
  }
  bool is_pending() const noexcept { return state_.load(std::memory_order_relaxed) == notified; }

 private:
  enum : int { awake, sleeping, notified };
  std::atomic<int> state_{awake};
  std::atomic<int> fd_{-1};  // another thread reads it
};

}  // namespace ringlet::loop
