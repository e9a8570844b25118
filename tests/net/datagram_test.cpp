// The datagram server: who is answered, how many at once, and how it ends.

#include "ringlet/datagram_server.hpp"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include <ringlet/io.hpp>

#include "hub/on_hub.hpp"
#include "io/io_support.hpp"

using namespace hub_test;
using io_test::turn_until;

namespace {

// A socket that sends to one place and hears from it.
struct client {
  io_test::owned fd;
  explicit client(const socket_address& to) : fd(::socket(to.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    REQUIRE(::connect(fd, to.data(), to.length()) == 0);
  }
  void send(const std::string& text) { CHECK(io::send(fd, text.data(), text.size(), 0) == ssize_t(text.size())); }
  std::string receive(deadline until = 10s) {
    char text[2048];
    const ssize_t got = io::recv(fd, text, sizeof text, 0, until);
    return got < 0 ? "error " + std::to_string(-got) : std::string(text, std::size_t(got));
  }
};

}  // namespace

TEST_CASE("datagram_server: each datagram has a fiber, and answers go to whoever asked") {
  datagram_server* self = nullptr;
  datagram_server server("127.0.0.1:0", [&](std::string& data, const socket_address& from) {
    sleep(1ms);
    self->send(data + "!", from);
  });
  self = &server;
  server.start();
  CHECK_THROWS_AS(server.start(), std::logic_error);
  std::vector<client> clients;
  for (int i = 0; i < 20; ++i) clients.emplace_back(server.address());
  for (std::size_t i = 0; i < clients.size(); ++i) clients[i].send("client " + std::to_string(i));
  for (std::size_t i = 0; i < clients.size(); ++i) CHECK(clients[i].receive() == "client " + std::to_string(i) + "!");
  clients[0].send("");
  CHECK(clients[0].receive() == "!");
  CHECK(server.counts().received == 21);
  CHECK(server.stop(10s));
  CHECK(server.counts().at_work == 0);
}

TEST_CASE("datagram_server: beyond the limit they stay with the kernel; what is too long is dropped and counted") {
  std::size_t now = 0, most = 0;
  event go;
  std::set<std::string> seen;
  datagram_server server("127.0.0.1:0",
                         [&](std::string& data, const socket_address&) {
                           most = std::max(most, ++now);
                           go.wait();
                           seen.insert(data);
                           --now;
                         },
                         {.most_handlers = 3, .most_bytes = 10});
  server.start();
  client c(server.address());
  for (int i = 0; i < 8; ++i) c.send("d" + std::to_string(i));
  c.send(std::string(11, 'x'));
  c.send(std::string(10, 'y'));
  CHECK(turn_until([&] { return server.counts().at_work == 3; }));
  for (int i = 0; i < 100; ++i) yield();
  CHECK(server.counts().received == 3);
  go.set();
  CHECK(turn_until([&] { return seen.size() == 9; }));
  CHECK(most == 3);
  CHECK(server.counts().too_long == 1);
  CHECK(server.stop(10s));
}

TEST_CASE("datagram_server: an error is told and stops nobody; serve ends by request_stop; what had arrived is handled") {
  std::vector<std::string> told, handled;
  datagram_server* self = nullptr;
  datagram_server server("127.0.0.1:0",
                         [&](std::string& data, const socket_address&) {
                           if (data == "bad") throw std::runtime_error("no good");
                           handled.push_back(data);
                           if (data == "stop") self->request_stop();
                         },
                         {.on_error = [&](const char* what, std::exception_ptr e) {
                            told.push_back(std::string(what) + ": " + error_of([&] { std::rethrow_exception(e); }));
                          }});
  self = &server;
  client c(server.address());
  for (const char* text : {"bad", "good", "stop", "last"}) c.send(text);
  CHECK(server.serve(10s));
  CHECK(told == std::vector<std::string>{"handler: no good"});
  CHECK(handled == std::vector<std::string>{"good", "stop", "last"});
  CHECK(server.counts().failed == 1);
}

TEST_CASE("datagram_server: stop handles what has arrived, also beyond the limit at once, as far as its deadline allows") {
  std::size_t now = 0, most = 0, handled = 0;
  datagram_server server("127.0.0.1:0",
                         [&](std::string&, const socket_address&) {
                           most = std::max(most, ++now);
                           sleep(1ms);
                           --now;
                           ++handled;
                         },
                         {.most_handlers = 2});
  server.start();
  client c(server.address());
  for (int i = 0; i < 20; ++i) c.send("x");
  CHECK(server.stop(20s));
  CHECK(handled == 20);
  CHECK(most == 2);
}

TEST_CASE("datagram_server: stop kills the handlers that are left at its deadline") {
  bool unwound = false;
  datagram_server server("127.0.0.1:0", [&](std::string&, const socket_address&) {
    struct at_end {
      bool& flag;
      ~at_end() { flag = true; }
    } mark{unwound};
    sleep(1h);
  });
  server.start();
  client c(server.address());
  c.send("x");
  CHECK(turn_until([&] { return server.counts().at_work == 1; }));
  CHECK_FALSE(server.stop(1ms));
  CHECK(unwound);
}

TEST_CASE("datagram_server: a unix socket's file goes with it") {
  support::temporary_directory directory;
  const std::string path = directory.path() / "s";
  std::string got;
  {
    datagram_server server("unix:" + path, [&](std::string& data, const socket_address&) { got = data; });
    server.start();
    client c(server.address());
    c.send("by path");
    CHECK(turn_until([&] { return got == "by path"; }));
  }
  struct stat s;
  CHECK(::lstat(path.c_str(), &s) == -1);
}

TEST_CASE("datagram_server: a unix socket's file that a later server has put there stays") {
  support::temporary_directory directory;
  const std::string path = directory.path() / "s";
  const auto nothing = [](std::string&, const socket_address&) {};
  auto first = std::make_unique<datagram_server>("unix:" + path, nothing);
  REQUIRE(::unlink(path.c_str()) == 0);
  {
    datagram_server second("unix:" + path, nothing);
    first.reset();
    struct stat s;
    CHECK(::lstat(path.c_str(), &s) == 0);
  }
  struct stat s;
  CHECK(::lstat(path.c_str(), &s) == -1);
}

TEST_CASE("datagram_server: who sends on another thread while it stops never sends by a file that has its number next") {
  hub_threads elsewhere(1);
  const auto ignore = [](std::string&, const socket_address&) {};
  datagram_server stranger("127.0.0.1:0", ignore);  // never started: only its socket
  for (int round = 0; round < 300; ++round) {
    auto server = std::make_unique<datagram_server>("127.0.0.1:0", ignore);
    event begun;
    auto sends = elsewhere.spawn([&] {
      return error_of([&] {
        for (;; begun.set()) server->send("x", stranger.address());
      });
    });
    begun.wait();
    server->stop(10s);
    const support::fd copy(::dup(stranger.fd()));
    CHECK(contains(sends.get(), "sending to"));
    char byte;
    sockaddr_in from{};
    socklen_t length = sizeof from;
    while (::recvfrom(stranger.fd(), &byte, 1, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&from), &length) >= 0)
      CHECK(ntohs(from.sin_port) != stranger.port());
  }
}

TEST_CASE("datagram_server: a send that waits for room ends when the server stops") {
  support::temporary_directory directory;
  const std::string mine = directory.path() / "mine", theirs = directory.path() / "theirs";
  datagram_server full("unix:" + theirs, [](std::string&, const socket_address&) {});  // never started
  datagram_server server("unix:" + mine, [](std::string&, const socket_address&) {});
  server.start();
  int sent = 0;
  auto sends = spawn([&] {
    return error_of([&] {
      for (;; ++sent) server.send("x", full.address(), 20s);
    });
  });
  int before;
  do {
    before = sent;
    for (int i = 0; i < 20; ++i) yield();
  } while (sent != before || sent == 0);
  CHECK(server.stop(10s));
  CHECK(contains(sends.get(), "sending to"));
}
