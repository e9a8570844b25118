// What the compiler calls under _FORTIFY_SOURCE when it cannot prove that a buffer is large enough: libc's check, then
// the row proper. A buffer that is too small ends the program, as in libc.

#include "libc.hpp"

#include <ringlet/io.hpp>

#include "dialect.hpp"
#include "real.hpp"
#include "shaped.hpp"

namespace ringlet::hooks::shaped {

ssize_t __read_chk(int fd, void* buffer, size_t size, size_t room) {
  if (size > room) __chk_fail();
  return parking(row::read) ? to_libc<ssize_t>(io::read(fd, buffer, size)) : real::read(fd, buffer, size);
}

ssize_t __pread_chk(int fd, void* buffer, size_t size, off_t offset, size_t room) {
  if (size > room) __chk_fail();
  return parking(row::pread) ? to_libc<ssize_t>(io::pread(fd, buffer, size, offset)) : real::pread(fd, buffer, size, offset);
}

ssize_t __recv_chk(int fd, void* buffer, size_t size, size_t room, int flags) {
  if (size > room) __chk_fail();
  return parking(row::recv) ? to_libc<ssize_t>(io::recv(fd, buffer, size, flags)) : real::recv(fd, buffer, size, flags);
}

ssize_t __recvfrom_chk(int fd, void* buffer, size_t size, size_t room, int flags, sockaddr* from, socklen_t* length) {
  if (size > room) __chk_fail();
  return parking(row::recvfrom) ? to_libc<ssize_t>(io::recvfrom(fd, buffer, size, flags, from, length))
                                : real::recvfrom(fd, buffer, size, flags, from, length);
}

int __poll_chk(pollfd* fds, nfds_t count, int timeout, size_t room) {
  if (room / sizeof(pollfd) < count) __chk_fail();
  return parking(row::poll) ? shaped::poll(fds, count, timeout) : real::poll(fds, count, timeout);
}

int __ppoll_chk(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask, size_t room) {
  if (room / sizeof(pollfd) < count) __chk_fail();
  return parking(row::ppoll) ? shaped::ppoll(fds, count, timeout, mask) : real::ppoll(fds, count, timeout, mask);
}

}  // namespace ringlet::hooks::shaped
