// Calls that wait for signals: sigsuspend, pause, sigtimedwait and what libc makes of it.

#include "base/sys.hpp"
#include "io/doors.hpp"
#include "ringlet/io.hpp"
#include "threads/signals.hpp"

namespace ringlet::threads {

namespace {
// Until a signal ends it.
long park_for_signal(const char* what, deadline until = never) noexcept {
  thread_block& self = current();
  if (self.pending & ~self.mask) return -EINTR;
  detail::waiter me;
  me.what = what;
  me.interruptible = false;
  me.signals.effect = detail::signal_effect::ends;
  return the_mode.hub->wait(me, until) == detail::wake_reason::timed_out ? -EAGAIN : -EINTR;
}

}  // namespace

long pending(signal_set* into, std::size_t size) noexcept {
  const long result = sys::call(SYS_rt_sigpending, into, size);
  if (result == 0 && size >= sizeof *into) {
    const thread_block& self = current();
    *into |= (self.pending | unclaimed) & self.mask;
  }
  return result;
}

long wait_for(const signal_set* wanted, siginfo_t* found, const timespec* timeout, std::size_t size) noexcept {
  if (size != sizeof *wanted || (timeout && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1'000'000'000))) return -EINVAL;
  thread_block& self = current();
  apply_mask();  // what it waits for must not come to a handler
  const signal_set set = *wanted & ~never_blocked, kernels = set & ~tick_set;
  const timespec at_once{};
  const deadline until = timeout ? deadline(std::chrono::seconds(timeout->tv_sec) + std::chrono::nanoseconds(timeout->tv_nsec)) : never;
  int fd = -1;
  long answer;
  while (true) {
    if (unassigned || (unclaimed & set)) {
      unassigned = true;
      self.awaited = set;
      hand_out_signals(*the_mode.hub);
      self.awaited = 0;
    }
    if (const signal_set here_now = self.pending & set) {
      const int signal = __builtin_ctzll(here_now) + 1;
      siginfo_t info;
      take_pending(self, signal, info);
      if (found) *found = info;
      answer = signal;
      break;
    }
    answer = sys::call(SYS_rt_sigtimedwait, &kernels, found, &at_once, sizeof kernels);
    if (answer != -EAGAIN) break;
    if (until.has_passed()) break;
    if (self.pending & ~self.mask) {
      answer = -EINTR;
      break;
    }
    if (fd < 0) {
      fd = int(sys::call(SYS_signalfd4, -1, &kernels, sizeof kernels, 02004000 /* SFD_CLOEXEC | SFD_NONBLOCK */));
      if (fd < 0) {
        answer = fd;
        break;
      }
      io::fd_opened(fd);
    }
    self.awaited = set;
    answer = io::wait_readable(fd, until);
    self.awaited = 0;
    if (answer == -EINTR && !(self.pending & set)) break;
    if (answer < 0 && answer != -EINTR && answer != -ETIMEDOUT) break;
  }
  if (fd >= 0) io::close(fd);
  return answer;
}

long suspend(const signal_set* mask, std::size_t size) noexcept {
  if (size != sizeof *mask) return -EINVAL;
  mask_for_this_call(*mask);
  return park_for_signal("sigsuspend");
}

long pause() noexcept { return park_for_signal("pause"); }

}  // namespace ringlet::threads
