// The stream server: acceptors, the places of connections, and the end.
//
// A site is the server's part on one hub: its listening socket, its acceptor, the fibers that serve. All of it is touched on that
// hub's thread only; what the sites share (places, counts, the wish to stop) may be used on any.
//
// An acceptor asks for a place first, so that it never holds a connection that nobody may serve; with a place it accepts
// without waiting, and gives the place back before it waits for the next connection: an idle hub keeps nobody's place.

#include <ringlet/server.hpp>

#include <ringlet/io.hpp>
#include <ringlet/pool.hpp>
#include <ringlet/timeout.hpp>

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "hub/hub.hpp"
#include "io/doors.hpp"
#include "io/wait.hpp"

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

// What waits in the queue when the server stops: bounded, for others may go on connecting.
constexpr int most_drained = 4096;
}  // namespace

struct stream_server::impl : std::enable_shared_from_this<impl> {
  struct site;
  // A connection from the moment that it is accepted until it is closed; it has a place all that time.
  struct arrival {
    std::shared_ptr<impl> of;
    site* at;
    connection c;
    arrival(std::shared_ptr<impl> server, site& s, int fd, const socket_address& from) : of(std::move(server)), at(&s), c(fd, from) {
      at->open.fetch_add(1, std::memory_order_relaxed);
    }
    ~arrival() {
      c.close();
      at->open.fetch_sub(1, std::memory_order_relaxed);
      of->give_back_place();
      if (of->starved.load(std::memory_order_relaxed) > 0) of->room.set();
    }
  };
  struct site {
    impl& of;
    const std::size_t index;
    listener own;  // empty: the server's
    any_fiber acceptor;
    group serving;
    std::atomic<std::size_t> open{0};  // connections that are its, also those on their way
    site(impl& server, std::size_t i) : of(server), index(i) {}

    int fd() const { return own.is_open() ? own.fd() : of.socket.fd(); }
    void begin();
    void accept_all();
    int accept_one(socket_address& from);
    void rest(std::chrono::nanoseconds pause);
    bool dispatch(int fd, const socket_address& from);
    void serve(std::shared_ptr<arrival>);
    void run(connection& c);
    void stop_accepting();
    void drain();
    bool end(deadline until);
  };
  enum class phase { made, accepting, paused, stopping, stopped };

  listener socket;
  const handler serve;
  const server_options how;
  const socket_address address;
  std::vector<std::unique_ptr<site>> sites;  // one for each hub, by index
  std::unique_ptr<site> hand_off;            // on the starter's hub: accepts for the others
  semaphore places;
  event stop_wanted;
  event room;  // a connection has ended while an acceptor rests
  std::atomic<std::size_t> starved{0};
  std::atomic<std::uint64_t> accepted{0}, left_early{0}, failed{0}, rests{0};
  std::exception_ptr broken;  // why it cannot accept any more; written once, before stop_wanted is set
  std::atomic<bool> is_broken{false};
  std::atomic<phase> step{phase::made};
  detail::hub_state* home = nullptr;
  const unsigned generation = detail::fork_generation.load(std::memory_order_relaxed);

  impl(listener l, handler h, server_options o)
      : socket(std::move(l)), serve(std::move(h)), how(std::move(o)), address(socket.address()), places(how.most_connections) {}

  bool limited() const noexcept { return how.most_connections > 0; }
  void give_back_place() noexcept {
    if (limited()) places.release();
  }
  bool in_child() const noexcept { return generation != detail::fork_generation.load(std::memory_order_relaxed); }
  void check_thread(const char* what) const {
    if (home && home != detail::hub_state::here_or_null())
      throw wrong_thread(std::string("ringlet: ") + what + " of a server on another thread than the one that started it. Cure: request_stop, which any thread may call");
  }
  void make_sites();
  bool is_handler() const;
  bool stop(deadline until);
  void tell(const char* what, const std::exception_ptr& error) noexcept;
  void break_down(const std::exception_ptr& error) noexcept {
    if (is_broken.exchange(true)) return;
    broken = error;
    stop_wanted.set();
  }

  // f(site) on each site's own hub, on all at once; false if any said so.
  template <class F>
  bool on_each_site(F f) {
    if (!how.hubs) return f(*sites.front());
    std::vector<future<bool>> answers;
    for (auto& s : sites)
      answers.push_back(how.hubs->spawn_on(s->index, [f, self = shared_from_this(), at = s.get()] { return f(*at); }));
    bool good = !hand_off || f(*hand_off);
    for (auto& a : answers) good = a.get() && good;
    return good;
  }
};

// --- accepting -------------------------------------------------------------------------------------------------------

void stream_server::impl::tell(const char* what, const std::exception_ptr& error) noexcept {
  try {
    if (how.on_error) return how.on_error(what, error);
  } catch (...) {
    return detail::report_error("server", how.name, std::current_exception(), "the error handler of server '" + how.name + "' failed");
  }
  detail::report_error("server", how.name, error, "server '" + how.name + "' (" + address.to_string() + "), " + what);
}

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
    if (is_shortage(-got)) {
      const bool first = pause == pause.zero();
      pause = first ? of.how.shortest_rest : std::min(2 * pause, of.how.longest_rest);
      if (first)
        of.tell("accept", std::make_exception_ptr(io_error(-got, "no connection can be accepted for the moment on " + of.address.to_string() +
                                                                     " (ulimit -n? memory?)")));
      rest(pause);
    } else if (got == -EAGAIN) {
      streak = 0;
      auto& w = io::fd_table::of(detail::hub_state::here()).get(fd());
      w.clear_ready(io::direction::in);
      const int ended = io::park_on(w, io::direction::in, never, "accept", {});
      if (ended && ended != -EINTR) detail::throw_io_failure(ended, "accepting on " + of.address.to_string());
    } else if (!passes(-got)) {
      detail::throw_io_failure(got, "accepting on " + of.address.to_string());
    }
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

// These clients are connected, as far as they know.
void stream_server::impl::site::drain() {
  for (int n = 0; n < most_drained; ++n) {
    if (of.limited() && !of.places.try_acquire()) return;
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

void stream_server::impl::make_sites() {
  if (!how.hubs) {
    sites.push_back(std::make_unique<site>(*this, 0));
    return;
  }
  spread by = how.by;
  if (by == spread::best) by = socket.shares_port() ? spread::reuse_port : spread::hand_off;
  for (std::size_t i = 0; i < how.hubs->size(); ++i) {
    sites.push_back(std::make_unique<site>(*this, i));
    if (by == spread::reuse_port && i > 0) sites.back()->own = socket.another();
  }
  if (by == spread::hand_off) hand_off = std::make_unique<site>(*this, sites.size());
}

bool stream_server::impl::is_handler() const {
  const any_fiber me = current();
  if (!how.hubs) return !sites.empty() && sites.front()->serving.contains(me);
  const std::size_t here = how.hubs->here();
  return here < sites.size() && sites[here]->serving.contains(me);
}

bool stream_server::impl::stop(deadline until) {
  if (in_child()) {
    socket.close();
    step = phase::stopped;
    return true;
  }
  if (step == phase::stopped) return true;
  if (is_handler())
    throw std::logic_error("ringlet: server '" + how.name + "' is stopped by one of its own handlers, which would wait for itself. Cure: request_stop");
  check_thread("stop");
  if (step == phase::made) {
    socket.close();
    step = phase::stopped;
    return true;
  }
  step = phase::stopping;
  const bool gently = until != deadline::passed();
  if (hand_off) {
    hand_off->stop_accepting();
    if (gently) hand_off->drain();
  } else {
    on_each_site([gently](site& s) {
      s.stop_accepting();
      if (gently) s.drain();
      return true;
    });
  }
  socket.close();
  const bool all_ended = on_each_site([until](site& s) { return s.end(until); });
  step = phase::stopped;
  return all_ended;
}

// --- the public face -------------------------------------------------------------------------------------------------

stream_server::stream_server(listener on, handler serve, server_options how) {
  if (!on.is_open()) throw std::invalid_argument("ringlet: a server on a listener that is closed (or was moved from)");
  if (!serve) throw std::invalid_argument("ringlet: a server without a handler");
  if (how.accepts_per_wake == 0) throw std::invalid_argument("ringlet: a server that accepts 0 connections per wake would accept none");
  impl_ = std::make_shared<impl>(std::move(on), std::move(serve), std::move(how));
}

stream_server::~stream_server() {
  if (impl_->step == impl::phase::stopped) return;
  if (impl_->in_child() || impl_->step == impl::phase::made) {
    impl_->stop(deadline::passed());
    return;
  }
  RINGLET_ASSERT(impl_->home == detail::hub_state::here_or_null(), "a running server is destroyed on another thread than the one that started it");
  const kill_shield to_the_end;
  impl_->stop(deadline::passed());
}

void stream_server::start() {
  impl& s = *impl_;
  if (s.step != impl::phase::made) throw std::logic_error("ringlet: server '" + s.how.name + "' is started a second time");
  detail::require_can_park("start");
  s.make_sites();
  s.home = &detail::hub_state::here();
  s.step = impl::phase::accepting;
  resume();
}

void stream_server::resume() {
  impl& s = *impl_;
  s.check_thread("resume");
  if (s.step == impl::phase::stopping || s.step == impl::phase::stopped) throw std::logic_error("ringlet: server '" + s.how.name + "' has been stopped");
  if (s.step == impl::phase::made) return start();
  s.step = impl::phase::accepting;
  const auto begin = [](impl::site& each) {
    if (each.acceptor.empty()) each.begin();
    return true;
  };
  if (s.hand_off)
    begin(*s.hand_off);
  else
    s.on_each_site(begin);
}

void stream_server::pause() {
  impl& s = *impl_;
  s.check_thread("pause");
  if (s.step != impl::phase::accepting) return;
  s.step = impl::phase::paused;
  const auto end = [](impl::site& each) {
    each.stop_accepting();
    return true;
  };
  if (s.hand_off)
    end(*s.hand_off);
  else
    s.on_each_site(end);
}

bool stream_server::serve(std::chrono::nanoseconds grace) {
  start();
  impl& s = *impl_;
  try {
    s.stop_wanted.wait();
  } catch (...) {
    stop(grace);
    throw;
  }
  const bool all_ended = stop(grace);
  if (s.broken) std::rethrow_exception(s.broken);
  return all_ended;
}

void stream_server::request_stop() noexcept { impl_->stop_wanted.set(); }
bool stream_server::stop(deadline until) { return impl_->stop(until); }
bool stream_server::accepting() const noexcept { return impl_->step == impl::phase::accepting && !impl_->is_broken; }
bool stream_server::full() const noexcept { return impl_->limited() && impl_->places.count() == 0; }
const socket_address& stream_server::address() const noexcept { return impl_->address; }

server_counts stream_server::counts() const noexcept {
  const impl& s = *impl_;
  server_counts c;
  for (const auto& each : s.sites) c.open += each->open.load(std::memory_order_relaxed);
  c.accepted = s.accepted.load(std::memory_order_relaxed);
  c.left_early = s.left_early.load(std::memory_order_relaxed);
  c.failed = s.failed.load(std::memory_order_relaxed);
  c.rests = s.rests.load(std::memory_order_relaxed);
  return c;
}

}  // namespace ringlet
