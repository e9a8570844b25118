// What opens, closes and changes descriptors: io is told, so that what it remembers of a number is never another file's.
//
// These run on every thread (a thread without fibers may close what a fiber waits on), but not in a vforked child. What
// closes goes through io, which wakes the waiters with EBADF first; what libc closes inside itself (fclose) is
// announced before. Opening waits only for FIFOs, so only they are opened by io, and everything else by libc at once.

#include "libc.hpp"

#include <algorithm>
#include <cstring>
#include <sys/stat.h>

#include <ringlet/io.hpp>

#include "base/sys.hpp"
#include "dialect.hpp"
#include "offloaded.hpp"
#include "real.hpp"
#include "shaped.hpp"

namespace ringlet::hooks::shaped {

// --- opening ---------------------------------------------------------------------------------------------------------

namespace {

// Would open(2) wait for a peer? Only a FIFO does, unless opened for both.
bool waits_for_a_peer(int directory, const char* path, int flags) noexcept {
  if ((flags & (O_NONBLOCK | O_PATH | O_DIRECTORY)) || (flags & O_ACCMODE) == O_RDWR || no_pointer(path)) return false;
  struct stat about;
  if (sys::call(SYS_newfstatat, directory, path, &about, flags & O_NOFOLLOW ? AT_SYMLINK_NOFOLLOW : 0) != 0) return false;
  return S_ISFIFO(about.st_mode);
}

int opened(int fd, int flags) noexcept {
  if (flags & O_DIRECT) io::cache_bypassed();
  if (fd >= 0) io::fd_opened(fd);
  return fd;
}

}  // namespace

int openat(int directory, const char* path, int flags, unsigned mode) {
  if (parking(row::openat) && waits_for_a_peer(directory, path, flags))
    return opened(to_libc<int>(io::openat(directory, path, flags, mode)), flags);
  return opened(real::openat(directory, path, flags, mode), flags);
}

int open(const char* path, int flags, unsigned mode) {
  if (parking(row::open) && waits_for_a_peer(AT_FDCWD, path, flags))
    return opened(to_libc<int>(io::openat(AT_FDCWD, path, flags, mode)), flags);
  return opened(real::open(path, flags, mode), flags);
}

// What <fcntl.h> calls under _FORTIFY_SOURCE when no mode was passed; libc ends the program if one was needed.
int __open_2(const char* path, int flags) {
  if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) return real::__open_2(path, flags);
  return shaped::open(path, flags, 0);
}
int __openat_2(int directory, const char* path, int flags) {
  if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) return real::__openat_2(directory, path, flags);
  return shaped::openat(directory, path, flags, 0);
}

// --- closing ---------------------------------------------------------------------------------------------------------

int close(int fd) { return to_libc<int>(io::close(fd)); }
int mq_close(mqd_t queue) { return to_libc<int>(io::close(queue)); }

int dup2(int from, int to) { return to_libc<int>(io::dup2(from, to)); }
int dup3(int from, int to, int flags) { return to_libc<int>(io::dup3(from, to, flags)); }

namespace {

// Announces each open descriptor from first to last. The range may end at ~0u, so a wide one is read from /proc.
void closing(unsigned first, unsigned last) noexcept {
  constexpr unsigned narrow = 256;
  if (last - first < narrow) {
    for (unsigned fd = first; fd <= last && fd >= first; ++fd) io::fd_closing(int(fd));
    return;
  }
  const int list = int(sys::call(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
  if (list < 0) {
    rlimit most{};
    ::getrlimit(RLIMIT_NOFILE, &most);
    const unsigned end = unsigned(std::min<rlim_t>(most.rlim_cur, 1u << 20));
    for (unsigned fd = first; fd <= last && fd < end; ++fd) io::fd_closing(int(fd));
    return;
  }
  alignas(8) char entries[2048];
  long got;
  while ((got = sys::call(SYS_getdents64, list, entries, sizeof entries)) > 0)
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

}  // namespace

#if __GLIBC_PREREQ(2, 34)
int close_range(unsigned first, unsigned last, int flags) {
  if (first <= last && !(flags & CLOSE_RANGE_CLOEXEC)) closing(first, last);
  return real::close_range(first, last, flags);
}

void closefrom(int first) {
  closing(unsigned(std::max(first, 0)), ~0u);
  real::closefrom(first);
}
#endif

int fclose(FILE* file) {
  if (const int fd = ::fileno(file); fd >= 0) io::fd_closing(fd);
  return real::fclose(file);
}

FILE* freopen(const char* path, const char* mode, FILE* file) {
  const int saved = errno;
  if (const int fd = ::fileno(file); fd >= 0) io::fd_closing(fd);
  errno = saved;
  FILE* result = real::freopen(path, mode, file);
  if (result)
    if (const int fd = ::fileno(result); fd >= 0) io::fd_opened(fd);
  return result;
}

// --- changing --------------------------------------------------------------------------------------------------------

int fcntl(int fd, int command, void* argument) {
  if ((command == F_SETLKW || command == F_OFD_SETLKW) && parking(row::fcntl) && !no_pointer(argument)) {
    // Record locks belong to the process (or the open file), so a helper thread may wait for ours.
    const int saved = errno;
    if (real::fcntl(fd, command == F_SETLKW ? F_SETLK : F_OFD_SETLK, argument) == 0) return 0;
    if (errno != EAGAIN && errno != EACCES) return -1;
    errno = saved;
    return offloaded("fcntl", detail::signal_effect::ends_unless_restarted, [&] { return real::fcntl(fd, command, argument); });
  }
  const int result = real::fcntl(fd, command, argument);
  if (result < 0) return result;
  if (command == F_SETFL && (reinterpret_cast<std::uintptr_t>(argument) & O_DIRECT)) io::cache_bypassed();
  if (command == F_SETFL) io::fd_changed(fd);
  if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) io::fd_opened(result);
  return result;
}

int ioctl(int fd, unsigned long request, void* argument) {
  const int result = real::ioctl(fd, request, argument);
  if (result >= 0 && request == FIONBIO) io::fd_changed(fd);
  return result;
}

int setsockopt(int fd, int level, int name, const void* value, socklen_t size) {
  const int result = real::setsockopt(fd, level, name, value, size);
  // The two _NEW names (66, 67) are the same for those who write 64-bit times on 32-bit systems.
  if (result == 0 && level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO || name == 66 || name == 67))
    io::fd_changed(fd);
  if (result == 0 && level == SOL_SOCKET && name == SO_RCVLOWAT) io::low_water_set();
  return result;
}

}  // namespace ringlet::hooks::shaped
