// A signal ends the main fiber's wait, wherever the thread is when it lands.

#include <atomic>
#include <cerrno>
#include <csignal>
#include <thread>
#include <unistd.h>

#include "one_signal.hpp"

#include <ringlet/fiber.hpp>
#include <ringlet/hooks.hpp>

using namespace conformance;

// The main fiber waits; then a fiber that computes, or only yields, has the thread when the signal comes, or the hub
// itself has it. Sent once a round: a wait that missed it would hang.
TEST_CASE("signals: none is lost, wherever the thread is when it lands") {
  ringlet::hooks::enable();
  int pipe_ends[2];
  REQUIRE(::pipe(pipe_ends) == 0);
  const pid_t process = ::getpid(), main_thread = ::gettid();
  std::atomic<int> round_waits{-1}, round_sent{-1};
  constexpr int rounds = 600;
  std::thread sender([&] {
    for (int i = 0; i < rounds; ++i) {
      while (round_waits.load() < i) std::this_thread::yield();
      ::tgkill(process, main_thread, SIGUSR2);
      round_sent = i;
    }
  });
  handler on(0);
  auto other = ringlet::spawn([&] {
    for (int i = 0; i < rounds; ++i) {
      while (round_waits.load() < i) ringlet::yield();
      while (round_sent.load() < i || handled <= i)
        if (i % 3 != 0) ringlet::yield();  // the hub's code, or this loop
    }
  });
  int ended = 0;
  for (int i = 0; i < rounds; ++i) {
    auto tells = ringlet::spawn([&, i] { round_waits = i; });  // runs when the main fiber waits
    char c;
    if (::read(pipe_ends[0], &c, 1) == -1 && errno == EINTR) ++ended;
    tells.join();
  }
  CHECK(ended == rounds);
  other.join();
  sender.join();
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
  ringlet::hooks::disable();
}
