// recvmmsg and sendmmsg: in the kernel, too, loops of recvmsg and sendmsg that end at the first error or when the time
// is up; so they are here.
//
// The first message is waited for; those that are there with it are then taken by one call of the kernel's. An error
// behind the first message the kernel keeps for the next call; here the next call finds it itself.

#include <sys/socket.h>

#include <algorithm>
#include <ctime>

#include <ringlet/io.hpp>

#include "base/moments.hpp"
#include "base/sys.hpp"
#include "io/doors.hpp"
#include "io/transfer.hpp"
#include "io/wait.hpp"

namespace ringlet::io {

namespace {
constexpr unsigned most_messages = 1024;  // UIO_MAXIOV: the kernel takes no more at once, and no error is made of it
}  // namespace

int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, deadline until) noexcept try {
  const int each = flags & ~MSG_WAITFORONE;
  const auto take_what_is_there = [&](unsigned from, unsigned most) {
    timespec left{};
    if (!until.is_never()) left = base::remaining(until);
    return int(
        sys::call(SYS_recvmmsg, fd, messages + from, most, each | MSG_DONTWAIT, until.is_never() ? nullptr : &left));
  };
  if (count == 0 || (flags & MSG_DONTWAIT)) {
    keep_fair(hub_state::here());
    return take_what_is_there(0, count);
  }
  count = std::min(count, most_messages);
  unsigned done = 0;
  // After a message, as recvmmsg(2) confesses, not before: so it may wait beyond the deadline.
  const auto goes_on = [&] {
    return done < count && !(messages[done - 1].msg_hdr.msg_flags & MSG_OOB) && !until.has_passed();
  };
  // What is there, or pending as an error, is this call's to give: it asks for errors where a receive of one
  // does not, even for no message at all.
  const bool takes_parts = !(flags & MSG_WAITALL) && low_water(fd) == 1;
  const int first = take_what_is_there(0, takes_parts ? count : 0);
  if (first < 0 && first != -EAGAIN) return first;
  if (first > 0) {
    done = unsigned(first);
    if ((flags & MSG_WAITFORONE) || !goes_on()) return first;
  }
  do {
    const ssize_t size = io::recvmsg(fd, &messages[done].msg_hdr, each);
    if (size < 0) return done == 0 ? int(size) : int(done);
    messages[done++].msg_len = unsigned(size);
    if (takes_parts && goes_on())
      if (const int more = take_what_is_there(done, count - done); more > 0) done += unsigned(more);
  } while (!(flags & MSG_WAITFORONE) && goes_on());
  return int(done);
} catch (...) {
  return error_of_refusal();
}

int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) noexcept try {
  if (count == 0 || (flags & MSG_DONTWAIT)) {
    keep_fair(hub_state::here());
    return int(sys::call(SYS_sendmmsg, fd, messages, count, flags));
  }
  count = std::min(count, most_messages);
  for (unsigned done = 0; done < count; ++done) {
    const msghdr& message = messages[done].msg_hdr;
    const ssize_t size = io::sendmsg(fd, &message, flags);
    if (size < 0) return done == 0 ? int(size) : int(done);
    messages[done].msg_len = unsigned(size);
    // What went in part (SO_SNDTIMEO, a signal) is the last: the next one would follow where its rest belongs.
    if (std::size_t(size) < total(message.msg_iov, message.msg_iovlen)) return int(done + 1);
  }
  return int(count);
} catch (...) {
  return error_of_refusal();
}

}  // namespace ringlet::io
