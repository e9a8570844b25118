// The calls that move many messages, and accept, whose new descriptor must be told of on every thread.
//
// recvmmsg and sendmmsg are, in the kernel too, loops of recvmsg and sendmsg that end at the first error or when the
// time is up; so they are here. The first message is waited for through io; those that are already there are then
// taken by one real call.

#include "libc.hpp"

#include <algorithm>

#include <ringlet/io.hpp>

#include "dialect.hpp"
#include "moments.hpp"
#include "real.hpp"
#include "shaped.hpp"

namespace ringlet::hooks::shaped {

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

namespace {
constexpr unsigned most_messages = 1024;  // UIO_MAXIOV: the kernel takes no more at once, and no error is made of it
}

int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  if (count == 0 || (flags & MSG_DONTWAIT) || no_pointer(messages) || (timeout && (no_pointer(timeout) || !is_valid(*timeout))))
    return real::recvmmsg(fd, messages, count, flags, timeout);
  const deadline until = timeout ? after(*timeout) : never;
  const int each = flags & ~MSG_WAITFORONE;
  count = std::min(count, most_messages);
  const int saved = errno;
  // What is there, or pending as an error, is this call's to give: it asks for errors where a receive of one
  // does not, even for no message at all.
  const bool takes_parts = !(flags & MSG_WAITALL);
  const int first = real::recvmmsg(fd, messages, takes_parts ? count : 0, each | MSG_DONTWAIT, nullptr);
  if (first < 0 && errno != EAGAIN) return first;
  errno = saved;
  unsigned done = first > 0 ? unsigned(first) : 0;
  if (done > 0 && (until.has_passed() || (flags & MSG_WAITFORONE) || (messages[done - 1].msg_hdr.msg_flags & MSG_OOB))) count = done;
  while (done < count) {
    // The timeout is looked at only after a message, as recvmmsg(2) confesses.
    const ssize_t size = io::recvmsg(fd, &messages[done].msg_hdr, each);
    if (size < 0) {
      if (done == 0) return to_libc<int>(size);
      break;  // the kernel keeps the error for the next call; here the next call finds it itself
    }
    messages[done].msg_len = unsigned(size);
    const bool urgent = messages[done].msg_hdr.msg_flags & MSG_OOB;
    ++done;
    if (urgent || until.has_passed()) break;
    if (done < count && takes_parts) {
      const int more = real::recvmmsg(fd, messages + done, count - done, each | MSG_DONTWAIT, nullptr);
      if (more > 0) done += unsigned(more);
      errno = saved;
      if (more < 0 && (flags & MSG_WAITFORONE)) break;
    }
    if (until.has_passed() || (flags & MSG_WAITFORONE)) break;
  }
  if (timeout) *timeout = remaining(until);
  return int(done);
}

int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  if (count == 0 || no_pointer(messages)) return real::sendmmsg(fd, messages, count, flags);
  count = std::min(count, most_messages);
  for (unsigned done = 0; done < count; ++done) {
    const ssize_t size = io::sendmsg(fd, &messages[done].msg_hdr, flags);
    if (size < 0) return done > 0 ? int(done) : to_libc<int>(size);
    messages[done].msg_len = unsigned(size);
  }
  return int(count);
}

}  // namespace ringlet::hooks::shaped
