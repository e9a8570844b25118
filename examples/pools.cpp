// A pool: as many fibers as you like, but only so many at once.
//
// map gives the results in the order of the items, imap the same one by one, imap_unordered as they come. What fails,
// fails at its place.
//
// Prints expected/pools.txt.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;

int main() {
  ringlet::pool workers(3);
  std::size_t most = 0;
  const std::vector<int> pages{50, 10, 30, 20, 40};
  auto fetch = [&](int milliseconds) {
    most = std::max(most, workers.size());
    ringlet::sleep(std::chrono::milliseconds(milliseconds));
    return "page " + std::to_string(milliseconds);
  };

  std::puts("map:");
  for (const auto& page : workers.map(fetch, pages)) std::printf("  %s\n", page.c_str());
  std::printf("never more than %zu at once\n", most);

  std::puts("imap_unordered:");
  ringlet::pool five(5);
  for (const auto& page : five.imap_unordered(fetch, pages)) std::printf("  %s\n", page.c_str());

  std::puts("imap, where one fails:");
  auto reciprocal = [](int n) {
    if (n == 0) throw std::domain_error("division by zero");
    return 100 / n;
  };
  auto results = workers.imap(reciprocal, std::vector{5, 0, 20});
  for (int i = 0; i < 3; ++i) try {
      std::printf("  %d\n", results.next().value());
    } catch (const std::domain_error& e) {
      std::printf("  %s\n", e.what());
    }

  std::puts("spawn waits for room:");
  const std::vector<std::chrono::milliseconds> times{5ms, 25ms, 45ms, 1ms};
  for (std::size_t i = 0; i < times.size(); ++i) {
    workers.spawn([i, time = times[i]] {
      ringlet::sleep(time);
      std::printf("  %zu is done\n", i);
    });
    std::printf("  %zu is in\n", i);
  }
  workers.join();
}
