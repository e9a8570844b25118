// The calls that move many messages, and accept, whose new descriptor must be told of on every thread.

#include "libc.hpp"

#include <ringlet/io.hpp>

#include "base/moments.hpp"
#include "dialect.hpp"
#include "io/doors.hpp"
#include "real.hpp"
#include "shaped.hpp"

namespace ringlet::hooks::shaped {

using base::is_valid, base::after, base::remaining;

int accept(int fd, sockaddr* from, socklen_t* length) {
  const int made = parking(row::accept) ? to_libc<int>(io::accept4(fd, from, length, 0)) : real::accept(fd, from, length);
  if (made >= 0) io::fd_opened(made);
  return made;
}

int accept4(int fd, sockaddr* from, socklen_t* length, int flags) {
  const int made = parking(row::accept4) ? to_libc<int>(io::accept4(fd, from, length, flags)) : real::accept4(fd, from, length, flags);
  if (made >= 0) io::fd_opened(made);
  return made;
}

int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  if (no_pointer(messages) || (timeout && (no_pointer(timeout) || !is_valid(*timeout))))
    return real::recvmmsg(fd, messages, count, flags, timeout);
  const deadline until = timeout ? after(*timeout) : never;
  const int got = io::recvmmsg(fd, messages, count, flags, until);
  if (timeout && got > 0) *timeout = remaining(until);
  return to_libc<int>(got);
}

int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  if (no_pointer(messages)) return real::sendmmsg(fd, messages, count, flags);
  return to_libc<int>(io::sendmmsg(fd, messages, count, flags));
}

}  // namespace ringlet::hooks::shaped
