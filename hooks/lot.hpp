#pragma once
// The parking lot: what the hooks of pthread objects need of fibers. Waiting and waking are sync/address_wait's; here is the
// form that hooks use (a check in place, never interrupted but by signals where a thread's wait is: a lock is not given up
// because its waiter is killed), and questions about who runs.

#include <cstddef>

#include <ringlet/deadline.hpp>

#include "sync/address_wait.hpp"

namespace ringlet::hooks::lot {

enum class outcome { changed, timed_out, signalled };

// Calls `blocked()` under the lock of the address; if it says true, parks until an unpark of the address or the deadline.
// On a fiber.
template <class Blocked>
outcome wait(const void* address, Blocked blocked, deadline until, const char* what, const detail::signal_watch& signals = {}) {
  const auto ended = sync::wait_on_address(
      address, until, what, false,
      [](const void* b) { return bool((*static_cast<Blocked*>(const_cast<void*>(b)))()); }, &blocked, signals);
  switch (ended) {
    case sync::address_result::timed_out: return outcome::timed_out;
    case sync::address_result::interrupted: return outcome::signalled;
    default: return outcome::changed;
  }
}

inline std::size_t unpark(const void* address, std::size_t count) noexcept { return sync::wake_address(address, count); }
inline std::size_t unpark_from_anywhere(const void* address, std::size_t count) noexcept {
  return sync::wake_address_from_anywhere(address, count);
}

// For a wait of the running fiber that begins now.
detail::signal_watch watch_signals(detail::signal_effect) noexcept;

// Identity of the running fiber; null on a thread without a hub, and on the hub's own stack.
const void* running_fiber() noexcept;
// The running fiber is its thread's main one.
bool on_main_fiber() noexcept;
// This thread's main fiber is all there is: nobody else could run while it waits, so libc may as well block the thread.
bool alone() noexcept;
// Somebody outside owes the hub a wake-up (a helper thread, a signal): while one exists, silence is no deadlock.
struct expecting {
  expecting() noexcept;
  ~expecting();
  expecting(const expecting&) = delete;
};

}  // namespace ringlet::hooks::lot
