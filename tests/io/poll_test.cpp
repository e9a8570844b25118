// poll, epoll, sleep, files and names through the direct API.

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <fstream>
#include <set>
#include <thread>

#include <ringlet/ringlet.hpp>

#include "io/io_support.hpp"

using namespace io_test;
using ringlet::spawn;

TEST_CASE("poll: waits for any of several fds and says which") {
  auto p = stream_pair();
  auto q = stream_pair();
  pollfd fds[3] = {{p.a, POLLIN, 0}, {-1, POLLIN, 77}, {q.a, POLLIN, 0}};
  auto waiting = spawn([&] { return io::poll(fds, 3); });
  REQUIRE(parked_on_fds(1));
  CHECK(io::write(q.b, "x", 1) == 1);
  CHECK(waiting.get() == 1);
  CHECK(fds[0].revents == 0);
  CHECK(fds[1].revents == 0);
  CHECK(fds[2].revents == POLLIN);
}

TEST_CASE("poll: times out with 0, answers at once with what is there, and knows bad fds and hang-ups") {
  auto p = stream_pair();
  pollfd one{p.a, POLLIN, 0};
  CHECK(io::poll(&one, 1, 5ms) == 0);
  CHECK(io::poll(&one, 1, ringlet::deadline::passed()) == 0);
  one.events = POLLIN | POLLOUT;
  CHECK(io::poll(&one, 1) == 1);
  CHECK(one.revents == POLLOUT);
  pollfd bad{987654, POLLIN, 0};
  CHECK(io::poll(&bad, 1) == 1);
  CHECK(bad.revents == POLLNVAL);
  CHECK(io::poll(nullptr, 0, 2ms) == 0);
  pollfd hang{p.a, 0, 0};
  auto waiting = spawn([&] { return io::poll(&hang, 1, 10s); });
  REQUIRE(parked_on_fds(1));
  p.b.close();
  CHECK(waiting.get() == 1);
  CHECK((hang.revents & POLLHUP) != 0);
}

TEST_CASE("poll: beside a reader of the same fd both are told") {
  auto p = stream_pair();
  char c;
  pollfd one{p.a, POLLIN, 0};
  auto poller = spawn([&] { return io::poll(&one, 1, 10s); });
  auto reader = spawn([&] { return io::read(p.a, &c, 1, 10s); });
  REQUIRE(parked_on_fds(2));
  CHECK(io::write(p.b, "xy", 2) == 2);
  CHECK(reader.get() == 1);
  CHECK(poller.get() == 1);
}

TEST_CASE("poll: a fd that is closed meanwhile ends the wait with POLLNVAL") {
  auto p = stream_pair();
  pollfd one{p.a, POLLIN, 0};
  auto poller = spawn([&] { return io::poll(&one, 1, 10s); });
  REQUIRE(parked_on_fds(1));
  p.a.close();
  CHECK(poller.get() == 1);
  CHECK(one.revents == POLLNVAL);
}

TEST_CASE("epoll_wait: parks until one of its fds is ready; nested and one-shot work") {
  auto p = stream_pair();
  owned inner(epoll_create1(0)), outer(epoll_create1(0));
  epoll_event e{EPOLLIN | EPOLLONESHOT, {.u64 = 42}};
  REQUIRE(epoll_ctl(inner, EPOLL_CTL_ADD, p.a, &e) == 0);
  epoll_event o{EPOLLIN, {.u64 = 7}};
  REQUIRE(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &o) == 0);
  epoll_event got[4];
  CHECK(io::epoll_wait(outer, got, 4, 5ms) == 0);
  auto waiting = spawn([&] { return io::epoll_wait(outer, got, 4, 10s); });
  REQUIRE(parked_on_fds(1));
  CHECK(io::write(p.b, "x", 1) == 1);
  CHECK(waiting.get() == 1);
  CHECK(std::uint64_t(got[0].data.u64) == 7);
  CHECK(io::epoll_wait(inner, got, 4, 1s) == 1);
  CHECK(std::uint64_t(got[0].data.u64) == 42);
  CHECK(io::epoll_wait(inner, got, 4, 2ms) == 0);  // one shot
}

TEST_CASE("wait_readable, wait_writable: tell without taking") {
  auto p = stream_pair();
  CHECK(io::wait_writable(p.a) == 0);
  CHECK(io::wait_readable(p.a, 2ms) == -ETIMEDOUT);
  CHECK(io::write(p.b, "x", 1) == 1);
  CHECK(io::wait_readable(p.a, 1s) == 0);
  char c;
  CHECK(io::read(p.a, &c, 1) == 1);
  CHECK(io::wait_readable(-1) == -EBADF);
}

TEST_CASE("sleep_until: two sleeps overlap; the shorter ends first") {
  std::string order;
  auto slow = spawn([&] { io::sleep_until(30ms); order += "s"; });
  auto fast = spawn([&] { io::sleep_until(10ms); order += "f"; });
  const auto begun = ringlet::clock::now();
  ringlet::joinall({slow, fast});
  CHECK(order == "fs");
  CHECK(ringlet::clock::now() - begun >= 30ms);
}

TEST_CASE("files: read, write, pread, pwrite, fsync, openat give the kernel's results") {
  support::temporary_directory where;
  const std::string path = where.path() / "f";
  owned f(io::openat(AT_FDCWD, path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  REQUIRE(int(f) >= 0);
  const std::string data(300'000, 'q');
  CHECK(io::write(f, data.data(), data.size()) == ssize_t(data.size()));
  CHECK(io::fsync(f) == 0);
  CHECK(io::pwrite(f, "MARK", 4, 1000) == 4);
  char buffer[8] = {};
  CHECK(io::pread(f, buffer, 4, 1000) == 4);
  CHECK(std::string(buffer) == "MARK");
  CHECK(io::pread(f, buffer, 8, off_t(data.size()) - 3) == 3);
  CHECK(io::pread(f, buffer, 8, off_t(data.size())) == 0);
  CHECK(lseek(f, 0, SEEK_SET) == 0);
  // Out of the page cache, so that reading touches the disk.
  posix_fadvise(f, 0, 0, POSIX_FADV_DONTNEED);
  std::string back;
  char big[70'000];
  ssize_t n;
  while ((n = io::read(f, big, sizeof big)) > 0) back.append(big, std::size_t(n));
  CHECK(n == 0);
  std::string expected = data;
  expected.replace(1000, 4, "MARK");
  CHECK(back == expected);
  CHECK(io::openat(AT_FDCWD, "/no/such/file", O_RDONLY, 0) == -ENOENT);
  CHECK(io::read(f, big, 0) == 0);
  CHECK(io::pread(f, big, 1, -1) == -EINVAL);
  CHECK(io::fsync(-1) == -EBADF);
}

TEST_CASE("getaddrinfo: libc's answers, with others running meanwhile; errors too") {
  if (!support::localhost_resolves()) RINGLET_SKIP("this system does not know the name localhost (no /etc/hosts?)");
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo *ours = nullptr, *libcs = nullptr;
  std::vector<ringlet::fiber<int>> askers;
  std::vector<addrinfo*> answers(10, nullptr);
  for (int i = 0; i < 10; ++i)
    askers.push_back(spawn([&, i] { return io::getaddrinfo("localhost", "80", &hints, &answers[std::size_t(i)]); }));
  REQUIRE(::getaddrinfo("localhost", "80", &hints, &libcs) == 0);
  const auto addresses = [](const addrinfo* list) {
    std::vector<std::string> all;
    for (; list; list = list->ai_next)
      all.emplace_back(reinterpret_cast<const char*>(list->ai_addr), list->ai_addrlen);
    return all;
  };
  for (std::size_t i = 0; i < 10; ++i) {
    CHECK(askers[i].get(30s) == 0);
    CHECK(addresses(answers[i]) == addresses(libcs));
    ::freeaddrinfo(answers[i]);
  }
  ::freeaddrinfo(libcs);
  CHECK(io::getaddrinfo("127.0.0.1", "1", &hints, &ours) == 0);
  ::freeaddrinfo(ours);
  CHECK(io::getaddrinfo("no-such-name.invalid", nullptr, &hints, &ours, 30s) != 0);
}
