// The ends of things: closing under operations and waits, on this thread and others, in children, and what accept and
// connect leave behind when they are given up.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <atomic>
#include <climits>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <ringlet/ringlet.hpp>

#include "io/io_support.hpp"

using namespace io_test;
using ringlet::spawn;

namespace {
sockaddr_in loopback(unsigned short port) {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  a.sin_port = htons(port);
  return a;
}
int connect_raw(int fd, unsigned short port) {
  auto address = loopback(port);
  return ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 ? 0 : -errno;
}
// Several turns, so that what was started is in the kernel.
void let_it_settle() {
  for (int i = 0; i < 10; ++i) ringlet::sleep(1ms);
}
// The status a child ends with; killed if it takes longer than said.
int status_of_child(pid_t child, int seconds = 10) {
  for (int i = 0; i < seconds * 100; ++i) {
    int status;
    if (::waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    ringlet::sleep(10ms);
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  return -1;
}
}  // namespace

TEST_CASE("close under accept: -EBADF at once, the port is free, and nobody is accepted any more") {
  for (bool settled : {false, true}) {
    CAPTURE(settled);
    auto listener = support::listen_on_free_port();
    owned socket(std::move(listener.socket));
    auto waiting = spawn([&] { return io::accept4(socket, nullptr, nullptr, 0, 5s); });
    auto second = spawn([&] { return io::accept4(socket, nullptr, nullptr, 0, 5s); });
    REQUIRE(parked_on_fds(2));
    if (settled) let_it_settle();
    const auto begun = ringlet::clock::now();
    socket.close();
    owned client(::socket(AF_INET, SOCK_STREAM, 0));
    CHECK(connect_raw(client, listener.port) == -ECONNREFUSED);
    CHECK(waiting.get() == -EBADF);
    CHECK(second.get() == -EBADF);
    CHECK(ringlet::clock::now() - begun < 2s);
  }
}

TEST_CASE("close under accept: a listener that gets the number next loses no connection to the old call") {
  auto listener = support::listen_on_free_port();
  const int number = listener.socket;
  owned socket(std::move(listener.socket));
  auto old = spawn([&] { return io::accept4(number, nullptr, nullptr, 0, 5s); });
  REQUIRE(parked_on_fds(1));  // started, perhaps not yet in the kernel
  socket.close();
  auto other = support::listen_on_free_port();
  owned next(int(other.socket) == number ? other.socket.release() : ::dup2(other.socket, number));
  REQUIRE(int(next) == number);
  owned client(::socket(AF_INET, SOCK_STREAM, 0));
  REQUIRE(connect_raw(client, other.port) == 0);
  CHECK(old.get() == -EBADF);
  owned served(io::accept4(next, nullptr, nullptr, 0, 5s));
  CHECK(int(served) >= 0);
}

TEST_CASE("dup2 over a listener under accept: the call gets -EBADF") {
  auto listener = support::listen_on_free_port();
  owned socket(std::move(listener.socket));
  auto p = stream_pair();
  auto waiting = spawn([&] { return io::accept4(socket, nullptr, nullptr, 0, 5s); });
  REQUIRE(parked_on_fds(1));
  let_it_settle();
  CHECK(io::dup2(p.a, socket) == int(socket));
  CHECK(waiting.get() == -EBADF);
}

TEST_CASE("dup2 and dup3 that fail wake nobody") {
  auto p = stream_pair();
  char c;
  auto reader = spawn([&] { return io::recv(p.a, &c, 1, 0, 5s); });
  REQUIRE(parked_on_fds(1));
  CHECK(io::dup2(987654, p.a) == -EBADF);
  CHECK(io::dup3(p.b, p.a, 12345) == -EINVAL);
  CHECK(io::dup3(p.a, p.a, 0) == -EINVAL);
  ringlet::sleep(2ms);
  CHECK(!reader.ready());
  CHECK(io::write(p.b, "x", 1) == 1);
  CHECK(reader.get() == 1);
}

TEST_CASE("close under connect: -EBADF") {
  auto listener = support::listen_on_free_port(0);
  owned filler(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)), more(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  connect_raw(filler, listener.port);
  connect_raw(more, listener.port);
  owned client(::socket(AF_INET, SOCK_STREAM, 0));
  auto address = loopback(listener.port);
  auto connecting = spawn([&] { return io::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address, 5s); });
  REQUIRE(turn_until([&] { return ringlet::hub::count().operations + ringlet::hub::count().fd_waits > 0; }));
  let_it_settle();
  REQUIRE(!connecting.ready());
  client.close();
  CHECK(connecting.get() == -EBADF);
}

TEST_CASE("connect: a second call waits for the connection that the first, given up, has begun") {
  auto listener = support::listen_on_free_port(0);
  owned filler(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)), more(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  connect_raw(filler, listener.port);
  connect_raw(more, listener.port);
  owned client(::socket(AF_INET, SOCK_STREAM, 0));
  auto address = loopback(listener.port);
  CHECK(io::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address, 20ms) == -ETIMEDOUT);
  auto again = spawn([&] { return io::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address, 10s); });
  ringlet::sleep(5ms);
  CHECK(!again.ready());
  // Room: the kernel tries again after a second.
  for (int i = 0; i < 2; ++i) owned(::accept(listener.socket, nullptr, nullptr));
  CHECK(again.get() == 0);
  CHECK(io::write(client, "x", 1) == 1);
}

TEST_CASE("seqpacket: accept and connect park, boundaries stay") {
  support::temporary_directory where;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, (where.path() / "q").c_str());
  owned socket(::socket(AF_UNIX, SOCK_SEQPACKET, 0));
  REQUIRE(::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(socket, 8) == 0);
  CHECK(io::accept4(socket, nullptr, nullptr, 0, 5ms) == -ETIMEDOUT);
  auto server = spawn([&] { return io::accept4(socket, nullptr, nullptr, 0, 5s); });
  owned client(::socket(AF_UNIX, SOCK_SEQPACKET, 0));
  CHECK(io::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address, 5s) == 0);
  owned served(server.get());
  REQUIRE(int(served) >= 0);
  char buffer[64];
  auto reader = spawn([&] {
    std::vector<ssize_t> all;
    for (int i = 0; i < 4; ++i) all.push_back(io::recv(served, buffer, sizeof buffer, i == 1 ? MSG_WAITALL : 0, 5s));
    return all;
  });
  REQUIRE(parked_on_fds(1));
  CHECK(io::send(client, "one", 3, 0) == 3);
  CHECK(io::send(client, "two22", 5, 0) == 5);
  CHECK(io::write(client, "3", 1) == 1);
  client.close();
  CHECK(reader.get() == std::vector<ssize_t>{3, 5, 1, 0});
  owned datagram(::socket(AF_UNIX, SOCK_DGRAM, 0));
  CHECK(io::accept4(datagram, nullptr, nullptr, 0, 1s) == -EOPNOTSUPP);
}

TEST_CASE("accept: a connection that comes as one of two acceptors is killed is the other's") {
  auto listener = support::listen_on_free_port();
  owned socket(std::move(listener.socket));
  for (int round = 0; round < 10; ++round) {
    CAPTURE(round);
    auto first = spawn([&] { return io::accept4(socket, nullptr, nullptr, 0, 3s); });
    auto second = spawn([&] { return io::accept4(socket, nullptr, nullptr, 0, 3s); });
    REQUIRE(parked_on_fds(2));
    let_it_settle();
    auto& victim = round % 2 ? first : second;
    auto& other = round % 2 ? second : first;
    owned client(::socket(AF_INET, SOCK_STREAM, 0));
    REQUIRE(connect_raw(client, listener.port) == 0);
    victim.kill(ringlet::deadline::passed());
    const int of_victim = victim.get();
    if (of_victim >= 0) {
      owned served(of_victim);
      other.kill();
      continue;
    }
    CHECK(of_victim == -ECANCELED);
    owned served(other.get());
    REQUIRE(int(served) >= 0);
  }
}

TEST_CASE("accept: a connection that came before the deadline passed is not lost") {
  auto listener = support::listen_on_free_port();
  owned socket(std::move(listener.socket));
  for (int round = 0; round < 10; ++round) {
    auto server = spawn([&] { return io::accept4(socket, nullptr, nullptr, 0, 5ms); });
    REQUIRE(parked_on_fds(1));
    owned client(::socket(AF_INET, SOCK_STREAM, 0));
    REQUIRE(connect_raw(client, listener.port) == 0);
    const auto busy_until = ringlet::clock::now() + 10ms;
    while (ringlet::clock::now() < busy_until) {
    }
    owned served(server.get());
    REQUIRE(int(served) >= 0);
  }
}

TEST_CASE("numbers beyond all tables: an error, not memory") {
  for (int fd : {INT_MAX, INT_MAX / 2, 2'000'000}) {
    char c;
    CHECK(io::accept4(fd, nullptr, nullptr, 0) == -EBADF);
    auto address = loopback(1);
    CHECK(io::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == -EBADF);
    CHECK(io::fsync(fd) == -EBADF);
    CHECK(io::read(fd, &c, 1) == -EBADF);
    CHECK(io::write(fd, &c, 1) == -EBADF);
    CHECK(io::send(fd, &c, 1, 0) == -EBADF);
    CHECK(io::recv(fd, &c, 1, MSG_WAITALL) == -EBADF);
    CHECK(io::wait_readable(fd, 1s) == -EBADF);
    CHECK(io::close(fd) == -EBADF);
  }
}

TEST_CASE("close from a thread for which this hub's thread waits in the kernel: neither waits for ever") {
  auto p = stream_pair();
  char c;
  auto reader = spawn([&] { return io::recv(p.a, &c, 1, 0, 20s); });
  REQUIRE(parked_on_fds(1));
  let_it_settle();
  std::thread other([&] { p.a.close(); });
  other.join();  // not a wait of the hub's
  const auto got = reader.get();
  CHECK(got == -EBADF);
}

TEST_CASE("close while other hubs that know the number come and go") {
  std::atomic<bool> stop{false};
  auto p = stream_pair();
  std::vector<std::thread> hubs;
  for (int i = 0; i < 3; ++i)
    hubs.emplace_back([&] {
      while (!stop) {
        std::thread([&] {
          char c;
          for (int n = 0; n < 3 && !stop; ++n) {
            const int copy = ::fcntl(p.a, F_DUPFD_CLOEXEC, 0);
            if (copy < 0) continue;
            io::recv(copy, &c, 1, 0, 1ms);
            io::close(copy);
          }
        }).join();
      }
    });
  for (int i = 0; i < (support::is_instrumented() ? 50 : 300); ++i) {
    auto q = stream_pair();
    char c;
    CHECK(io::recv(q.a, &c, 1, 0, 1ms) == -ETIMEDOUT);
  }
  stop = true;
  for (auto& h : hubs) h.join();
}

TEST_CASE("fork: a child closes what another thread's hub waited on, and does not wait for that hub") {
#ifdef __SANITIZE_THREAD__
  RINGLET_SKIP("ThreadSanitizer loses its order of events in the child of a process with threads");
#endif
  auto p = stream_pair();
  std::atomic<bool> waits{false};
  std::thread other([&] {
    char c;
    auto reader = spawn([&] { return io::recv(p.a, &c, 1, 0, 20s); });
    REQUIRE(parked_on_fds(1));
    waits = true;
    reader.join();
  });
  REQUIRE(turn_until([&] { ringlet::sleep(1ms); return waits.load(); }));
  const pid_t child = ::fork();
  if (child == 0) {
    const bool closed = io::close(p.a) == 0;
    char c;
    io::write(p.b, "y", 1);
    ::_exit(closed && io::recv(p.b, &c, 1, 0, 50ms) != 1 ? 7 : 8);
  }
  CHECK(status_of_child(child) == 7);
  CHECK(io::write(p.b, "x", 1) == 1);
  other.join();
}

TEST_CASE("fork: a child asks for a name that its parent was just asking for") {
  if (!support::localhost_resolves()) RINGLET_SKIP("this system does not know the name localhost (no /etc/hosts?)");
  if (support::is_instrumented()) RINGLET_SKIP("a sanitizer's allocator does not survive the fork of a process with threads");
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* warm = nullptr;  // what libc loads for the first question it loads under locks that a child would inherit
  REQUIRE(io::getaddrinfo("localhost", "80", &hints, &warm) == 0);
  ::freeaddrinfo(warm);
  std::vector<ringlet::fiber<int>> asking;
  for (int i = 0; i < 4; ++i)
    asking.push_back(spawn([&] {
      addrinfo* answer = nullptr;
      const int result = io::getaddrinfo("localhost", "80", &hints, &answer);
      if (result == 0) ::freeaddrinfo(answer);
      return result;
    }));
  ringlet::yield();
  const pid_t child = ::fork();
  if (child == 0) {
    addrinfo* answer = nullptr;
    ::_exit(io::getaddrinfo("localhost", "80", &hints, &answer, 5s) == 0 ? 7 : 8);
  }
  CHECK(status_of_child(child, 20) == 7);
  for (auto& a : asking) CHECK(a.get() == 0);
}

TEST_CASE("getaddrinfo: who is killed meanwhile leaves, the others get the answer") {
  if (!support::localhost_resolves()) RINGLET_SKIP("this system does not know the name localhost (no /etc/hosts?)");
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  for (int round = 0; round < 10; ++round) {
    const auto ask = [&] {
      addrinfo* answer = nullptr;
      const int result = io::getaddrinfo("localhost", "80", &hints, &answer, 20s);
      if (result == 0) ::freeaddrinfo(answer);
      return result;
    };
    auto first = spawn(ask), second = spawn(ask);
    ringlet::yield();
    if (round % 2) std::this_thread::sleep_for(1ms);  // the answer may have come, or not: either is right
    first.kill(ringlet::deadline::passed());
    CHECK(second.get() == 0);
    const int of_killed = first.get();
    CHECK((of_killed == 0 || of_killed == EAI_SYSTEM));
  }
}
