// prefork: workers that share a listening socket; their deaths, their replacement, the graceful stop.

#include <algorithm>
#include <atomic>
#include <netinet/in.h>
#include <set>
#include <sys/socket.h>

#include <ringlet/io.hpp>
#include <ringlet/ipc/shared.hpp>
#include <ringlet/prefork.hpp>

#include "on_processes.hpp"

using namespace process_test;

namespace {

bool read_line(int fd, std::string& line) {
  line.clear();
  for (char c; io::read(fd, &c, 1) == 1;) {
    if (c == '\n') return true;
    line += c;
  }
  return false;
}
bool write_line(int fd, const std::string& line) {
  const std::string all = line + "\n";
  return io::write(fd, all.data(), all.size()) == ssize_t(all.size());
}

int connect_to(unsigned short port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (io::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  io::close(fd);
  return -1;
}

// One request on a connection of its own: who answered, or "" if nobody did.
std::string ask(unsigned short port, const std::string& what = "who") {
  const int fd = connect_to(port);
  if (fd < 0) return "";
  std::string answer;
  if (!write_line(fd, what) || !read_line(fd, answer)) answer.clear();
  io::close(fd);
  return answer;
}

// Answers each line with its number and generation; "slow" after a while, "die" not at all.
void answer(prefork_worker& me, int client) {
  for (std::string line; read_line(client, line);) {
    if (line == "slow") sleep(100ms);
    if (line == "die") ::kill(::getpid(), SIGKILL);
    if (!write_line(client, std::to_string(me.number()) + " " + std::to_string(me.generation()))) return;
    if (me.stopping()) return;
  }
}

}  // namespace

PROCESS_CASE("prefork: workers share the socket, and stop when asked") {
  auto listener = support::listen_on_free_port();
  prefork server({.workers = 3}, [fd = listener.socket.get()](prefork_worker& me) { me.serve(fd, [&](int client) { answer(me, client); }); });
  CHECK(server.start(30s));
  CHECK(server.pids().size() == 3);
  CHECK_THROWS_AS(server.start(), std::logic_error);
  std::vector<fiber<std::string>> asked;
  for (int i = 0; i < 60; ++i) asked.push_back(spawn([&] { return ask(listener.port); }));
  int answered = 0;
  for (auto& f : asked) answered += f.get(30s).size() == 3;
  CHECK(answered == 60);
  CHECK(server.stop(30s));
  CHECK(server.pids().empty());
  CHECK(server.deaths() == 0);
}

PROCESS_CASE("prefork: a worker that dies is replaced") {
  auto listener = support::listen_on_free_port();
  prefork server({.workers = 2}, [fd = listener.socket.get()](prefork_worker& me) { me.serve(fd, [&](int client) { answer(me, client); }); });
  CHECK(server.start(30s));
  const auto before = server.pids();
  CHECK(ask(listener.port, "die") == "");
  for (int i = 0; i < 20000 && (server.deaths() < 1 || server.pids().size() < 2); ++i) sleep(1ms);
  CHECK(server.deaths() == 1);
  const auto after = server.pids();
  REQUIRE(after.size() == 2);
  CHECK(std::set<int>(after.begin(), after.end()) != std::set<int>(before.begin(), before.end()));
  for (int i = 0; i < 10; ++i) CHECK(ask(listener.port).size() == 3);
  CHECK(server.stop(30s));
}

PROCESS_CASE("prefork: a graceful stop lets finish what was begun") {
  auto listener = support::listen_on_free_port();
  prefork server({.workers = 1}, [fd = listener.socket.get()](prefork_worker& me) { me.serve(fd, [&](int client) { answer(me, client); }); });
  CHECK(server.start(30s));
  const int fd = connect_to(listener.port);
  std::string line;
  REQUIRE(write_line(fd, "hello"));
  REQUIRE(read_line(fd, line));
  REQUIRE(write_line(fd, "slow"));
  sleep(10ms);
  auto stopping = spawn([&] { return server.stop(30s); });
  CHECK(read_line(fd, line));
  CHECK_FALSE(read_line(fd, line));
  CHECK(stopping.get());
  io::close(fd);
}

PROCESS_CASE("prefork: what takes longer than the grace is killed") {
  auto listener = support::listen_on_free_port();
  prefork server({.workers = 1, .grace = 20ms}, [fd = listener.socket.get()](prefork_worker& me) {
    me.serve(fd, [&](int client) { answer(me, client); });
  });
  CHECK(server.start(30s));
  const int fd = connect_to(listener.port);
  std::string line;
  REQUIRE(write_line(fd, "hello"));
  REQUIRE(read_line(fd, line));
  CHECK(server.stop(30s));  // though the connection is idle and open
  CHECK_FALSE(read_line(fd, line));
  io::close(fd);
}

PROCESS_CASE("prefork: a reload under load loses no request") {
  auto listener = support::listen_on_free_port(1024);
  prefork server({.workers = 2}, [fd = listener.socket.get()](prefork_worker& me) { me.serve(fd, [&](int client) { answer(me, client); }); });
  CHECK(server.start(30s));
  // In a process of its own: workers that are forked while we have connections would have copies of them, which never end.
  struct counts {
    std::atomic<int> asked{0}, lost{0}, generations[4] = {};
    std::atomic<bool> stop{false};
  };
  seen_by_both<counts> seen;
  process load([&, port = listener.port] {
    std::vector<any_fiber> all;
    for (int i = 0; i < 10; ++i)
      all.push_back(spawn([&] {
        while (!seen->stop) {
          const std::string who = ask(port);
          ++seen->asked;
          if (who.size() == 3)
            ++seen->generations[who[2] - '0'];
          else
            ++seen->lost;
        }
      }));
    joinall(all);
  });
  load.start();
  const auto fifty_more = [&] {
    const int before = seen->asked;
    for (int n = 0; n < 20000 && seen->asked < before + 50; ++n) sleep(1ms);
  };
  for (int i = 0; i < 3; ++i) {
    fifty_more();
    CHECK(server.reload(60s));
    CHECK(server.pids().size() == 2);
  }
  fifty_more();
  seen->stop = true;
  CHECK(load.join(30s));
  CHECK(seen->lost == 0);
  CHECK(seen->asked >= 200);
  for (const auto& n : seen->generations) CHECK(n > 0);
  CHECK(server.deaths() == 0);
  CHECK(server.stop(30s));
}

PROCESS_CASE("prefork: workers stop when their master was killed") {
  auto listener = support::listen_on_free_port();
  ipc::array<int> pids(2);
  process master([&, fd = listener.socket.get()] {
    prefork server({.workers = 2}, [fd](prefork_worker& me) { me.serve(fd, [&](int client) { answer(me, client); }); });
    server.start();
    const auto all = server.pids();
    std::copy(all.begin(), all.end(), pids.begin());
    ::kill(::getpid(), SIGKILL);
  });
  master.start();
  CHECK(master.join(30s));
  const auto gone = [](int pid) { return ::kill(pid, 0) != 0; };
  for (int i = 0; i < 30000 && !(gone(pids[0]) && gone(pids[1])); ++i) sleep(1ms);
  CHECK(pids[0] > 0);
  CHECK(gone(pids[0]));
  CHECK(gone(pids[1]));
}
