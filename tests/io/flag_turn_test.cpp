// A blocking listener that several share, each with a hub of its own: where accept has no way but O_NONBLOCK, they take turns.

#include "io/flag_turn.hpp"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include <ringlet/ringlet.hpp>

#include "io/io_support.hpp"

using namespace io_test;

namespace {

constexpr int servers = 3, rounds = 25, connections = 60;
enum class server { thread, process };

// What all of them see, whichever way they were made.
struct seen {
  std::atomic<int> accepted{0}, refused{0}, answers{0};
  std::atomic<int> asked{0};  // the number of the round that has ended
};

// Accepts, and says after each round that it is still alive: who is held in the kernel does not.
void serve(int listener, seen& all) {
  auto acceptor = ringlet::spawn([&] {
    while (true) {
      const int fd = io::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd == -ECANCELED) return;
      if (fd < 0) ++all.refused;
      else ++all.accepted, io::close(fd);
    }
  });
  for (int answered = 0; answered < rounds; ringlet::sleep(1ms))
    if (all.asked > answered) answered = all.asked, ++all.answers;
  acceptor.kill();
}

bool comes_true(const std::function<bool()>& fact) {
  const auto end = std::chrono::steady_clock::now() + 20s;
  while (!fact() && std::chrono::steady_clock::now() < end) ringlet::sleep(1ms);
  return fact();
}

void connect_to(const sockaddr_in& at, int times) {
  for (int i = 0; i < times; ++i) {
    const support::fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(client.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0);
  }
}

void share_a_listener(server how) {
  void* const memory = ::mmap(nullptr, sizeof(seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  seen& all = *new (memory) seen;
  const owned listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  REQUIRE(::bind(listener, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0);
  REQUIRE(::listen(listener, 128) == 0);
  REQUIRE(::getsockname(listener, reinterpret_cast<sockaddr*>(&at), &size) == 0);

  std::vector<std::thread> threads;
  std::vector<pid_t> processes;
  for (int i = 0; i < servers; ++i) {
    if (how == server::thread) {
      threads.emplace_back([&] { serve(listener, all); });
    } else if (const pid_t child = ::fork(); child != 0) {
      processes.push_back(child);
    } else {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a case that hangs leaves nobody behind
      serve(listener, all);
      ::_exit(0);
    }
  }
  for (int round = 1; round <= rounds; ++round) {
    connect_to(at, connections);
    CHECK(comes_true([&] { return all.accepted == round * connections; }));
    // Nobody connects any more: all are parked, and their hubs go on.
    all.asked = round;
    const bool alive = comes_true([&] { return all.answers == round * servers; });
    CHECK(alive);
    if (!alive) break;
  }
  CHECK(all.refused == 0);
  all.asked = rounds;
  if (all.answers < rounds * servers) connect_to(at, servers);  // sets free who is held
  for (auto& each : threads) each.join();
  for (const pid_t each : processes) {
    int status = -1;
    CHECK(::waitpid(each, &status, 0) == each);
    CHECK(status == 0);
  }
  ::munmap(memory, sizeof(seen));
}

}  // namespace

TEST_CASE("accept: a thread that shares a blocking listener is neither held in the kernel, nor told that there is nothing") {
  share_a_listener(server::thread);
}

TEST_CASE("accept: a process that shares a blocking listener is neither held in the kernel, nor told that there is nothing") {
#ifdef __SANITIZE_THREAD__
  RINGLET_SKIP("ThreadSanitizer loses its order of events in the child of a process with threads");
#endif
  share_a_listener(server::process);
}

TEST_CASE("flag turn: who was killed while it had it loses it") {
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const io::flag_turn for_ever;
    (void)!::write(ready[1], "r", 1);
    ::pause();
    ::_exit(1);
  }
  char one;
  REQUIRE(::read(ready[0], &one, 1) == 1);
  CHECK(io::flag_turn::is_shared());
  const auto begun = std::chrono::steady_clock::now();
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  {
    const io::flag_turn mine;
    CHECK(std::chrono::steady_clock::now() - begun >= 900ms);  // by time only: it has no name
  }
  const auto again = std::chrono::steady_clock::now();
  { const io::flag_turn mine; }
  CHECK(std::chrono::steady_clock::now() - again < 900ms);
  ::close(ready[0]);
  ::close(ready[1]);
}
