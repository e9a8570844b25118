// A thread per connection, plain pthreads, bare against under `ringlet run --threads=fibers`: requests a second, latency,
// CPU of the server for a request, its kernel threads, its memory and the kernel's. Server on one core (bare: and once on
// all), client (epoll, one thread) on another. And what single threads cost: making one, handing on by a condition or a
// semaphore, a system call that is none of ours.
//
//   bench_threads [connections ...] [--quick] [--json FILE]      default 100 1000 10000
//
// Beside them one thread with epoll, by hand: the limit, for what is left then is the sockets' own cost.
//
// The same binary is server ("serve"), what is timed ("costs") and client; ratios are to the best of the bare ones measured in
// the same run, alternating. Kernel memory is what its stacks, page tables and unreclaimable slabs grew by in the whole
// system, both ends of the sockets included.

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
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

#include "harness.hpp"
#include "raw_servers.hpp"
#include "thread_costs.hpp"

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

using bench::raw::fail;

// --- the server: as anyone would write it -----------------------------------------------------------------------------

int listen_and_tell(int port_to) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0 || listen(listener, 4096) != 0) fail("listen");
  socklen_t size = sizeof at;
  getsockname(listener, reinterpret_cast<sockaddr*>(&at), &size);
  if (write(port_to, &at.sin_port, sizeof at.sin_port) != sizeof at.sin_port) fail("write");
  return listener;
}

[[noreturn]] void serve(int listener) {
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

double now_ns() { return double(std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count()); }

// One thread and epoll, by hand: what any server of one core may hope for, whatever its threads cost.
[[noreturn]] void serve_by_epoll(int listener) {
  const int one = 1;
  setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);  // what it accepts has it, too
  fcntl(listener, F_SETFL, O_NONBLOCK);
  bench::raw::epoll_recv_send({}, listener).serve(SIZE_MAX);
  fail("epoll");
}

// --- measuring --------------------------------------------------------------------------------------------------------

enum class way { bare_one_core, bare_all_cores, fibers, raw };
constexpr const char* way_names[] = {"bare, one core", "bare, all cores", "fibers, one core", "epoll, one core"};

std::string self, ringlet;

[[noreturn]] void become(way w, const char* role) {
  if (w != way::bare_all_cores) on_core(0);
  if (w == way::fibers)
    execl(ringlet.c_str(), ringlet.c_str(), "run", "--threads=fibers", "--", self.c_str(), role, std::to_string(measured.count()).c_str(), nullptr);
  else
    execl(self.c_str(), self.c_str(), role, std::to_string(measured.count()).c_str(), nullptr);
  fail("exec");
}

struct figures {
  double requests = 0, seconds = 0, cpu = 0, p99_us = 0, kernel_mb = 0, resident_mb = 0;
  long kernel_threads = 0;
  double rate() const { return requests / seconds; }
  double cpu_us() const { return cpu / requests * 1e6; }
  double memory_mb() const { return kernel_mb + resident_mb; }
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

long field_of(const char* path, const char* field) {
  char line[256];
  long value = 0;
  if (FILE* f = std::fopen(path, "r")) {
    while (std::fgets(line, sizeof line, f))
      if (std::strncmp(line, field, std::strlen(field)) == 0) value = std::atol(line + std::strlen(field));
    std::fclose(f);
  }
  return value;
}
long status_of(pid_t pid, const char* field) { return field_of(("/proc/" + std::to_string(pid) + "/status").c_str(), field); }
double kernels_mb() {
  double kb = 0;
  for (const char* each : {"KernelStack:", "PageTables:", "SUnreclaim:"}) kb += double(field_of("/proc/meminfo", each));
  return kb / 1024;
}

figures measure(int connections, way w) {
  int ends[2];
  if (pipe(ends) != 0) fail("pipe");
  const double kernels_before = kernels_mb();
  const pid_t server = fork();
  if (server == 0) {
    dup2(ends[1], 3);
    become(w, w == way::raw ? "serve-by-epoll" : "serve");
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
  std::vector<double> sent_at(std::size_t(*std::max_element(fds.begin(), fds.end())) + 1);
  for (const int fd : fds) {
    if (send(fd, message, sizeof message, 0) != sizeof message) fail("send");
    sent_at[std::size_t(fd)] = now_ns();
  }
  std::vector<float> latencies;
  const auto run = [&](std::chrono::nanoseconds how_long) {
    double done = 0;
    epoll_event events[256];
    const auto end = std::chrono::steady_clock::now() + how_long;
    latencies.clear();
    while (std::chrono::steady_clock::now() < end) {
      const int n = epoll_wait(set, events, 256, 100);
      for (int i = 0; i < n; ++i) {
        double& sent = sent_at[std::size_t(events[i].data.fd)];
        if (recv(events[i].data.fd, message, sizeof message, 0) != sizeof message) continue;
        const double now = now_ns();
        latencies.push_back(float((now - sent) / 1000));
        sent = now;
        if (send(events[i].data.fd, message, sizeof message, 0) == sizeof message) ++done;
      }
    }
    return done;
  };
  run(std::max(std::chrono::milliseconds(300), std::chrono::milliseconds(connections / 10)));  // each has had its turn
  figures f;
  const double cpu_before = cpu_of(server);
  const auto begin = std::chrono::steady_clock::now();
  f.requests = run(measured);
  f.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  f.cpu = cpu_of(server) - cpu_before;
  f.kernel_threads = status_of(server, "Threads:");
  f.resident_mb = double(status_of(server, "VmRSS:")) / 1024;
  f.kernel_mb = kernels_mb() - kernels_before;
  if (!latencies.empty()) {
    const auto p99 = latencies.begin() + long(latencies.size() * 99 / 100);
    std::nth_element(latencies.begin(), p99, latencies.end());
    f.p99_us = *p99;
  }
  for (const int fd : fds) close(fd);
  close(set);
  kill(server, SIGKILL);
  waitpid(server, nullptr, 0);
  return f;
}

std::vector<double> costs(way w) {
  int ends[2];
  if (pipe(ends) != 0) fail("pipe");
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 1);
    become(w, "costs");
  }
  close(ends[1]);
  FILE* told = fdopen(ends[0], "r");
  std::vector<double> all;
  for (double each; std::fscanf(told, "%lf", &each) == 1;) all.push_back(each);
  std::fclose(told);
  waitpid(child, nullptr, 0);
  if (all.size() != bench::thread_costs_count) fail("costs");
  return all;
}

void show_connections(int connections) {
  constexpr way ways[] = {way::bare_one_core, way::bare_all_cores, way::fibers, way::raw};
  figures best[4];
  for (int i = 0; i < rounds; ++i)
    for (const way w : ways) {
      const figures f = measure(connections, w);
      if (f.rate() > best[int(w)].rate() || best[int(w)].requests == 0) best[int(w)] = f;
    }
  for (const way w : ways) {
    const figures& f = best[int(w)];
    std::printf("%7d  %-17s %10.0f %10.0f %10.1f %9ld %10.1f %10.1f\n", connections, way_names[int(w)], f.rate(), f.p99_us, f.cpu_us(), f.kernel_threads, f.resident_mb, f.kernel_mb);
  }
  const figures &a = best[0], &b = best[1];
  const std::string table = "a thread per connection, " + std::to_string(connections) + " connections";
  for (const way w : {way::fibers, way::raw}) {
    const figures& f = best[int(w)];
    const std::string who = w == way::raw ? "epoll" : "fibers";
    const double rate = f.rate() / std::max(a.rate(), b.rate()), p99 = f.p99_us / std::min(a.p99_us, b.p99_us);
    const double cpu = f.cpu_us() / std::min(a.cpu_us(), b.cpu_us()), memory = f.memory_mb() / std::min(a.memory_mb(), b.memory_mb());
    std::printf("         %-7s/ bare     %10.2f %10.2f %10.2f %9s %21.2f\n", who.c_str(), rate, p99, cpu, "", memory);
    bench::note(table, who + ", requests", f.rate(), "/s", rate);
    bench::note(table, who + ", p99", f.p99_us, "us", p99);
    bench::note(table, who + ", CPU of a request", f.cpu_us(), "us", cpu);
    bench::note(table, who + ", memory", f.memory_mb(), "MB", memory);
  }
  std::puts("");
  std::fflush(stdout);
}

void show_costs() {
  std::vector<double> least[3];
  for (int i = 0; i < rounds; ++i)
    for (const way w : {way::bare_one_core, way::bare_all_cores, way::fibers}) {
      const auto told = costs(w);
      auto& mine = least[int(w)];
      if (mine.empty()) mine = told;
      for (std::size_t k = 0; k < told.size(); ++k) mine[k] = std::min(mine[k], told[k]);
    }
  std::puts("ns                          bare, one core   all cores    fibers   fibers / bare");
  for (std::size_t k = 0; k < bench::thread_costs_count; ++k) {
    const double ratio = least[2][k] / std::min(least[0][k], least[1][k]);
    std::printf("%-27s %14.0f %11.0f %9.0f %15.3f\n", bench::thread_costs_names[k], least[0][k], least[1][k], least[2][k], ratio);
    bench::note("what threads as fibers cost", bench::thread_costs_names[k], least[2][k], "ns", ratio);
  }
  std::printf("a foreign call costs %.1f ns more where threads are fibers than in the same process before its first thread\n",
              least[2][bench::foreign_call_with_threads] - least[2][bench::foreign_call_alone]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3) measured = std::chrono::milliseconds(std::atoi(argv[2]));
  if (argc == 3 && std::strcmp(argv[1], "serve") == 0) serve(listen_and_tell(3));
  if (argc == 3 && std::strcmp(argv[1], "serve-by-epoll") == 0) serve_by_epoll(listen_and_tell(3));
  if (argc == 3 && std::strcmp(argv[1], "costs") == 0) return bench::tell_thread_costs(measured), 0;
  measured = std::chrono::milliseconds(1000);
  rlimit most{};
  getrlimit(RLIMIT_NOFILE, &most);
  most.rlim_cur = most.rlim_max;
  setrlimit(RLIMIT_NOFILE, &most);
  char path[4096];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  if (n < 0) fail("readlink");
  path[n] = 0;
  self = path;
  ringlet = self.substr(0, self.rfind('/')) + "/../hooks/launcher/ringlet";
  bench::begin(argc, argv, "bench_threads", "[CONNECTIONS ...]");
  const bool quick = bench::asked().quick;
  if (quick) {
    rounds = 1;
    measured = std::chrono::milliseconds(100);
  }
  std::vector<std::size_t> counts = bench::asked().numbers;
  if (counts.empty()) counts = quick ? std::vector<std::size_t>{10} : std::vector<std::size_t>{100, 1000, 10'000};
  std::puts("thread per connection, 64 bytes: the best of some rounds, alternating");
  std::puts("connections               requests/s     p99 us     CPU us   threads    user MB  kernel MB");
  for (const std::size_t connections : counts) show_connections(int(connections));
  show_costs();
}
