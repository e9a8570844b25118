#pragma once
// Parking on an address: where fibers wait for a pthread object to change (and, later, a futex in user space).
//
// As in a futex, the check and the queueing are one step under the address's lock, so a change that is announced after it
// was made is never missed, whichever thread announces it: the buckets are one set for all hubs. Each waiter lies on
// its fiber's own stack and is claimed under that lock before it is woken, first come, first served. A woken one
// re-checks what it waits for: somebody else may have been faster.
//
// With nobody parked anywhere a wake is a fence and a load.

#include <cstddef>
#include <limits>

#include <ringlet/deadline.hpp>

#include "base/shown.hpp"
#include "hub/waiter.hpp"

namespace ringlet::sync {

enum class address_result { woken, timed_out, interrupted };

// Asks `still_blocked(argument)` (the address itself if no argument is given) under the lock of the address; if it says
// true, or is null, parks the running fiber until a wake of the address, the deadline, or, if `interruptible`, a kill or
// timeout scope. A signal handler that ran since `signals` was made interrupts it, too, if that says so; a wake that came
// with it is then the next waiter's. `what` is shown in reports ("pthread_mutex_lock"). Only where a fiber may park.
RINGLET_SHOWN address_result wait_on_address(const void* address, deadline until, const char* what, bool interruptible,
                                             bool (*still_blocked)(const void* argument) = nullptr,
                                             const void* argument = nullptr, const detail::signal_watch& signals = {});

inline constexpr std::size_t all_waiters = std::numeric_limits<std::size_t>::max();

// Wakes up to `count` fibers parked on the address, of whichever hub; how many. Any thread, with or without a hub.
RINGLET_SHOWN std::size_t wake_address(const void* address, std::size_t count) noexcept;
// The same, async-signal-safe (sem_post is): wakes by message instead of touching run queues, and where the handler
// interrupted these buckets themselves leaves the address to the one it interrupted (then 0).
RINGLET_SHOWN std::size_t wake_address_from_anywhere(const void* address, std::size_t count = all_waiters) noexcept;

}  // namespace ringlet::sync
