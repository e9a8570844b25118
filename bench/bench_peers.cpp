// The peers: other ways to have many flows of control, held against ours and against no runtime at all, in the same
// run.
//
// Each peer is a process of its own (peers/: one file each, Go and Python among them) on the first core; this program,
// on the last, tells it what to do or sends it requests, and reads its CPU clock before and after. They take turns,
// round by round. For the server's tables the connections of all peers are open at once, and the load is the same code
// for all: each connection has one request under way, or 16 (pipelined); what comes back is compared with what was
// sent. Beside the CPU time stands the wall clock a request (at many connections: the throughput; where one core is
// both, it means nothing).
//
// Memory is that of a connection that has had one answer and then is idle: the resident memory of the process (its
// Rss), and beside it what it costs in the kernel for page tables and threads; sockets cost everybody the same and are
// left out.
//
// A peer that is not installed has a row that says so. One that has no such thing (libuv has no fibers) has no row.

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "harness.hpp"
#include "peers/load.hpp"
#include "peers/process.hpp"

namespace {

using bench::transport;

struct peer {
  const char* name;
  const char* program;                // in peers/ of the build tree, or NAME.py in its source
  std::vector<std::string> before{};  // arguments before and after what all peers are told
  std::vector<std::string> after{};
  std::vector<std::string> environment{};
  std::size_t most = SIZE_MAX;  // connections, of a server
};

const std::vector<peer> servers{
    {"raw epoll", "peer_raw", {"epoll"}},
    {"raw io_uring", "peer_raw", {"ring"}},
    {"ringlet, hooked read and write", "peer_ringlet"},
    {"ringlet, io::read and io::write", "peer_ringlet", {}, {"io"}},
    {"ringlet, hooked, on epoll", "peer_ringlet", {}, {}, {"RINGLET_ENGINE=epoll"}},
    {"ringlet, hooked, spinning", "peer_ringlet", {}, {}, {"RINGLET_SPIN=50"}, 1},  // elsewhere somebody is always ready
    {"a thread for each", "peer_threads"},
    {"State Threads", "peer_st"},
    {"Boost.Asio, spawn", "peer_asio"},
    {"libuv", "peer_uv"},
    {"Go", "peer_go"},
    {"gevent", "gevent_peer.py"},
};
const std::vector<peer> workers{
    {"raw", "peer_raw", {"contexts"}},
    {"ringlet", "peer_ringlet"},
    {"threads", "peer_threads"},
    {"Boost.Fiber", "peer_boost_fiber"},
    {"Boost.Asio, spawn", "peer_asio"},
    {"State Threads", "peer_st"},
    {"GNU Pth", "peer_pth"},
    {"libuv", "peer_uv"},
    {"Go", "peer_go"},
    {"greenlet", "greenlet_peer.py"},
    {"gevent", "gevent_peer.py"},
};

struct workload {
  const char* name;
  const char* title;
  std::size_t least = 1;  // operations at a time: so many that making the fibers hardly counts
};
const workload workloads[] = {
    {"switch", "switch by hand: one way", 2},
    {"yield2", "yield, 2 fibers", 2000},
    {"yield1000", "yield, 1,000 fibers", 100'000},
    {"spawn", "begin one and wait for its end"},
    {"spawn100", "begin 100 and wait for all"},
    {"queue", "queues of one place, there and back"},
    {"sleep1000", "1,000 that sleep a millisecond each time", 10'000},
    {"timer", "arm a timer and cancel it, 10,000 others armed"},
    {"timeout", "begin and leave a block with a time limit, 10,000 timers armed"},
};

const bench::cores cores;
std::string built;  // the build tree's bench/peers

bool is_python(const peer& p) { return std::string(p.program).ends_with(".py"); }

std::vector<std::string> command(const peer& p, const std::vector<std::string>& told) {
  std::vector<std::string> words;
  if (is_python(p)) {
    words = {"/usr/bin/python3",
             std::string(PEERS_SOURCE) + "/" + p.program};  // the one that Debian's packages are for
  } else {
    words = {built + "/" + p.program};
  }
  for (const auto* more : {&p.before, &told, &p.after}) words.insert(words.end(), more->begin(), more->end());
  return words;
}

// Empty, or why it is not there.
std::string missing(const peer& p) {
  const std::string no = "not installed";
  if (!is_python(p)) return ::access((built + "/" + p.program).c_str(), X_OK) ? no : "";
  bench::process trial(command(p, {"work"}), {}, cores.driver, -1, true);
  return trial.ask("nothing 1").empty() ? no : "";  // one that can't import its library has ended
}

// A server with its connections.
struct bout {
  bench::listener at;
  bench::process server;
  bench::load clients;

  bout(const peer& p, transport over, std::size_t count, std::size_t bytes, std::size_t depth)
      : at(over),
        server(command(p, {"echo", std::to_string(std::max<std::size_t>(bytes, 4096))}), p.environment, cores.peers,
               at.fd, false),
        clients((at.close(), p.name), at, count, bytes, depth) {
    clients.connect_each(1);  // when that is answered, it has started
    clients.run(count);
  }

  template <class Work>
  bench::sample measure(std::size_t n, Work work) {
    const double start = server.cpu_ns(), wall = bench::wall_ns();
    work();
    return {server.cpu_ns() - start, double(n), bench::wall_ns() - wall};
  }
};

std::string number(std::size_t n) { return n < 1000 ? std::to_string(n) : std::to_string(n / 1000) + ",000"; }
std::string size_text(std::size_t bytes) {
  return bytes < 1024 ? std::to_string(bytes) + " B" : std::to_string(bytes / 1024) + " KiB";
}
std::string plural(std::size_t n) { return number(n) + (n == 1 ? " connection" : " connections"); }

float quantile(std::vector<float> all, double q) {
  if (all.empty()) return 0;
  auto at = all.begin() + std::ptrdiff_t(q * double(all.size() - 1));
  std::nth_element(all.begin(), at, all.end());
  return *at;
}

bool asked_for(const std::string& title) { return title.find(bench::asked().table) != std::string::npos; }

// Candidates of all servers; run(bout, n) does the work. The bouts live as long as they.
template <class Run>
std::vector<bench::candidate> of_servers(std::vector<std::shared_ptr<bout>>& bouts, transport over, std::size_t count,
                                         std::size_t bytes, std::size_t depth, Run run) {
  std::vector<bench::candidate> all;
  for (const auto& p : servers) {
    if (!bench::wanted({p.name}) || count > p.most) continue;
    if (const std::string why = missing(p); !why.empty()) {
      all.push_back({p.name, {}, why});
      continue;
    }
    auto b = std::make_shared<bout>(p, over, count, bytes, depth);
    bouts.push_back(b);
    all.push_back({p.name, [b, run](std::size_t n) { return b->measure(n, [&] { run(*b, n); }); }});
  }
  return all;
}

void echo(transport over, std::size_t count, std::size_t bytes, std::size_t depth = 1) {
  const std::string how = std::string(depth > 1 ? "pipelined echo, " : "echo, ") + bench::text(over) + ", " +
                          size_text(bytes) + ", " + plural(count);
  const std::string title =
      how + (depth > 1 ? ", " + number(depth) + " at a time each" : "") + ": ns of the server's CPU a request";
  if (!asked_for(title)) return;
  std::vector<std::shared_ptr<bout>> bouts;
  auto all = of_servers(bouts, over, count, bytes, depth, [](bout& b, std::size_t n) { b.clients.run(n); });
  auto names = all;
  bench::compare(title, std::move(all), {.rounds = 9, .round_ms = 20});
  if (count > 1 || bench::asked().operations) return;
  const std::string table = how + ": latency";
  bench::headline(table);
  std::size_t i = 0;
  double raw50 = 0, raw99 = 0;
  for (const auto& c : names) {
    if (!c.missing.empty()) continue;
    const auto& each = bouts[i++]->clients.latencies_ns;
    const double p50 = quantile(each, 0.5), p99 = quantile(each, 0.99);
    if (i == 1) raw50 = p50, raw99 = p99;
    bench::value(table, c.name + ", p50", p50 / 1000, "us", raw50 / 1000);
    bench::value(table, c.name + ", p99", p99 / 1000, "us", raw99 / 1000);
  }
}

void accepts(transport over) {
  const std::string title =
      std::string("connect, one request, close: ") + bench::text(over) + ": ns of the server's CPU each";
  if (!asked_for(title)) return;
  std::vector<std::shared_ptr<bout>> bouts;
  bench::compare(title, of_servers(bouts, over, 0, 64, 1, [](bout& b, std::size_t n) { b.clients.connect_each(n); }),
                 {.rounds = 9, .round_ms = 15});
}

void idle(transport over, std::size_t count) {
  const std::string table = std::string("memory of an idle connection, ") + bench::text(over) + ", " + plural(count);
  if (!asked_for(table)) return;
  bench::headline(table + "  (once)");
  for (const auto& p : servers) {
    if (!bench::wanted({p.name})) continue;
    if (const std::string why = missing(p); !why.empty()) {
      std::printf("  %-48s %s\n", p.name, why.c_str());
      continue;
    }
    try {
      bout one(p, over, 16, 64, 1);  // what comes with the first ones is not theirs
      const double resident = one.server.resident(), in_kernel = one.server.in_kernel();
      bench::load others(p.name, one.at, count, 64);
      others.run(count);
      bench::value(table, std::string(p.name) + ", resident", (one.server.resident() - resident) / double(count),
                   "bytes");
      bench::value(table, std::string(p.name) + ", page tables and threads",
                   (one.server.in_kernel() - in_kernel) / double(count), "bytes");
    } catch (const std::runtime_error& e) {
      std::printf("  %-48s %s\n", p.name, e.what());
    }
  }
}

void fibers(const workload& w) {
  const std::string title = std::string(w.title) + ": ns of CPU each";
  if (!asked_for(title)) return;
  std::vector<bench::candidate> all;
  for (const auto& p : workers) {
    if (!bench::wanted({p.name})) continue;
    if (const std::string why = missing(p); !why.empty()) {
      all.push_back({p.name, {}, why});
      continue;
    }
    auto who = std::make_shared<bench::process>(command(p, {"work"}), p.environment, cores.peers, -1, true);
    const std::string order = std::string(w.name) + " ";
    if (who->ask(order + "1") == "none") continue;
    all.push_back(
        {p.name, [who, order, name = p.name, least = w.least](std::size_t n) {
           n = std::max(n, least);
           const double start = who->cpu_ns(), wall = bench::wall_ns();
           const std::string answer = who->ask(order + std::to_string(n));
           const bench::sample s{who->cpu_ns() - start, std::atof(answer.c_str() + 5), bench::wall_ns() - wall};
           if (answer.rfind("done ", 0) != 0) {
             std::fprintf(stderr, "bench_peers: %s does not answer `%s%zu`: '%s'\n", name, order.c_str(), n,
                          answer.c_str());
             std::exit(1);
           }
           return s;
         }});
  }
  bench::compare(title, std::move(all), {.rounds = 9, .round_ms = 10});
}

}  // namespace

int main(int argc, char** argv) try {
  bench::begin(argc, argv, "bench_peers");
  ::signal(SIGPIPE, SIG_IGN);
  const std::string self = argv[0];
  built = self.substr(0, self.rfind('/') + 1) + "peers";
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  bench::pin_to(cores.driver);
  if (cores.peers == cores.driver) std::printf("there is one core for both sides: the wall clock means nothing\n");

  const bool quick = bench::asked().quick;
  for (const auto& w : workloads) fibers(w);
  for (transport over : {transport::unix_socket, transport::tcp}) {
    for (std::size_t count : {1, 16, 128, 1000, 10'000}) {
      if (count > 16 && quick) break;
      if ((count + 10) * servers.size() > files.rlim_max) {
        std::printf("\necho, %s, %s: not measured: %lu descriptors are allowed\n", bench::text(over),
                    plural(count).c_str(), files.rlim_max);
        continue;
      }
      echo(over, count, 64);
    }
    echo(over, quick ? 1 : 16, 16 * 1024);
    for (std::size_t count : {16, 128})
      if (!quick || count == 16) echo(over, count, 64, 16);
    accepts(over);
  }
  for (std::size_t count : {1000, 10'000})
    if ((!quick || count == 1000) && count + 100 < files.rlim_max && bench::asked().operations == 0)
      idle(transport::tcp, count);
} catch (const std::runtime_error& e) {
  std::fprintf(stderr, "bench_peers: %s\n", e.what());
  return 1;
}
