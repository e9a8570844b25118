// What programs do besides reading and writing sockets: connections made and taken, names looked up, children's output.
//
// Raw is libc's own call in the same thread; hooked is the plain name in a fiber, of a process in which another one waits.
// Connections: a batch of 64 is made, and then taken, each half timed for itself; they end by a reset, so no port is kept
// back. Names need no network: a number, and "localhost" of /etc/hosts; others would measure somebody's server. Children:
// how fast one's output can be read (64 KiB at a time), and what it takes to start one and hear it out; CPU time of reader
// and child together, the wall clock beside it.

#include <ringlet/ringlet.hpp>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "harness.hpp"
#include "peers/load.hpp"
#include "raw_servers.hpp"

namespace {

using bench::transport;
using bench::raw::fail;

#define LIBC(name) reinterpret_cast<decltype(&::name)>(bench::libc_function(#name))
auto* const libc_connect = LIBC(connect);
auto* const libc_accept = LIBC(accept);
auto* const libc_getaddrinfo = LIBC(getaddrinfo);
auto* const libc_popen = LIBC(popen);
auto* const libc_pclose = LIBC(pclose);
auto* const libc_fread = LIBC(fread);
#undef LIBC

// --- connections -----------------------------------------------------------------------------------------------------

constexpr std::size_t batch = 64;
enum class half { connects, accepts };

template <class Connect, class Accept>
bench::candidate connections(const char* name, transport over, half timed, Connect connect, Accept accept) {
  auto at = std::make_shared<bench::listener>(over);
  return {name, [=](std::size_t n) {
            bench::sample result;
            const linger at_once{1, 0};
            while (result.operations < double(n)) {
              int near[batch], far[batch];
              for (int& fd : near) fd = ::socket(at->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
              double moments[3];
              moments[0] = bench::thread_cpu_ns();
              for (int fd : near)
                if (connect(fd, reinterpret_cast<const sockaddr*>(&at->address), at->size)) fail("connect");
              moments[1] = bench::thread_cpu_ns();
              for (int& fd : far)
                if ((fd = accept(at->fd, nullptr, nullptr)) < 0) fail("accept");
              moments[2] = bench::thread_cpu_ns();
              result.ns += moments[int(timed) + 1] - moments[int(timed)];
              result.operations += batch;
              for (int fd : near) {
                ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
                ::close(fd);
              }
              for (int fd : far) ::close(fd);
            }
            return result;
          }};
}

void connect_and_accept() {
  for (transport over : {transport::unix_socket, transport::tcp})
    for (half timed : {half::connects, half::accepts})
      bench::compare(std::string(timed == half::connects ? "connect, " : "accept, ") + bench::text(over) + ": ns of CPU each",
                     {connections("raw", over, timed, libc_connect, libc_accept),
                      connections("hooked", over, timed, &::connect, &::accept)});
}

// --- names -----------------------------------------------------------------------------------------------------------

template <class Look>
void look_up(const char* name, Look look) {
  addrinfo how{}, *found = nullptr;
  how.ai_family = AF_INET;
  how.ai_socktype = SOCK_STREAM;
  if (const int failed = look(name, "80", &how, &found)) {
    std::fprintf(stderr, "getaddrinfo of %s: %s\n", name, ::gai_strerror(failed));
    std::exit(2);
  }
  ::freeaddrinfo(found);
}

template <class Each>
auto repeated(Each each) {
  return [each](std::size_t n) {
    for (; n; --n) each();
  };
}
template <class Each>
auto in_fibers(std::size_t count, Each each) {
  return [=](std::size_t n) {
    std::vector<ringlet::any_fiber> all;
    for (std::size_t i = 0; i < count; ++i)
      all.push_back(ringlet::spawn([=] {
        for (std::size_t j = i; j < n; j += count) each();
      }));
    ringlet::joinall(all);
  };
}

// CPU of the process: a look-up may be a helper thread's.
void names(const char* name) {
  const auto raw = [name] { look_up(name, libc_getaddrinfo); };
  const auto hooked = [name] { look_up(name, &::getaddrinfo); };
  bench::compare(std::string("getaddrinfo of ") + name + ": ns of CPU each",
                 {bench::timed_process("raw", repeated(raw)), bench::timed_process("hooked", repeated(hooked)),
                  bench::timed_process("hooked, 16 fibers", in_fibers(16, hooked))});
}

// --- children --------------------------------------------------------------------------------------------------------

// Writes for ever into a pipe, until its reader is gone.
class fountain {
 public:
  static constexpr std::size_t block = 64 * 1024;
  fountain() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC)) fail("pipe2");
    std::fflush(stdout);
    child_ = ::fork();
    if (child_ < 0) fail("fork");
    if (child_ == 0) {
      ::signal(SIGPIPE, SIG_DFL);
      ::close(ends[0]);
      static char data[block];
      while (bench::raw::libc_write(ends[1], data, sizeof data) > 0) {
      }
      ::_exit(1);
    }
    ::close(ends[1]);
    fd = ends[0];
    if (::clock_getcpuclockid(child_, &clock_)) fail("clock_getcpuclockid");
  }
  ~fountain() {
    ::close(fd);
    ::waitpid(child_, nullptr, 0);
  }
  fountain(const fountain&) = delete;
  double cpu_ns() const {
    timespec t{};
    ::clock_gettime(clock_, &t);
    return bench::process_cpu_ns() + double(t.tv_sec) * 1e9 + double(t.tv_nsec);
  }
  int fd = -1;

 private:
  pid_t child_ = -1;
  clockid_t clock_{};
};

template <class Read>
bench::candidate drink(const char* name, std::shared_ptr<fountain> from, Read read) {
  return {name, [=](std::size_t n) {
            static char into[fountain::block];
            const double start = from->cpu_ns(), wall = bench::wall_ns();
            for (std::size_t left = n * fountain::block; left > 0;) {
              const ssize_t got = read(from->fd, into, std::min(left, sizeof into));
              if (got <= 0) fail("read of the pipe");
              left -= std::size_t(got);
            }
            return bench::sample{from->cpu_ns() - start, double(n), bench::wall_ns() - wall};
          }};
}

double children_cpu_ns() {
  rusage used{};
  ::getrusage(RUSAGE_CHILDREN, &used);
  const auto ns = [](const timeval& t) { return double(t.tv_sec) * 1e9 + double(t.tv_usec) * 1e3; };
  return ns(used.ru_utime) + ns(used.ru_stime);
}

template <class Open, class Read, class Close>
void hear_out(Open open, Read read, Close close) {
  char said[64];
  FILE* child = open("echo something", "re");
  if (!child || read(said, 1, sizeof said, child) != 10 || close(child) != 0) fail("popen");
}

template <class Work>
bench::candidate with_children(const char* name, Work work) {
  return {name, [=](std::size_t n) {
            const double start = bench::process_cpu_ns() + children_cpu_ns(), wall = bench::wall_ns();
            work(n);
            return bench::sample{bench::process_cpu_ns() + children_cpu_ns() - start, double(n), bench::wall_ns() - wall};
          }};
}

void children() {
  const auto raw = [] { hear_out(libc_popen, libc_fread, libc_pclose); };
  const auto hooked = [] { hear_out(&::popen, &::fread, &::pclose); };
  bench::compare("popen, read to the end, pclose: ns of CPU each, the shell's with it",
                 {with_children("raw", repeated(raw)), with_children("hooked", repeated(hooked)),
                  with_children("hooked, 16 fibers", in_fibers(16, hooked))},
                 {.rounds = 5, .round_ms = 40});
}

}  // namespace

int main(int argc, char** argv) {
  bench::begin(argc, argv, "bench_calls");
  ::signal(SIGPIPE, SIG_IGN);
  // Their children are forked while nothing of ringlet lives here.
  auto raw = std::make_shared<fountain>(), hooked = std::make_shared<fountain>();
  ringlet::hooks::enable();
  ringlet::event never_set;  // without a fiber the hooks would have nothing to do
  const auto other = ringlet::spawn([&] { never_set.wait(); });
  connect_and_accept();
  names("127.0.0.1");
  names("localhost");
  bench::compare("a child's output through a pipe: ns of CPU for 64 KiB, of both sides",
                 {drink("raw", raw, bench::raw::libc_read), drink("hooked", hooked, &::read)}, {.round_ms = 15});
  children();
  other.kill();
}
