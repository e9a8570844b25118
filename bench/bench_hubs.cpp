// One hub on one core against two on two: an echo over TCP, both listening on one port (SO_REUSEPORT).
//
// With as many cores as hubs no core is left for a load generator, so it is counted in: each hub has 32 clients beside
// its servers, all of them fibers that call the plain blocking names. The kernel deals the connections out among the
// listeners, so about half of a hub's clients talk to the other one, which the kernel's loopback makes dearer; with a
// port each there is no such traffic. Twice the hubs are to answer nearly twice the requests in the same time. How much
// the machine itself gives to two threads that share nothing (its cores may be halves of one, or somebody else's) is
// shown by the raw rows: bytes to and fro over a socket pair of the thread's own.
//
// In the wall clock's table a sample is the time from the moment when all connections stand until the last hub has had
// its answers, by all answers; in the other it is the CPU time of all threads, which is to stay what it was.

#include <ringlet/ringlet.hpp>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "harness.hpp"
#include "peers/process.hpp"
#include "raw_servers.hpp"

namespace {

using bench::raw::fail;

constexpr std::size_t clients_each = 32, bytes = 64;

struct moment {
  double wall_ns = 0, cpu_ns = 0;
  void take() { *this = {bench::wall_ns(), bench::process_cpu_ns()}; }
};

// The time between two moments at which all threads have come so far. Who waits is a fiber, so its hub goes on serving.
struct span {
  explicit span(std::size_t threads)
      : all_ready(threads, [this] { start.take(); }), all_done(threads, [this] { end.take(); }) {}
  moment taken() const { return {end.wall_ns - start.wall_ns, end.cpu_ns - start.cpu_ns}; }
  moment start, end;
  ringlet::barrier all_ready, all_done;
};

// A thread on each of so many cores, the last ones first.
void on_cores(std::size_t count, const std::function<void(std::size_t)>& work) {
  cpu_set_t mine;
  CPU_ZERO(&mine);
  ::sched_getaffinity(0, sizeof mine, &mine);
  std::vector<int> cores;
  for (int i = CPU_SETSIZE - 1; i >= 0; --i)
    if (CPU_ISSET(i, &mine)) cores.push_back(i);
  std::vector<std::thread> all;
  for (std::size_t i = 0; i < count; ++i)
    all.emplace_back([&, i] {
      bench::pin_to(cores[i % cores.size()]);
      work(i);
    });
  for (auto& t : all) t.join();
}

// --- hubs ------------------------------------------------------------------------------------------------------------

int listen_on(in_port_t& port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = port;
  socklen_t size = sizeof at;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) || ::listen(fd, 1024) ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size))
    fail("listen");
  port = at.sin_port;
  return fd;
}

void echo(int fd) {
  char buffer[4096];
  for (ssize_t got; (got = ::read(fd, buffer, sizeof buffer)) > 0;)
    if (::write(fd, buffer, std::size_t(got)) != got) break;
  ::close(fd);
}

int connect_to(in_port_t port) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = port;
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  // Closed by a reset, so that no port is kept back.
  const linger at_once{1, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  if (fd < 0 || ::connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at)) fail("connect");
  return fd;
}

void ask(int fd, std::size_t requests) {
  char request[bytes] = "request", answer[bytes];
  for (std::size_t i = 0; i < requests; ++i) {
    if (::write(fd, request, bytes) != ssize_t(bytes)) fail("write");
    for (std::size_t got = 0; got < bytes;) {
      const ssize_t more = ::read(fd, answer + got, bytes - got);
      if (more <= 0) fail("read");
      got += std::size_t(more);
    }
  }
}

void hub_part(int listener, in_port_t port, std::size_t requests_each, span& timed) {
  auto acceptor = ringlet::spawn([listener] {
    for (int fd; (fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) ringlet::spawn(echo, fd);
  });
  std::vector<int> fds;
  std::vector<ringlet::any_fiber> clients;
  for (std::size_t i = 0; i < clients_each; ++i) {
    fds.push_back(connect_to(port));
    ask(fds.back(), 1);
  }
  timed.all_ready.wait();
  for (int fd : fds) clients.push_back(ringlet::spawn(ask, fd, requests_each));
  ringlet::joinall(clients);
  timed.all_done.wait();
  for (int fd : fds) ::close(fd);
  acceptor.kill();
  ::close(listener);
  ringlet::hub::join();  // the servers, whose clients have gone
}

template <bool OnePort>
moment of_hubs(std::size_t hubs, std::size_t requests_each) {
  span timed(hubs);
  std::vector<in_port_t> ports(hubs);
  std::vector<int> listeners;
  for (std::size_t i = 0; i < hubs; ++i) {
    if (OnePort && i > 0) ports[i] = ports[0];
    listeners.push_back(listen_on(ports[i]));
  }
  on_cores(hubs, [&](std::size_t i) { hub_part(listeners[i], ports[i], requests_each, timed); });
  return timed.taken();
}

// --- raw -------------------------------------------------------------------------------------------------------------

moment of_threads(std::size_t threads, std::size_t requests_each) {
  using namespace bench::raw;
  span timed(threads);
  on_cores(threads, [&](std::size_t) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) fail("socketpair");
    char request[bytes] = "request";
    timed.all_ready.wait();
    for (std::size_t i = 0; i < requests_each * clients_each; ++i)
      for (int side : {0, 1})
        if (libc_write(ends[side], request, bytes) < 0 || libc_read(ends[1 - side], request, bytes) < 0) fail("read");
    timed.all_done.wait();
    for (int fd : ends) libc_close(fd);
  });
  return timed.taken();
}

void compare(bool wall) {
  const auto row = [wall](const char* name, moment (*work)(std::size_t, std::size_t), std::size_t count) {
    return bench::candidate{name, [=](std::size_t n) {
                              const std::size_t each = (n + count * clients_each - 1) / (count * clients_each);
                              const moment took = work(count, each);
                              return bench::sample{wall ? took.wall_ns : took.cpu_ns, double(each * count * clients_each)};
                            }};
  };
  const std::string end = wall ? ": ns of wall clock a request" : ": ns of CPU a request, of all threads";
  bench::compare("echo by hubs, clients counted in" + end,
                 {row("1 hub", &of_hubs<true>, 1), row("2 hubs, one port", &of_hubs<true>, 2),
                  row("2 hubs, a port each", &of_hubs<false>, 2)},
                 {.rounds = 9, .round_ms = 60});
  bench::compare("to and fro by threads that share nothing" + end,
                 {row("1 thread", &of_threads, 1), row("2 threads", &of_threads, 2)}, {.rounds = 9, .round_ms = 30});
}

}  // namespace

int main(int argc, char** argv) {
  bench::begin(argc, argv, "bench_hubs");
  if (std::thread::hardware_concurrency() < 2) return std::printf("\nnot measured: there is one core\n"), 0;
  ringlet::hooks::enable();
  for (bool wall : {true, false}) compare(wall);
}
