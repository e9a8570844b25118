// An event, a condition and a timer: three ways to say "now".
//
// An event is a flag to wait for: whoever waits when it is set wakes. A condition says that something guarded by a lock has
// changed, so look again. A timer calls a function later, unless it is cancelled.
//
// Prints expected/events.txt.

#include <chrono>
#include <cstdio>
#include <mutex>

#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;

int main() {
  std::puts("event:");
  ringlet::event ready;
  auto waiter = [&](const char* name) {
    const bool came = ready.wait(1s);
    std::printf("  %s: %s\n", name, came ? "off we go" : "too late");
  };
  auto first = ringlet::spawn(waiter, "first"), second = ringlet::spawn(waiter, "second");
  auto setter = ringlet::spawn([&] {
    ringlet::sleep(2ms);
    std::puts("  the setter: ready");
    ready.set();
  });
  ringlet::joinall({first, second, setter});
  std::printf("  not set again within 1 ms: %s\n", (ready.clear(), ready.wait(1ms)) ? "it was" : "right");

  std::puts("condition:");
  ringlet::mutex lock;
  ringlet::condition changed;
  int temperature = 18;
  auto cooler = ringlet::spawn([&] {
    std::unique_lock hold(lock);
    changed.wait(hold, ringlet::never, [&] { return temperature >= 21; });
    std::printf("  the cooler: %d degrees, on\n", temperature);
  });
  auto sun = ringlet::spawn([&] {
    while (temperature < 22) {
      ringlet::sleep(1ms);
      std::lock_guard hold(lock);
      ++temperature;
      std::printf("  the sun: %d\n", temperature);
      changed.notify_all();
    }
  });
  ringlet::joinall({cooler, sun});

  std::puts("timer:");
  ringlet::timer tea(3ms, [] { std::puts("  the tea is ready"); });
  ringlet::timer phone(2ms, [] { std::puts("  never printed"); });
  std::printf("  the phone will %s\n", phone.cancel() ? "not ring" : "ring");
  tea.join();
}
