// connect and accept: the two calls of a socket's life that wait and cannot be tried.

#include <ringlet/io.hpp>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "base/sys.hpp"
#include "io/doors.hpp"
#include "io/flag_turn.hpp"
#include "io/wait.hpp"

namespace ringlet::io {

namespace {
// accept and connect have no flag that says "do not wait". The ring waits for them itself; without it O_NONBLOCK is set
// for the length of one call, in turns with whoever of ours shares the socket; others might see it. The kernel leaves no
// other way (engine::waits_for_sockets).
template <class Call>
long call_nonblocking(int fd, Call call) {
  const flag_turn mine;
  const long flags = sys::call(SYS_fcntl, fd, F_GETFL);
  if (flags < 0) return flags;
  if (flags & O_NONBLOCK) return call();
  sys::call(SYS_fcntl, fd, F_SETFL, flags | O_NONBLOCK);
  const long result = call();
  sys::call(SYS_fcntl, fd, F_SETFL, flags);
  return result;
}

bool is_unix(int fd) {
  int domain = 0;
  socklen_t size = sizeof domain;
  return sys::call(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

// A connection was begun by an earlier call, and has not come about yet.
bool is_connecting(const fd_watch& w) {
  tcp_info now{};
  socklen_t size = sizeof now;
  return w.tells == short_read::says_empty && sys::call(SYS_getsockopt, w.fd, IPPROTO_TCP, TCP_INFO, &now, &size) == 0 &&
         now.tcpi_state == TCP_SYN_SENT;
}

// A unix listener that was shut down says EAGAIN to who does not wait, and refuses who does.
bool is_shut_listener(const fd_watch& w) {
  return w.tells == short_read::says_empty_unless_ancillary && polled_ready(w.fd, POLLRDHUP);
}
}  // namespace

int connect(int fd, const sockaddr* to, unsigned to_length, deadline until) noexcept try {
  hub_state& h = hub_state::here();
  fd_table& table = fd_table::of(h);
  fd_watch* known = table.get_if_open(fd);
  if (!known) return -EBADF;
  fd_watch& w = *known;
  table.refresh(w);
  if (w.nonblocking || (w.kind != file_kind::stream && w.kind != file_kind::datagram))
    return int(sys::call(SYS_connect, fd, to, to_length));
  call_deadline limit = deadline_of(w, direction::out, until);
  // SO_SNDTIMEO: TCP has its own words for that.
  if (limit.when_passed == -EAGAIN && !is_unix(fd)) limit.when_passed = is_connecting(w) ? -EALREADY : -EINPROGRESS;
  const detail::signal_watch signals = h.watch_signals(limit.effect());
  const std::uint32_t generation = w.generation;
  const bool by_ring = h.engine->waits_for_sockets();
  clock::duration pause = std::chrono::milliseconds(1);
  ssize_t result;
  bool late = false;
  while (true) {
    if (by_ring) {
      // The kernel's own copy of the address is made when the operation is handed over, which may be after we have parked.
      unsigned length = to_length;
      result = perform({.code = loop::opcode::connect, .fd = fd, .address = const_cast<sockaddr*>(to), .address_length = &length},
                       limit.until, "connect", fd, signals);
      if (result == -ETIMEDOUT && limit.until.has_passed()) return limit.when_passed;
    } else {
      result = call_nonblocking(fd, [&] { return sys::call(SYS_connect, fd, to, to_length); });
    }
    if (late && (result == -EAGAIN || result == -EALREADY || result == -EINPROGRESS)) return limit.when_passed;
    int ended = 0;
    if (result == -EAGAIN) {
      // A unix listener's backlog is full; nothing tells when it has room.
      ended = sleep_until(std::min(limit.until, deadline(pause)), limit.effect());
      pause = std::min<clock::duration>(pause * 2, std::chrono::milliseconds(50));
      late = limit.until.has_passed();
    } else if (result == -EINPROGRESS || result == -EALREADY) {
      // Begun, by this call or by one that was given up. Asked again when it stirs: that also is what turns the socket
      // from connecting to connected.
      w.clear_ready(direction::out);
      ended = park_on(w, direction::out, limit.until, "connect", signals);
      late = ended == -ETIME;
    } else {
      break;
    }
    if (ended && ended != -ETIME) return ended;
    if (w.generation != generation) return -EBADF;
  }
  // An unconnected socket reports HUP when it is polled; that is over now.
  if (w.generation == generation) {
    w.hung_up = false;
    w.set_ready(direction::in);
    w.set_ready(direction::out);
  }
  return int(result);
} catch (...) {
  return error_of_refusal();
}

int accept4(int fd, sockaddr* from, unsigned* from_length, int flags, deadline until) noexcept try {
  hub_state& h = hub_state::here();
  fd_table& table = fd_table::of(h);
  fd_watch* known = table.get_if_open(fd);
  if (!known) return -EBADF;
  fd_watch& w = *known;
  table.refresh(w);
  ssize_t got;
  if (w.nonblocking || (w.kind != file_kind::stream && w.kind != file_kind::datagram)) {
    got = sys::call(SYS_accept4, fd, from, from_length, flags);
    keep_fair(h);
  } else if (!h.engine->waits_for_sockets()) {
    got = until_ready(fd, direction::in, until, "accept", [&](fd_watch*) -> ssize_t {
      const auto call = [&] { return sys::call(SYS_accept4, fd, from, from_length, flags); };
      const long result = call_nonblocking(fd, call);
      return result == -EAGAIN && is_shut_listener(w) ? call() : result;
    });
  } else {
    const call_deadline limit = deadline_of(w, direction::in, until);
    got = perform({.code = loop::opcode::accept, .fd = fd, .flags = flags, .address = from, .address_length = from_length},
                  limit.until, "accept", fd, h.watch_signals(limit.effect()));
    if (got == -ETIMEDOUT) got = limit.when_passed;
  }
  // Accepted connections are closed by all sorts of code; whatever was known of the number is over.
  if (got >= 0) fd_opened(int(got));
  return int(got);
} catch (...) {
  return error_of_refusal();
}

}  // namespace ringlet::io
