// The calls on sockets and pipes through the direct API, on whatever engine RINGLET_ENGINE names.

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <atomic>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <ringlet/ringlet.hpp>

#include "io/io_support.hpp"
#include "support/thread_state.hpp"

using namespace io_test;
using ringlet::spawn;

namespace {
void set_timeout(int fd, int option, int milliseconds) {
  timeval t{milliseconds / 1000, (milliseconds % 1000) * 1000};
  REQUIRE(setsockopt(fd, SOL_SOCKET, option, &t, sizeof t) == 0);
}
std::string pattern(std::size_t size, unsigned seed) {
  std::string s(size, 0);
  std::mt19937 random(seed);
  for (auto& c : s) c = char(random());
  return s;
}
sockaddr_in loopback(unsigned short port) {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  a.sin_port = htons(port);
  return a;
}
}  // namespace

TEST_CASE("read: parks the fiber while others run, and gets what is written then") {
  for (bool pipe : {false, true}) {
    CAPTURE(pipe);
    auto p = pipe ? pipe_pair() : stream_pair();
    std::string order;
    char buffer[16] = {};
    auto reader = spawn([&] {
      order += "r";
      auto got = io::read(p.a, buffer, sizeof buffer);
      order += "R";
      return got;
    });
    auto writer = spawn([&] {
      order += "w";
      return io::write(p.b, "hello", 5);
    });
    CHECK(reader.get() == 5);
    CHECK(writer.get() == 5);
    CHECK(order == "rwR");
    CHECK(std::string(buffer) == "hello");
  }
}

TEST_CASE("recv: a deadline that passes first gives -ETIMEDOUT, and takes nothing") {
  auto p = stream_pair();
  char buffer[8];
  const auto begun = ringlet::clock::now();
  CHECK(io::recv(p.a, buffer, sizeof buffer, 0, 20ms) == -ETIMEDOUT);
  CHECK(ringlet::clock::now() - begun >= 20ms);
  CHECK(io::send(p.b, "abc", 3, 0) == 3);
  CHECK(io::recv(p.a, buffer, sizeof buffer, 0, 20ms) == 3);
  CHECK(io::recv(p.a, buffer, sizeof buffer, 0, ringlet::deadline::passed()) == -ETIMEDOUT);
}

TEST_CASE("recv: data that arrived in time wins over its deadline") {
  auto p = stream_pair();
  char buffer[8];
  auto reader = spawn([&] { return io::recv(p.a, buffer, sizeof buffer, 0, 10ms); });
  REQUIRE(parked_on_fds(1));
  // The byte is there before the deadline; the thread is kept busy until after it.
  CHECK(::send(p.b, "x", 1, 0) == 1);
  const auto busy_until = ringlet::clock::now() + 15ms;
  while (ringlet::clock::now() < busy_until) {
  }
  CHECK(reader.get() == 1);
}

TEST_CASE("recv: SO_RCVTIMEO gives -EAGAIN, set before the first call or later") {
  auto p = stream_pair();
  char buffer[8];
  set_timeout(p.a, SO_RCVTIMEO, 20);
  const auto begun = ringlet::clock::now();
  CHECK(io::recv(p.a, buffer, sizeof buffer, 0) == -EAGAIN);
  CHECK(io::read(p.a, buffer, sizeof buffer) == -EAGAIN);
  CHECK(ringlet::clock::now() - begun >= 40ms);
  set_timeout(p.a, SO_RCVTIMEO, 10);
  CHECK(io::recv(p.a, buffer, sizeof buffer, 0, 5s) == -EAGAIN);
  set_timeout(p.a, SO_RCVTIMEO, 60'000);
  CHECK(io::recv(p.a, buffer, sizeof buffer, 0, 5ms) == -ETIMEDOUT);
}

TEST_CASE("send: SO_SNDTIMEO ends a blocking write with what has gone, then with -EAGAIN") {
  auto p = stream_pair();
  set_timeout(p.a, SO_SNDTIMEO, 20);
  const std::string data(8 << 20, 'x');
  const auto first = io::send(p.a, data.data(), data.size(), 0);
  CHECK(first > 0);
  CHECK(std::size_t(first) < data.size());
  CHECK(io::send(p.a, data.data(), data.size(), 0) == -EAGAIN);
}

TEST_CASE("O_NONBLOCK: is asked of the kernel at each wait, whoever set it and when") {
  auto p = stream_pair();
  char c;
  CHECK(io::read(p.a, &c, 1, 1ms) == -ETIMEDOUT);
  REQUIRE(fcntl(p.a, F_SETFL, O_NONBLOCK) == 0);
  CHECK(io::read(p.a, &c, 1) == -EAGAIN);
  CHECK(io::recv(p.a, &c, 1, 0) == -EAGAIN);
  owned copy(dup(p.a));
  REQUIRE(fcntl(copy, F_SETFL, 0) == 0);  // the description is shared
  CHECK(io::read(p.a, &c, 1, 1ms) == -ETIMEDOUT);
  CHECK((fcntl(p.a, F_GETFL) & O_NONBLOCK) == 0);
}

TEST_CASE("O_NONBLOCK: a call on it gets what is there, though the hub has not read the news yet") {
  auto p = stream_pair();
  char buffer[8];
  CHECK(io::read(p.a, buffer, sizeof buffer, 1ms) == -ETIMEDOUT);  // armed, and known to be empty
  REQUIRE(fcntl(p.a, F_SETFL, O_NONBLOCK) == 0);
  for (int round = 0; round < 3; ++round) {
    REQUIRE(::send(p.b, "x", 1, 0) == 1);
    CHECK(io::recv(p.a, buffer, sizeof buffer, 0) == 1);  // a short read
    REQUIRE(::send(p.b, "y", 1, 0) == 1);
    CHECK(io::read(p.a, buffer, sizeof buffer) == 1);
    CHECK(io::read(p.a, buffer, sizeof buffer) == -EAGAIN);
  }
  REQUIRE(fcntl(p.a, F_SETFL, 0) == 0);
  REQUIRE(::send(p.b, "z", 1, 0) == 1);
  CHECK(io::recv(p.a, buffer, sizeof buffer, 0, ringlet::deadline::passed()) == 1);
}

TEST_CASE("recv: MSG_DONTWAIT, MSG_PEEK and MSG_WAITALL mean what they mean to the kernel") {
  auto p = stream_pair();
  char buffer[16] = {};
  CHECK(io::recv(p.a, buffer, 4, MSG_DONTWAIT) == -EAGAIN);
  CHECK(io::send(p.b, "abcd", 4, 0) == 4);
  CHECK(io::recv(p.a, buffer, 16, MSG_PEEK) == 4);
  CHECK(io::recv(p.a, buffer, 16, MSG_PEEK) == 4);
  auto all = spawn([&] { return io::recv(p.a, buffer, 8, MSG_WAITALL); });
  ringlet::yield();
  CHECK(io::send(p.b, "ef", 2, 0) == 2);
  ringlet::yield();
  CHECK(!all.ready());
  CHECK(io::send(p.b, "ghi", 3, 0) == 3);
  CHECK(all.get() == 8);
  CHECK(std::string(buffer, 8) == "abcdefgh");
  CHECK(io::recv(p.a, buffer, 16, 0) == 1);
  auto cut = spawn([&] { return io::recv(p.a, buffer, 8, MSG_WAITALL); });
  CHECK(io::send(p.b, "xyz", 3, 0) == 3);
  p.b.close();
  CHECK(cut.get() == 3);
}

TEST_CASE("write: a blocking write goes on until all is written") {
  for (int kind = 0; kind < 4; ++kind) {
    CAPTURE(kind);
    auto p = kind == 0 ? pipe_pair() : stream_pair();
    if (kind == 0) std::swap(p.a, p.b);
    const std::string data = pattern(3 << 20, 7);
    auto writer = spawn([&]() -> ssize_t {
      if (kind < 2) return io::write(p.a, data.data(), data.size());
      if (kind == 2) return io::send(p.a, data.data(), data.size(), 0);
      iovec parts[3] = {{const_cast<char*>(data.data()), 1}, {const_cast<char*>(data.data()) + 1, 1 << 20},
                        {const_cast<char*>(data.data()) + 1 + (1 << 20), data.size() - 1 - (1 << 20)}};
      return io::writev(p.a, parts, 3);
    });
    std::string got;
    char buffer[65536];
    while (got.size() < data.size()) {
      const auto n = io::read(p.b, buffer, sizeof buffer, 10s);
      REQUIRE(n > 0);
      got.append(buffer, std::size_t(n));
    }
    CHECK(writer.get() == ssize_t(data.size()));
    CHECK(got == data);
  }
}

TEST_CASE("several readers and writers on one fd: every byte once") {
  auto p = stream_pair();
  constexpr int writers = 8, each = 500;
  std::vector<ringlet::fiber<>> all;
  std::vector<int> seen(writers * each, 0);
  int received = 0;
  for (int r = 0; r < 5; ++r)
    all.push_back(spawn([&] {
      while (true) {
        int value;
        const auto got = io::recv(p.a, &value, sizeof value, MSG_WAITALL);
        if (got != sizeof value) return;
        ++seen.at(std::size_t(value));
        ++received;
      }
    }));
  std::vector<ringlet::fiber<>> senders;
  for (int w = 0; w < writers; ++w)
    senders.push_back(spawn([&, w] {
      for (int i = 0; i < each; ++i) {
        const int value = w * each + i;
        REQUIRE(io::write(p.b, &value, sizeof value) == sizeof value);
        if (i % 7 == 0) ringlet::yield();
      }
    }));
  ringlet::joinall(senders);
  p.b.close();
  CHECK(ringlet::joinall(all, {.until = 10s}).size() == all.size());
  CHECK(received == writers * each);
  CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
}

TEST_CASE("close: who waits gets -EBADF, the peer its FIN at once, and the number means the new file") {
  auto p = stream_pair();
  char c;
  auto reader = spawn([&] { return io::read(p.a, &c, 1); });
  auto second = spawn([&] { return io::recv(p.a, &c, 1, 0); });
  REQUIRE(parked_on_fds(2));
  const int number = p.a;
  p.a.close();
  CHECK(::recv(p.b, &c, 1, MSG_DONTWAIT) == 0);
  CHECK(reader.get() == -EBADF);
  CHECK(second.get() == -EBADF);
  auto q = stream_pair();
  REQUIRE((int(q.a) == number || int(q.b) == number));
  CHECK(io::write(q.a, "n", 1) == 1);
  CHECK(io::read(q.b, &c, 1, 1s) == 1);
  CHECK(io::read(q.b, &c, 1, 1ms) == -ETIMEDOUT);
}

TEST_CASE("dup2: who waits on the overwritten number gets -EBADF") {
  auto p = stream_pair();
  auto q = stream_pair();
  char c;
  auto reader = spawn([&] { return io::read(p.a, &c, 1); });
  REQUIRE(parked_on_fds(1));
  CHECK(io::dup2(q.a, p.a) == int(p.a));
  CHECK(reader.get() == -EBADF);
  CHECK(io::write(q.b, "z", 1) == 1);
  CHECK(io::read(p.a, &c, 1, 1s) == 1);
  CHECK(io::dup2(p.a, p.a) == int(p.a));
  CHECK(io::dup2(-1, p.a) == -EBADF);
}

TEST_CASE("shutdown and end: a waiting reader gets 0; bytes before the end are not lost") {
  auto p = stream_pair();
  char buffer[64];
  auto reader = spawn([&] { return io::read(p.a, buffer, sizeof buffer); });
  REQUIRE(parked_on_fds(1));
  REQUIRE(::shutdown(p.a, SHUT_RD) == 0);
  CHECK(reader.get() == 0);
  auto q = stream_pair();
  CHECK(io::read(q.a, buffer, 1, 1ms) == -ETIMEDOUT);
  CHECK(::send(q.b, "last words", 10, 0) == 10);
  q.b.close();
  CHECK(io::read(q.a, buffer, sizeof buffer) == 10);
  CHECK(io::read(q.a, buffer, sizeof buffer, 1s) == 0);
  CHECK(io::read(q.a, buffer, sizeof buffer, 1s) == 0);
}

TEST_CASE("write: to a peer that is gone gives -EPIPE") {
  auto p = stream_pair();
  p.b.close();
  CHECK(io::send(p.a, "x", 1, MSG_NOSIGNAL) == -EPIPE);
}

TEST_CASE("connect and accept: park, connect, and tell errors as the kernel does") {
  auto listener = support::listen_on_free_port();
  owned socket(std::move(listener.socket));
  auto address = loopback(listener.port);
  sockaddr_in from{};
  socklen_t length = sizeof from;
  auto server = spawn([&] { return io::accept4(socket, reinterpret_cast<sockaddr*>(&from), &length, SOCK_CLOEXEC); });
  ringlet::yield();
  owned client(::socket(AF_INET, SOCK_STREAM, 0));
  CHECK(io::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  owned served(server.get());
  CHECK(int(served) >= 0);
  CHECK((fcntl(served, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK((fcntl(client, F_GETFL) & O_NONBLOCK) == 0);
  CHECK((fcntl(socket, F_GETFL) & O_NONBLOCK) == 0);
  CHECK(length == sizeof from);
  char c;
  CHECK(io::write(client, "!", 1) == 1);
  CHECK(io::read(served, &c, 1, 1s) == 1);
  CHECK(io::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == -EISCONN);
  CHECK(io::accept4(socket, nullptr, nullptr, 0, 5ms) == -ETIMEDOUT);
  set_timeout(socket, SO_RCVTIMEO, 5);
  CHECK(io::accept4(socket, nullptr, nullptr, 0) == -EAGAIN);
  CHECK(io::accept4(client, nullptr, nullptr, 0) == -EINVAL);
  socket.close();
  owned refused(::socket(AF_INET, SOCK_STREAM, 0));
  CHECK(io::connect(refused, reinterpret_cast<sockaddr*>(&address), sizeof address) == -ECONNREFUSED);
}

TEST_CASE("accept: under a close gives -EBADF, and leaves no operation behind that would steal a connection") {
  auto listener = support::listen_on_free_port();
  owned socket(std::move(listener.socket));
  auto waiting = spawn([&] { return io::accept4(socket, nullptr, nullptr, 0, 10s); });
  REQUIRE(parked_on_fds(1));
  waiting.kill();
  auto address = loopback(listener.port);
  owned client(::socket(AF_INET, SOCK_STREAM, 0));
  REQUIRE(::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  owned served(io::accept4(socket, nullptr, nullptr, 0, 5s));
  CHECK(int(served) >= 0);
  auto second = spawn([&] { return io::accept4(socket, nullptr, nullptr, 0, 10s); });
  REQUIRE(parked_on_fds(1));
  socket.close();
  CHECK(second.get() == -EBADF);
}

TEST_CASE("unix connect: a full backlog makes the connect wait until the listener accepts") {
  support::temporary_directory where;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, (where.path() / "s").c_str());
  owned socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  REQUIRE(::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(socket, 0) == 0);
  std::vector<ringlet::fiber<int>> clients;
  std::vector<owned> sockets;
  for (int i = 0; i < 6; ++i) sockets.emplace_back(::socket(AF_UNIX, SOCK_STREAM, 0));
  for (int i = 0; i < 6; ++i)
    clients.push_back(spawn([&, i] { return io::connect(sockets[std::size_t(i)], reinterpret_cast<sockaddr*>(&address), sizeof address, 10s); }));
  for (int i = 0; i < 6; ++i) {
    owned served(io::accept4(socket, nullptr, nullptr, 0, 10s));
    CHECK(int(served) >= 0);
  }
  for (auto& c : clients) CHECK(c.get() == 0);
}

TEST_CASE("kill: a call in the kernel's dialect gives -ECANCELED, each until a C++ call throws") {
  auto p = stream_pair();
  std::vector<ssize_t> results;
  bool thrown = false;
  auto victim = spawn([&] {
    char c;
    results.push_back(io::read(p.a, &c, 1));
    results.push_back(io::read(p.a, &c, 1));
    results.push_back(io::sleep_until(1s));
    try {
      ringlet::sleep(1s);
    } catch (const ringlet::greenlet_exit&) {
      thrown = true;
      throw;
    }
  });
  REQUIRE(parked_on_fds(1));
  CHECK(victim.kill(5s));
  CHECK(results == std::vector<ssize_t>{-ECANCELED, -ECANCELED, -ECANCELED});
  CHECK(thrown);
}

TEST_CASE("timeout scope: a call inside it gives -ECANCELED when the time is up") {
  auto p = stream_pair();
  char c;
  {
    ringlet::timeout limit(5ms);
    CHECK(io::read(p.a, &c, 1) == -ECANCELED);
    CHECK(limit.expired());
  }
  CHECK(io::read(p.a, &c, 1, 1ms) == -ETIMEDOUT);
}

TEST_CASE("datagrams: boundaries, truncation and source addresses are the kernel's") {
  auto pair = support::make_socketpair(SOCK_DGRAM);
  owned a(std::move(pair.first)), b(std::move(pair.second));
  char buffer[8];
  auto reader = spawn([&] { return io::recv(a, buffer, sizeof buffer, MSG_TRUNC); });
  REQUIRE(parked_on_fds(1));
  CHECK(io::send(b, "0123456789", 10, 0) == 10);
  CHECK(reader.get() == 10);
  CHECK(io::send(b, "", 0, 0) == 0);
  CHECK(io::recv(a, buffer, sizeof buffer, 0, 1s) == 0);
  msghdr message{};
  iovec part{buffer, sizeof buffer};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  CHECK(io::send(b, "abc", 3, 0) == 3);
  CHECK(io::recvmsg(a, &message, 0, 1s) == 3);
}

TEST_CASE("bad arguments: the kernel's errors, never a crash") {
  char c;
  CHECK(io::read(-1, &c, 1) == -EBADF);
  CHECK(io::read(987654, &c, 1) == -EBADF);
  CHECK(io::write(-1, &c, 1) == -EBADF);
  CHECK(io::recv(-1, &c, 1, 0) == -EBADF);
  CHECK(io::close(-1) == -EBADF);
  CHECK(io::accept4(-1, nullptr, nullptr, 0) == -EBADF);
  CHECK(io::connect(-1, nullptr, 0) == -EBADF);
  auto p = stream_pair();
  CHECK(io::write(p.b, "x", 1) == 1);
  CHECK(io::read(p.a, reinterpret_cast<void*>(8), 1) == -EFAULT);
  CHECK(io::write(p.a, reinterpret_cast<void*>(8), 1) == -EFAULT);
  CHECK(io::readv(p.a, nullptr, 1) == -EFAULT);
  CHECK(io::readv(p.a, nullptr, -1) == -EINVAL);
  CHECK(io::read(p.a, &c, 0) == 0);
  CHECK(io::write(p.a, &c, 0) == 0);
  CHECK(io::connect(p.a, nullptr, 0) != 0);
}

TEST_CASE("write: a full eventfd parks the fiber also where the kernel lets nobody look at memory (seccomp)") {
  owned event(eventfd(0, EFD_CLOEXEC));
  for (const int denied : {EPERM, ENOSYS}) {
    std::thread([&] {
      sock_filter rules[] = {
          BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | unsigned(denied)),
          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      };
      const sock_fprog program{std::size(rules), rules};
      CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
      CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
      std::uint64_t got = 0;
      for (const auto& [there, more] :
           {std::pair<std::uint64_t, std::uint64_t>{UINT64_MAX - 1, 1}, {UINT64_MAX - 3, 5}}) {
        CHECK(io::write(event, &there, sizeof there) == sizeof there);
        CHECK(io::write(event, &there, 4) == -EINVAL);
        CHECK(io::write(event, reinterpret_cast<void*>(8), 8) == -EFAULT);
        auto writer = spawn([&, n = more] { return io::write(event, &n, sizeof n); });
        ringlet::sleep(2ms);
        CHECK(!writer.ready());
        CHECK(io::read(event, &got, sizeof got) == sizeof got);
        CHECK(got == there);
        CHECK(writer.get() == sizeof more);
        CHECK(io::read(event, &got, sizeof got) == sizeof got);
        CHECK(got == more);
        CHECK(io::write(event, reinterpret_cast<void*>(8), 8) == -EFAULT);
      }
    }).join();
  }
}

TEST_CASE("write: an eventfd that another thread fills again at the same moment parks the fiber, never the thread") {
  owned event(eventfd(0, EFD_CLOEXEC));
  const std::uint64_t all = UINT64_MAX - 1, one = 1;
  for (int round = 0; round < 1000; ++round) {
    CHECK(io::write(event, &all, sizeof all) == sizeof all);
    std::atomic<int> number{0};
    std::thread other([&] {
      number = gettid();
      CHECK(::write(event, &all, sizeof all) == sizeof all);
    });
    auto writer = spawn([&] { return io::write(event, &one, sizeof one); });
    REQUIRE(parked_on_fds(1));
    const auto asleep = [&] { return number != 0 && support::state_of(number) == 'S'; };
    for (int looks = 0; looks < 10'000 && !asleep(); ++looks) ringlet::sleep(500us);
    REQUIRE(asleep());
    // Makes room for both: who comes first leaves the other none, or a little.
    std::uint64_t got = 0, sum = 0;
    while (sum != all + all + one && io::read(event, &got, sizeof got, 5s) == sizeof got) sum += got;
    CHECK(sum == all + all + one);
    CHECK(writer.get() == sizeof one);
    other.join();
  }
}

TEST_CASE("eventfd, timerfd: reads park, too") {
  owned event(eventfd(0, 0));
  std::uint64_t value = 0;
  auto reader = spawn([&] { return io::read(event, &value, sizeof value); });
  ringlet::yield();
  const std::uint64_t three = 3;
  CHECK(io::write(event, &three, sizeof three) == sizeof three);
  CHECK(reader.get() == sizeof value);
  CHECK(value == 3);
  CHECK(io::read(event, &value, sizeof value, 2ms) == -ETIMEDOUT);
  owned timer(timerfd_create(CLOCK_MONOTONIC, 0));
  itimerspec soon{{0, 0}, {0, 5'000'000}};
  REQUIRE(timerfd_settime(timer, 0, &soon, nullptr) == 0);
  CHECK(io::read(timer, &value, sizeof value, 5s) == sizeof value);
  CHECK(value == 1);
}

TEST_CASE("a terminal: reads park until a line is there") {
  owned master(posix_openpt(O_RDWR | O_NOCTTY));
  REQUIRE(int(master) >= 0);
  REQUIRE(grantpt(master) == 0);
  REQUIRE(unlockpt(master) == 0);
  owned slave(::open(ptsname(master), O_RDWR | O_NOCTTY));
  REQUIRE(int(slave) >= 0);
  char buffer[32];
  auto reader = spawn([&] { return io::read(slave, buffer, sizeof buffer, 10s); });
  ringlet::yield();
  CHECK(io::write(master, "line\n", 5) == 5);
  CHECK(reader.get() == 5);
}

TEST_CASE("fairness: a fiber whose calls all succeed at once starves nobody") {
  auto p = stream_pair();
  bool stop = false;
  std::size_t rounds = 0;
  auto busy = spawn([&] {
    char c;
    while (!stop && rounds < 10'000'000) {
      if (io::write(p.b, "x", 1) != 1 || io::read(p.a, &c, 1) != 1) break;
      ++rounds;
    }
  });
  ringlet::sleep(5ms);
  stop = true;
  CHECK(busy.join(5s));
  CHECK(rounds > 0);
  CHECK(rounds < 10'000'000);
}

TEST_CASE("many: a thousand pairs exchange seeded bytes, nothing lost") {
  const int pairs = support::is_instrumented() ? 100 : 1000;
  std::vector<ends> all;
  for (int i = 0; i < pairs; ++i) all.push_back(stream_pair());
  std::vector<ringlet::fiber<bool>> fibers;
  for (int i = 0; i < pairs; ++i) {
    fibers.push_back(spawn([&, i] {
      const std::string data = pattern(4096, unsigned(i));
      for (std::size_t at = 0; at < data.size(); at += 512)
        if (io::write(all[std::size_t(i)].a, data.data() + at, 512) != 512) return false;
      char end;
      return io::read(all[std::size_t(i)].a, &end, 1) == 1 && end == '.';
    }));
    fibers.push_back(spawn([&, i] {
      const std::string data = pattern(4096, unsigned(i));
      std::string got;
      char buffer[700];
      while (got.size() < data.size()) {
        const auto n = io::read(all[std::size_t(i)].b, buffer, sizeof buffer);
        if (n <= 0) return false;
        got.append(buffer, std::size_t(n));
      }
      return got == data && io::write(all[std::size_t(i)].b, ".", 1) == 1;
    }));
  }
  for (auto& f : fibers) REQUIRE(f.get(60s));
}

TEST_CASE("close from another thread: the waiter of this hub gets -EBADF") {
  auto p = stream_pair();
  char c;
  auto reader = spawn([&] { return io::read(p.a, &c, 1); });
  REQUIRE(parked_on_fds(1));
  std::thread other([&] { p.a.close(); });
  CHECK(reader.get() == -EBADF);
  other.join();
}

TEST_CASE("two hubs wait on one fd: both can be served") {
  auto p = stream_pair();
  std::atomic<int> got{0};
  const auto read_one = [&] {
    char c;
    if (io::read(p.a, &c, 1, 10s) == 1) ++got;
  };
  std::thread other(read_one);
  auto here = spawn(read_one);
  ringlet::yield();
  CHECK(io::write(p.b, "12", 2) == 2);
  here.join();
  other.join();
  CHECK(got == 2);
}
