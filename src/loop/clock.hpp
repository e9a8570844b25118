#pragma once
// Which clock this thread reads: CLOCK_MONOTONIC, unless a simulated engine's hub lives here.

#include "loop/engine.hpp"

namespace ringlet::loop {

// From now on clock::now() on this thread is engine->now(); null: the real clock again. Only the simulated engine has
// time of its own, and sets and unsets itself.
void set_thread_clock(const engine*) noexcept;
const engine* thread_clock() noexcept;

// CLOCK_MONOTONIC, whatever the thread's clock is.
clock::time_point real_now() noexcept;

}  // namespace ringlet::loop
