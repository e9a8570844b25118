#pragma once
// What the files about signals share: the program's own actions (handlers.cpp), and the signals that wait for a thread
// (pending.cpp). Masks are in masks.cpp, calls that wait for signals in signal_waits.cpp.

#include "base/kernel_action.hpp"
#include "threads/state.hpp"

namespace ringlet::threads {

inline constexpr int signals = 64;
using base::kernel_action;
// The program's own, whatever the kernel has been told.
extern constinit kernel_action actions[signals + 1];
// What the kernel calls for those that have a handler. It may be left by longjmp or by unwinding.
void ours(int signal, siginfo_t* info, void* machine);

// A signal that came with more to tell than its number, or (to: null) whose thread is not chosen yet. Async-signal-safe.
// False: there is no room.
bool note(int signal, const siginfo_t* info, thread_block* to) noexcept;
// Signals are noted whose thread is to be chosen.
extern volatile bool unassigned;
// Noted, too, but everybody blocks them: the process's, until somebody lets them through or waits for them.
extern signal_set unclaimed;
// Does the current thread, whose stack pointer this is, run a handler of the program's for a fault within the runtime (SIGSYS of a
// filter, SIGSEGV of a bad pointer)? The runtime is beneath it, perhaps with a lock held: nobody else may get a turn for a tick. A
// handler that has left by longjmp is known by a stack pointer above.
inline bool handles_fault_within(thread_block& self, std::uintptr_t stack_pointer) noexcept {
  constexpr std::uintptr_t reach = 1 << 18;
  if (self.fault_within == 0) return false;
  if (stack_pointer < self.fault_within && self.fault_within - stack_pointer < reach) return true;
  self.fault_within = 0;
  return false;
}

// The address behind the instruction by which a thread sends itself a signal.
extern std::uintptr_t behind_own_signal;
// One that is pending for this thread, with what is known of it; it is then no longer.
void take_pending(thread_block& self, int signal, siginfo_t& info) noexcept;
// The kernel sends these to the thread that made the call, as if it had sent them itself.
inline constexpr signal_set by_own_calls = bit_of(SIGPIPE) | bit_of(SIGXFSZ);
inline bool is_by_own_call(int signal, const siginfo_t* info) noexcept {
  return (bit_of(signal) & by_own_calls) && info && info->si_code == SI_USER && info->si_pid == the_mode.process;
}
// The thread that this timer of the kernel's signals, or null.
thread_block* target_of_timer(const siginfo_t* info) noexcept;
// The thread has ended: what was noted for it is forgotten.
void drop_notes(const thread_block&) noexcept;

void set_os_mask(signal_set) noexcept;

}  // namespace ringlet::threads
