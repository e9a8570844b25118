// Rows of syscalls.def about streams, files, time and children, in words.

#include "by_number.hpp"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include <ringlet/io.hpp>

#include "base/moments.hpp"
#include "base/sys.hpp"
#include "dialect.hpp"
#include "hub/hub.hpp"
#include "io/doors.hpp"
#include "io/wait.hpp"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace ringlet::by_number {

using base::after, base::is_valid, base::remaining, base::to_duration, hooks::no_pointer;

// --- streams ----------------------------------------------------------------------------------------------------------

namespace {
// libc reads a file of /proc while it holds malloc's lock (whether memory may be overcommitted), and opens and closes it.
// So nothing in the way of a regular file may allocate here, or park: those calls are the kernel's.
bool is_regular(int fd) noexcept {
  const io::fd_watch* known = fd < 0 ? nullptr : io::fd_table::find_here(fd);
  if (known && known->kind != io::file_kind::unknown) return known->kind == io::file_kind::regular;
  struct stat about;
  return sys::call(SYS_fstat, fd, &about) != 0 || S_ISREG(about.st_mode);
}
}  // namespace

long read(int fd, void* buffer, std::size_t size) noexcept { return is_regular(fd) ? pass : io::read(fd, buffer, size); }

long write(int fd, const void* data, std::size_t size) noexcept {
  long result = 0;
  if (write_to_name_file(fd, data, size, &result)) return result;
  return is_regular(fd) ? pass : io::write(fd, data, size);
}

long recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) noexcept {
  if (no_pointer(messages) || (timeout && (no_pointer(timeout) || !is_valid(*timeout)))) return pass;
  const deadline until = timeout ? after(*timeout) : never;
  const long got = io::recvmmsg(fd, messages, count, flags, until);
  if (timeout && got > 0) *timeout = remaining(until);
  return got;
}

long sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) noexcept {
  return no_pointer(messages) ? pass : io::sendmmsg(fd, messages, count, flags);
}

// No flag of sendfile says "do not wait", and a kernel thread for each of hundreds that send is what we are here to avoid.
// So O_NONBLOCK is set for the length of the call, which another process that shares the socket might see.
long send_file(int to, int from, off_t* offset, std::size_t count) noexcept {
  io::fd_table& table = io::fd_table::of(detail::hub_state::here());
  io::fd_watch* const known = table.get_if_open(to);
  if (!known || table.kind_of(*known) != io::file_kind::stream || !is_regular(from))
    return io::call_on_helper("sendfile", signal_effect::ends_unless_restarted, SYS_sendfile, to, from, offset, count);
  std::size_t done = 0;
  do {
    const long got = io::until_ready(to, loop::direction::out, never, "sendfile", [&](io::fd_watch*) -> ssize_t {
      const long flags = sys::call(SYS_fcntl, to, F_GETFL);
      const bool waits = flags >= 0 && !(flags & O_NONBLOCK);
      if (waits) sys::call(SYS_fcntl, to, F_SETFL, flags | O_NONBLOCK);
      const long result = sys::call(SYS_sendfile, to, from, offset, count - done);
      if (waits) sys::call(SYS_fcntl, to, F_SETFL, flags);
      return result;
    });
    if (got <= 0) return done > 0 ? long(done) : got;
    done += std::size_t(got);
  } while (done < count);
  return long(done);
}

// --- time -------------------------------------------------------------------------------------------------------------

long sleep(clockid_t which, int flags, const timespec* wanted, timespec* left) noexcept {
  if (which != CLOCK_REALTIME && which != CLOCK_MONOTONIC && which != CLOCK_BOOTTIME && which != CLOCK_TAI) return pass;
  if (no_pointer(wanted) || !is_valid(*wanted)) return pass;
  if (!(flags & TIMER_ABSTIME)) {
    const deadline until = after(*wanted);
    const int answer = io::sleep_until(until);
    if (answer == -EINTR && left) *left = remaining(until);
    return answer;
  }
  const timespec moment = *wanted;
  while (true) {
    timespec now;
    ::clock_gettime(which, &now);
    const auto rest = to_duration(moment) - to_duration(now);
    if (rest <= rest.zero()) return io::sleep_until(deadline::passed());
    // A clock that may be set is looked at again.
    const int answer = io::sleep_until(which == CLOCK_MONOTONIC ? rest : std::min<clock::duration>(rest, std::chrono::seconds(1)));
    if (answer != 0) return answer;
    ::clock_gettime(which, &now);
    if (to_duration(now) >= to_duration(moment)) return 0;
  }
}

long yield() noexcept {
  if (threads::alone()) return pass;
  detail::hub_state::here().yield();
  return 0;
}

// --- files ------------------------------------------------------------------------------------------------------------

long flock(int fd, int operation) noexcept {
  constexpr int does_not_wait = 4;  // LOCK_NB
  if (operation & does_not_wait) return pass;
  const long at_once = sys::call(SYS_flock, fd, operation | does_not_wait);
  if (at_once != -EAGAIN) return at_once;
  return io::call_on_helper("flock", signal_effect::ends_unless_restarted, SYS_flock, fd, operation);
}

namespace {

// Would open(2) wait for a peer? Only a FIFO does, unless opened for both.
bool waits_for_a_peer(int directory, const char* path, int flags) noexcept {
  if ((flags & (O_NONBLOCK | O_PATH | O_DIRECTORY | O_CREAT)) || (flags & O_ACCMODE) == O_RDWR || no_pointer(path)) return false;
  struct stat about;
  if (sys::call(SYS_newfstatat, directory, path, &about, flags & O_NOFOLLOW ? AT_SYMLINK_NOFOLLOW : 0) != 0) return false;
  return S_ISFIFO(about.st_mode);
}

std::atomic<bool> somebody_lingers{false};

bool would_linger(int fd) noexcept {
  if (!somebody_lingers.load(std::memory_order_relaxed)) return false;
  linger l{};
  socklen_t size = sizeof l;
  return sys::call(SYS_getsockopt, fd, SOL_SOCKET, SO_LINGER, &l, &size) == 0 && l.l_onoff && l.l_linger > 0;
}

}  // namespace

long open(int directory, const char* path, int flags, unsigned mode) noexcept {
  int fd = -1;
  if (open_name_file(path, flags, &fd)) return fd;
  if (!threads::alone() && waits_for_a_peer(directory, path, flags)) return io::openat(directory, path, flags, mode);
  if (flags & O_DIRECT) io::cache_bypassed();
  fd = int(sys::call(SYS_openat, directory, path, flags, mode));
  if (fd >= 0) io::fd_opened(fd);
  return fd;
}

long close(int fd) noexcept {
  forget_name_file(fd);
  if (__builtin_expect(would_linger(fd), 0) && !threads::alone()) {
    io::fd_closing(fd);
    return io::call_on_helper("close", signal_effect::none, SYS_close, fd);
  }
  return io::close(fd);
}

long close_range(unsigned first, unsigned last, unsigned flags) noexcept {
  constexpr unsigned only_marks = 4;  // CLOSE_RANGE_CLOEXEC
  if (first <= last && !(flags & only_marks)) {
    const int list = last - first < 256 ? -1 : int(sys::call(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
    if (list < 0) {
      const unsigned end = std::min(last, first + (1u << 16));
      for (unsigned fd = first; fd <= end && fd >= first; ++fd) io::fd_closing(int(fd));
    } else {
      alignas(8) char entries[2048];
      for (long got; (got = sys::call(SYS_getdents64, list, entries, sizeof entries)) > 0;)
        for (long at = 0; at < got;) {
          unsigned short length;
          std::memcpy(&length, entries + at + 16, sizeof length);
          const char* name = entries + at + 19;
          unsigned fd = 0;
          const bool number = *name >= '0' && *name <= '9';
          for (; *name >= '0' && *name <= '9'; ++name) fd = fd * 10 + unsigned(*name - '0');
          if (number && fd >= first && fd <= last && int(fd) != list) io::fd_closing(int(fd));
          at += length;
        }
      sys::call(SYS_close, list);
    }
  }
  return sys::call(SYS_close_range, first, last, flags);
}

long fcntl(int fd, int command, long argument) noexcept {
  if ((command == F_SETLKW || command == F_OFD_SETLKW) && !threads::alone() && !no_pointer(pointer<void>(argument))) {
    const long at_once = sys::call(SYS_fcntl, fd, command == F_SETLKW ? F_SETLK : F_OFD_SETLK, argument);
    if (at_once != -EAGAIN && at_once != -EACCES) return at_once;
    return io::call_on_helper("fcntl", signal_effect::ends_unless_restarted, SYS_fcntl, fd, command, argument);
  }
  if (command != F_SETFL && command != F_DUPFD && command != F_DUPFD_CLOEXEC) return pass;
  const long result = sys::call(SYS_fcntl, fd, command, argument);
  if (result < 0) return result;
  if (command == F_SETFL && (argument & O_DIRECT)) io::cache_bypassed();
  if (command == F_SETFL)
    io::fd_changed(fd);
  else
    io::fd_opened(int(result));
  return result;
}

void both_opened(const int* ends) noexcept {
  io::fd_opened(ends[0]);
  io::fd_opened(ends[1]);
}

void changed_by_ioctl(int fd, long request) noexcept {
  if (request == FIONBIO) io::fd_changed(fd);
}

void changed_by_option(int fd, int level, int name, const void* value, unsigned size) noexcept {
  if (level != SOL_SOCKET) return;
  if (name == SO_RCVTIMEO || name == SO_SNDTIMEO || name == 66 || name == 67) io::fd_changed(fd);  // and the two ..._NEW
  if (name == SO_RCVLOWAT) io::low_water_set();
  if (name == SO_LINGER && size >= sizeof(linger) && static_cast<const linger*>(value)->l_onoff && static_cast<const linger*>(value)->l_linger > 0)
    somebody_lingers.store(true, std::memory_order_relaxed);
}

// --- children ---------------------------------------------------------------------------------------------------------

namespace {
// Parks until the child has ended; false: not to be found out so.
bool wait_for_end(int pid, long* ended) noexcept {
  const long fd = sys::call(SYS_pidfd_open, pid, 0);
  if (fd < 0) return false;
  io::fd_opened(int(fd));
  *ended = io::wait_for_child(int(fd));
  io::close(int(fd));
  return true;
}
long look_on_helper(int kind, int id, siginfo_t* seen, int flags) noexcept {
  return io::call_on_helper("wait", signal_effect::ends_unless_restarted, SYS_waitid, kind, id, seen, flags, nullptr);
}
}  // namespace

long wait4(int pid, int* status, int flags, rusage* usage) noexcept {
  if (flags & WNOHANG) return pass;
  while (true) {
    const long found = sys::call(SYS_wait4, pid, status, flags | WNOHANG, usage);
    if (found != 0) return found;
    long ended = 0;
    const bool only_its_end = pid > 0 && !(flags & (WUNTRACED | WCONTINUED));
    if (only_its_end && wait_for_end(pid, &ended)) {
      if (ended < 0) return ended;
      continue;
    }
    // A helper looks and takes nothing; what it has seen is taken here.
    const int kind = pid > 0 ? P_PID : pid == -1 ? P_ALL : P_PGID;
    const int group = pid == 0 ? int(sys::call(SYS_getpgid, 0)) : -pid;
    siginfo_t seen{};
    const int look = WEXITED | WNOWAIT | (flags & WUNTRACED ? WSTOPPED : 0) | (flags & WCONTINUED ? WCONTINUED : 0);
    const int id = pid > 0 ? pid : pid == -1 ? 0 : group;
    const long looked = look_on_helper(kind, id, &seen, look);
    if (looked < 0) return looked;
  }
}

long waitid(int kind, int id, siginfo_t* found, int flags, rusage* usage) noexcept {
  if (flags & WNOHANG) return pass;
  siginfo_t own;
  siginfo_t* const answer = found ? found : &own;
  while (true) {
    answer->si_pid = 0;
    const long result = sys::call(SYS_waitid, kind, id, answer, flags | WNOHANG, usage);
    if (result != 0 || answer->si_pid != 0) return result;
    long ended = 0;
    const bool only_its_end = (flags & WEXITED) && !(flags & (WSTOPPED | WCONTINUED));
    if (only_its_end && kind == P_PID && wait_for_end(id, &ended)) {
      if (ended < 0) return ended;
      continue;
    }
    if (only_its_end && kind == P_PIDFD) {
      ended = io::wait_for_child(id);
      if (ended < 0) return ended;
      continue;
    }
    siginfo_t seen{};
    const long looked = look_on_helper(kind, id, &seen, flags | WNOWAIT);
    if (looked < 0) return looked;
  }
}

// --- the program's own ring -------------------------------------------------------------------------------------------

long ring_enter(long fd, long to_submit, long wanted, long flags, long argument, long size) noexcept {
  if (wanted == 0 || !(flags & IORING_ENTER_GETEVENTS) || (flags & IORING_ENTER_REGISTERED_RING)) return pass;
  deadline until = never;
  if ((flags & IORING_ENTER_EXT_ARG) && !no_pointer(pointer<void>(argument))) {
    const auto* given = pointer<const io_uring_getevents_arg>(argument);
    if (given->ts) until = after(*reinterpret_cast<const timespec*>(given->ts));
  }
  const long submitted = sys::call(SYS_io_uring_enter, fd, to_submit, 0, flags, argument, size);
  if (submitted < 0) return submitted;
  // Its file is readable when a completion is there. One is enough to come back: callers look, and wait again.
  const int waited = io::wait_readable(int(fd), until);
  sys::call(SYS_io_uring_enter, fd, 0, 0, flags, argument, size);
  if (waited < 0 && submitted == 0) return waited == -ETIMEDOUT ? -ETIME : waited;
  return submitted;
}

}  // namespace ringlet::by_number
