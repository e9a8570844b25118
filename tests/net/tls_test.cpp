// TLS: the same streams, encrypted; who is refused, and that nobody is kept waiting.

#include "ringlet/tls.hpp"

#include <openssl/ssl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <string>

#include <ringlet/server.hpp>
#include <ringlet/subprocess.hpp>

#include "hub/on_hub.hpp"
#include "io/io_support.hpp"

using namespace hub_test;
using io_test::turn_until;

namespace {

// A certificate for "localhost" that vouches for itself, made by the openssl command; by its absence the cases are skipped.
struct identity {
  support::temporary_directory directory;
  std::string certificate = directory.path() / "c.pem", key = directory.path() / "k.pem";
  bool made = false;
  explicit identity(const std::string& name = "localhost") {
    try {
      made = run({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                  "/CN=" + name, "-addext", "subjectAltName=DNS:" + name + ",IP:127.0.0.1", "-keyout", key, "-out", certificate},
                 {.until = 60s})
                 .status.success();
    } catch (const start_error&) {
    }
  }
};
#define NEEDS(who) \
  if (!(who).made) RINGLET_SKIP("the openssl command is not here, or makes no certificate")

void echo(tls_connection& c) {
  while (auto line = c.read_line()) c.write(*line + "\n");
}
int unread(int fd) {
  int bytes = 0;
  ::ioctl(fd, FIONREAD, &bytes);
  return bytes;
}
connection plain_to(const stream_server& s) { return connect_to(s.address(), 10s); }
std::string pattern(std::size_t size) {
  std::string s(size, 0);
  for (std::size_t i = 0; i < size; ++i) s[i] = char('a' + (i * 7 + i / 251) % 26);
  return s;
}

}  // namespace

TEST_CASE("tls: lines go there and back, and the end is a goodbye") {
  const identity own;
  NEEDS(own);
  auto keys = tls_context::server(own.certificate, own.key);
  keys.offer({"echo", "other"});
  stream_server server(listener("127.0.0.1:0"), tls_handler(keys, echo));
  server.start();
  auto trusting = tls_context::client({.ca_file = own.certificate});
  trusting.offer({"other", "echo"});
  for (const char* name : {"localhost", "127.0.0.1"}) {
    auto c = tls_connection::connect(plain_to(server), trusting, name, 20s);
    CHECK(c.version() == "TLSv1.3");
    CHECK(c.protocol() == "echo");
    CHECK(c.peer_name() == "CN=localhost");
    c.write("hello\n");
    CHECK(c.read_line(20s) == "hello");
    CHECK_THROWS_AS(c.read_line(1ms), io_error);
    c.write("still there\n");
    CHECK(c.read_line(20s) == "still there");
    c.shutdown_writing();
    CHECK(c.read_line(20s) == std::nullopt);
  }
  CHECK(server.stop(20s));
  CHECK(server.counts().left_early == 0);
  CHECK(server.counts().failed == 0);
}

TEST_CASE("tls: one fiber reads while another writes, much more than the sockets hold") {
  const identity own;
  NEEDS(own);
  stream_server server(listener("127.0.0.1:0"), tls_handler(tls_context::server(own.certificate, own.key), [](tls_connection& c) {
                         for (std::string some; !(some = c.read_some()).empty();) c.write(some);
                       }));
  server.start();
  auto c = tls_connection::connect(plain_to(server), tls_context::client({.ca_file = own.certificate}), "localhost", 20s);
  const std::string data = pattern(support::is_instrumented() ? 1'000'000 : 8'000'000);
  auto writer = spawn([&] {
    c.write(data);
    c.shutdown_writing();
  });
  CHECK((c.read_all(60s) == data));
  writer.get();
}

TEST_CASE("tls: a wrong name, an unknown signer and a missing client's certificate are refused; the server goes on") {
  const identity own, stranger;
  NEEDS(own);
  NEEDS(stranger);
  auto keys = tls_context::server(own.certificate, own.key);
  stream_server server(listener("127.0.0.1:0"), tls_handler(keys, echo));
  server.start();
  const auto trusting = tls_context::client({.ca_file = own.certificate});
  CHECK(contains(error_of([&] { tls_connection::connect(plain_to(server), trusting, "example.org", 20s); }), "verify failed"));
  CHECK(contains(error_of([&] { tls_connection::connect(plain_to(server), tls_context::client({.ca_file = stranger.certificate}), "localhost", 20s); }), "verify failed"));
  tls_connection::connect(plain_to(server), tls_context::client({.verify = false}), "example.org", 20s);
  CHECK_THROWS_AS(tls_context::server(own.certificate, stranger.key), tls_error);
  CHECK(contains(error_of([&] { tls_context::server("/no/such/file", own.key); }), "/no/such/file"));

  auto strict = tls_context::server(own.certificate, own.key);
  strict.require_client_certificates(stranger.certificate);
  stream_server second(listener("127.0.0.1:0"), tls_handler(strict, [](tls_connection& c) { c.write(c.peer_name() + "\n"); }));
  second.start();
  CHECK_THROWS_AS(tls_connection::connect(plain_to(second), trusting, "localhost", 20s).read_line(20s), io_error);
  const auto known = tls_context::client({.ca_file = own.certificate, .certificate_file = stranger.certificate, .key_file = stranger.key});
  CHECK(tls_connection::connect(plain_to(second), known, "localhost", 20s).read_line(20s) == "CN=localhost");

  auto c = tls_connection::connect(plain_to(server), trusting, "localhost", 20s);
  c.write("lives on\n");
  CHECK(c.read_line(20s) == "lives on");
}

TEST_CASE("tls: neither silence nor nonsense at the handshake keeps others from being served") {
  const identity own;
  NEEDS(own);
  stream_server server(listener("127.0.0.1:0"), tls_handler(tls_context::server(own.certificate, own.key), echo, 50ms));
  server.start();
  auto silent = plain_to(server), nonsense = plain_to(server);
  nonsense.write("GET / HTTP/1.0\r\n\r\n");
  auto c = tls_connection::connect(plain_to(server), tls_context::client({.ca_file = own.certificate}), "localhost", 20s);
  c.write("served\n");
  CHECK(c.read_line(20s) == "served");
  CHECK(silent.read_all(20s) == "");  // thrown out at the end of its time
  CHECK(turn_until([&] {
    sleep(1ms);
    return server.counts().left_early == 2;
  }));
  CHECK(server.counts().failed == 0);
}

TEST_CASE("tls: an end without a goodbye is not taken for one") {
  const identity own;
  NEEDS(own);
  listener l("127.0.0.1:0");
  const auto keys = tls_context::server(own.certificate, own.key);
  auto cutter = spawn([&] {
    auto c = tls_connection::accept(l.accept(20s), keys, 20s);
    c.write("half of it");
    ::shutdown(c.fd(), SHUT_RDWR);
  });
  auto c = tls_connection::connect(connect_to(l.address(), 20s), tls_context::client({.ca_file = own.certificate}), "localhost", 20s);
  try {
    c.read_all(20s);
    FAIL("it looked whole");
  } catch (const io_error& e) {
    CHECK(e.peer_gone());
  }
  CHECK(c.ahead() == "half of it");
  cutter.join();
}

TEST_CASE("tls: openssl's own client is served") {
  const identity own;
  NEEDS(own);
  stream_server server(listener("127.0.0.1:0"), tls_handler(tls_context::server(own.certificate, own.key), [](tls_connection& c) {
                         c.write("you said " + c.read_line(20s).value_or("nothing") + "\n");
                       }));
  server.start();
  subprocess client({"openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", own.certificate, "-connect",
                     "127.0.0.1:" + std::to_string(server.port())},
                    {.in = redirect::pipe(), .out = redirect::pipe(), .err = redirect::null_device()});
  client.in().write("hello from openssl\n");
  CHECK(client.out().read_line(30s) == "you said hello from openssl");
}

TEST_CASE("tls: nobody else has a turn while OpenSSL is inside a session") {
  const identity own;
  NEEDS(own);
  constexpr int records = 140, bytes = 100, overhead = 22;
  event go;
  stream_server server(listener("127.0.0.1:0"), tls_handler(tls_context::server(own.certificate, own.key), [&](tls_connection& c) {
                         c.write("ready\n");
                         go.wait();
                         for (int i = 0; i < records; ++i) c.write(std::string(bytes, 'x'));
                         c.read_some();
                       }));
  server.start();
  auto c = tls_connection::connect(plain_to(server), tls_context::client({.ca_file = own.certificate}), "localhost", 20s);
  REQUIRE(c.version() == "TLSv1.3");
  CHECK(c.read_line(20s) == "ready");
  static bool inside;  // a record's head has been read, and the read is not over
  inside = false;
  SSL_set_msg_callback(c.native(), [](int writes, int, int type, const void*, std::size_t, SSL*, void*) {
    if (!writes && type == SSL3_RT_HEADER) inside = true;
  });
  go.set();
  CHECK(turn_until([&] {
    sleep(1ms);
    return unread(c.fd()) >= records * (bytes + overhead);
  }));  // so no read has to wait
  bool done = false, met_inside = false;
  int turns = 0;
  auto other = spawn([&] {
    for (; !done; ++turns) {
      met_inside |= inside;
      yield();
    }
  });
  char some[bytes];
  for (int i = 0; i < records; ++i) {
    REQUIRE(c.read(some, sizeof some, 20s) == sizeof some);
    inside = false;
    char byte;
    if (i == records / 2) io::recv(c.fd(), &byte, 1, MSG_DONTWAIT | MSG_PEEK);  // moves the others' turns by half a record
  }
  done = true;
  CHECK_FALSE(met_inside);
  CHECK(turns > 0);  // but they have turns
  other.join();
}

TEST_CASE("tls: a write that was cut short goes on where it was, or not at all") {
  const identity own;
  NEEDS(own);
  event go;
  std::string got;
  stream_server server(listener("127.0.0.1:0"), tls_handler(tls_context::server(own.certificate, own.key), [&](tls_connection& c) {
                         go.wait();
                         got = c.read_all(60s);
                       }));
  server.start();
  auto c = tls_connection::connect(plain_to(server), tls_context::client({.ca_file = own.certificate}), "localhost", 20s);
  const std::string data = pattern(20'000'000);
  std::size_t done = 0;
  try {
    c.write(data, 100ms);
    FAIL("there was room for all");
  } catch (const io_error& e) {
    CHECK(e.timed_out());
    done = e.done();
  }
  const auto cure = "go on with what it had left";
  CHECK(contains(error_of([&] { c.write("something else"); }), cure));
  CHECK(contains(error_of([&] { c.write(std::string(100'000, '#')); }), cure));
  CHECK(contains(error_of([&] { c.shutdown_writing(); }), cure));
  try {
    c.write(data.substr(done), 1ms);
    FAIL("there was room for all");
  } catch (const io_error& e) {
    CHECK(e.timed_out());
    done += e.done();
  }
  go.set();
  c.write(data.substr(done), 60s);
  c.shutdown_writing();
  CHECK(c.read_some(100, 60s) == "");
  CHECK((got == data));
}

TEST_CASE("tls: who writes and closes at once has written all, whatever of TLS's own he has not read") {
  const identity own;
  NEEDS(own);
  const std::string data = pattern(100'000);
  listener l("127.0.0.1:0");
  const int little = 4096, much = 200'000;
  REQUIRE(::setsockopt(l.fd(), SOL_SOCKET, SO_RCVBUF, &little, sizeof little) == 0);
  event go;
  stream_server server(std::move(l), tls_handler(tls_context::server(own.certificate, own.key), [&](tls_connection& c) {
                         go.wait();
                         CHECK((c.read_all(60s) == data));
                       }));
  server.start();
  auto plain = plain_to(server);
  REQUIRE(::setsockopt(plain.fd(), SOL_SOCKET, SO_SNDBUF, &much, sizeof much) == 0);
  auto c = tls_connection::connect(std::move(plain), tls_context::client({.ca_file = own.certificate}), "localhost", 20s);
  REQUIRE(io::wait_readable(c.fd(), 20s) == 0);  // the server's tickets
  c.write(data, 20s);
  c.close();
  go.set();
  CHECK(server.stop(60s));
  CHECK(server.counts().left_early == 0);
}

TEST_CASE("tls: what was read ahead of the handshake is not lost") {
  const identity own;
  NEEDS(own);
  const auto keys = tls_context::server(own.certificate, own.key);
  const std::string head = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
  stream_server server(listener("127.0.0.1:0"), [&](connection& plain) {
    CHECK(turn_until([&] {
      sleep(1ms);
      return unread(plain.fd()) > int(head.size()) + 5;
    }));  // the client's hello, too
    CHECK(plain.read_line(20s) == head.substr(0, head.size() - 1));
    auto c = tls_connection::accept(std::move(plain), keys, 20s);
    echo(c);
  });
  server.start();
  auto plain = plain_to(server);
  plain.write(head);
  auto c = tls_connection::connect(std::move(plain), tls_context::client({.ca_file = own.certificate}), "localhost", 20s);
  c.write("through a proxy\n");
  CHECK(c.read_line(20s) == "through a proxy");
}

TEST_CASE("tls: without a name to check there is no connection") {
  const identity own;
  NEEDS(own);
  stream_server server(listener("127.0.0.1:0"), tls_handler(tls_context::server(own.certificate, own.key), echo));
  server.start();
  const auto trusting = tls_context::client({.ca_file = own.certificate});
  CHECK_THROWS_AS(tls_connection::connect(plain_to(server), trusting, "", 20s), std::invalid_argument);
  CHECK_THROWS_AS(tls_connection::connect(plain_to(server), trusting, std::string("localhost\0.example.org", 22), 20s), std::invalid_argument);
  tls_connection::connect(plain_to(server), tls_context::client({.verify = false}), "", 20s);
}

TEST_CASE("tls: a context's copies offer the same protocols, also after one has gone") {
  const identity own;
  NEEDS(own);
  auto keys = tls_context::server(own.certificate, own.key);
  {
    auto copy = keys;
    copy.offer({"a-protocol-whose-name-needs-memory-of-its-own", "other"});
  }
  stream_server server(listener("127.0.0.1:0"), tls_handler(keys, echo));
  server.start();
  auto trusting = tls_context::client({.ca_file = own.certificate});
  trusting.offer({"other", "a-protocol-whose-name-needs-memory-of-its-own"});
  auto c = tls_connection::connect(plain_to(server), trusting, "localhost", 20s);
  CHECK(c.protocol() == "a-protocol-whose-name-needs-memory-of-its-own");
  keys.offer({});
  auto d = tls_connection::connect(plain_to(server), trusting, "localhost", 20s);
  CHECK(d.protocol() == "");
}
