// Receives and sends: each is an attempt with MSG_DONTWAIT, given to until_ready, or to transfer_all if it goes on until
// all is done (MSG_WAITALL, blocking sends).
//
// A short read from a stream may say that it is empty now (short_read), so the next read parks without a try.

#include <ringlet/io.hpp>

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>

#include "base/sys.hpp"
#include "io/transfer.hpp"
#include "io/wait.hpp"

namespace ringlet::io {

namespace {

// Receives with MSG_PEEK and MSG_WAITALL look until all is there; what they see stays.
template <class Look>
ssize_t peek_all(int fd, std::size_t wanted, deadline until, const char* what, Look look) {
  ssize_t most = -EAGAIN;
  const ssize_t got = until_ready(fd, direction::in, until, what, [&](fd_watch* w) -> ssize_t {
    most = look(w);
    fd_table& table = fd_table::of(hub_state::here());
    fd_watch& file = table.get(fd);
    const bool enough = most <= 0 || std::size_t(most) >= wanted || table.kind_of(file) != file_kind::stream ||
                        file.tells == short_read::says_empty_unless_ancillary ||  // a unix stream's peek is one look
                        polled_ready(fd, POLLRDHUP | POLLPRI);
    return enough ? most : -EAGAIN;
  }, true);
  return got < 0 && most > 0 ? most : got;
}

}  // namespace

// Which receives do not wait: MSG_OOB, too, never does (tcp(7) is silent about it; the kernel answers EAGAIN or EINVAL).
static constexpr int never_wait = MSG_DONTWAIT | MSG_ERRQUEUE | MSG_OOB;

// Those that found nothing may wait after all, if these flags are not looked at: unix sockets have no queue of errors, UDP
// has no urgent data.
static bool waits_all_the_same(int fd, int flags) {
  const auto ask = [fd](int option) {
    int answer = 0;
    socklen_t size = sizeof answer;
    sys::call(SYS_getsockopt, fd, SOL_SOCKET, option, &answer, &size);
    return answer;
  };
  if ((flags & MSG_DONTWAIT) || ((flags & MSG_ERRQUEUE) && ask(SO_DOMAIN) != AF_UNIX)) return false;
  return !(flags & MSG_OOB) || ask(SO_TYPE) == SOCK_DGRAM;
}

// TCP waits once before it gives nothing to who asks for nothing, and does not ask why the wait ended.
static ssize_t of_nothing(int fd, ssize_t result) {
  if (result != -EAGAIN && result != -EINTR) return result;
  const fd_watch* w = fd_table::of(hub_state::here()).find(fd);
  return w && w->tells == short_read::says_empty && !w->nonblocking ? 0 : result;
}

static int without_waiting(const fd_watch* w, int flags) { return w && w->reads_end ? flags : flags | MSG_DONTWAIT; }

ssize_t recv(int fd, void* buffer, std::size_t size, int flags, deadline until) noexcept {
  return recvfrom(fd, buffer, size, flags, nullptr, nullptr, until);
}

ssize_t recvfrom(int fd, void* buffer, std::size_t size, int flags, sockaddr* from, unsigned* from_length,
                 deadline until) noexcept try {
  const auto once = [=](fd_watch* w, std::size_t done) -> ssize_t {
    const int how = without_waiting(w, flags);
    char* place = static_cast<char*>(buffer) + done;
    const ssize_t got = sys::call(SYS_recvfrom, fd, place, size - done, how, from, from_length);
    if (!(how & MSG_PEEK)) note_short(w, got, std::min(size - done, most_at_once), false);
    return got;
  };
  if (flags & never_wait) {
    keep_fair(hub_state::here());
    const ssize_t got = sys::call(SYS_recvfrom, fd, buffer, size, flags | MSG_DONTWAIT, from, from_length);
    if (got != -EAGAIN || !waits_all_the_same(fd, flags)) return got;
  }
  if (size == 0) return of_nothing(fd, until_ready(fd, direction::in, until, "recv", [&](fd_watch* w) { return once(w, 0); }));
  const bool all = flags & MSG_WAITALL;
  const std::size_t least = all || (flags & MSG_PEEK) ? 1 : low_water(fd);
  if (!all && least == 1) return until_ready(fd, direction::in, until, "recv", [&](fd_watch* w) { return once(w, 0); });
  const std::size_t wanted = std::min(size, all ? most_at_once : least);
  if (flags & MSG_PEEK) return peek_all(fd, wanted, until, "recv", [&](fd_watch* w) { return once(w && w->reads_end ? w : nullptr, 0); });
  return transfer_all(fd, direction::in, [=] { return wanted; }, until, "recv", once, false);
} catch (...) {
  return error_of_refusal();
}

ssize_t recvmsg(int fd, msghdr* message, int flags, deadline until) noexcept try {
  const int how = flags | MSG_DONTWAIT;
  if (flags & never_wait) {
    keep_fair(hub_state::here());
    const ssize_t got = sys::call(SYS_recvmsg, fd, message, how);
    if (got != -EAGAIN || !waits_all_the_same(fd, flags)) return got;
  }
  const bool all = flags & MSG_WAITALL;
  const std::size_t least = all || (flags & MSG_PEEK) ? 1 : low_water(fd);
  // A bad message is the kernel's to refuse, so it is looked at only afterwards.
  bool ancillary = false;
  const auto whole = [&] { return total(message->msg_iov, message->msg_iovlen); };
  const auto once = [&](fd_watch* w) -> ssize_t {
    const ssize_t got = sys::call(SYS_recvmsg, fd, message, without_waiting(w, flags));
    if (got > 0) ancillary = message->msg_controllen > 0 || (message->msg_flags & MSG_CTRUNC);
    if (got > 0 && !(flags & MSG_PEEK)) note_short(w, got, whole(), ancillary);
    return got;
  };
  const auto receive = [&]() -> ssize_t {
    if (!all && least == 1) return until_ready(fd, direction::in, until, "recvmsg", once, true);
    if (flags & MSG_PEEK) return peek_all(fd, most_at_once, until, "recvmsg", [&](fd_watch* w) { return once(w && w->reads_end ? w : nullptr); });
    // What came with ancillary data is a message of its own.
    const auto wanted = [&] { return ancillary ? 0 : all ? whole() : std::min(whole(), least); };
    return transfer_all(fd, direction::in, wanted, until, "recvmsg", [&](fd_watch* w, std::size_t done) -> ssize_t {
      if (done == 0) return once(w);
      const rest_of rest(message->msg_iov, int(message->msg_iovlen), done);
      msghdr more{};
      more.msg_iov = const_cast<iovec*>(rest.parts());
      more.msg_iovlen = std::size_t(rest.count());
      const ssize_t got = sys::call(SYS_recvmsg, fd, &more, how);
      note_short(w, got, whole() - done, more.msg_flags & MSG_CTRUNC);
      return got;
    }, true);
  };
  const ssize_t got = receive();
  return (got == -EAGAIN || got == -EINTR) && whole() == 0 ? of_nothing(fd, got) : got;
} catch (...) {
  return error_of_refusal();
}

// A send with MSG_FASTOPEN that may wait first waits for the connection that it has begun, then sends what did not go with it.
template <class Send>
static ssize_t after_connecting(int fd, int flags, ssize_t result, const sockaddr* to, unsigned to_length, deadline until, Send send) {
  if (result != -EINPROGRESS || !(flags & MSG_FASTOPEN)) return result;
  fd_table& table = fd_table::of(hub_state::here());
  fd_watch& w = table.get(fd);
  table.refresh(w);
  if (w.nonblocking) return result;
  const int connected = connect(fd, to, to_length, until);
  return connected < 0 && connected != -EISCONN ? connected : send(flags & ~MSG_FASTOPEN);
}

ssize_t send(int fd, const void* data, std::size_t size, int flags, deadline until) noexcept {
  return sendto(fd, data, size, flags, nullptr, 0, until);
}

ssize_t sendto(int fd, const void* data, std::size_t size, int flags, const sockaddr* to, unsigned to_length,
               deadline until) noexcept try {
  const auto once = [=](fd_watch*, std::size_t done) -> ssize_t {
    const int how = flags | MSG_DONTWAIT | (done ? MSG_NOSIGNAL : 0);
    return sys::call(SYS_sendto, fd, static_cast<const char*>(data) + done, size - done, how, to, to_length);
  };
  if (flags & MSG_DONTWAIT) {
    keep_fair(hub_state::here());
    return once(nullptr, 0);
  }
  const ssize_t sent = transfer_all(fd, direction::out, [size] { return std::min(size, most_at_once); }, until, "send", once, true);
  return after_connecting(fd, flags, sent, to, to_length, until, [&](int rest) { return send(fd, data, size, rest, until); });
} catch (...) {
  return error_of_refusal();
}

ssize_t sendmsg(int fd, const msghdr* message, int flags, deadline until) noexcept try {
  if (flags & MSG_DONTWAIT) {
    keep_fair(hub_state::here());
    return sys::call(SYS_sendmsg, fd, message, flags);
  }
  // The first piece carries the ancillary data; what is left of a stream's bytes follows plainly.
  const ssize_t sent = transfer_all(fd, direction::out, [=] { return total(message->msg_iov, message->msg_iovlen); }, until, "sendmsg",
                      [=](fd_watch*, std::size_t done) -> ssize_t {
                        if (done == 0) return sys::call(SYS_sendmsg, fd, message, flags | MSG_DONTWAIT);
                        const rest_of rest(message->msg_iov, int(message->msg_iovlen), done);
                        return send_rest(fd, rest.parts(), rest.count(), flags);
                      }, true);
  if (__builtin_expect(sent != -EINPROGRESS, 1)) return sent;
  const auto plainly = [&](int rest) {
    msghdr nameless = *message;
    nameless.msg_name = nullptr;
    nameless.msg_namelen = 0;
    return sendmsg(fd, &nameless, rest, until);
  };
  return after_connecting(fd, flags, sent, static_cast<const sockaddr*>(message->msg_name), message->msg_namelen, until, plainly);
} catch (...) {
  return error_of_refusal();
}

}  // namespace ringlet::io
