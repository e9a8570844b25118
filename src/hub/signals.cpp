// What a signal means to whoever waits.
//
// A thread's blocking call ends when a handler has run in it (signal(7) says which calls always, and which unless the
// handler asks for a restart). Here the call that may end is the main fiber's, which is what the program's first thread
// has become: the handler itself ran on whatever stack the signal met.
//
// Whoever wraps the program's handlers (the doors do) tells of each one that runs, so none is missed, wherever the thread
// is: a call notes the counts when it begins to wait, and ends when they have moved. Handlers that nobody wraps (no hooks,
// installed behind their back) are known only by the engine's sleep that they ended.

#include <signal.h>

#include "base/kernel_action.hpp"
#include "base/sys.hpp"
#include "hub/hub.hpp"

namespace ringlet::detail {

namespace {
std::atomic<void (*)()> handler_wrapper{nullptr};

// What the handlers that nobody wraps say of a wait that a signal has met.
struct handlers {
  bool any = false;          // somebody handles signals at all
  bool all_restart = true;   // and each asks for calls to be restarted
};
handlers unwrapped_handlers() {
  const auto wrapped = handler_wrapper.load(std::memory_order_relaxed);
  handlers found;
  for (int number = 1; number <= 64; ++number) {
    base::kernel_action now;
    if (base::set_action(number, nullptr, &now) != 0) continue;
    if (!now.has_handler() || reinterpret_cast<void (*)()>(now.handler) == wrapped) continue;
    if (number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL) continue;  // of faults, not of waits
    if (number == SIGTRAP || number == SIGSYS) continue;                                          // the same
    if (number == 32 || number == 33) continue;  // glibc's own
    found.any = true;
    if (!(now.flags & SA_RESTART)) found.all_restart = false;
  }
  return found;
}

// One writer, this thread; a handler that another one interrupts here may lose its own count, but not the other's.
void add_one(std::atomic<std::uint32_t>& count) noexcept {
  count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}
}  // namespace

void handlers_are_wrapped_in(void (*wrapper)()) noexcept { handler_wrapper.store(wrapper, std::memory_order_relaxed); }

void signal_handled(bool restarts) noexcept {
  hub_state* hub = hub_state::here_or_null();
  if (!hub) return;
  if (!restarts) add_one(hub->signals_not_restarting);
  add_one(hub->signals_handled);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  // The hub may be on its way to sleep, past its last look at the counts.
  const waiter* w = hub->main_fiber.waiting;
  if (!w || w->signals.effect == signal_effect::none) return;
  hub->engine->wake();
  delegated_call* const call = hub->main_delegated.load(std::memory_order_relaxed);
  if (call && (w->signals.effect == signal_effect::ends || !restarts)) call->end_in_handler(*call);
}

bool hub_state::met_signal(const signal_watch& w) const noexcept {
  if (w.effect == signal_effect::ends) return signals_handled.load(std::memory_order_relaxed) != w.handled;
  return signals_not_restarting.load(std::memory_order_relaxed) != w.not_restarting;
}

// Ends the main fiber's wait if a handler has run that ends such waits.
void hub_state::tell_of_signal() {
  signals_told = signals_handled.load(std::memory_order_relaxed);
  const bool sleep_ended = std::exchange(engine->signal_seen, false);
  if (hands_out_signals) return hands_out_signals(*this);
  waiter* w = main_fiber.waiting;
  if (!w || w->reason != wake_reason::none || w->signals.effect == signal_effect::none) return;
  bool ends = met_signal(w->signals);
  if (!ends && sleep_ended) {
    const handlers program = unwrapped_handlers();
    ends = program.any && (w->signals.effect == signal_effect::ends || !program.all_restart);
  }
  if (!ends) return;
  w->signalled = true;
  if (!w->withdraw || w->withdraw(*w)) wake(*w, wake_reason::interrupted);
}

signal_effect hub_state::end_wait_by_signal(fiber_state& f) {
  waiter* w = f.waiting;
  if (!w || f.step != fiber_phase::parked || w->reason != wake_reason::none || w->signals.effect == signal_effect::none) return signal_effect::none;
  const signal_effect effect = w->signals.effect;
  w->signalled = true;
  if (!w->withdraw || w->withdraw(*w)) wake(*w, wake_reason::interrupted);
  return effect;
}

}  // namespace ringlet::detail
