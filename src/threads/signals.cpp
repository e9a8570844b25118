// Signals, with a mask and pending signals for each thread although the kernel knows one thread only.
//
// The OS thread's mask is the running thread's, changed at a switch if it differs; asleep, the hub blocks what all
// threads block. So a signal comes in when some thread would take it. The program's handlers are installed by way of `ours`:
// if it is called while the program runs, it calls the program's handler, at once and on that thread's stack, as the kernel
// would have. If it is called within the runtime (asleep, or in the middle of a switch) it only notes the signal; the hub
// then chooses a thread that does not block it, ends that thread's wait if a signal ends such a wait, and the thread sends
// it to itself when it leaves the runtime: so a handler always runs on a thread's own stack with its own TLS and mask, may
// park there, and may leave by longjmp. Masks, SA_ONSTACK, SA_NODEFER stay the kernel's business; SA_RESETHAND is ours,
// because a signal may come twice here. Dispositions without a handler (default, ignored) are the kernel's at once.
//
// Signals of faults are never noted: they belong to the instruction that caused them.

#include <cstring>

#include "base/sys.hpp"
#include "context/alternate_stack.hpp"
#include "io/doors.hpp"
#include "ringlet/io.hpp"
#include "threads/state.hpp"

namespace ringlet::threads {

namespace {

constexpr std::uintptr_t by_default = 0, ignored = 1;  // SIG_DFL, SIG_IGN
struct kernel_action {
  std::uintptr_t handler = by_default;
  unsigned long flags = 0;
  void (*restorer)() = nullptr;
  signal_set mask = 0;
  bool has_handler() const noexcept { return handler != by_default && handler != ignored; }
};
constexpr int signals = 64;
constinit kernel_action actions[signals + 1];  // the program's own

// A signal that came with more to tell than its number, or whose thread is not chosen yet.
struct noted {
  bool used = false;
  int signal = 0;
  thread_block* to = nullptr;
  siginfo_t info;
};
constexpr int most_noted = 256;
constinit noted notes[most_noted];
volatile bool unassigned = false;

constexpr int most_timers = 64;
struct timer_target {
  int timer = 0, id = 0;  // id 0: free
};
constinit timer_target timer_targets[most_timers];

bool is_fault(int signal, const siginfo_t* info) noexcept {
  if (!info || info->si_code <= 0) return false;
  return signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL || signal == SIGTRAP || signal == SIGSYS;
}

bool ignored_by_default(int signal) noexcept {
  return signal == SIGCHLD || signal == SIGCONT || signal == SIGURG || signal == SIGWINCH;
}

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

noted* note_for(const thread_block& b, int signal) noexcept {
  for (noted& n : notes)
    if (n.used && n.to == &b && n.signal == signal) return &n;
  return nullptr;
}

thread_block* target_of_timer(const siginfo_t* info) noexcept {
  if (!info || info->si_code != SI_TIMER) return nullptr;
  for (const timer_target& t : timer_targets)
    if (t.id != 0 && t.timer == info->si_timerid) return find(t.id);
  return nullptr;
}

// The kernel sends these to the thread that made the call, as if it had sent them itself.
constexpr signal_set by_own_calls = bit_of(SIGPIPE) | bit_of(SIGXFSZ);
bool is_by_own_call(int signal, const siginfo_t* info) noexcept {
  return (bit_of(signal) & by_own_calls) && info && info->si_code == SI_USER && info->si_pid == the_mode.process;
}

void call_programs_handler(int signal, siginfo_t* info, void* machine) {
  const kernel_action action = actions[signal];
  if (!action.has_handler()) return;  // taken away since
  if (action.flags & SA_RESETHAND) {
    actions[signal].handler = by_default;
    const kernel_action none;
    sys::call(SYS_rt_sigaction, signal, &none, nullptr, sizeof none.mask);
  }
  reinterpret_cast<void (*)(int, siginfo_t*, void*)>(action.handler)(signal, info, machine);
}

// What the kernel calls. It may be left by longjmp or by unwinding (cancellation): no destructors here.
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
  inside = false;
  thread_block& self = current();
  const kernel_action& action = actions[signal];
  const signal_set before = self.mask;
  signal_set now = self.mask | action.mask | (action.flags & SA_NODEFER ? 0 : bit_of(signal));
  now &= ~never_blocked;
  change_mask(self, now);
  the_mode.os_mask = now;
  call_programs_handler(signal, info, machine);
  // The kernel goes back to this mask, which the handler may have changed.
  signal_set after;
  std::memcpy(&after, &static_cast<ucontext_t*>(machine)->uc_sigmask, sizeof after);
  thread_block& again = current();
  after |= before & tick_set;
  change_mask(again, after & ~never_blocked);
  the_mode.os_mask = after & ~never_blocked;
  inside = was_inside;
}

void act_by_default(int signal) noexcept {
  const kernel_action none;
  sys::call(SYS_rt_sigaction, signal, &none, nullptr, sizeof none.mask);
  sys::call(SYS_tgkill, the_mode.process, the_mode.os_id, signal);
}

kernel_action for_kernel(const kernel_action& wanted) noexcept {
  if (!wanted.has_handler()) return wanted;
  kernel_action installed = wanted;
  installed.handler = reinterpret_cast<std::uintptr_t>(&ours);
  installed.mask &= ~tick_set;
  installed.flags = (wanted.flags | SA_SIGINFO) & ~static_cast<unsigned long>(SA_RESETHAND);
  return installed;
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
  remember_ending(b, the_mode.hub->end_wait_by_signal(*b.fiber), signal);
}

thread_block* taker_of(int signal) noexcept {
  mode& m = the_mode;
  if (!m.main.is_gone && !(m.main.mask & bit_of(signal))) return &m.main;
  thread_block* found = nullptr;
  m.hub->fibers.for_each([&](detail::fiber_state& f) {
    thread_block* b = block_of(f.where.image);
    if (!found && b != &m.main && !(b->mask & bit_of(signal))) found = b;
  });
  return found;
}

void set_os_mask(signal_set wanted) {
  the_mode.os_mask = wanted;  // first: a handler that comes in knows it already
  wanted &= ~tick_set;
  sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &wanted, nullptr, sizeof wanted);
}

bool same_alternate(const stack_t& a, const stack_t& b) noexcept {
  return (a.ss_flags & SS_DISABLE) == (b.ss_flags & SS_DISABLE) && ((a.ss_flags & SS_DISABLE) || (a.ss_sp == b.ss_sp && a.ss_size == b.ss_size));
}

// Until a signal ends it.
long park_for_signal(const char* what, deadline until = never) noexcept {
  thread_block& self = current();
  if (self.pending & ~self.mask) return -EINTR;
  detail::waiter me;
  me.what = what;
  me.interruptible = false;
  me.signals.effect = detail::signal_effect::ends;
  return the_mode.hub->wait(me, until) == detail::wake_reason::timed_out ? -EAGAIN : -EINTR;
}

}  // namespace

// --- masks ------------------------------------------------------------------------------------------------------------

void count_mask(signal_set mask, unsigned by) noexcept {
  if (is_libcs_own(mask)) {
    the_mode.blocked_by_all += by;
    if (!(mask & setuid_signal)) the_mode.blocked_by[__builtin_ctzll(setuid_signal)] -= by;
    return;
  }
  for (; mask; mask &= mask - 1) the_mode.blocked_by[__builtin_ctzll(mask)] += by;
}

void change_mask(thread_block& b, signal_set mask) noexcept {
  if (b.mask == mask) return;
  count_mask(b.mask, -1u);
  count_mask(mask, 1);
  the_mode.sleep_mask_is_old = true;
  b.mask = mask;
}

void count_in(thread_block& b) noexcept {
  count_mask(b.mask, 1);
  the_mode.sleep_mask_is_old = true;
}

void count_out(thread_block& b) noexcept {
  count_mask(b.mask, -1u);
  the_mode.sleep_mask_is_old = true;
  if (the_mode.os_mask_of == &b) the_mode.os_mask_of = nullptr;
  for (noted& n : notes)
    if (n.used && n.to == &b) n.used = false;
  for (timer_target& t : timer_targets)
    if (t.id == b.id) t.id = 0;
}

// The program's own use of the watcher's signal.
void came_from_program(int signal, siginfo_t* info, void* machine) {
  const kernel_action& action = actions[signal];
  if (here() && !io::is_vfork_child() && ((current().mask & bit_of(signal)) || (inside && action.handler != ignored))) {
    note(signal, info, nullptr);
    unassigned = true;
    if (!inside) return;
    the_mode.hub->engine->signal_seen = true;
    the_mode.hub->engine->wake();
    return;
  }
  if (action.has_handler()) return ours(signal, info, machine);
  if (action.handler == by_default) act_by_default(signal);
}

void ready_for_exec() noexcept {
  stop_watcher();
  if (actions[tick_signal].handler == ignored) {
    kernel_action none;
    none.handler = ignored;
    sys::call(SYS_rt_sigaction, tick_signal, &none, nullptr, sizeof none.mask);
  }
  const thread_block& self = current();
  if ((self.mask & tick_set) || self.mask != the_mode.os_mask) sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &self.mask, nullptr, sizeof self.mask);
}

void apply_mask() noexcept {
  thread_block& self = current();
  self.mask_is_applied = true;
  if (self.mask != the_mode.os_mask) set_os_mask(self.mask);
}

void take_on(context::thread_image* next) {
  mode& m = the_mode;
  if (next == &m.own) {
    if (!m.sleep_mask_is_old) return;
    m.sleep_mask_is_old = false;
    m.sleep_mask = 0;
    for (int at = 0; at < signals; ++at)
      if (m.blocked_by[at] + m.blocked_by_all >= m.living) m.sleep_mask |= signal_set(1) << at;
    return;
  }
  thread_block& b = *block_of(next);
  if (__builtin_expect(!same_alternate(b.alternate, m.os_alternate), 0)) {
    m.os_alternate = b.alternate;
    sys::call(SYS_sigaltstack, &b.alternate, nullptr);
  }
  if (b.mask != m.os_mask && (!is_libcs_own(b.mask) || b.mask_is_applied)) {
    if (__builtin_expect(m.os_mask & ~b.mask & by_own_calls, 0) && m.os_mask_of) keep_signals_of_calls(*m.os_mask_of);
    set_os_mask(b.mask);
  }
  m.os_mask_of = &b;
}

void keep_signals_of_calls(thread_block& b) noexcept {
  const signal_set blocked = the_mode.os_mask & by_own_calls;
  signal_set waiting = 0;
  if (!blocked || sys::call(SYS_rt_sigpending, &waiting, sizeof waiting) != 0 || !(waiting & blocked)) return;
  const timespec at_once{};
  siginfo_t info;
  for (long signal; (signal = sys::call(SYS_rt_sigtimedwait, &blocked, &info, &at_once, sizeof blocked)) > 0;) {
    const bool own = is_by_own_call(int(signal), &info);
    note(int(signal), &info, own ? &b : nullptr);
    if (own)
      b.pending |= bit_of(int(signal));
    else
      unassigned = true;
  }
}

long set_mask(int how, const signal_set* wanted, signal_set* before, std::size_t size) noexcept {
  if (size != sizeof *wanted || (wanted && unsigned(how) > SIG_SETMASK)) return -EINVAL;
  thread_block& self = current();
  const signal_set old = self.mask;
  if (wanted) {
    const signal_set given = *wanted;
    const signal_set now = (how == SIG_BLOCK ? old | given : how == SIG_UNBLOCK ? old & ~given : given) & ~never_blocked;
    change_mask(self, now);
    self.mask_is_applied = false;
    if (now != the_mode.os_mask && !is_libcs_own(now)) set_os_mask(now);
  }
  if (before) *before = old;
  return 0;
}

void mask_for_this_call(signal_set wanted) noexcept {
  thread_block& self = current();
  if (!self.mask_is_temporary) {
    self.mask_before = self.mask;
    self.mask_is_temporary = true;
  }
  change_mask(self, wanted & ~never_blocked);
  set_os_mask(self.mask);  // what waited in the kernel for this comes in now, and is noted
  if (unassigned) hand_out_signals(*the_mode.hub);
}

// --- actions ----------------------------------------------------------------------------------------------------------

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
    if (sys::call(SYS_rt_sigaction, signal, nullptr, &known, sizeof known.mask) != 0 || !known.has_handler()) continue;
    const kernel_action installed = for_kernel(known);
    sys::call(SYS_rt_sigaction, signal, &installed, nullptr, sizeof installed.mask);
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
    } else if (const long refused = sys::call(SYS_rt_sigaction, signal, &installed, nullptr, size)) {
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

// --- sending and choosing ---------------------------------------------------------------------------------------------

long send(thread_block& to, int signal, const siginfo_t* info) noexcept {
  if (signal == 0) return 0;
  if (signal < 0 || signal > signals) return -EINVAL;
  const kernel_action& action = actions[signal];
  const bool is_waited_for = to.awaited & bit_of(signal);
  const bool is_blocked = to.mask & bit_of(signal);
  if (!is_waited_for && !is_blocked) {
    if (action.handler == ignored || (action.handler == by_default && ignored_by_default(signal))) return 0;
    // What ends or stops the process does not wait for a thread.
    if (action.handler == by_default) return sys::call(SYS_kill, the_mode.process, signal);
  }
  if (info && !note(signal, info, &to)) return -EAGAIN;
  give_to(to, signal);
  return 0;
}

bool has_signal_due() noexcept {
  const thread_block& self = current();
  return self.pending & ~self.mask;
}

bool expect_timer_signal(int signal) noexcept {
  if (signal < 1 || signal > signals) return false;
  if (actions[signal].has_handler()) return true;
  // Without a handler of the program's, sigwait is meant (glibc's own thread for SIGEV_THREAD): the signal must not do
  // its default, but come to us.
  kernel_action installed;
  installed.handler = reinterpret_cast<std::uintptr_t>(&ours);
  constexpr unsigned long has_restorer = 0x04000000;
  kernel_action any;
  for (int other = 1; other <= signals && !any.restorer; ++other)
    if (actions[other].restorer) any = actions[other];
  if (!any.restorer) {  // none of the program's has one yet: the runtime's own report of overflows has
    sys::call(SYS_rt_sigaction, SIGSEGV, nullptr, &any, sizeof any.mask);
    if (!any.restorer) return false;
  }
  installed.restorer = any.restorer;
  installed.flags = SA_SIGINFO | SA_RESTART | has_restorer;
  return sys::call(SYS_rt_sigaction, signal, &installed, nullptr, sizeof installed.mask) == 0;
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
    for (noted& n : notes) {
      if (!n.used) continue;
      if (n.to && (n.to->pending & bit_of(n.signal))) continue;
      if (!n.to) {
        n.to = taker_of(n.signal);
        if (!n.to) n.to = &the_mode.main;  // everybody has blocked it since
      }
      give_to(*n.to, n.signal);
    }
  }
}

void deliver_signals(thread_block& self) {
  if (__builtin_expect(unassigned, 0)) hand_out_signals(*the_mode.hub);
  while (const signal_set due = self.pending & ~self.mask) {
    const int signal = __builtin_ctzll(due) + 1;
    siginfo_t info;
    std::memset(&info, 0, sizeof info);
    noted* n = note_for(self, signal);
    if (n) {
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
    leave();
    sys::call(SYS_rt_tgsigqueueinfo, the_mode.process, the_mode.os_id, signal, &info);  // the kernel calls `ours` here
    inside = true;
    if (__builtin_expect(unassigned, 0)) hand_out_signals(*the_mode.hub);
  }
  if (self.mask_is_temporary) {
    self.mask_is_temporary = false;
    change_mask(self, self.mask_before);
    set_os_mask(self.mask);
  }
}

// --- waiting for signals ----------------------------------------------------------------------------------------------

long pending(signal_set* into, std::size_t size) noexcept {
  const long result = sys::call(SYS_rt_sigpending, into, size);
  if (result == 0 && size >= sizeof *into) {
    const thread_block& self = current();
    *into |= self.pending & self.mask;
  }
  return result;
}

long wait_for(const signal_set* wanted, siginfo_t* found, const timespec* timeout, std::size_t size) noexcept {
  if (size != sizeof *wanted || (timeout && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1'000'000'000))) return -EINVAL;
  thread_block& self = current();
  apply_mask();  // what it waits for must not come to a handler
  const signal_set set = *wanted & ~never_blocked, kernels = set & ~tick_set;
  const timespec at_once{};
  const deadline until = timeout ? deadline(std::chrono::seconds(timeout->tv_sec) + std::chrono::nanoseconds(timeout->tv_nsec)) : never;
  int fd = -1;
  long answer;
  while (true) {
    if (unassigned) hand_out_signals(*the_mode.hub);
    if (const signal_set here_now = self.pending & set) {
      const int signal = __builtin_ctzll(here_now) + 1;
      noted* n = note_for(self, signal);
      siginfo_t info;
      std::memset(&info, 0, sizeof info);
      if (n) {
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
      if (found) *found = info;
      answer = signal;
      break;
    }
    answer = sys::call(SYS_rt_sigtimedwait, &kernels, found, &at_once, sizeof kernels);
    if (answer != -EAGAIN) break;
    if (until.has_passed()) break;
    if (self.pending & ~self.mask) {
      answer = -EINTR;
      break;
    }
    if (fd < 0) {
      fd = int(sys::call(SYS_signalfd4, -1, &kernels, sizeof kernels, 02004000 /* SFD_CLOEXEC | SFD_NONBLOCK */));
      if (fd < 0) {
        answer = fd;
        break;
      }
      io::fd_opened(fd);
    }
    self.awaited = set;
    answer = io::wait_readable(fd, until);
    self.awaited = 0;
    if (answer == -EINTR && !(self.pending & set)) break;
    if (answer < 0 && answer != -EINTR && answer != -ETIMEDOUT) break;
  }
  if (fd >= 0) io::close(fd);
  return answer;
}

long suspend(const signal_set* mask, std::size_t size) noexcept {
  if (size != sizeof *mask) return -EINVAL;
  mask_for_this_call(*mask);
  return park_for_signal("sigsuspend");
}

long pause() noexcept { return park_for_signal("pause"); }

void forget_signals_after_fork() noexcept {
  mode& m = the_mode;
  thread_block& self = current();
  for (noted& n : notes) n.used = false;
  for (timer_target& t : timer_targets) t.id = 0;
  unassigned = false;
  for (unsigned& each : m.blocked_by) each = 0;
  m.blocked_by_all = 0;
  self.pending = self.awaited = 0;
  m.os_mask_of = &self;
  count_in(self);
}

}  // namespace ringlet::threads
