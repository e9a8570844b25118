#pragma once
// Helper threads for what has no operation in the kernel (getaddrinfo; all operations under the epoll engine).
//
// Elastic: a thread is made when a job waits and none is idle, up to a limit (RINGLET_OFFLOAD_THREADS, 64); idle ones
// leave after a few seconds. Their signals are all blocked, so that a program's handlers never run there. One pool per
// process, made on first use, made anew in a forked child. Any thread may submit.

#include <cstddef>

#include "base/shown.hpp"

namespace ringlet::loop {

struct job {
  void (*run)(job&) = nullptr;  // on a helper thread; the job may be gone afterwards, so run must not be touched after
  job* next = nullptr;          // the pool's own
};

// Queues it; first in, first out. Returns 0 or -errno if no thread at all can be made.
RINGLET_SHOWN int offload(job&) noexcept;
// Threads of the pool that exist now (they are ours: not a sign of life when looking for a deadlock).
std::size_t offload_threads() noexcept;
void offload_forget_after_fork() noexcept;
// Throws std::runtime_error if RINGLET_OFFLOAD_THREADS is not a number in its range.
void check_offload_settings();
// True while this thread is inside the pthread_create of a helper: a door that makes fibers of new threads lets this
// one through.
bool offload_is_making_thread() noexcept;

}  // namespace ringlet::loop
