// A stream server on one hub: accepts, serves, ends.
//
// An acceptor asks for a place first, so that it never holds a connection that nobody may serve; with a place it accepts
// without waiting, and gives the place back before it waits for the next connection: an idle hub keeps nobody's place.

#include <ringlet/io.hpp>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <algorithm>

#include "base/sys.hpp"
#include "io/doors.hpp"
#include "io/wait.hpp"
#include "net/stream_server_state.hpp"

namespace ringlet {

namespace {
// accept(2): errors of one connection, or of the network at that moment, not of the socket.
bool passes(int error) {
  switch (error) {
    case ECONNABORTED: case EINTR: case EPROTO: case EPERM: case ENETDOWN: case ENOPROTOOPT: case EHOSTDOWN: case ENONET:
    case EHOSTUNREACH: case EOPNOTSUPP: case ENETUNREACH: case ETIMEDOUT:
      return true;
    default: return false;
  }
}
bool is_shortage(int error) { return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM; }

// Who waits in the queue at this moment, others may go on connecting; a bound where the kernel does not say it (unix sockets).
std::size_t queued(int fd) {
  tcp_info info{};
  unsigned length = sizeof info;
  return sys::call(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0 ? 4096 : info.tcpi_unacked;
}
}  // namespace

// --- accepting -------------------------------------------------------------------------------------------------------

void stream_server::impl::site::begin() {
  acceptor = spawn({.name = of.how.name + " accepting"}, [this, keep = of.shared_from_this()] {
    try {
      accept_all();
    } catch (const std::exception&) {
      of.tell("accept", std::current_exception());
      of.break_down(std::current_exception());
    }
  });
}

void stream_server::impl::site::accept_all() {
  std::chrono::nanoseconds pause{};  // of the last rest, if there was none since the last connection
  std::size_t streak = 0;
  while (true) {
    if (of.limited()) of.places.acquire();
    socket_address from;
    int got = accept_one(from);
    if (got >= 0) {
      if (dispatch(got, from)) {
        pause = {};
        if (++streak < of.how.accepts_per_wake) continue;
        streak = 0;
        yield();
        continue;
      }
      got = -ENOMEM;
    } else {
      of.give_back_place();
      // The kernel wants a number first, and then looks whether there is somebody.
      if (is_shortage(-got) && !io::polled_ready(fd(), POLLIN)) got = -EAGAIN;
    }
    if (got == -EAGAIN) {
      streak = 0;
      got = wait_for_somebody();
      if (got == 0 || got == -EINTR) continue;
      if (!is_shortage(-got)) detail::throw_io_failure(got, "accepting on " + of.address.to_string());
    }
    if (is_shortage(-got)) {
      const bool first = pause == pause.zero();
      pause = first ? of.how.shortest_rest : std::min(2 * pause, of.how.longest_rest);
      if (first) of.tell("accept", shortage(-got));
      rest(pause);
    } else if (!passes(-got)) {
      detail::throw_io_failure(got, "accepting on " + of.address.to_string());
    }
  }
}

// 0, or the error; without memory, too, is one that passes.
int stream_server::impl::site::wait_for_somebody() {
  try {
    auto& w = io::fd_table::of(detail::hub_state::here()).get(fd());
    w.clear_ready(io::direction::in);
    return io::park_on(w, io::direction::in, never, "accept", {});
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  }
}

std::exception_ptr stream_server::impl::site::shortage(int error) const {
  try {
    return std::make_exception_ptr(
        io_error(error, "no connection can be accepted for the moment on " + of.address.to_string() + " (ulimit -n? memory?)"));
  } catch (const std::bad_alloc&) {
    return std::current_exception();  // so little memory that it cannot even be told
  }
}

int stream_server::impl::site::accept_one(socket_address& from) {
  sockaddr_storage room;
  unsigned length = sizeof room;
  const int made = int(sys::call(SYS_accept4, fd(), &room, &length, SOCK_CLOEXEC));
  if (made < 0) return made;
  io::fd_opened(made);
  from = socket_address(reinterpret_cast<const sockaddr*>(&room), length);
  of.accepted.fetch_add(1, std::memory_order_relaxed);
  return made;
}

// Whoever waits in the kernel's queue waits on; a connection that ends makes room at once.
void stream_server::impl::site::rest(std::chrono::nanoseconds pause) {
  of.rests.fetch_add(1, std::memory_order_relaxed);
  of.room.clear();
  struct counted {
    std::atomic<std::size_t>& n;
    explicit counted(std::atomic<std::size_t>& c) : n(c) { n.fetch_add(1, std::memory_order_relaxed); }
    ~counted() { n.fetch_sub(1, std::memory_order_relaxed); }
  } starving(of.starved);
  of.room.wait(pause);
}

// Takes the fd and its place over, whatever happens. False: there is no memory to serve it, and it is closed.
bool stream_server::impl::site::dispatch(int fd, const socket_address& from) {
  site* to = this;
  if (this == of.hand_off.get())
    to = std::min_element(of.sites.begin(), of.sites.end(), [](const auto& a, const auto& b) {
           return a->open.load(std::memory_order_relaxed) < b->open.load(std::memory_order_relaxed);
         })->get();
  std::shared_ptr<arrival> a;
  try {
    a = std::make_shared<arrival>(of.shared_from_this(), *to, fd, from);
  } catch (const std::bad_alloc&) {
    io::close(fd);
    of.give_back_place();
    return false;
  }
  try {
    if (to == this)
      serve(std::move(a));
    else
      of.how.hubs->hub(to->index).post([a] { a->at->serve(a); });
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

// --- serving ---------------------------------------------------------------------------------------------------------

void stream_server::impl::site::serve(std::shared_ptr<arrival> a) {
  serving.spawn({.name = of.how.name, .stack_size_bytes = of.how.stack_size_bytes}, [a = std::move(a)]() mutable {
    const auto mine = std::move(a);
    mine->at->run(mine->c);
  });
}

void stream_server::impl::site::run(connection& c) {
  try {
    of.serve(c);
  } catch (const io_error&) {
    of.left_early.fetch_add(1, std::memory_order_relaxed);
  } catch (const greenlet_exit&) {
    throw;
  } catch (...) {
    of.failed.fetch_add(1, std::memory_order_relaxed);
    of.tell("handler", std::current_exception());
  }
}

// --- the end ---------------------------------------------------------------------------------------------------------

void stream_server::impl::site::stop_accepting() {
  if (acceptor.empty()) return;
  acceptor.kill();
  acceptor = {};
}

// These clients are connected, as far as they know. A place is waited for only if somebody is there to have it.
void stream_server::impl::site::drain(deadline until) {
  for (std::size_t left = queued(fd()); left > 0 && io::polled_ready(fd(), POLLIN); --left) {
    if (of.limited() && !of.places.acquire(until)) return;
    socket_address from;
    const int got = accept_one(from);
    if (got < 0) of.give_back_place();
    if (got < 0 && !passes(-got)) return;
    if (got >= 0 && !dispatch(got, from)) return;
  }
}

bool stream_server::impl::site::end(deadline until) {
  own.close();
  if (serving.join(until)) return true;
  serving.kill();
  return false;
}

}  // namespace ringlet
