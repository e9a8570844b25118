// The datagram server: a receiver, a fiber for each datagram, and the end.
//
// The receiver takes a place first, so that it never holds a datagram that nobody may handle. The fd is blocking, so a send from a
// handler waits for room; the receiver asks with MSG_DONTWAIT.

#include <ringlet/datagram_server.hpp>

#include <fcntl.h>
#include <sys/stat.h>

#include <atomic>
#include <optional>
#include <stdexcept>

#include <ringlet/fiber.hpp>
#include <ringlet/io.hpp>
#include <ringlet/pool.hpp>
#include <ringlet/sync.hpp>
#include <ringlet/timeout.hpp>

#include "base/assert.hpp"
#include "base/lock.hpp"
#include "base/sys.hpp"
#include "hub/hub.hpp"
#include "io/doors.hpp"
#include "io/wait.hpp"
#include "net/socket_file.hpp"

namespace ringlet {

struct datagram_server::impl : std::enable_shared_from_this<impl> {
  enum class phase { made, receiving, stopping, stopped };

  const handler handle;
  const datagram_options how;
  int fd = -1;
  socket_address address;
  std::optional<detail::socket_file> file;  // of a unix socket
  base::lock sending;  // over the next two, and over fd's end: other threads send, too
  std::size_t senders = 0;
  int left_to_senders = -1;  // the last of them closes it
  const long maker = sys::call(SYS_getpid);
  group working;
  any_fiber receiver;
  semaphore places;
  event stop_wanted;
  std::string buffer;
  std::exception_ptr broken;
  std::atomic<std::size_t> at_work{0};
  std::atomic<std::uint64_t> received{0}, too_long{0}, failed{0};
  phase step = phase::made;
  detail::hub_state* home = nullptr;

  impl(std::string_view where, handler h, datagram_options o) : handle(std::move(h)), how(std::move(o)), places(how.most_handlers) { open(where); }
  ~impl() { close(); }

  bool limited() const noexcept { return how.most_handlers > 0; }
  bool is_ours() const noexcept { return maker == sys::call(SYS_getpid); }
  static void require(long result, const std::string& doing) {
    if (result < 0) detail::throw_io_failure(result, doing);
  }
  void open(std::string_view where) {
    const auto addresses = socket_address::resolve(where, SOCK_DGRAM, true);
    for (std::size_t i = 0; fd < 0; ++i) try {
        bind(addresses[i]);
      } catch (const io_error&) {  // IPv6 may be switched off here
        close();
        if (i + 1 == addresses.size()) throw;
      }
    sockaddr_storage room{};
    unsigned length = sizeof room;
    require(sys::call(SYS_getsockname, fd, &room, &length), "asking for a socket's address");
    address = socket_address(reinterpret_cast<const sockaddr*>(&room), length);
  }
  void bind(const socket_address& to) {
    const std::string doing = "receiving on " + to.to_string();
    const long made = sys::call(SYS_socket, to.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0);
    require(made, doing);
    fd = int(made);
    io::fd_opened(fd);
    const int on = 1;
    if (how.reuse_port) require(sys::call(SYS_setsockopt, fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), doing);
    require(sys::call(SYS_bind, fd, to.data(), to.length()), doing);
    if (to.family() == AF_UNIX && to.path()[0] != '@') {
      struct stat s{};
      if (detail::info_of(to.path(), s) == 0) file.emplace(to.path(), s);
    }
  }
  // A number that somebody is about to send on must not become another file's.
  void close() noexcept {
    file.reset();
    if (fd < 0) return;
    if (!is_ours()) {  // the senders are the parent's
      io::close(std::exchange(fd, -1));
      return;
    }
    int unused = -1;
    {
      base::lock_guard hold(sending);
      (senders > 0 ? left_to_senders : unused) = std::exchange(fd, -1);
      if (senders > 0) sys::call(SYS_shutdown, left_to_senders, SHUT_RDWR);  // those that wait for room end
    }
    if (unused >= 0) io::close(unused);
  }
  struct sender {
    impl& of;
    int fd;
    explicit sender(impl& o) : of(o) {
      base::lock_guard hold(of.sending);
      fd = of.fd;
      if (fd >= 0) ++of.senders;
    }
    sender(const sender&) = delete;
    ~sender() {
      int unused = -1;
      if (fd >= 0) {
        base::lock_guard hold(of.sending);
        if (--of.senders == 0) unused = std::exchange(of.left_to_senders, -1);
      }
      if (unused >= 0) io::close(unused);
    }
  };
  void tell(const char* what, const std::exception_ptr& error) noexcept {
    try {
      if (how.on_error) return how.on_error(what, error);
    } catch (...) {
      return detail::report_error("server", how.name, std::current_exception(), {"the error handler of server '", how.name, "' failed"});
    }
    detail::report_error("server", how.name, error, {"server '", how.name, "' (", address.to_string(), "), ", what});
  }

  // A datagram's, while it is handled.
  struct place {
    impl* of;
    explicit place(impl* o) noexcept : of(o) { of->at_work.fetch_add(1, std::memory_order_relaxed); }
    place(place&& other) noexcept : of(std::exchange(other.of, nullptr)) {}
    ~place() {
      if (!of) return;
      of->at_work.fetch_sub(1, std::memory_order_relaxed);
      if (of->limited()) of->places.release();
    }
  };

  // One, if there is one. Its place is the handler's then.
  ssize_t receive_one() {
    sockaddr_storage from{};
    unsigned length = sizeof from;
    const ssize_t got = sys::call(SYS_recvfrom, fd, buffer.data(), buffer.size(), MSG_DONTWAIT | MSG_TRUNC, &from, &length);
    if (got < 0) return got;
    if (std::size_t(got) > buffer.size()) {
      too_long.fetch_add(1, std::memory_order_relaxed);
      return got;
    }
    received.fetch_add(1, std::memory_order_relaxed);
    if (limited()) places.try_acquire();  // it is there: see receive_all
    try {
      work_on(socket_address(reinterpret_cast<const sockaddr*>(&from), length), std::size_t(got));
    } catch (const std::bad_alloc&) {  // it is lost, as datagrams are
      failed.fetch_add(1, std::memory_order_relaxed);
    }
    return got;
  }
  void work_on(const socket_address& from, std::size_t size) {
    place mine(this);
    working.spawn({.name = how.name, .stack_size_bytes = how.stack_size_bytes},
                  [this, mine = std::move(mine), data = buffer.substr(0, size), from]() mutable {
                    try {
                      handle(data, from);
                    } catch (const greenlet_exit&) {
                      throw;
                    } catch (...) {
                      failed.fetch_add(1, std::memory_order_relaxed);
                      tell("handler", std::current_exception());
                    }
                  });
  }
  // The receiver is the only one who takes places, so one that is free when it looks is free when it needs it.
  void receive_all() {
    std::size_t streak = 0;
    while (true) {
      if (limited() && places.count() == 0) {
        places.acquire();
        places.release();
      }
      const ssize_t got = receive_one();
      if (got >= 0) {
        if (++streak < how.receives_per_wake) continue;
        streak = 0;
        yield();
      } else if (got == -EAGAIN) {
        streak = 0;
        auto& w = io::fd_table::of(detail::hub_state::here()).get(fd);
        w.clear_ready(io::direction::in);
        const int ended = io::park_on(w, io::direction::in, never, "recvfrom", {});
        if (ended && ended != -EINTR) detail::throw_io_failure(ended, "receiving on " + address.to_string());
      } else if (got == -ENOMEM || got == -ENOBUFS) {
        sleep(std::chrono::milliseconds(10));
      } else if (got != -EINTR && got != -ECONNREFUSED && got != -EHOSTUNREACH && got != -ENETUNREACH) {  // of an earlier send
        detail::throw_io_failure(got, "receiving on " + address.to_string());
      }
    }
  }
  // What had arrived when the server was told to stop; bounded, for more may come.
  void drain(deadline until) {
    for (int n = 0; n < 4096; ++n) {
      if (limited() && places.count() == 0) {
        if (!places.acquire(until)) return;
        places.release();
      }
      if (receive_one() < 0) return;
    }
  }

  bool stop(deadline until) {
    if (step == phase::stopped) return true;
    if (!is_ours() || step == phase::made) {
      close();
      step = phase::stopped;
      return true;
    }
    if (working.contains(current()))
      throw std::logic_error("ringlet: server '" + how.name + "' is stopped by one of its own handlers, which would wait for itself. Cure: request_stop");
    if (home != detail::hub_state::here_or_null())
      throw wrong_thread("ringlet: stop of a server on another thread than the one that started it. Cure: request_stop, which any thread may call");
    step = phase::stopping;
    if (!receiver.empty()) {
      receiver.kill();
      receiver = {};
      if (until != deadline::passed()) drain(until);
    }
    const bool all_ended = working.join(until);
    if (!all_ended) working.kill();
    close();  // handlers may send until they end
    step = phase::stopped;
    return all_ended;
  }
};

datagram_server::datagram_server(std::string_view where, handler serve, datagram_options how) {
  if (!serve) throw std::invalid_argument("ringlet: a server without a handler");
  if (how.receives_per_wake == 0 || how.most_bytes == 0) throw std::invalid_argument("ringlet: a datagram server that may receive nothing");
  impl_ = std::make_shared<impl>(where, std::move(serve), std::move(how));
}

datagram_server::~datagram_server() {
  if (impl_->step == impl::phase::receiving && impl_->is_ours())
    RINGLET_ASSERT(impl_->home == detail::hub_state::here_or_null(), "a running server is destroyed on another thread than the one that started it");
  if (impl_->step == impl::phase::stopped) return;
  if (impl_->step == impl::phase::made || !impl_->is_ours()) {
    impl_->stop(deadline::passed());
    return;
  }
  const kill_shield to_the_end;
  impl_->stop(deadline::passed());
}

void datagram_server::start() {
  impl& s = *impl_;
  if (s.step != impl::phase::made) throw std::logic_error("ringlet: server '" + s.how.name + "' is started a second time");
  detail::require_can_park("start");
  s.home = &detail::hub_state::here();
  s.buffer.resize(s.how.most_bytes);
  s.step = impl::phase::receiving;
  s.receiver = spawn({.name = s.how.name + " receiving"}, [self = impl_] {
    try {
      self->receive_all();
    } catch (const std::exception&) {
      self->broken = std::current_exception();
      self->tell("receive", self->broken);
      self->stop_wanted.set();
    }
  });
}

bool datagram_server::serve(std::chrono::nanoseconds grace) {
  start();
  try {
    impl_->stop_wanted.wait();
  } catch (...) {
    stop(grace);
    throw;
  }
  const bool all_ended = stop(grace);
  if (impl_->broken) std::rethrow_exception(impl_->broken);
  return all_ended;
}

void datagram_server::request_stop() noexcept { impl_->stop_wanted.set(); }
bool datagram_server::stop(deadline until) { return impl_->stop(until); }
const socket_address& datagram_server::address() const noexcept { return impl_->address; }
int datagram_server::fd() const noexcept { return impl_->fd; }

void datagram_server::send(std::string_view data, const socket_address& to, deadline until) {
  const auto self = impl_;
  const impl::sender mine(*self);
  ssize_t sent;
  do sent = io::sendto(mine.fd, data.data(), data.size(), MSG_NOSIGNAL, to.data(), to.length(), until);
  while (sent == -EINTR);
  if (sent < 0) detail::throw_io_failure(sent, "sending to " + to.to_string());
}

datagram_counts datagram_server::counts() const noexcept {
  const impl& s = *impl_;
  return {s.at_work.load(std::memory_order_relaxed), s.received.load(std::memory_order_relaxed), s.too_long.load(std::memory_order_relaxed),
          s.failed.load(std::memory_order_relaxed)};
}

}  // namespace ringlet
