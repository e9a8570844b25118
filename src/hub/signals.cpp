// What a signal means to whoever waits.
//
// A signal that is handled while the thread sleeps in the engine ends the sleep (engine::signal_seen). In a thread it would
// have ended the call that waited, too; the call that it may end here is the main fiber's, which is what the program's
// first thread has become (signal(7) says which calls end always, and which unless restarted).

#include <signal.h>

#include "base/sys.hpp"
#include "hub/hub.hpp"

namespace ringlet::detail {

namespace {
struct kernel_sigaction {
  void (*handler)(int);
  unsigned long flags;
  void (*restorer)();
  std::uint64_t mask;
};
// What the program's handlers say of a wait that a signal has met.
struct handlers {
  bool any = false;          // somebody handles signals at all
  bool all_restart = true;   // and each asks for calls to be restarted
};
handlers installed_handlers() {
  handlers found;
  for (int number = 1; number <= 64; ++number) {
    kernel_sigaction now{};
    if (sys::call(SYS_rt_sigaction, number, nullptr, &now, sizeof now.mask) != 0) continue;
    if (now.handler == SIG_DFL || now.handler == SIG_IGN) continue;
    if (number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL) continue;  // of faults, not of waits
    if (number == 32 || number == 33) continue;  // glibc's own
    found.any = true;
    if (!(now.flags & SA_RESTART)) found.all_restart = false;
  }
  return found;
}
}  // namespace

// A handler ran while the thread slept here. The program's first thread is the main fiber: its call ends as it would in
// the kernel. Which handler it was is not known, so for calls that SA_RESTART restarts, all that are installed are asked.
void hub_state::tell_of_signal() {
  engine->signal_seen = false;
  waiter* w = main_fiber.waiting;
  if (!w || w->reason != wake_reason::none || w->on_signal == signal_effect::none) return;
  const handlers program = installed_handlers();
  if (!program.any || (w->on_signal == signal_effect::ends_unless_restarted && program.all_restart)) return;
  w->signalled = true;
  if (!w->withdraw || w->withdraw(*w)) wake(*w, wake_reason::interrupted);
}

}  // namespace ringlet::detail
