#pragma once
// datagram_server: each datagram that arrives is handled by a fiber.
//
//   ringlet::datagram_server* self;
//   ringlet::datagram_server names("0.0.0.0:5300", [&](std::string& question, const ringlet::socket_address& from) {
//     self->send(answer_to(question), from);
//   });
//   self = &names;
//   names.serve();
//
// What comes while `most_handlers` are at work stays in the kernel's queue, and is lost when that is full, as datagrams are. For
// several hubs: one server on each, on one port (reuse_port). Used on the thread that started it, but for request_stop, send and
// counts. In a forked child it does nothing. Semantics: gevent.server.DatagramServer.

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
#include <ringlet/socket.hpp>

namespace ringlet {

struct datagram_options {
  std::string name = "datagrams";          // its fibers' names begin so
  std::size_t most_handlers = 0;           // at work at once; 0: no limit
  std::size_t receives_per_wake = 100;     // then others have a turn
  std::size_t most_bytes = 65536;          // longer ones are dropped, and counted
  std::size_t stack_size_bytes = 0;        // of the handlers' fibers
  bool reuse_port = false;
  std::function<void(const char* what, std::exception_ptr)> on_error = {};  // empty: as hub::set_error_handler has it
};

struct datagram_counts {
  std::size_t at_work = 0;
  std::uint64_t received = 0;
  std::uint64_t too_long = 0;
  std::uint64_t failed = 0;  // handlers that ended by an error
};

class RINGLET_EXPORT datagram_server {
 public:
  using handler = std::function<void(std::string& data, const socket_address& from)>;
  // Binds at once: io_error. Words as socket_address has them; a unix socket's file goes with the server, if it
  // is still the server's.
  datagram_server(std::string_view where, handler serve, datagram_options how = {});
  // stop(deadline::passed()).
  ~datagram_server();
  datagram_server(const datagram_server&) = delete;
  datagram_server& operator=(const datagram_server&) = delete;

  // As stream_server has them. stop handles what has arrived already, as far as its deadline allows.
  void start();
  bool serve(std::chrono::nanoseconds grace = std::chrono::seconds(1));
  void request_stop() noexcept;
  bool stop(deadline until = std::chrono::seconds(1));

  // From the server's own address. Whole or not at all: io_error, also where the server is stopped meanwhile.
  void send(std::string_view data, const socket_address& to, deadline until = never);
  const socket_address& address() const noexcept;
  unsigned short port() const noexcept { return address().port(); }
  datagram_counts counts() const noexcept;
  int fd() const noexcept;

 private:
  struct impl;
  std::shared_ptr<impl> impl_;
};

}  // namespace ringlet
