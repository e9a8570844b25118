#pragma once
// An epoll fd that watches readiness edge-triggered: what the epoll engine sleeps on and what the simulated engine
// asks. Both directions of a readiness share one registration (epoll knows an fd once), so arming the second one may
// report the first again: a spurious notification, which the interface allows.
//
// Always true: a registration's data is its readiness; null is the wake-up.

#include <poll.h>
#include <sys/epoll.h>
#include <time.h>

#include <climits>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "loop/engine.hpp"
#include "loop/wakeup.hpp"

namespace ringlet::loop {

class epoll_set {
 public:
  epoll_set() = default;
  epoll_set(const epoll_set&) = delete;
  ~epoll_set() { close(); }

  int open(const wakeup& w) noexcept {  // 0 or -errno
    fd_ = int(sys::call(SYS_epoll_create1, EPOLL_CLOEXEC));
    return fd_ < 0 ? fd_ : control(EPOLL_CTL_ADD, w.fd(), EPOLLIN | EPOLLET, nullptr);
  }
  void close() noexcept {
    if (fd_ >= 0) sys::call(SYS_close, fd_);
    fd_ = -1;
  }
  unsigned watched() const noexcept { return watched_; }

  int arm(readiness& r, direction where) noexcept {
    RINGLET_ASSERT(!r.is_armed(where), "a readiness is armed twice in one direction");
    const unsigned wanted = r.armed | (1u << unsigned(where));
    // The number's file may have been closed and another opened behind our back, or the number be known of old: ask
    // for what should be so, and if the kernel knows it otherwise, for the other.
    int result = control(r.armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, r.fd, bits(wanted), &r);
    if (result == -EEXIST) result = control(EPOLL_CTL_MOD, r.fd, bits(wanted), &r);
    if (result == -ENOENT) result = control(EPOLL_CTL_ADD, r.fd, bits(wanted), &r);
    if (result < 0) return result;
    if (!r.armed) ++watched_;
    r.armed = std::uint8_t(wanted);
    return 0;
  }
  void disarm(readiness& r) noexcept {
    if (!r.armed) return;
    control(EPOLL_CTL_DEL, r.fd, 0, nullptr);  // ENOENT, EBADF: closed behind our back, and so gone from the set
    r.armed = 0;
    --watched_;
  }

  // Up to `most` events; waits as long as said (null: for ever), with these signals blocked (null: the thread's). -EINTR for
  // a signal.
  int wait(epoll_event* events, int most, const timespec* timeout, const std::uint64_t* mask = nullptr) noexcept {
    if (has_pwait2_) {
      const int result = int(sys::call(SYS_epoll_pwait2, fd_, events, most, timeout, mask, 8));
      // Linux 5.11; seccomp profiles older than the call answer EPERM.
      if (result != -ENOSYS && result != -EPERM) return result;
      has_pwait2_ = false;
    }
    long milliseconds = -1;
    if (timeout) {
      milliseconds = timeout->tv_sec > INT_MAX / 1000 - 1
                         ? INT_MAX
                         : timeout->tv_sec * 1000 + (timeout->tv_nsec + 999'999) / 1'000'000;
    }
    return int(sys::call(SYS_epoll_pwait, fd_, events, most, milliseconds, mask, 8));
  }

  // poll(2)'s bits have epoll's values.
  static constexpr std::uint32_t bits(unsigned armed) noexcept {
    return EPOLLET | (armed & 1 ? EPOLLIN | EPOLLPRI | EPOLLRDHUP : 0u) | (armed & 2 ? EPOLLOUT : 0u);
  }

 private:
  int control(int what, int fd, std::uint32_t events, void* data) noexcept {
    epoll_event e{};
    e.events = events;
    e.data.ptr = data;
    return int(sys::call(SYS_epoll_ctl, fd_, what, fd, &e));
  }

  int fd_ = -1;
  unsigned watched_ = 0;
  bool has_pwait2_ = true;
};

static_assert(EPOLLIN == POLLIN && EPOLLPRI == POLLPRI && EPOLLOUT == POLLOUT && EPOLLERR == POLLERR &&
              EPOLLHUP == POLLHUP && EPOLLRDHUP == POLLRDHUP);

}  // namespace ringlet::loop
