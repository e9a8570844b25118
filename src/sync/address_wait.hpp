#pragma once
// Parking on an address: what the hooks of pthread locks stand on (and, later, a futex in user space).
//
// Waiters are kept per hub, in buckets by address, on their own stacks; only the hub's thread touches them. A wake on
// the same thread readies the first waiter of that address, first come, first served. A wake from another thread or
// from a signal handler cannot touch the buckets: it raises a flag and wakes each hub that has waiters, and all waiters of such a hub look
// again (they are written as loops that try first). So a woken waiter must re-check what it waits for.

#include <cstddef>

#include <ringlet/deadline.hpp>

#include "base/shown.hpp"

namespace ringlet::sync {

enum class address_result { woken, timed_out, interrupted };

// Parks the running fiber until a wake on `address`, the deadline, or a kill/timeout scope (interrupted; only if
// `interruptible`). `what` is shown in reports ("pthread_mutex_lock"). Needs hub::can_park(). Once the waiter can be found,
// `still_blocked(address)` is asked, if given: false returns woken at once, so that a wake from another thread between
// the caller's last try and the park is not lost.
RINGLET_SHOWN address_result wait_on_address(const void* address, deadline until, const char* what, bool interruptible,
                               bool (*still_blocked)(const void* address) = nullptr);

// Wakes up to `count` fibers that wait on the address, here and on other hubs; returns how many of this thread's hub.
// Any thread, with or without a hub. Costs one load when nobody waits anywhere. Not in a signal handler.
RINGLET_SHOWN std::size_t wake_address(const void* address, std::size_t count) noexcept;
// The same, async-signal-safe (sem_post is): all waiters of all hubs look again in their next turn.
RINGLET_SHOWN void wake_address_from_anywhere(const void* address) noexcept;

}  // namespace ringlet::sync
