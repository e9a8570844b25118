// Masks: one for each thread, although the kernel knows one thread only. The OS thread's is the running thread's, changed
// at a switch if it differs; asleep, the hub blocks what all threads block: so a signal comes in when some thread would
// take it. The watcher's signal alone is never blocked in the kernel, whatever the program's masks say.

#include "base/sys.hpp"
#include "threads/signals.hpp"

namespace ringlet::threads {

namespace {
bool same_alternate(const stack_t& a, const stack_t& b) noexcept {
  return (a.ss_flags & SS_DISABLE) == (b.ss_flags & SS_DISABLE) && ((a.ss_flags & SS_DISABLE) || (a.ss_sp == b.ss_sp && a.ss_size == b.ss_size));
}

void count_mask(signal_set mask, unsigned by) noexcept {
  if (is_libcs_own(mask)) {
    the_mode.blocked_by_all += by;
    if (!(mask & setuid_signal)) the_mode.blocked_by[__builtin_ctzll(setuid_signal)] -= by;
    return;
  }
  for (; mask; mask &= mask - 1) the_mode.blocked_by[__builtin_ctzll(mask)] += by;
}
}  // namespace

void set_os_mask(signal_set wanted) noexcept {
  the_mode.os_mask = wanted;  // first: a handler that comes in knows it already
  wanted &= ~tick_set;
  sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &wanted, nullptr, sizeof wanted);
}

void change_mask(thread_block& b, signal_set mask) noexcept {
  if (b.mask == mask) return;
  count_mask(b.mask, -1u);
  count_mask(mask, 1);
  the_mode.sleep_mask_is_old = true;
  b.mask = mask;
  if (__builtin_expect((unclaimed & ~mask) != 0, 0)) unassigned = true;
}

void count_in(thread_block& b) noexcept {
  count_mask(b.mask, 1);
  the_mode.sleep_mask_is_old = true;
}

void count_out(thread_block& b) noexcept {
  count_mask(b.mask, -1u);
  the_mode.sleep_mask_is_old = true;
  if (the_mode.os_mask_of == &b) the_mode.os_mask_of = nullptr;
  drop_notes(b);
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

}  // namespace ringlet::threads
