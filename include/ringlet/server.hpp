#pragma once
// stream_server: accepts connections and serves each in a fiber of its own. datagram_server: the same for datagrams.
//
//   ringlet::stream_server echo(ringlet::listener(":7000"), [](ringlet::connection& c) {
//     while (auto line = c.read_line(30s)) c.write(*line + "\n");
//   });
//   echo.serve();                                  // until somebody calls request_stop, or kills this fiber
//
// The connection is closed when the handler returns or throws. Whom a handler fails by (a peer that has gone, a deadline that
// passed) is counted; any other error goes to on_error. At most `most_connections` are served at once: others wait, not accepted,
// in the kernel's queue. Out of file descriptors or memory, accepting rests from 10 ms up to 1 s, or until a connection has ended.
//
// With `hubs`, handlers run on all of them, at the same time on several threads. By default the kernel spreads the connections, if
// the listener shares its port (listen_options::reuse_port); else this thread accepts and hands each to the hub with the fewest.
//
// A server is used on the thread that started it, but for what says otherwise, and must not outlive its hubs. In a forked child it
// does nothing. Semantics: gevent.baseserver, gevent.server.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/hub_threads.hpp>
#include <ringlet/socket.hpp>

namespace ringlet {

enum class spread { best, reuse_port, shared, hand_off };  // shared: all hubs accept from the one socket

struct server_options {
  std::string name = "server";             // its fibers' names begin so
  std::size_t most_connections = 0;        // at once, on all hubs together; 0: no limit
  std::size_t accepts_per_wake = 100;      // then others have a turn. 1 spreads evenest, if several processes share the socket
  std::size_t stack_size_bytes = 0;        // of the handlers' fibers; 0: as spawn_options has it
  std::chrono::nanoseconds shortest_rest = std::chrono::milliseconds(10);
  std::chrono::nanoseconds longest_rest = std::chrono::seconds(1);
  hub_threads* hubs = nullptr;
  spread by = spread::best;
  // In the fiber that failed; of a handler's error, and (with "accept") of what keeps the server from accepting. Empty: as
  // hub::set_error_handler has it.
  std::function<void(const char* what, std::exception_ptr)> on_error = {};
};

struct server_counts {
  std::size_t open = 0;          // connections being served, or on their way to a hub
  std::uint64_t accepted = 0;
  std::uint64_t left_early = 0;  // handlers that ended by io_error: the peer had gone, or was too slow
  std::uint64_t failed = 0;      // handlers that ended by another error
  std::uint64_t rests = 0;       // times that accepting had to rest
};

class RINGLET_EXPORT stream_server {
 public:
  using handler = std::function<void(connection&)>;
  stream_server(listener on, handler serve, server_options how = {});
  // stop(deadline::passed()).
  ~stream_server();
  stream_server(const stream_server&) = delete;
  stream_server& operator=(const stream_server&) = delete;

  // Begins to accept, and returns. std::logic_error if it was started before.
  void start();
  // start(), then waits for request_stop, and stops: true if all handlers had ended by themselves within `grace`. Interrupted, it
  // stops in the same way before it throws on. Throws what made accepting impossible.
  bool serve(std::chrono::nanoseconds grace = std::chrono::seconds(1));
  // Any thread, also a handler or a fiber that deals with signals: serve() ends soon.
  void request_stop() noexcept;
  // Accepts who waits in the queue by now (beyond `most_connections` as others end; who still has no place at the deadline is
  // reset), then no more, and closes the listener; waits for the handlers until the deadline; kills those that are left and waits
  // for their end. True: none was killed. Final; calling it again is true. Not in a handler:
  // std::logic_error.
  bool stop(deadline until = std::chrono::seconds(1));
  // Stops accepting for a while (new connections wait in the kernel's queue), and goes on.
  void pause();
  void resume();

  bool accepting() const noexcept;  // started, not paused, not stopped
  bool full() const noexcept;       // as many connections as it may have
  const socket_address& address() const noexcept;
  unsigned short port() const noexcept { return address().port(); }
  server_counts counts() const noexcept;  // any thread

 private:
  struct impl;
  std::shared_ptr<impl> impl_;
};

}  // namespace ringlet
