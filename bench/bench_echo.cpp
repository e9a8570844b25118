// An echo server: what a request costs the server, as fibers and as the two raw loops.
//
// Client and server are one thread, and take turns: the client sends to so many connections and waits for nothing; then
// the server serves them all, and only that is timed (thread CPU); then the client reads the answers. So nothing of the
// client and no idle time is in the figure, and the rounds of all servers interleave on the same core. What is left out
// is the cost of really falling asleep, which is the same for all: the last table shows it, with the server in a process of
// its own.
//
// Raw is epoll, edge-triggered, recv and send of libc, one try after each event, as the best of epoll servers do. Each
// server has its own connections. Fibers: one a connection, `while (read > 0) write`. "hooked" are the plain names under
// hooks::enable(). The fiber servers' turn ends when the last one wakes the client's fiber (see "hand-over"); the raw
// loops' when they have counted to the end.

#include <ringlet/ringlet.hpp>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "harness.hpp"
#include "raw_servers.hpp"

namespace {

using namespace bench::raw;

enum class transport { unix_socket, tcp };

struct connections {
  std::vector<int> client, server;

  connections(transport over, std::size_t count) {
    if (over == transport::tcp) {
      const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in at{};
      at.sin_family = AF_INET;
      at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      socklen_t size = sizeof at;
      if (::bind(listener, reinterpret_cast<sockaddr*>(&at), size) || ::listen(listener, 1024) ||
          ::getsockname(listener, reinterpret_cast<sockaddr*>(&at), &size))
        fail("listen on 127.0.0.1");
      for (std::size_t i = 0; i < count; ++i) {
        const int mine = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (mine < 0 || ::connect(mine, reinterpret_cast<sockaddr*>(&at), sizeof at)) fail("connect");
        const int theirs = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        if (theirs < 0) fail("accept");
        const int on = 1;
        for (int fd : {mine, theirs}) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        client.push_back(mine);
        server.push_back(theirs);
      }
      libc_close(listener);
    } else {
      for (std::size_t i = 0; i < count; ++i) {
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) fail("socketpair");
        client.push_back(ends[0]);
        server.push_back(ends[1]);
      }
    }
  }
  connections(const connections&) = delete;
  ~connections() { close_clients(); }
  void close_clients() {
    for (int fd : client) libc_close(fd);
    client.clear();
  }
};

// --- fibers ----------------------------------------------------------------------------------------------------------

template <auto& Receive, auto& Send>
struct fiber_server final : server {
  explicit fiber_server(const std::vector<int>& fds) {
    for (int fd : fds)
      all_.push_back(ringlet::spawn({.name = "echo"}, [this, fd] {
        char buffer[buffer_bytes];
        while (true) {
          const ssize_t got = Receive(fd, buffer, sizeof buffer);
          if (got <= 0) break;
          if (Send(fd, buffer, std::size_t(got)) != got) break;
          if (--left_ == 0) served_.set();
        }
        ringlet::io::close(fd);
      }));
    ringlet::yield();
  }
  ~fiber_server() override { ringlet::joinall(all_); }
  void serve(std::size_t requests) override {
    left_ = requests;
    served_.clear();
    served_.wait();
  }
  void join() { ringlet::joinall(all_); }

 private:
  std::size_t left_ = 0;
  ringlet::event served_;
  std::vector<ringlet::any_fiber> all_;
};

ssize_t io_recv(int fd, void* buffer, std::size_t size) { return ringlet::io::recv(fd, buffer, size, 0); }
ssize_t io_send(int fd, const void* data, std::size_t size) { return ringlet::io::send(fd, data, size, MSG_NOSIGNAL); }
ssize_t io_read(int fd, void* buffer, std::size_t size) { return ringlet::io::read(fd, buffer, size); }
ssize_t io_write(int fd, const void* data, std::size_t size) { return ringlet::io::write(fd, data, size); }
ssize_t plain_recv(int fd, void* buffer, std::size_t size) { return ::recv(fd, buffer, size, 0); }
ssize_t plain_send(int fd, const void* data, std::size_t size) { return ::send(fd, data, size, MSG_NOSIGNAL); }
ssize_t plain_read(int fd, void* buffer, std::size_t size) { return ::read(fd, buffer, size); }
ssize_t plain_write(int fd, const void* data, std::size_t size) { return ::write(fd, data, size); }

// --- in turns on one thread ------------------------------------------------------------------------------------------

// The most connections that have a request at a time; the others wait, and keep caches cold.
constexpr std::size_t most_active = 128;

struct bout {
  connections wires;
  std::unique_ptr<server> who;
  std::size_t next = 0;
  std::vector<char> message, answer;

  bout(transport over, std::size_t count, std::size_t bytes) : wires(over, count), message(bytes, 'm'), answer(bytes) {}
  ~bout() {
    wires.close_clients();
    who.reset();
  }
  bench::sample run(std::size_t requests) {
    const std::size_t count = wires.client.size(), batch = std::min(count, most_active);
    bench::sample result;
    while (result.operations < double(requests)) {
      for (std::size_t i = 0; i < batch; ++i)
        if (libc_send(wires.client[(next + i) % count], message.data(), message.size(), MSG_NOSIGNAL) != ssize_t(message.size()))
          fail("client's send");
      const double start = bench::thread_cpu_ns();
      who->serve(batch);
      result.ns += bench::thread_cpu_ns() - start;
      for (std::size_t i = 0; i < batch; ++i)
        if (libc_recv(wires.client[(next + i) % count], answer.data(), answer.size(), MSG_WAITALL) != ssize_t(answer.size()))
          fail("client's recv");
      next = (next + batch) % count;
      result.operations += double(batch);
    }
    return result;
  }
};

template <class Server>
bench::candidate in_turns(const char* name, transport over, std::size_t count, std::size_t bytes) {
  auto b = std::make_shared<bout>(over, count, bytes);
  b->who = std::make_unique<Server>(b->wires.server);
  return {name, [b](std::size_t n) { return b->run(n); }};
}

void echo(transport over, std::size_t count, std::size_t bytes) {
  const std::string title = std::string(over == transport::tcp ? "TCP loopback" : "unix sockets") + ", " +
                            (bytes < 1024 ? std::to_string(bytes) + " B" : std::to_string(bytes / 1024) + " KiB") + ", " +
                            std::to_string(count) + (count == 1 ? " connection" : " connections") + ": ns of CPU a request";
  std::vector<bench::candidate> all{
      in_turns<epoll_recv_send>("raw epoll, recv and send", over, count, bytes),
      in_turns<epoll_read_write>("raw epoll, read and write", over, count, bytes),
      in_turns<ring_server>("raw ring, recv and send operations", over, count, bytes),
      in_turns<fiber_server<io_recv, io_send>>("io::recv and io::send", over, count, bytes),
      in_turns<fiber_server<io_read, io_write>>("io::read and io::write", over, count, bytes),
      in_turns<fiber_server<plain_recv, plain_send>>("hooked recv and send", over, count, bytes),
      in_turns<fiber_server<plain_read, plain_write>>("hooked read and write", over, count, bytes),
  };
  bench::compare(title, std::move(all), {.rounds = 7, .round_ms = 7});
}

// What the fiber servers' turns cost besides the echo: a set and a wait, once per batch.
void hand_over() {
  struct state {
    ringlet::event asked, answered;
    ringlet::any_fiber other{ringlet::spawn([this] {
      while (true) {
        asked.wait();
        asked.clear();
        answered.set();
      }
    })};
    ~state() { other.kill(); }
  };
  auto s = std::make_shared<state>();
  bench::compare("hand-over to the client's fiber: ns of CPU a batch (half of this is in the fibers' figures)",
                 {bench::timed("event there and back",
                               [s](std::size_t n) {
                                 for (; n; --n) {
                                   s->asked.set();
                                   s->answered.wait();
                                   s->answered.clear();
                                 }
                               })});
}

// --- a process for the server ----------------------------------------------------------------------------------------

// Forked before anything of ringlet runs in the parent, which stays a plain client. Costs are the child's CPU clock.
struct remote {
  connections wires;
  std::size_t count;
  pid_t child = -1;
  clockid_t clock{};
  std::vector<char> message, answer;

  template <class Make>
  remote(transport over, std::size_t n, std::size_t bytes, Make serve_forever)
      : wires(over, n), count(n), message(bytes, 'm'), answer(bytes) {
    child = ::fork();
    if (child < 0) fail("fork");
    if (child == 0) {
      wires.close_clients();
      serve_forever(wires.server);
      ::_exit(0);
    }
    for (int fd : wires.server) libc_close(fd);
    if (::clock_getcpuclockid(child, &clock)) fail("clock_getcpuclockid");
  }
  ~remote() {
    wires.close_clients();
    ::kill(child, SIGTERM);  // other children may hold these sockets, so no end of file would come
    ::waitpid(child, nullptr, 0);
  }
  double cpu_ns() const {
    timespec t;
    ::clock_gettime(clock, &t);
    return double(t.tv_sec) * 1e9 + double(t.tv_nsec);
  }
  bench::sample run(std::size_t requests) {
    const double start = cpu_ns(), wall = bench::wall_ns();
    const std::size_t turns = (requests + count - 1) / count;
    for (std::size_t t = 0; t < turns; ++t) {
      for (int fd : wires.client)
        if (libc_send(fd, message.data(), message.size(), MSG_NOSIGNAL) != ssize_t(message.size())) fail("client's send");
      for (int fd : wires.client)
        if (libc_recv(fd, answer.data(), answer.size(), MSG_WAITALL) != ssize_t(answer.size())) fail("client's recv");
    }
    return {cpu_ns() - start, double(turns * count), bench::wall_ns() - wall};
  }
};

template <class Server>
void serve_raw(const std::vector<int>& fds) {
  Server s(fds);
  s.serve(std::size_t(-1));
}
template <auto& Receive, auto& Send>
void serve_in_fibers(const std::vector<int>& fds) {
  if (&Receive == &plain_read) ringlet::hooks::enable();
  fiber_server<Receive, Send> s(fds);
  s.join();
}

template <class Make>
bench::candidate apart(const char* name, transport over, std::size_t count, Make make) {
  auto r = std::make_shared<remote>(over, count, 64, make);
  return {name, [r](std::size_t n) { return r->run(n); }};
}

void processes(transport over, std::size_t count) {
  std::vector<bench::candidate> all{
      apart("raw epoll, recv and send", over, count, &serve_raw<epoll_recv_send>),
      apart("raw ring, recv and send operations", over, count, &serve_raw<ring_server>),
      apart("io::read and io::write", over, count, &serve_in_fibers<io_read, io_write>),
      apart("hooked read and write", over, count, &serve_in_fibers<plain_read, plain_write>),
  };
  bench::compare(std::string("server in a process of its own, ") + (over == transport::tcp ? "TCP loopback" : "unix sockets") +
                     ", 64 B, " + std::to_string(count) + (count == 1 ? " connection" : " connections") +
                     ": ns of its CPU a request",
                 std::move(all), {.rounds = 7, .round_ms = 8});
}

}  // namespace

int main(int argc, char** argv) {
  bench::begin(argc, argv, "bench_echo");
  ::signal(SIGPIPE, SIG_IGN);
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);

  // First, as long as nothing of ringlet lives in this process. Each server sits in a child.
  const bool quick = bench::asked().quick;
  for (transport over : {transport::unix_socket, transport::tcp})
    for (std::size_t count : {1, 128})
      if (!quick || count == 1) processes(over, count);

  ringlet::hooks::enable();
  hand_over();
  const std::size_t most = files.rlim_max >= 14'100 ? 1000 : files.rlim_max / 16;
  for (transport over : {transport::unix_socket, transport::tcp}) {
    for (std::size_t count : {std::size_t(1), std::size_t(16), std::size_t(128), most})
      if (!quick || count <= 16) echo(over, count, 64);
    echo(over, quick ? 1 : 16, 16 * 1024);
  }
}
