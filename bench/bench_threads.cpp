// A thread per connection, plain pthreads, bare against under `ringlet run --threads=fibers`: requests a second, CPU of the
// server for a request, its kernel threads and resident memory. Server on one core, client (epoll, one thread) on another.
//
//   bench_threads [connections ...]      default 10 100 1000
//
// The same binary is server ("serve") and client; the ratio is of two servers measured in one run, alternating.

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t message_bytes = 64;
int rounds = 3;
std::chrono::milliseconds measured(1000);

void on_core(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core % int(std::thread::hardware_concurrency()), &set);
  sched_setaffinity(0, sizeof set, &set);
}

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

// --- the server: as anyone would write it -----------------------------------------------------------------------------

int serve(int port_to) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0 || listen(listener, 4096) != 0) fail("listen");
  socklen_t size = sizeof at;
  getsockname(listener, reinterpret_cast<sockaddr*>(&at), &size);
  if (write(port_to, &at.sin_port, sizeof at.sin_port) != sizeof at.sin_port) fail("write");
  while (true) {
    const int fd = accept(listener, nullptr, nullptr);
    if (fd < 0) fail("accept");
    std::thread([fd] {
      const int one = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      char buffer[message_bytes];
      for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) > 0;)
        if (send(fd, buffer, std::size_t(n), 0) != n) break;
      close(fd);
    }).detach();
  }
}

struct figures {
  double requests = 0, seconds = 0, cpu = 0;
  long kernel_threads = 0, resident_kb = 0;
  double rate() const { return requests / seconds; }
  double cpu_us() const { return cpu / requests * 1e6; }
};

double cpu_of(pid_t pid) {
  char path[64], line[1024] = "";
  std::snprintf(path, sizeof path, "/proc/%d/stat", pid);
  if (FILE* f = std::fopen(path, "r")) {
    if (!std::fgets(line, sizeof line, f)) line[0] = 0;
    std::fclose(f);
  }
  unsigned long user = 0, kernel = 0;
  if (const char* rest = std::strrchr(line, ')'))
    std::sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel);
  return double(user + kernel) / double(sysconf(_SC_CLK_TCK));
}

long status_of(pid_t pid, const char* field) {
  char path[64], line[256];
  std::snprintf(path, sizeof path, "/proc/%d/status", pid);
  long value = 0;
  if (FILE* f = std::fopen(path, "r")) {
    while (std::fgets(line, sizeof line, f))
      if (std::strncmp(line, field, std::strlen(field)) == 0) value = std::atol(line + std::strlen(field));
    std::fclose(f);
  }
  return value;
}

figures measure(int connections, const std::string& ringlet, const std::string& self) {
  int ends[2];
  if (pipe(ends) != 0) fail("pipe");
  const pid_t server = fork();
  if (server == 0) {
    on_core(0);
    dup2(ends[1], 3);
    if (ringlet.empty())
      execl(self.c_str(), self.c_str(), "serve", nullptr);
    else
      execl(ringlet.c_str(), ringlet.c_str(), "run", "--threads=fibers", "--", self.c_str(), "serve", nullptr);
    fail("exec");
  }
  close(ends[1]);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (read(ends[0], &at.sin_port, sizeof at.sin_port) != sizeof at.sin_port) fail("the server did not start");
  close(ends[0]);
  on_core(1);
  const int set = epoll_create1(0);
  std::vector<int> fds;
  char message[message_bytes] = "x";
  for (int i = 0; i < connections; ++i) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0) fail("connect");
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    epoll_event e{};
    e.events = EPOLLIN;
    e.data.fd = fd;
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &e);
    fds.push_back(fd);
  }
  for (const int fd : fds)
    if (send(fd, message, sizeof message, 0) != sizeof message) fail("send");
  const auto run = [&](std::chrono::nanoseconds how_long) {
    double done = 0;
    epoll_event events[256];
    const auto end = std::chrono::steady_clock::now() + how_long;
    while (std::chrono::steady_clock::now() < end) {
      const int n = epoll_wait(set, events, 256, 100);
      for (int i = 0; i < n; ++i) {
        if (recv(events[i].data.fd, message, sizeof message, 0) != sizeof message) continue;
        if (send(events[i].data.fd, message, sizeof message, 0) == sizeof message) ++done;
      }
    }
    return done;
  };
  run(std::chrono::milliseconds(300));
  figures f;
  const double cpu_before = cpu_of(server);
  const auto begin = std::chrono::steady_clock::now();
  f.requests = run(measured);
  f.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  f.cpu = cpu_of(server) - cpu_before;
  f.kernel_threads = status_of(server, "Threads:");
  f.resident_kb = status_of(server, "VmRSS:");
  for (const int fd : fds) close(fd);
  close(set);
  kill(server, SIGKILL);
  waitpid(server, nullptr, 0);
  return f;
}

figures best(std::vector<figures> all) {
  return *std::max_element(all.begin(), all.end(), [](const figures& a, const figures& b) { return a.rate() < b.rate(); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "serve") == 0) return serve(3);
  rlimit most{};
  getrlimit(RLIMIT_NOFILE, &most);
  most.rlim_cur = most.rlim_max;
  setrlimit(RLIMIT_NOFILE, &most);
  char self[4096];
  const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  if (n < 0) fail("readlink");
  self[n] = 0;
  const std::string folder = std::string(self).substr(0, std::string(self).rfind('/'));
  const std::string ringlet = folder + "/../hooks/launcher/ringlet";
  std::vector<int> counts;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0) {
      counts = {10};
      rounds = 1;
      measured = std::chrono::milliseconds(100);
    } else {
      counts.push_back(std::atoi(argv[i]));
    }
  }
  if (counts.empty()) counts = {10, 100, 1000};
  std::puts("thread per connection, 64 bytes, server on one core: the best of some rounds, alternating");
  std::puts("connections            requests/s   CPU us/request   kernel threads   resident KB");
  for (const int connections : counts) {
    std::vector<figures> bare, fibers;
    for (int i = 0; i < rounds; ++i) {
      bare.push_back(measure(connections, "", self));
      fibers.push_back(measure(connections, ringlet, self));
    }
    const figures b = best(bare), f = best(fibers);
    std::printf("%11d  bare   %11.0f  %15.1f  %15ld  %12ld\n", connections, b.rate(), b.cpu_us(), b.kernel_threads, b.resident_kb);
    std::printf("             fibers %11.0f  %15.1f  %15ld  %12ld\n", f.rate(), f.cpu_us(), f.kernel_threads, f.resident_kb);
    std::printf("             ratio  %11.2f  %15.2f  %15s  %12.2f\n", f.rate() / b.rate(), f.cpu_us() / b.cpu_us(), "", double(f.resident_kb) / double(b.resident_kb));
    std::fflush(stdout);
  }
}
