#pragma once
// Threads of the runtime's own: real ones, also where a door makes fibers of the threads that a program makes.

#include <cstddef>

namespace ringlet::loop {

// Starts run(argument) on a new detached thread; 0 or an error number. quiet: it blocks all signals that a program could
// handle, so that no handler ever runs there. stack_size_bytes 0: the system's default.
int make_native_thread(void* (*run)(void*), void* argument, std::size_t stack_size_bytes, bool quiet) noexcept;
// True while this thread is inside the pthread_create of such a thread: a door lets this one through.
bool is_making_native_thread() noexcept;

}  // namespace ringlet::loop
