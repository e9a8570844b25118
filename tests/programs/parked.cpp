// Fibers that rest in different ways, for gdb_test.py. Says "ready" when all do, and ends when its input does.

#include <cstdio>

#include <ringlet/ringlet.hpp>

namespace {
volatile int kept = 0;  // so that no call below is a function's last: its frame stays
}

[[gnu::noinline]] void rest_on_event(ringlet::event& e) {
  e.wait();
  kept = 1;
}
[[gnu::noinline]] void rest_in_sleep() {
  ringlet::sleep(std::chrono::hours(1));
  kept = 2;
}
[[gnu::noinline]] void rest_in_read() {
  char byte;
  ringlet::io::read(0, &byte, 1);
  kept = 3;
}

int main() {
  ringlet::event never;
  ringlet::spawn({.name = "on-event"}, [&] { rest_on_event(never); });
  ringlet::spawn({.name = "asleep"}, rest_in_sleep);
  auto last = ringlet::spawn([] {
    std::puts("ready");
    std::fflush(stdout);
  });
  last.join();
  rest_in_read();
  std::_Exit(0);
}
