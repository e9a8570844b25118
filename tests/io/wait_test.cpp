// Readiness: nothing that the kernel has is slept through, nobody is woken for another's file, and a call that must not
// wait for a peer does not.

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <ringlet/ringlet.hpp>

#include "io/io_support.hpp"
#include "support/fd_message.hpp"

using namespace io_test;
using ringlet::spawn;

namespace {
// The poll of p.a for reading is in the kernel, and nothing is there.
void arm_for_reading(int fd) {
  char c;
  REQUIRE(io::recv(fd, &c, 1, 0, 1ms) == -ETIMEDOUT);
}

ends tcp_pair() {
  auto listener = support::listen_on_free_port();
  support::fd client = support::connect_to_port(listener.port);
  return {owned(std::move(client)), owned(::accept(listener.socket, nullptr, nullptr))};
}

void send_with_descriptor(int to, const char* text) {
  support::fd_message message(text, std::strlen(text));
  message.put(0);
  REQUIRE(::sendmsg(to, &message.header, 0) == ssize_t(message.part.iov_len));
}

std::atomic<int> pipe_signals{0};
struct count_pipe_signals {
  struct sigaction before;
  count_pipe_signals() {
    pipe_signals = 0;
    struct sigaction count {};
    count.sa_handler = [](int) { ++pipe_signals; };
    count.sa_flags = SA_RESTART;
    sigaction(SIGPIPE, &count, &before);
  }
  ~count_pipe_signals() { sigaction(SIGPIPE, &before, nullptr); }
};
}  // namespace

TEST_CASE("recvmsg: a buffer smaller than what has come does not make the next one sleep") {
  for (bool tcp : {false, true}) {
    CAPTURE(tcp);
    auto p = tcp ? tcp_pair() : stream_pair();
    char buffer[4];
    iovec part{buffer, sizeof buffer};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    auto reader = spawn([&] {
      ssize_t sum = 0;
      for (int i = 0; i < 3; ++i) {
        const auto got = io::recvmsg(p.a, &message, 0, 2s);
        if (got < 0) return got;
        sum += got;
      }
      return sum;
    });
    REQUIRE(parked_on_fds(1));
    CHECK(::send(p.b, "123456789012", 12, 0) == 12);
    CHECK(reader.get() == 12);
  }
}

TEST_CASE("unix streams: bytes behind a passed descriptor are not slept through") {
  for (int kind = 0; kind < 4; ++kind) {
    CAPTURE(kind);
    auto p = stream_pair();
    char buffer[64], control[256];
    iovec part{buffer, sizeof buffer};
    const auto receive = [&]() -> ssize_t {
      msghdr message{};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      if (kind == 1) message.msg_control = control, message.msg_controllen = sizeof control;
      if (kind == 0) return io::recv(p.a, buffer, sizeof buffer, 0, 2s);
      if (kind == 2) return io::read(p.a, buffer, sizeof buffer, 2s);
      if (kind == 3) return io::readv(p.a, &part, 1, 2s);
      const auto got = io::recvmsg(p.a, &message, 0, 2s);
      if (cmsghdr* c = CMSG_FIRSTHDR(&message); got > 0 && c && c->cmsg_type == SCM_RIGHTS) {
        int passed;
        std::memcpy(&passed, CMSG_DATA(c), sizeof passed);
        ::close(passed);
      }
      return got;
    };
    auto reader = spawn([&] {
      std::vector<ssize_t> all;
      for (int i = 0; i < 3; ++i) all.push_back(receive());
      return all;
    });
    REQUIRE(parked_on_fds(1));
    send_with_descriptor(p.b, "one");
    send_with_descriptor(p.b, "and");
    CHECK(::send(p.b, "two", 3, 0) == 3);
    CHECK(reader.get() == std::vector<ssize_t>{3, 3, 3});
  }
}

TEST_CASE("pipes of packets: a packet behind a short one is not slept through") {
  int fds[2];
  REQUIRE(::pipe2(fds, O_DIRECT) == 0);
  owned in(fds[0]), out(fds[1]);
  auto reader = spawn([&] {
    char buffer[64];
    std::vector<ssize_t> all;
    for (int i = 0; i < 3; ++i) all.push_back(io::read(in, buffer, sizeof buffer, 2s));
    return all;
  });
  REQUIRE(parked_on_fds(1));
  for (const char* packet : {"a", "bb", "ccc"}) REQUIRE(::write(out, packet, std::strlen(packet)) == ssize_t(std::strlen(packet)));
  CHECK(reader.get() == std::vector<ssize_t>{1, 2, 3});
}

TEST_CASE("O_NONBLOCK: EAGAIN only if it is true at this moment, whatever readiness was seen before") {
  auto p = tcp_pair();
  char buffer[64];
  auto waits = spawn([&] { return io::recv(p.a, buffer, sizeof buffer, 0, 2s); });
  REQUIRE(parked_on_fds(1));
  CHECK(::send(p.b, "first", 5, 0) == 5);
  CHECK(waits.get() == 5);
  REQUIRE(fcntl(p.a, F_SETFL, O_NONBLOCK) == 0);
  // No turn of the hub between these: only the kernel knows.
  CHECK(::send(p.b, "second", 6, 0) == 6);
  REQUIRE(is_readable(p.a, 1000));
  CHECK(io::recv(p.a, buffer, sizeof buffer, 0) == 6);
  CHECK(io::recv(p.a, buffer, sizeof buffer, 0) == -EAGAIN);
  CHECK(::send(p.b, "third", 5, 0) == 5);
  REQUIRE(is_readable(p.a, 1000));
  CHECK(io::read(p.a, buffer, sizeof buffer) == 5);
}

TEST_CASE("a deadline that has passed: what is there is still taken, whatever readiness was seen before") {
  auto p = tcp_pair();
  char buffer[64];
  arm_for_reading(p.a);
  CHECK(::send(p.b, "late", 4, 0) == 4);
  REQUIRE(is_readable(p.a, 1000));
  CHECK(io::recv(p.a, buffer, sizeof buffer, 0, ringlet::deadline::passed()) == 4);
  CHECK(io::recv(p.a, buffer, sizeof buffer, 0, ringlet::deadline::passed()) == -ETIMEDOUT);
}

TEST_CASE("a waiter that was woken, and whose number means another file before it runs, gets -EBADF and none of its bytes") {
  for (bool message : {false, true}) {
    CAPTURE(message);
    auto p = stream_pair();
    auto q = stream_pair();
    char buffer[64];
    ssize_t got = 0, got_second = 0;
    bool exchanged = false;
    // Both are woken in one turn; the first to run replaces the file of the second.
    auto closer = spawn([&] {
      char c;
      got = io::recv(q.a, &c, 1, 0, 2s);
      CHECK(::send(q.b, "not for you", 11, 0) == 11);
      exchanged = io::dup2(q.a, p.a) == int(p.a);
    });
    auto reader = spawn([&] { got_second = message ? io::recv(p.a, buffer, sizeof buffer, 0, 2s) : io::read(p.a, buffer, sizeof buffer, 2s); });
    REQUIRE(parked_on_fds(2));
    CHECK(::send(q.b, "1", 1, 0) == 1);
    CHECK(::send(p.b, "2", 1, 0) == 1);
    ringlet::joinall({closer, reader});
    CHECK(got == 1);
    CHECK(exchanged);
    // Had the reader run first, it would have its own byte.
    CHECK((got_second == -EBADF || got_second == 1));
    CHECK(io::recv(q.a, buffer, sizeof buffer, 0, 1s) == 11);
  }
}

TEST_CASE("unix datagrams: sending to a named receiver that is full waits for room, and then goes on") {
  support::temporary_directory where;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, (where.path() / "d").c_str());
  owned receiver(::socket(AF_UNIX, SOCK_DGRAM, 0)), sender(::socket(AF_UNIX, SOCK_DGRAM, 0));
  REQUIRE(::bind(receiver, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  constexpr int messages = 40;
  for (bool connected : {false, true}) {
    CAPTURE(connected);
    if (connected) REQUIRE(io::connect(sender, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    auto writer = spawn([&] {
      for (int i = 0; i < messages; ++i) {
        const auto sent = connected ? io::send(sender, &i, sizeof i, 0, 5s)
                                    : io::sendto(sender, &i, sizeof i, 0, reinterpret_cast<sockaddr*>(&address), sizeof address, 5s);
        if (sent != sizeof i) return i;
      }
      return messages;
    });
    ringlet::sleep(5ms);
    CHECK(!writer.ready());
    for (int i = 0; i < messages; ++i) {
      int value = -1;
      REQUIRE(io::recv(receiver, &value, sizeof value, 0, 5s) == sizeof value);
      CHECK(value == i);
    }
    CHECK(writer.get() == messages);
    // And it does not wait for ever.
    for (int i = 0; i < messages; ++i)
      if (::send(sender, &i, sizeof i, MSG_DONTWAIT) < 0) break;
    if (!connected)
      while (::sendto(sender, "x", 1, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&address), sizeof address) == 1) {
      }
    CHECK(io::sendto(sender, "x", 1, 0, connected ? nullptr : reinterpret_cast<sockaddr*>(&address), connected ? 0 : sizeof address, 10ms) == -ETIMEDOUT);
    int value;
    while (::recv(receiver, &value, sizeof value, MSG_DONTWAIT) > 0) {
    }
  }
}

TEST_CASE("MSG_WAITALL: SO_RCVTIMEO bounds the whole call, not each piece") {
  auto p = tcp_pair();
  timeval limit{0, 60'000};
  REQUIRE(setsockopt(p.a, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
  char buffer[100];
  bool stop = false;
  auto drips = spawn([&] {
    for (int i = 0; i < 100 && !stop; ++i) {
      if (::send(p.b, "x", 1, 0) != 1) return;
      ringlet::sleep(20ms);
    }
  });
  const auto begun = ringlet::clock::now();
  const auto got = io::recv(p.a, buffer, sizeof buffer, MSG_WAITALL);
  CHECK(got > 0);
  CHECK(got < 50);
  CHECK(ringlet::clock::now() - begun < 1s);
  stop = true;
  drips.join();
}

TEST_CASE("MSG_WAITALL: a reset after some bytes gives the bytes now and the reset next, as the kernel does") {
  auto p = tcp_pair();
  char buffer[100];
  auto reader = spawn([&] { return io::recv(p.a, buffer, sizeof buffer, MSG_WAITALL, 5s); });
  REQUIRE(parked_on_fds(1));
  CHECK(::send(p.b, "some", 4, 0) == 4);
  REQUIRE(turn_until([&] { return !is_readable(p.a); }));
  REQUIRE(parked_on_fds(1));
  linger at_once{1, 0};
  REQUIRE(setsockopt(p.b, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
  p.b.close();
  CHECK(reader.get() == 4);
  CHECK(io::recv(p.a, buffer, sizeof buffer, 0, 1s) == -ECONNRESET);
}

TEST_CASE("SIGPIPE: a write cut short by the peer's end returns its count and raises nothing; the next one raises") {
  for (int kind = 0; kind < 4; ++kind) {
    CAPTURE(kind);
    auto p = kind < 2 ? stream_pair() : tcp_pair();
    const std::string data(16 << 20, 'x');
    auto writer = spawn([&] { return kind % 2 ? io::write(p.a, data.data(), data.size(), 5s) : io::send(p.a, data.data(), data.size(), 0, 5s); });
    REQUIRE(parked_on_fds(1));
    count_pipe_signals counting;
    p.b.close();
    const auto written = writer.get();
    CHECK(written > 0);
    CHECK(written < ssize_t(data.size()));
    CHECK(pipe_signals == 0);
    auto next = io::send(p.a, "x", 1, 0);
    if (next == -ECONNRESET) next = io::send(p.a, "x", 1, 0);
    CHECK(next == -EPIPE);
    CHECK(pipe_signals == 1);
    CHECK(io::send(p.a, "x", 1, MSG_NOSIGNAL) == -EPIPE);
    CHECK(pipe_signals == 1);
    CHECK(io::write(p.a, "x", 1) == -EPIPE);
    CHECK(pipe_signals == 2);
  }
}

TEST_CASE("MSG_OOB: receiving never waits, and the bytes around the mark are not slept through") {
  auto p = tcp_pair();
  char buffer[64];
  pollfd urgent{p.a, POLLPRI, 0};
  CHECK(io::recv(p.a, buffer, 1, MSG_OOB, 2s) == -EINVAL);
  auto reader = spawn([&] {
    std::string all;
    while (all.size() < 6) {
      const ringlet::deadline long_from_now = 20s;
      const auto got = io::recv(p.a, buffer, sizeof buffer, 0, long_from_now);
      if (got <= 0 || long_from_now.has_passed()) return all.append("?");
      all.append(buffer, std::size_t(got));
    }
    return all;
  });
  REQUIRE(parked_on_fds(1));
  CHECK(io::send(p.b, "abc", 3, 0) == 3);
  CHECK(io::send(p.b, "!", 1, MSG_OOB) == 1);
  CHECK(io::send(p.b, "def", 3, 0) == 3);
  CHECK(reader.get() == "abcdef");
  CHECK(io::send(p.b, "?", 1, MSG_OOB) == 1);
  CHECK(io::poll(&urgent, 1, 2s) == 1);
  CHECK(urgent.revents == POLLPRI);
  CHECK(io::recv(p.a, buffer, 1, MSG_OOB) == 1);
  CHECK(buffer[0] == '?');
  // All that is asked for ends at the mark, looked at or taken.
  CHECK(io::send(p.b, "ab#", 3, MSG_OOB) == 3);
  REQUIRE(io::poll(&urgent, 1, 2s) == 1);
  CHECK(io::recv(p.a, buffer, 8, MSG_WAITALL | MSG_PEEK, 2s) == 2);
  CHECK(io::recv(p.a, buffer, 8, MSG_WAITALL, 2s) == 2);
}

TEST_CASE("MSG_PEEK with MSG_WAITALL: looks until all is there, and takes nothing") {
  auto p = tcp_pair();
  char buffer[8] = {};
  auto peeker = spawn([&] { return io::recv(p.a, buffer, 6, MSG_WAITALL | MSG_PEEK, 2s); });
  CHECK(io::send(p.b, "123", 3, 0) == 3);
  ringlet::sleep(1ms);
  CHECK(!peeker.ready());
  CHECK(io::send(p.b, "456", 3, 0) == 3);
  CHECK(peeker.get() == 6);
  CHECK(io::recv(p.a, buffer, 8, MSG_WAITALL | MSG_PEEK, 5ms) == 6);
  p.b.close();
  CHECK(io::recv(p.a, buffer, 8, MSG_WAITALL | MSG_PEEK, 2s) == 6);
  CHECK(io::recv(p.a, buffer, 8, 0) == 6);
}

TEST_CASE("a loop that asks without waiting does not keep away who would answer") {
  for (bool flag : {false, true}) {
    CAPTURE(flag);
    auto p = stream_pair();
    if (!flag) REQUIRE(fcntl(p.a, F_SETFL, O_NONBLOCK) == 0);
    auto writer = spawn([&] { return io::write(p.b, "x", 1); });
    char c;
    ssize_t got = -EAGAIN;
    for (int i = 0; i < 100000 && got == -EAGAIN; ++i) got = flag ? io::recv(p.a, &c, 1, MSG_DONTWAIT) : io::read(p.a, &c, 1);
    CHECK(got == 1);
    CHECK(writer.get() == 1);
  }
}

TEST_CASE("terminals: a write larger than the terminal takes parks the fiber, not the thread") {
  int m, s;
  REQUIRE(::openpty(&m, &s, nullptr, nullptr, nullptr) == 0);
  owned master(m), slave(s);
  const std::string data(200'000, 'x');
  auto writer = spawn([&] { return io::write(slave, data.data(), data.size(), 20s); });
  std::size_t got = 0;
  char buffer[4096];
  while (got < data.size()) {
    const auto n = io::read(master, buffer, sizeof buffer, 10s);
    REQUIRE(n > 0);
    got += std::size_t(n);
  }
  CHECK(writer.get() == ssize_t(data.size()));
}

TEST_CASE("facts of a number that never waited: none is kept when the number means another file") {
  support::temporary_directory where;
  const std::string path = where.path() / "f";
  int number = ::open(path.c_str(), O_RDWR | O_CREAT, 0600);
  REQUIRE(number >= 0);
  CHECK(io::write(number, "regular", 7) == 7);
  ::close(number);  // it has not waited: this is allowed
  auto p = stream_pair();
  if (int(p.a) != number) {
    REQUIRE(::dup2(p.a, number) == number);
  } else {
    number = ::dup(p.a);
  }
  owned copy(number);
  const std::string data(8 << 20, 'x');
  auto writer = spawn([&] { return io::write(copy, data.data(), data.size(), 20s); });
  std::size_t got = 0;
  std::string buffer(1 << 16, 0);
  while (got < data.size()) {
    const auto n = io::read(p.b, buffer.data(), buffer.size(), 10s);
    REQUIRE(n > 0);
    got += std::size_t(n);
  }
  CHECK(writer.get() == ssize_t(data.size()));
}

TEST_CASE("a hundred fibers that poll one fd are all told; readers among them get each byte once") {
  auto p = stream_pair();
  std::vector<ringlet::fiber<int>> watchers;
  for (int i = 0; i < 100; ++i) watchers.push_back(spawn([&] { return io::wait_readable(p.a, 5s); }));
  REQUIRE(parked_on_fds(100));
  CHECK(::send(p.b, "x", 1, 0) == 1);
  for (auto& w : watchers) CHECK(w.get() == 0);
  char c;
  CHECK(io::recv(p.a, &c, 1, 0) == 1);
  std::vector<ringlet::fiber<ssize_t>> readers;
  for (int i = 0; i < 20; ++i) readers.push_back(spawn([&] { char d; return io::recv(p.a, &d, 1, 0, 5s); }));
  REQUIRE(parked_on_fds(20));
  readers[0].kill(ringlet::deadline::passed());
  CHECK(::send(p.b, "1234567890123456789", 19, 0) == 19);
  readers[1].kill(ringlet::deadline::passed());
  int received = 0;
  for (auto& r : readers) received += r.get() == 1;
  CHECK(received == 18);
  CHECK(io::recv(p.a, &c, 1, 0, 1s) == 1);
}

TEST_CASE("a killed or late reader passes on the readiness it was woken for") {
  auto p = tcp_pair();
  for (int round = 0; round < 20; ++round) {
    char c;
    auto first = spawn([&] { char d; return io::recv(p.a, &d, 1, 0, 5s); });
    auto second = spawn([&] { return io::recv(p.a, &c, 1, 0, 5s); });
    REQUIRE(parked_on_fds(2));
    CHECK(::send(p.b, "ab", 2, 0) == 2);
    if (round % 2) ringlet::yield();
    first.kill(ringlet::deadline::passed());
    const auto got = second.get();
    REQUIRE(got == 1);
    const auto of_killed = first.get();
    REQUIRE((of_killed == 1 || of_killed == -ECANCELED));
    if (of_killed != 1) REQUIRE(io::recv(p.a, &c, 1, 0, 1s) == 1);
  }
}

TEST_CASE("ten thousand fds in one poll: the one that stirs is found") {
  const int count = support::is_instrumented() ? 300 : 10'000;
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, std::max<rlim_t>(limit.rlim_cur, rlim_t(count) + 1000));
  setrlimit(RLIMIT_NOFILE, &limit);
  std::vector<owned> all;
  for (int i = 0; i < count; ++i) {
    const int fd = ::eventfd(0, 0);
    if (fd < 0) RINGLET_SKIP("not so many fds are allowed here");
    all.emplace_back(fd);
  }
  std::vector<pollfd> fds;
  for (auto& fd : all) fds.push_back({fd, POLLIN, 0});
  auto poller = spawn([&] { return io::poll(fds.data(), fds.size(), 20s); });
  ringlet::sleep(1ms);
  CHECK(!poller.ready());
  const std::uint64_t one = 1;
  CHECK(::write(all[std::size_t(count) / 2], &one, sizeof one) == sizeof one);
  CHECK(poller.get() == 1);
  CHECK(fds[std::size_t(count) / 2].revents == POLLIN);
}

TEST_CASE("several fibers in epoll_wait on one fd: each event is one fiber's, and none is forgotten") {
  owned set(::epoll_create1(EPOLL_CLOEXEC));
  std::vector<ends> all;
  constexpr int count = 16;
  for (int i = 0; i < count; ++i) {
    all.push_back(stream_pair());
    epoll_event e{EPOLLIN | EPOLLET, {}};
    e.data.u32 = unsigned(i);
    REQUIRE(::epoll_ctl(set, EPOLL_CTL_ADD, all.back().a, &e) == 0);
  }
  std::vector<int> seen(count, 0);
  std::vector<ringlet::fiber<>> fibers;
  for (int i = 0; i < count; ++i)
    fibers.push_back(spawn([&] {
      epoll_event e{};
      if (io::epoll_wait(set, &e, 1, 5s) == 1) ++seen.at(e.data.u32);
    }));
  REQUIRE(parked_on_fds(count));
  for (auto& p : all) CHECK(::send(p.b, "x", 1, 0) == 1);
  ringlet::joinall(fibers);
  CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
}
