// A pre-forked server: two processes with a hub each share one listening socket; one is killed and replaced, then all are replaced
// by new ones under load, and no request is lost.
//
// Prints expected/prefork_server.txt.

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ringlet/ipc/shared.hpp>
#include <ringlet/prefork.hpp>
#include <ringlet/process.hpp>
#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;

namespace {

namespace io = ringlet::io;

struct result {
  int answered, lost, generations;
};

int listen_somewhere(sockaddr_in& address) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  socklen_t length = sizeof address;
  address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || bind(fd, reinterpret_cast<sockaddr*>(&address), length) || listen(fd, SOMAXCONN) ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length)) {
    std::perror("no socket to listen on");
    std::exit(1);
  }
  return fd;
}

// One request: which generation answered, or -1.
int ask(const sockaddr_in& server) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  char answer;
  const bool good = io::connect(fd, reinterpret_cast<const sockaddr*>(&server), sizeof server) == 0 && io::write(fd, "?", 1) == 1 && io::read(fd, &answer, 1) == 1;
  io::close(fd);
  return good ? answer - '0' : -1;
}

}  // namespace

int main() {
  sockaddr_in address;
  const int listener = listen_somewhere(address);
  ringlet::prefork server({.workers = 2}, [listener](ringlet::prefork_worker& me) {
    me.serve(listener, [&me](int client) {  // in a fiber for each connection
      for (char byte; io::read(client, &byte, 1) == 1;) {
        const char answer = char('0' + me.generation());
        if (io::write(client, &answer, 1) != 1 || me.stopping()) return;
      }
    });
  });
  server.start();
  std::printf("%zu workers\n", server.pids().size());

  const int victim = server.pids()[0];
  kill(victim, SIGKILL);
  while (server.deaths() == 0 || server.pids().size() < 2) ringlet::sleep(1ms);
  std::printf("one was killed and replaced: %zu workers\n", server.pids().size());

  // The clients are a process of their own.
  ringlet::ipc::value<bool> enough(false);
  ringlet::ipc::value<result> seen;
  ringlet::process load([&] {
    std::vector<ringlet::fiber<void>> clients;
    for (int i = 0; i < 20; ++i)
      clients.push_back(ringlet::spawn([&] {
        while (!enough.get()) {
          const int generation = ask(address);
          result& r = seen.raw();
          if (generation < 0)
            ++r.lost;
          else
            ++r.answered, r.generations |= 1 << generation;
        }
      }));
    ringlet::joinall(clients);
  });
  load.start();
  const auto hundred_more = [&] {
    for (const int before = seen.get().answered; seen.get().answered < before + 100;) ringlet::sleep(1ms);
  };
  hundred_more();
  server.reload();
  std::printf("reloaded: %zu workers\n", server.pids().size());
  hundred_more();
  enough.set(true);
  load.join();
  const result r = seen.get();
  std::printf("requests lost: %d; both generations have answered: %s\n", r.lost, r.generations == 3 ? "yes" : "no");
  std::printf("stopped: %s\n", server.stop(10s) ? "yes" : "no");
}
