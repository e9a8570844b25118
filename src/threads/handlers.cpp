// Handlers: the program's actions, and what the kernel calls in their stead.
//
// The program's handlers are installed by way of `ours`: if it is called while the program runs, it calls the program's
// handler, at once and on that thread's stack, as the kernel would have. If it is called within the runtime (asleep, or in
// the middle of a switch) it only notes the signal (pending.cpp). So a handler always runs on a thread's own stack with its
// own TLS and mask, may park there, and may leave by longjmp. Masks, SA_ONSTACK, SA_NODEFER stay the kernel's business;
// SA_RESETHAND is ours, because a signal may come twice here. Dispositions without a handler (default, ignored) are the
// kernel's at once.
//
// Signals of faults are never noted: they belong to the instruction that caused them.

#include <cstring>

#include "base/sys.hpp"
#include "context/alternate_stack.hpp"
#include "io/doors.hpp"
#include "threads/signals.hpp"

namespace ringlet::threads {

constinit kernel_action actions[signals + 1];

namespace {

bool is_fault(int signal, const siginfo_t* info) noexcept {
  if (!info || info->si_code <= 0) return false;
  return signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL || signal == SIGTRAP || signal == SIGSYS;
}

void call_programs_handler(int signal, siginfo_t* info, void* machine) {
  const kernel_action action = actions[signal];
  if (!action.has_handler()) return;  // taken away since
  if (action.flags & SA_RESETHAND) {
    const kernel_action none;
    actions[signal].handler = none.handler;
    base::set_action(signal, &none, nullptr);
  }
  action.handler(signal, info, machine);
}

// The context that the handler gets is a copy, if the thread stands within the runtime: the unwinder needs the true one.
void call_with_programs_place(const thread_block& self, int signal, siginfo_t* info, void* machine) {
#ifdef __x86_64__
  auto* const real = static_cast<ucontext_t*>(machine);
  const auto at = std::uintptr_t(real->uc_mcontext.gregs[REG_RIP]);
  // The latter: another signal has come with it, whose handler the kernel begins when this one has ended.
  if (self.programs && (at == behind_own_signal || at == reinterpret_cast<std::uintptr_t>(&ours))) {
    constexpr std::size_t kernels = offsetof(ucontext_t, uc_sigmask) + sizeof(signal_set);
    ucontext_t shown;
    std::memcpy(static_cast<void*>(&shown), real, kernels);
    self.programs->show(shown.uc_mcontext.gregs, self.programs->from);
    call_programs_handler(signal, info, &shown);
    std::memcpy(&real->uc_sigmask, &shown.uc_sigmask, sizeof(signal_set));
    return;
  }
#endif
  call_programs_handler(signal, info, machine);
}

void act_by_default(int signal) noexcept {
  const kernel_action none;
  base::set_action(signal, &none, nullptr);
  sys::call(SYS_tgkill, the_mode.process, the_mode.os_id, signal);
}

kernel_action for_kernel(const kernel_action& wanted) noexcept {
  if (!wanted.has_handler()) return wanted;
  kernel_action installed = wanted;
  installed.handler = &ours;
  installed.mask &= ~tick_set;
  installed.flags = (wanted.flags | SA_SIGINFO) & ~static_cast<unsigned long>(SA_RESETHAND);
  return installed;
}

}  // namespace

// No destructors here: it may be left by longjmp.
void ours(int signal, siginfo_t* info, void* machine) {
  if (!here() || io::is_vfork_child()) return call_programs_handler(signal, info, machine);
  thread_block* const timers = target_of_timer(info);
  if (!is_fault(signal, info) && (inside || timers)) {
    note(signal, info, timers ? timers : is_by_own_call(signal, info) ? &current() : nullptr);
    unassigned = true;
    the_mode.hub->engine->signal_seen = true;
    the_mode.hub->engine->wake();
    return;
  }
  if (!is_fault(signal, info) && (current().mask & bit_of(signal))) {  // libc's own critical section (is_libcs_own)
    note(signal, info, nullptr);
    unassigned = true;
    return;
  }
  const bool was_inside = inside;  // a fault of ours by the program's bad pointer: its handler may longjmp away
  thread_block& self = current();
  const std::uintptr_t fault_before = self.fault_within;
  if (was_inside) self.fault_within = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  inside = false;
  const kernel_action& action = actions[signal];
  const signal_set before = self.mask;
  signal_set now = self.mask | action.mask | (action.flags & SA_NODEFER ? 0 : bit_of(signal));
  now &= ~never_blocked;
  change_mask(self, now);
  the_mode.os_mask = now;
  call_with_programs_place(self, signal, info, machine);
  // The kernel goes back to this mask, which the handler may have changed.
  signal_set after;
  std::memcpy(&after, &static_cast<ucontext_t*>(machine)->uc_sigmask, sizeof after);
  thread_block& again = current();
  after |= before & tick_set;
  change_mask(again, after & ~never_blocked);
  the_mode.os_mask = after & ~never_blocked;
  inside = was_inside;
  again.fault_within = fault_before;
}

// The program's own use of the watcher's signal.
void came_from_program(int signal, siginfo_t* info, void* machine) {
  const kernel_action& action = actions[signal];
  if (here() && !io::is_vfork_child() && ((current().mask & bit_of(signal)) || (inside && !action.is_ignored()))) {
    note(signal, info, nullptr);
    unassigned = true;
    the_mode.hub->engine->signal_seen = true;
    the_mode.hub->engine->wake();
    return;
  }
  if (action.has_handler()) return ours(signal, info, machine);
  if (action.is_default()) act_by_default(signal);
}

void begin_signals() noexcept {
  mode& m = the_mode;
  sys::call(SYS_rt_sigprocmask, SIG_SETMASK, nullptr, &m.main.mask, sizeof m.main.mask);
  m.os_mask = m.main.mask;
  m.os_mask_of = &m.main;
  // As bare, nobody has one unless the program gives it to him: the switch would change it each time.
  context::take_down_alternate_stack_of_thread();
  sys::call(SYS_sigaltstack, nullptr, &m.os_alternate);
  m.os_alternate.ss_flags &= ~SS_ONSTACK;
  m.main.alternate = m.os_alternate;
  count_in(m.main);
  for (int signal = 1; signal <= signals; ++signal) {
    kernel_action& known = actions[signal];
    if (base::set_action(signal, nullptr, &known) != 0 || !known.has_handler()) continue;
    const kernel_action installed = for_kernel(known);
    base::set_action(signal, &installed, nullptr);
  }
}

// What the kernel keeps of a handler's flags (sigaction(2), SA_UNSUPPORTED); SA_INTERRUPT and others are nothing to it.
constexpr unsigned long known_flags = SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | 0x800 /* SA_EXPOSE_TAGBITS */ | 0x04000000 /* SA_RESTORER */ |
                                      SA_ONSTACK | SA_RESTART | SA_NODEFER | 0x80000000 /* SA_RESETHAND, which is an int */;

long set_action(int signal, const void* wanted, void* before, std::size_t size) noexcept {
  if (signal < 1 || signal > signals || size != sizeof(signal_set)) return sys::call(SYS_rt_sigaction, signal, wanted, before, size);
  const kernel_action old = actions[signal];
  if (wanted) {
    kernel_action now;
    std::memcpy(&now, wanted, sizeof now);
    now.flags &= known_flags;
    const kernel_action installed = for_kernel(now);
    if (signal == tick_signal && watcher_runs()) {
      actions[signal] = now;
    } else if (const long refused = base::set_action(signal, &installed, nullptr)) {
      return refused;
    }
    now.mask &= ~never_blocked;
    actions[signal] = now;
  }
  if (before) std::memcpy(before, &old, sizeof old);
  return 0;
}

long set_alternate_stack(const stack_t* wanted, stack_t* before) noexcept {
  // The kernel's is this thread's now, and it knows whether we stand on it.
  const long result = sys::call(SYS_sigaltstack, wanted, before);
  if (result == 0 && wanted) {
    thread_block& self = current();
    self.alternate = *wanted;
    the_mode.os_alternate = *wanted;
  }
  return result;
}

bool expect_timer_signal(int signal) noexcept {
  if (signal < 1 || signal > signals) return false;
  if (actions[signal].has_handler()) return true;
  // Without a handler of the program's, sigwait is meant (glibc's own thread for SIGEV_THREAD): the signal must not do
  // its default, but come to us.
  const kernel_action installed = base::action_of(&ours, SA_SIGINFO | SA_RESTART);
  return base::set_action(signal, &installed, nullptr) == 0;
}

void ready_for_exec() noexcept {
  stop_watcher();
  if (actions[tick_signal].is_ignored()) {
    kernel_action ignored;
    ignored.ignore();
    base::set_action(tick_signal, &ignored, nullptr);
  }
  const thread_block& self = current();
  if ((self.mask & tick_set) || self.mask != the_mode.os_mask) sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &self.mask, nullptr, sizeof self.mask);
}

}  // namespace ringlet::threads
