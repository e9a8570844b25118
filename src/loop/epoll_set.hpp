#pragma once
// An epoll fd that watches readiness edge-triggered: what the epoll engine sleeps on and what the simulated engine
// asks. Both directions of a readiness share one registration (epoll knows an fd once), so arming the second one may
// report the first again: a spurious notification, which the interface allows.
//
// Always true: a registration's data is its readiness; null is the wake-up. What is armed is in the list of all.

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <time.h>

#include <climits>
#include <utility>

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
    if (!r.armed) {
      forget_lost(r);
      ++watched_;
      link(all_, r);
    }
    r.armed = std::uint8_t(wanted);
    return 0;
  }
  void disarm(readiness& r) noexcept {
    forget_lost(r);
    if (!r.armed) return;
    control(EPOLL_CTL_DEL, r.fd, 0, nullptr);  // ENOENT, EBADF: closed behind our back, and so gone from the set
    leave(r);
  }

  // The program has closed our fd, and the number is nobody's or somebody else's. (An error of a control or wait says so.)
  bool is_lost(int error) const noexcept {
    return error == -EINVAL || (error == -EBADF && sys::call(SYS_fcntl, fd_, F_GETFD) == -EBADF);
  }
  // A new set with all that was in the old one, but for those whose file was closed, too: see pop_lost. 0 or -errno.
  int open_anew(const wakeup& w) noexcept {
    fd_ = -1;
    if (const int error = open(w); error < 0) return error;
    for (readiness *r = all_, *next; r; r = next) {
      next = r->after;
      if (control(EPOLL_CTL_ADD, r->fd, bits(r->armed), r) == 0) continue;
      leave(*r);
      r->leaving = 1;
      link(lost_, *r);
    }
    return 0;
  }
  bool has_lost() const noexcept { return lost_ != nullptr; }
  // One that is no longer armed, and has to be told; null if there is none.
  readiness* pop_lost() noexcept {
    readiness* r = lost_;
    if (r) forget_lost(*r);
    return r;
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
  static void link(readiness*& list, readiness& r) noexcept {
    r.before = nullptr;
    r.after = list;
    if (list) list->before = &r;
    list = &r;
  }
  static void unlink(readiness*& list, readiness& r) noexcept {
    (r.before ? r.before->after : list) = r.after;
    if (r.after) r.after->before = r.before;
  }
  void leave(readiness& r) noexcept {
    r.armed = 0;
    --watched_;
    unlink(all_, r);
  }
  void forget_lost(readiness& r) noexcept {
    if (std::exchange(r.leaving, std::uint8_t(0))) unlink(lost_, r);
  }
  int control(int what, int fd, std::uint32_t events, void* data) noexcept {
    epoll_event e{};
    e.events = events;
    e.data.ptr = data;
    return int(sys::call(SYS_epoll_ctl, fd_, what, fd, &e));
  }

  int fd_ = -1;
  unsigned watched_ = 0;
  readiness* all_ = nullptr;
  readiness* lost_ = nullptr;
  bool has_pwait2_ = true;
};

static_assert(EPOLLIN == POLLIN && EPOLLPRI == POLLPRI && EPOLLOUT == POLLOUT && EPOLLERR == POLLERR &&
              EPOLLHUP == POLLHUP && EPOLLRDHUP == POLLRDHUP);

}  // namespace ringlet::loop
