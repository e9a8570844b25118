// The clock behind every deadline. One thread-local branch before the vDSO: simulated time must be seen by everything
// that makes a deadline on that thread, or a simulated run would depend on the machine.

#include "loop/clock.hpp"

#include <time.h>

namespace ringlet {
namespace {
constinit thread_local const loop::engine* own_clock = nullptr;
}

clock::time_point clock::now() noexcept {
  if (own_clock) [[unlikely]]
    return own_clock->now();
  return loop::real_now();
}

namespace loop {

void set_thread_clock(const engine* e) noexcept { own_clock = e; }

const engine* thread_clock() noexcept { return own_clock; }

clock::time_point real_now() noexcept {
  timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);  // vDSO: no system call, and not a name that hooks replace
  return clock::time_point(std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec));
}

}  // namespace loop
}  // namespace ringlet
