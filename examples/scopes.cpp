// A scope: fibers that do not outlive the block that spawned them, and share its fate.
//
// When one child fails, the others are cancelled, and the block gets its error; nobody is left when the block has been left.
//
// Prints expected/scopes.txt.

#include <chrono>
#include <cstdio>
#include <stdexcept>

#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;

namespace {

int fetch(const char* what, std::chrono::milliseconds time) {
  struct farewell {
    const char* what;
    ~farewell() { std::printf("  %s: cleaned up\n", what); }
  } at_end{what};
  ringlet::sleep(time);
  if (time == 5ms) throw std::runtime_error("no answer");
  std::printf("  %s: fetched\n", what);
  return int(time.count());
}

}  // namespace

int main() {
  std::puts("all goes well:");
  {
    ringlet::fiber_scope scope;
    auto a = scope.spawn(fetch, "a", 2ms);
    auto b = scope.spawn(fetch, "b", 4ms);
    scope.join();
    std::printf("  together %d\n", a.get() + b.get());
  }

  std::puts("one fails:");
  try {
    ringlet::fiber_scope scope;
    scope.spawn(fetch, "quick", 1ms);
    scope.spawn(fetch, "broken", 5ms);
    scope.spawn(fetch, "slow", 3600s);
  } catch (const std::runtime_error& e) {
    std::printf("  the block: %s\n", e.what());
  }
}
