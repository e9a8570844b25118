#pragma once
// The parking lot: where fibers wait for a pthread object to change.
//
// As in a futex, the check and the queueing are one step under the address's lock, so a change that is announced after
// it was made is never missed, whichever thread announces it: the lot is one for all hubs. Each waiter is a hub waiter
// on its fiber's own stack, and is claimed under that lock before it is woken.
//
// wait(): on a fiber. unpark(): any thread, also without a hub. unpark_from_anywhere(): from signal handlers, too: it
// wakes by message instead of touching run queues, and where the handler interrupted the lot itself it leaves the
// address to the one it interrupted. With nobody parked anywhere an unpark is a fence and a load.

#include <cstddef>

#include <ringlet/deadline.hpp>

namespace ringlet::hooks::lot {

enum class outcome { changed, timed_out };

// Calls `blocked` under the lock of the address; if it says true, parks until an unpark of the address or the deadline
// (capped: looks again at least every so often, for objects that change in ways nobody announces). Never interrupted.
outcome wait(const void* address, bool (*blocked)(void*), void* argument, deadline until, const char* what);

template <class Blocked>
outcome wait(const void* address, Blocked blocked, deadline until, const char* what) {
  return wait(address, [](void* b) { return bool((*static_cast<Blocked*>(b))()); }, &blocked, until, what);
}

// Wakes up to `count` fibers parked on the address, first come, first served; how many.
std::size_t unpark(const void* address, std::size_t count) noexcept;
std::size_t unpark_from_anywhere(const void* address, std::size_t count) noexcept;

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
