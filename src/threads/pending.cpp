// Pending signals: sent to one thread of ours, or noted while the runtime ran and given to one by the hub.
//
// The hub chooses a thread that does not block the signal and ends that thread's wait if a signal ends such a wait; the
// thread sends it to itself when it leaves the runtime. Then the kernel calls its handler (handlers.cpp). A thread that is
// in the midst of a call, but not waiting just now, has a signal due: its next wait in that call ends at once.

#include <cstring>

#include "base/sys.hpp"
#include "threads/signals.hpp"

namespace ringlet::threads {

volatile bool unassigned = false;
signal_set unclaimed = 0;
std::uintptr_t behind_own_signal = 0;

namespace {

// A signal that came with more to tell than its number, or whose thread is not chosen yet.
struct noted {
  bool used = false;
  int signal = 0;
  thread_block* to = nullptr;
  siginfo_t info;
};
constexpr int most_noted = 256;
constinit noted notes[most_noted];

constexpr int most_timers = 64;
struct timer_target {
  int timer = 0, id = 0;  // id 0: free
};
constinit timer_target timer_targets[most_timers];

bool ignored_by_default(int signal) noexcept {
  return signal == SIGCHLD || signal == SIGCONT || signal == SIGURG || signal == SIGWINCH;
}

noted* note_for(const thread_block& b, int signal) noexcept {
  for (noted& n : notes)
    if (n.used && n.to == &b && n.signal == signal) return &n;
  return nullptr;
}

void remember_ending(thread_block& b, detail::signal_effect effect, int signal) noexcept {
  if (effect == detail::signal_effect::none) return;
  b.ended_by_signal = true;
  if (effect != detail::signal_effect::ends_unless_restarted || !(actions[signal].flags & SA_RESTART)) b.may_restart = false;
}

// Marks it pending for this thread, and lets it hear of it.
void give_to(thread_block& b, int signal) noexcept {
  b.pending |= bit_of(signal);
  if (!((~b.mask | b.awaited) & bit_of(signal))) return;
  const detail::signal_effect effect = the_mode.hub->end_wait_by_signal(*b.fiber);
  if (effect == detail::signal_effect::none) b.fiber->signal_due = true;
  remember_ending(b, effect, signal);
}

// Who waits for it by name goes before who does not block it; null: nobody would take it yet.
thread_block* taker_of(int signal) noexcept {
  mode& m = the_mode;
  thread_block* waits = m.main.awaited & bit_of(signal) ? &m.main : nullptr;
  m.hub->fibers.for_each([&](detail::fiber_state& f) {
    thread_block* b = block_of(f.where.image);
    if (!waits && (b->awaited & bit_of(signal))) waits = b;
  });
  if (waits) return waits;
  if (!m.main.is_gone && !(m.main.mask & bit_of(signal))) return &m.main;
  thread_block* found = nullptr;
  m.hub->fibers.for_each([&](detail::fiber_state& f) {
    thread_block* b = block_of(f.where.image);
    if (!found && b != &m.main && !(b->mask & bit_of(signal))) found = b;
  });
  return found;
}

}  // namespace

// Standard signals are not queued: the second of a number that waits is lost, as in the kernel.
bool note(int signal, const siginfo_t* info, thread_block* to) noexcept {
  noted* free = nullptr;
  for (noted& n : notes) {
    if (!n.used) {
      if (!free) free = &n;
    } else if (n.signal == signal && n.to == to && signal < SIGRTMIN) {
      return true;
    }
  }
  if (!free) return false;
  free->signal = signal;
  free->to = to;
  if (info)
    free->info = *info;
  else
    std::memset(&free->info, 0, sizeof free->info);
  free->used = true;
  return true;
}

void take_pending(thread_block& self, int signal, siginfo_t& info) noexcept {
  std::memset(&info, 0, sizeof info);
  if (noted* n = note_for(self, signal)) {
    info = n->info;
    n->used = false;
    if (!note_for(self, signal)) self.pending &= ~bit_of(signal);
  } else {
    self.pending &= ~bit_of(signal);
    info.si_code = SI_TKILL;
    info.si_pid = the_mode.process;
    info.si_uid = uid_t(sys::call(SYS_getuid));
  }
  info.si_signo = signal;
}

void drop_notes(const thread_block& b) noexcept {
  for (noted& n : notes)
    if (n.used && n.to == &b) n.used = false;
  for (timer_target& t : timer_targets)
    if (t.id == b.id) t.id = 0;
}

thread_block* target_of_timer(const siginfo_t* info) noexcept {
  if (!info || info->si_code != SI_TIMER) return nullptr;
  for (const timer_target& t : timer_targets)
    if (t.id != 0 && t.timer == info->si_timerid) return find(t.id);
  return nullptr;
}

long send(thread_block& to, int signal, const siginfo_t* info) noexcept {
  if (signal == 0) return 0;
  if (signal < 0 || signal > signals) return -EINVAL;
  const kernel_action& action = actions[signal];
  const bool is_waited_for = to.awaited & bit_of(signal);
  const bool is_blocked = to.mask & bit_of(signal);
  if (!is_waited_for && !is_blocked) {
    if (action.is_ignored() || (action.is_default() && ignored_by_default(signal))) return 0;
    // What ends or stops the process does not wait for a thread.
    if (action.is_default()) return sys::call(SYS_kill, the_mode.process, signal);
  }
  if (info && !note(signal, info, &to)) return -EAGAIN;
  give_to(to, signal);
  return 0;
}

void remember_met_signals(thread_block& self) noexcept {
  if (self.ended_by_signal || !self.fiber->signal_due) return;
  for (signal_set due = self.pending & ~self.mask; due; due &= due - 1) remember_ending(self, self.fiber->met_as, __builtin_ctzll(due) + 1);
}

bool has_signal_due() noexcept {
  const thread_block& self = current();
  return self.pending & ~self.mask;
}

void timer_signals(int timer, int id) noexcept {
  timer_target* place = nullptr;
  for (timer_target& t : timer_targets)
    if (t.id != 0 && t.timer == timer) place = &t;
    else if (t.id == 0 && !place) place = &t;
  if (place) *place = {timer, id};
}

void hand_out_signals(detail::hub_state&) noexcept {
  while (unassigned) {
    unassigned = false;
    unclaimed = 0;
    for (noted& n : notes) {
      if (!n.used) continue;
      if (n.to && (n.to->pending & bit_of(n.signal))) continue;
      if (!n.to) {
        n.to = taker_of(n.signal);
        if (!n.to) {
          unclaimed |= bit_of(n.signal);
          continue;
        }
      }
      give_to(*n.to, n.signal);
    }
  }
}

// The kernel calls the handler at this system call's end. Not noexcept: the handler may unwind.
[[gnu::noinline]] void signal_oneself(int signal, siginfo_t* info) {
#ifdef __x86_64__
  long result;
  std::uintptr_t behind;
  register siginfo_t* fourth asm("r10") = info;
  asm volatile(
      "leaq 1f(%%rip), %[behind]\n\t"
      "movq %[behind], %[kept]\n\t"
      "syscall\n"
      "1:"
      : "=a"(result), [behind] "=&r"(behind), [kept] "=m"(behind_own_signal)
      : "a"(SYS_rt_tgsigqueueinfo), "D"(long(the_mode.process)), "S"(long(the_mode.os_id)), "d"(long(signal)), "r"(fourth)
      : "rcx", "r11", "memory");
#else
  sys::call(SYS_rt_tgsigqueueinfo, the_mode.process, the_mode.os_id, signal, info);
#endif
}

void deliver_signals(thread_block& self, place programs) {
  if (__builtin_expect(unassigned, 0)) hand_out_signals(*the_mode.hub);
  while (const signal_set due = self.pending & ~self.mask) {
    const int signal = __builtin_ctzll(due) + 1;
    siginfo_t info;
    take_pending(self, signal, info);
    leave();
    // Only as long as the handler runs: two signals that meet the program later would find a place that is gone.
    struct shown {
      thread_block& block;
      ~shown() { block.programs = nullptr; }
    } while_it_runs{self};
    self.programs = &programs;
    signal_oneself(signal, &info);
    inside = true;
    if (__builtin_expect(unassigned, 0)) hand_out_signals(*the_mode.hub);
  }
  self.fiber->signal_due = false;
  if (self.mask_is_temporary) {
    self.mask_is_temporary = false;
    change_mask(self, self.mask_before);
    set_os_mask(self.mask);
  }
}

void forget_signals_after_fork() noexcept {
  mode& m = the_mode;
  thread_block& self = current();
  for (noted& n : notes) n.used = false;
  for (timer_target& t : timer_targets) t.id = 0;
  unassigned = false;
  unclaimed = 0;
  for (unsigned& each : m.blocked_by) each = 0;
  m.blocked_by_all = 0;
  self.pending = self.awaited = 0;
  m.os_mask_of = &self;
  count_in(self);
}

}  // namespace ringlet::threads
