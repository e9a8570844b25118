// A bounded semaphore: ten fibers, three connections.
//
// acquire takes one or waits; who waits longest is served first. A bounded semaphore also notices a release too many, which
// is a mistake that a plain one would turn into a fourth connection.
//
// Prints expected/bounded_semaphore.txt.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <vector>

#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;

int main() {
  ringlet::bounded_semaphore connections(3);
  int open = 0, most = 0;

  std::vector<ringlet::any_fiber> all;
  for (int i = 0; i < 10; ++i)
    all.push_back(ringlet::spawn([&, i] {
      connections.acquire();
      most = std::max(most, ++open);
      std::printf("fiber %d: connected\n", i);
      ringlet::sleep(2ms);
      --open;
      connections.release();
    }));
  ringlet::joinall(all);
  std::printf("never more than %d at once\n", most);

  try {
    connections.release();
  } catch (const std::logic_error&) {
    std::puts("a release too many is an error");
  }
}
