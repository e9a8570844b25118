// Processes: from a function, by deriving; whose child is whose; globals that are not shared; how they end.
//
// A child is a fork: it has all that the program has at that moment, and a hub of its own. What is printed before a start is
// flushed by it, so nothing appears twice. Prints expected/processes.txt.

#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include <unistd.h>

#include <ringlet/process.hpp>
#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;

namespace {

std::vector<int> numbers;  // a global

void say(const std::string& who, int times) {
  for (int i = 0; i < times; ++i) std::printf("  hello from %s, %d\n", who.c_str(), i);
}

struct greeter : ringlet::process {
  std::string whom;
  explicit greeter(std::string w) : process({.name = "greeter"}), whom(std::move(w)) {}
  int run() override {
    std::printf("  %s greets %s\n", ringlet::current_process().name.c_str(), whom.c_str());
    return 5;
  }
};

std::string ended(ringlet::process& p) { return p.join(10s) ? std::to_string(*p.exit_code()) : "not yet"; }

}  // namespace

int main() {
  std::puts("from a function:");
  ringlet::process by_function(say, "a function", 2);
  by_function.start();
  by_function.join();

  std::puts("by deriving:");
  greeter by_deriving("the world");
  by_deriving.start();
  std::printf("  its status is %s\n", ended(by_deriving).c_str());

  std::puts("parent and child:");
  const int parent = getpid();
  ringlet::process child([parent] {
    std::printf("  the child's parent is the one that started it: %s\n", getppid() == parent ? "yes" : "no");
    std::printf("  and it is another process than that: %s\n", getpid() != parent ? "yes" : "no");
  });
  child.start();
  child.join();
  std::printf("  the parent knows its number: %s\n", child.pid() > 0 && child.pid() != parent ? "yes" : "no");

  std::puts("globals are not shared:");
  ringlet::process filler([] {
    for (int i = 0; i < 5; ++i) numbers.push_back(i * i);
    std::printf("  in the child there are %zu numbers\n", numbers.size());
  });
  filler.start();
  filler.join();
  std::printf("  in the parent there are %zu numbers\n", numbers.size());

  std::puts("how they end:");
  ringlet::process good([] { return 0; }), bad([] { return 3; }), slow([] { ringlet::sleep(1h); });
  for (ringlet::process* p : {&good, &bad, &slow}) p->start();
  std::printf("  returned 0: %s\n  returned 3: %s\n", ended(good).c_str(), ended(bad).c_str());
  std::printf("  joined for 10 ms, and alive: %s\n", !slow.join(10ms) && slow.is_alive() ? "yes" : "no");
  slow.terminate();
  std::printf("  terminated: %s\n", ended(slow).c_str());
}
