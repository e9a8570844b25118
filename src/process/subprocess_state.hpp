#pragma once
// What a subprocess is, for the files that speak of it: the child, how it ended, its streams. See subprocess.cpp.
//
// Always true: while the status is not known the child's number is nobody else's, for it has not been waited for.

#include <chrono>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>

#include <ringlet/io.hpp>
#include <ringlet/subprocess.hpp>

#include "base/lock.hpp"
#include "base/sys.hpp"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace ringlet {

struct subprocess::impl {
  pid_t pid = -1;
  int pidfd = -1;
  std::string shown;
  const pid_t owner = pid_t(sys::call(SYS_getpid));
  bool own_group = false;
  bool detached = false;
  base::lock lock;  // over the next four
  std::optional<exit_status> status;
  bool lost = false;  // somebody else has taken it
  detail::listener_list listeners;
  bool watched = false;
  file streams[3];
  std::string unsent;
  std::size_t sent = 0;
  std::string collected[2];

  ~impl() {
    if (pidfd >= 0) io::close(pidfd);
  }
  bool is_ours() const noexcept { return owner == sys::call(SYS_getpid); }

  // True: it has ended (or somebody else knows how).
  bool ask_with_lock() {
    if (status || lost) return true;
    siginfo_t found{};
    const long answer = sys::call(SYS_waitid, P_PIDFD, pidfd, &found, WEXITED | WNOHANG, nullptr);
    if (answer == -ECHILD) lost = true;
    else if (answer < 0 || found.si_pid == 0) return false;
    else if (found.si_code == CLD_EXITED) status = exit_status{found.si_status, 0, false};
    else status = exit_status{-1, found.si_status, found.si_code == CLD_DUMPED};
    listeners.tell_all();
    return true;
  }
  bool ask() {
    base::lock_guard hold(lock);
    return ask_with_lock();
  }
  // 0: it has ended.
  int wait_for_end(deadline until) {
    while (!ask()) {
      if (until == deadline::passed()) return -ETIMEDOUT;
      int waited = io::wait_readable(pidfd, until);
      if (waited == -EDEADLK) waited = wait_plainly(until);
      if (waited == -ETIMEDOUT && !until.is_never()) return ask() ? 0 : -ETIMEDOUT;
      if (waited < 0 && waited != -EINTR && waited != -ETIMEDOUT) return waited;
    }
    return 0;
  }
  // Where no fiber can park (a destructor on the hub's own stack).
  int wait_plainly(deadline until) const {
    const auto left = until.is_never() ? std::chrono::nanoseconds(std::chrono::hours(1)) : std::max(until.at() - clock::now(), clock::duration::zero());
    const timespec time{left / std::chrono::seconds(1), (left % std::chrono::seconds(1)).count()};
    pollfd p{pidfd, POLLIN, 0};
    const long n = sys::call(SYS_ppoll, &p, 1, &time, nullptr, 0);
    return n > 0 ? 0 : n == 0 ? -ETIMEDOUT : int(n);
  }
  bool signal(int number, bool group) {
    base::lock_guard hold(lock);
    group = group && own_group;
    // A group's number is its own until its leader's status has been taken: so that is not asked first. After that the number is the
    // group's as long as it has members, and nobody else's number meanwhile; who bears it is a stranger.
    if (group ? (status || lost) && sys::call(SYS_kill, pid, 0) != -ESRCH : ask_with_lock()) return false;
    const long answer = group ? sys::call(SYS_kill, -pid, number) : sys::call(SYS_pidfd_send_signal, pidfd, number, nullptr, 0);
    if (answer < 0 && answer != -ESRCH)
      throw io_error(int(-answer), "sending signal " + std::to_string(number) + " to " + shown);
    return answer == 0;
  }
  void start(std::vector<std::string>& command, const subprocess_options& how);
  void end() noexcept;
};

}  // namespace ringlet
