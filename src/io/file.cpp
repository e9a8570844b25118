// Files and descriptors: reads at a position, fsync, open, close and dup.
//
// A read of a regular file first asks the page cache; only what would touch the disk becomes an operation. Past the cache
// (O_DIRECT) RWF_NOWAIT waits for the disk all the same, so such a read is an operation from the start. Buffered writes go
// to the cache directly: the ring would hand them to a worker at five times the cost.

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <string>

#include <ringlet/io.hpp>

#include "base/sys.hpp"
#include "io/doors.hpp"
#include "io/helped.hpp"
#include "io/transfer.hpp"
#include "io/wait.hpp"

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

namespace ringlet::io {

ssize_t pread(int fd, void* buffer, std::size_t size, off_t offset, deadline until) noexcept try {
  if (size == 0 || offset < 0) return sys::call(SYS_pread64, fd, buffer, size, offset);
  const iovec part{buffer, std::min<std::size_t>(size, 0x7ffff000)};
  const loop::operation whole{.code = loop::opcode::readv, .fd = fd, .parts = &part, .count = 1, .offset = offset};
  if (bypasses_cache(fd, nullptr)) return perform(whole, until, "pread", fd);
  const ssize_t got = sys::call(SYS_preadv2, fd, &part, 1, long(offset), 0L, RWF_NOWAIT);
  if (got != -EAGAIN && got != -EOPNOTSUPP) {
    // The cache may end before the file does; a thread's pread goes on to the disk.
    struct stat s;
    if (got <= 0 || std::size_t(got) == part.iov_len || sys::call(SYS_fstat, fd, &s) != 0 ||
        (!S_ISBLK(s.st_mode) && offset + got >= s.st_size)) {
      keep_fair(hub_state::here());
      return got;
    }
    const iovec rest{static_cast<char*>(buffer) + got, part.iov_len - std::size_t(got)};
    const ssize_t more = perform({.code = loop::opcode::readv, .fd = fd, .parts = &rest, .count = 1, .offset = offset + got}, until, "pread", fd);
    return more > 0 ? got + more : got;
  }
  return perform(whole, until, "pread", fd);
} catch (...) {
  return error_of_refusal();
}

ssize_t pwrite(int fd, const void* data, std::size_t size, off_t offset, deadline) noexcept try {
  keep_fair(hub_state::here());
  return sys::call(SYS_pwrite64, fd, data, size, offset);
} catch (...) {
  return error_of_refusal();
}

int fsync(int fd, deadline until) noexcept try {
  return int(perform({.code = loop::opcode::fsync, .fd = fd}, until, "fsync", fd));
} catch (...) {
  return error_of_refusal();
}

namespace {

// Opening a FIFO waits for its other end. A look at what the name means, as far as that is known without the disk.
bool may_be_fifo(int directory, const char* path, int flags) {
  if ((flags & O_NONBLOCK) || (flags & O_ACCMODE) == O_RDWR || (flags & (O_DIRECTORY | O_PATH))) return false;
  const open_how look{std::uint64_t(O_PATH | O_CLOEXEC | (flags & O_NOFOLLOW)), 0, RESOLVE_CACHED};
  const long fd = sys::call(SYS_openat2, directory, path, &look, sizeof look);
  if (fd < 0) return fd != -ENOENT && fd != -EFAULT;
  struct stat s;
  const bool is_fifo = sys::call(SYS_fstat, fd, &s) == 0 && S_ISFIFO(s.st_mode);
  sys::call(SYS_close, fd);
  return is_fifo;
}

// Where only a helper can wait for the other end. One whose caller has left is let go by an other end of our own.
int open_fifo(int directory, const char* path, int flags, unsigned mode, deadline until) {
  struct close_it {
    void operator()(int& fd) const noexcept {
      if (fd >= 0) sys::call(SYS_close, fd);
    }
  };
  const std::string name = path;
  int fd = -1;
  const int left = on_helper("open", until, [=] { return int(sys::call(SYS_openat, directory, name.c_str(), flags, mode)); }, fd, close_it(),
                             detail::signal_effect::ends_unless_restarted);
  if (left == 0) return fd;
  const int other = (flags & O_ACCMODE) == O_RDONLY ? O_WRONLY : O_RDONLY;
  if (const long end = sys::call(SYS_openat, directory, path, other | O_NONBLOCK | O_CLOEXEC); end >= 0) sys::call(SYS_close, end);
  return left;
}

}  // namespace

int openat(int directory, const char* path, int flags, unsigned mode, deadline until) noexcept try {
  if (flags & O_DIRECT) cache_bypassed();
  // The ring opens without waiting first, and would so open a FIFO that nobody writes to: only a worker does as open(2) does.
  const bool waits = may_be_fifo(directory, path, flags);
  const int fd =
      waits && !hub_state::here().engine->waits_for_sockets()
          ? open_fifo(directory, path, flags, mode, until)
          : int(perform({.code = loop::opcode::openat, .fd = directory, .path = path, .flags = flags, .mode = mode, .may_block = waits}, until, "openat", -1,
                        hub_state::here().watch_signals(waits ? detail::signal_effect::ends_unless_restarted : detail::signal_effect::none)));
  if (fd >= 0) fd_opened(fd);
  return fd;
} catch (...) {
  return error_of_refusal();
}

int close(int fd) noexcept {
  fd_closing(fd);
  return int(sys::call(SYS_close, fd));
}

int dup3(int from, int to, int flags) noexcept {
  // A call that will fail closes nothing.
  if (from != to && !(flags & ~O_CLOEXEC) && sys::call(SYS_fcntl, from, F_GETFD) >= 0) fd_closing(to);
  return int(sys::call(SYS_dup3, from, to, flags));
}

int dup2(int from, int to) noexcept {
  if (from == to) {
    const long flags = sys::call(SYS_fcntl, from, F_GETFD);
    return flags < 0 ? int(flags) : to;
  }
  return dup3(from, to, 0);
}

}  // namespace ringlet::io
