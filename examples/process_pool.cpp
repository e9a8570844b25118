// A pool of processes: one task after the other, all at once, with callbacks; a map against a plain loop, by the wall clock; imap
// with a bar that shows how far it is; and a worker that is killed.
//
// Each task takes a tenth of a second (it sleeps, so that the times say the same on any machine). Prints
// expected/process_pool.txt, but for the times.

#include <chrono>
#include <csignal>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include <unistd.h>

#include <ringlet/process_pool.hpp>
#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;

namespace {

int square(int n) {
  ringlet::sleep(100ms);
  return n * n;
}
int picky(int n) {
  if (n == 2) throw std::invalid_argument("2 is not to my taste");
  return n;
}

template <class F>
double seconds(F f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}
std::string shown(const std::vector<int>& numbers) {
  std::string text;
  for (int n : numbers) text += " " + std::to_string(n);
  return text;
}

}  // namespace

int main() {
  ringlet::process_pool pool(4);
  pool.map(square, std::vector{1, 2, 3, 4}, 1);  // all four workers have started
  std::vector<int> numbers(8);
  std::iota(numbers.begin(), numbers.end(), 0);
  std::vector<int> results;

  std::printf("serial: %.2f s,", seconds([&] {
    for (int n : numbers) results.push_back(pool.apply(square, n));
  }));
  std::printf("%s\n", shown(results).c_str());

  results.clear();
  std::printf("parallel: %.2f s,", seconds([&] {
    std::vector<ringlet::pool_result<int>> under_way;
    for (int n : numbers) under_way.push_back(pool.apply_async(square, n));
    for (auto& result : under_way) results.push_back(result.get());
  }));
  std::printf("%s\n", shown(results).c_str());

  std::vector<int> done;
  for (int n : {1, 2, 3})
    pool.apply_async(picky, n).then([&](int result) { done.push_back(result); },
                                    [](const std::exception_ptr& error) {
                                      try {
                                        std::rethrow_exception(error);
                                      } catch (const ringlet::remote_error& e) {
                                        std::printf("error callback: %s: %s\n", e.type.c_str(), e.what());
                                      }
                                    });
  ringlet::hub::join(10s);  // until the callbacks have run
  std::printf("callback: %zu results\n", done.size());

  const double plain = seconds([&] {
    for (int n : numbers) square(n);
  });
  const double mapped = seconds([&] { results = pool.map(square, numbers, 1); });
  std::printf("map: %.2f s, a loop %.2f s,%s\n", mapped, plain, shown(results).c_str());

  std::string bar;
  for (int n : pool.imap(square, numbers)) {
    bar += '#';
    std::printf("imap: [%-8s] %d\n", bar.c_str(), n);
  }

  auto killed = pool.apply_async([](int) -> int {
    kill(getpid(), SIGKILL);
    return 0;
  }, 0);
  try {
    killed.get();
  } catch (const ringlet::worker_died& e) {
    std::printf("a worker was killed, and its task says so: %d\n", e.exit_code);
  }
  std::printf("the pool works on: %d\n", pool.apply(square, 9));
  pool.close();
  pool.join();
}
