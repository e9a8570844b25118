#pragma once
// Threads as fibers, switched on: the system-call door with the dispatcher behind it.

namespace ringlet::hooks {

// From now on the first thread that the program makes switches the mode on.
void want_threads_as_fibers(bool reports) noexcept;
bool wants_threads_as_fibers() noexcept;
// The program is about to make a thread (triggers.cpp). Says on stderr, once, if the mode cannot be had.
void before_a_thread_is_made() noexcept;

}  // namespace ringlet::hooks
