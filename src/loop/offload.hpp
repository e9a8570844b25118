#pragma once
// Helper threads for what has no operation in the kernel (getaddrinfo; all operations under the epoll engine).
//
// One crew per process, made on first use, made anew in a forked child; at most RINGLET_OFFLOAD_THREADS (64) threads, and
// idle ones leave after five seconds. A program's own work never goes here, so that it cannot keep name look-ups waiting:
// each thread_pool has a crew of its own. Any thread may submit.

#include <cstddef>

#include "base/shown.hpp"
#include "loop/crew.hpp"

namespace ringlet::loop {

// Queues it; first in, first out. Returns 0 or -errno if no thread at all can be made.
RINGLET_SHOWN int offload(job&) noexcept;
// Takes back one that no thread has begun; false if one has.
bool take_back(job&) noexcept;
// Threads of this crew that exist now.
std::size_t offload_threads() noexcept;
void offload_forget_after_fork() noexcept;
// Throws std::runtime_error if RINGLET_OFFLOAD_THREADS is not a number in its range.
void check_offload_settings();

}  // namespace ringlet::loop
