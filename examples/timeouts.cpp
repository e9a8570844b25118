// Timeouts: a scope that sets a limit to all that waits in it, however deep.
//
// Each scope knows its own: when the outer one runs out, an inner one with a longer limit lets it pass.
//
// Prints expected/timeouts.txt.

#include <chrono>
#include <cstdio>

#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;

namespace {

// A library's own limit; it must not take its caller's for its own.
const char* library_call(std::chrono::milliseconds takes) {
  ringlet::timeout limit(20ms);
  try {
    ringlet::sleep(takes);
    return "an answer";
  } catch (const ringlet::timeout_expired& e) {
    if (!e.is(limit)) throw;
    return "the library's own limit";
  }
}

}  // namespace

int main() {
  std::printf("1 ms of work: %s\n", library_call(1ms));
  std::printf("too much work: %s\n", library_call(1h));

  ringlet::timeout mine(5ms);
  try {
    std::printf("never printed: %s\n", library_call(1h));
  } catch (const ringlet::timeout_expired& e) {
    std::printf("a shorter limit around it: %s\n", e.is(mine) ? "mine" : "somebody else's");
  }

  const auto answer = ringlet::with_timeout(2ms, [] {
    ringlet::sleep(1h);
    return 42;
  });
  std::printf("with_timeout: %s\n", answer ? "an answer" : "nothing");

  ringlet::queue<int> nobody_puts;
  std::printf("a deadline for one call: %s\n", nobody_puts.get(2ms) ? "an item" : "nothing");
}
