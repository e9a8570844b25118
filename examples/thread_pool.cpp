// Work that would hold up the fibers, computing or blocking where nothing can be hooked, goes to helper threads.
//
// apply waits for the result, submit gives a future, apply_async calls back, in a fiber of the thread that asked. Meanwhile
// the other fibers run on.
//
// Prints expected/thread_pool.txt.

#include <chrono>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <thread>
#include <vector>

#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;

namespace {

// Blocks its thread: no hook is enabled here.
int slow_square(int n) {
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  if (n < 0) throw std::invalid_argument("negative");
  return n * n;
}

}  // namespace

int main() {
  ringlet::thread_pool helpers(4);

  int ticks = 0;
  auto clock = ringlet::spawn([&] {
    for (;; ringlet::sleep(1ms)) ++ticks;
  });
  std::printf("apply: %d\n", helpers.apply(slow_square, 7));
  clock.kill();
  std::printf("a fiber ran on meanwhile: %s\n", ticks > 0 ? "yes" : "no");

  auto a = helpers.submit(slow_square, 2), b = helpers.submit(slow_square, 3);
  std::printf("submit: %d\n", a.get() + b.get());

  std::printf("map:");
  for (int square : helpers.map(slow_square, std::vector{1, 2, 3, 4, 5})) std::printf(" %d", square);
  std::puts("");

  ringlet::event called_back;
  helpers.apply_async([] { return slow_square(9); }, [&](int result) {
    std::printf("callback: %d\n", result);
    called_back.set();
  });
  called_back.wait();
  called_back.clear();
  helpers.apply_async([] { return slow_square(-1); }, [](int) { std::puts("never printed"); },
                      [&](std::exception_ptr error) {
                        try {
                          std::rethrow_exception(error);
                        } catch (const std::exception& e) {
                          std::printf("error callback: %s\n", e.what());
                        }
                        called_back.set();
                      });
  called_back.wait();
}
