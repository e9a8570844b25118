#pragma once
// What a stream server is inside: its sites, and what they share.
//
// A site is the server's part on one hub: its listening socket, its acceptor, the fibers that serve. All of it is touched
// on that hub's thread only; what the sites share (places, counts, the wish to stop) may be used on any.

#include <ringlet/server.hpp>

#include <ringlet/pool.hpp>

#include <atomic>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "hub/hub.hpp"

namespace ringlet {

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
    int wait_for_somebody();
    std::exception_ptr shortage(int error) const;
    void rest(std::chrono::nanoseconds pause);
    bool dispatch(int fd, const socket_address& from);
    void serve(std::shared_ptr<arrival>);
    void run(connection& c);
    void stop_accepting();
    void drain(deadline until);
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

}  // namespace ringlet
