// Two fibers that sleep with libc's own sleep(3), and only they.
//
// One line makes the difference to a program that takes four seconds: after hooks::enable(), sleep parks the calling
// fiber and leaves the thread to the other. joinall gives them back in the order they ended.
//
// Prints expected/sleepers.txt.

#include <chrono>
#include <cstdio>

#include <unistd.h>

#include <ringlet/fiber.hpp>
#include <ringlet/hooks.hpp>

int main() {
  ringlet::hooks::enable();
  const auto begin = std::chrono::steady_clock::now();

  const auto sleeper = [](const char* name, unsigned seconds) {
    std::printf("%s: sleeps %u s\n", name, seconds);
    sleep(seconds);
    std::printf("%s: awake\n", name);
  };
  const auto first = ringlet::spawn({.name = "first"}, sleeper, "first", 3u);
  const auto second = ringlet::spawn({.name = "second"}, sleeper, "second", 1u);

  std::puts("main: both are spawned, none has run");
  for (const auto& ended : ringlet::joinall({first, second})) std::printf("main: %s has ended\n", ended.name().c_str());

  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::printf("main: %.0f s for sleeps of 3 and 1\n", took.count());
}
