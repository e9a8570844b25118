#pragma once
// Ends the system call in which a helper thread waits, as a signal ends a thread's: with EINTR, unless it has done something.
//
// The signal is SIGURG: to a program that does not use it, it is nothing. Its default is to be ignored, so helpers may let it
// through without a handler being there; one (that does nothing) is there only while some call is being ended. So the program
// sees nothing of it: neither in what it asks of its signals, nor as a real-time signal that is missing (SIGRTMAX would be
// another after __libc_allocate_rtsig) or not its own. A program that handles SIGURG keeps it for itself, and calls on
// helpers come to their own end there.
//
// The signal may come before the call has entered the kernel, and is then nothing: who ends a call asks until it has ended.

#include <signal.h>

#include "base/lock.hpp"

namespace ringlet::loop {

class early_end {
 public:
  // On the helper: from here to leave() a system call may be ended. False: it has been called off, and is not to be made.
  bool arrive() noexcept;
  void leave() noexcept;
  // On another thread, while `means` of its own says that it can be done: true if a helper is there and was sent the signal.
  // In a signal handler it is not done where who holds the lock may be whom the handler has interrupted.
  enum class place { anywhere, signal_handler };
  bool ask(place) noexcept;
  // On another thread, too, `means` or not: true if no helper had arrived; then none makes the call any more.
  bool call_off(place) noexcept;

  // The handler is there as long as one of these is.
  class means {
   public:
    explicit means(place) noexcept;
    ~means();
    means(const means&) = delete;
    explicit operator bool() const noexcept { return there_; }

   private:
    bool there_ = false;
  };

 private:
  base::lock lock_;  // a signal that is sent under it comes to this call, and to no later one
  int helper_ = 0;   // the thread that is between arrive() and leave(), if it can be reached
  bool begun_ = false, called_off_ = false;
};

// This handler of SIGURG is the runtime's own: while a call is being ended it stays, but for SA_RESTART. It must be harmless on
// helpers. Null: there is none, or it would call a handler of the program's.
using handler_function = void (*)(int, siginfo_t*, void*);
void share_early_end_signal(handler_function) noexcept;

// In a forked child, which may have come to be while somebody was ending a call.
void forget_early_ends_after_fork() noexcept;

}  // namespace ringlet::loop
