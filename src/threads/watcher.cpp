// Who computes for long gives way: a watcher, a kernel thread of its own, sees that one thread of ours has kept the
// processor for two looks while others live, or that another's timer is due, and sends the OS thread a signal; its
// handler lets the hub turn. Timers have moments of their own because the kernel's have: threads that wait for a lock of
// Python's by timers of 5 ms, and are served at the looks only, fall in step, and one of them is always the last in the queue.
//
// Never within the runtime (`inside`), and never in code that may hold a lock which the runtime itself could need
// (malloc's): libc but for pthread_spin_lock, the loader, the runtime's own object, and the object that malloc comes from.
// There, the next look comes soon enough. The program's own locks are true locks with a true queue: whoever needs one waits
// its turn.
//
// The hub puts who gave way behind all that are ready then, those that the kernel or a timer made ready among them: else
// they stay in step with the look, and a thread that asks for a lock of Python's by a timer never gets it.
//
// The watcher is made by a bare clone, with the main thread's control block, and uses nothing of libc: it is no
// thread of libc's, which counts its own to know when the last one ends. While nobody computes it sleeps. It ends before
// exec (a signal on its way would kill the new program, which has no handler for it) and before the kernel's state of the
// process's threads changes: it would keep what was given up, or be the second thread that the kernel refuses the call for.

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>

#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <ucontext.h>

#include "base/kernel_action.hpp"
#include "base/sys.hpp"
#include "io/doors.hpp"
#include "threads/signals.hpp"
#include "threads/state.hpp"

namespace ringlet::threads {

volatile int watcher_sleeps = 0;

namespace {

constexpr long long look_every_ns = 2'000'000;
constexpr long long look_again_ns = 500'000;     // if somebody is ready
constexpr long long shortest_pause_ns = 200'000;  // between two timers
constexpr int looks_before_sleep = 50;
constexpr std::size_t stack_bytes = 32 * 1024;

struct range {
  std::uintptr_t begin, end;
};
constexpr std::size_t most_ranges = 16;
range untouchable[most_ranges];
range spins{};
std::size_t ranges = 0;
int watched_process = 0;
int watcher_id = 0;  // the kernel clears it when the watcher has ended
volatile int must_end = 0;
long watchers_stack = 0;
std::uint64_t gave_way = 0;

bool is_touchable(std::uintptr_t at) noexcept {
  if (at >= spins.begin && at < spins.end) return true;
  for (std::size_t i = 0; i < ranges; ++i)
    if (at >= untouchable[i].begin && at < untouchable[i].end) return false;
  return true;
}

#ifdef __x86_64__

// The watcher's signals are told from the program's by what they carry.
constexpr int watchers_code = -64;
volatile bool tick_is_on_its_way = false;

// Not before this moment has the thread begun that runs now. The watcher writes it.
volatile long long stuck_since = 0;

long long nanoseconds_now() noexcept {
  timespec t;
  sys::call(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

bool stands_on_alternate_stack() noexcept {
  const stack_t& s = current().alternate;
  const auto here_now = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)), low = reinterpret_cast<std::uintptr_t>(s.ss_sp);
  return !(s.ss_flags & SS_DISABLE) && here_now >= low && here_now - low < s.ss_size;
}

void on_tick(int signal, siginfo_t* info, void* machine) {
  if (info->si_code != watchers_code || info->si_value.sival_ptr != &untouchable) return came_from_program(signal, info, machine);
  tick_is_on_its_way = false;
  if (__builtin_expect(notes_delays, 0) && here() && !io::is_vfork_child()) {
    const bool was_inside = inside;
    inside = true;
    note_delay(nanoseconds_now() - stuck_since);
    inside = was_inside;
  }
  if (inside || !here() || io::is_vfork_child()) return;
  detail::hub_state& hub = *the_mode.hub;
  if (!hub.can_park() || hub.thread.current->in_hub) return;
  const auto& registers = static_cast<ucontext_t*>(machine)->uc_mcontext.gregs;
  if (!is_touchable(std::uintptr_t(registers[REG_RIP]))) return;
  if (handles_fault_within(current(), std::uintptr_t(registers[REG_RSP]))) return;
  // The kernel does not change its alternate stack while somebody stands on it.
  if (stands_on_alternate_stack()) return;
  inside = true;
  const std::uint64_t before = hub.switches;
  hub.give_way();
  if (hub.switches - before > 2) ++gave_way;  // more than to the hub and back
  thread_block& self = current();
  deliver_signals(self, {[](greg_t* registers, const void* from) noexcept {
                           __builtin_memcpy(registers, static_cast<const ucontext_t*>(from)->uc_mcontext.gregs, sizeof(gregset_t));
                         },
                         machine});
  // The kernel goes back to this mask; the OS thread's may have changed meanwhile.
  const signal_set mask = the_mode.os_mask & ~tick_set;
  __builtin_memcpy(&static_cast<ucontext_t*>(machine)->uc_sigmask, &mask, sizeof mask);
  leave();
}

// Whether the hub has been asleep, or has one thread only, for long enough: then the watcher sleeps, too.
bool nothing_to_watch() noexcept {
  return the_mode.living <= 1 || (inside && (!notes_delays || the_mode.hub->asleep.load(std::memory_order_relaxed)));
}

void sleep_until_woken() noexcept {
  __atomic_store_n(&watcher_sleeps, 1, __ATOMIC_SEQ_CST);
  // The hub writes `inside` and reads watcher_sleeps without a fence between: this is the fence, in its thread.
  const bool fenced = sys::call(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
  const timespec at_most{0, 20'000'000};
  while (watcher_sleeps && !must_end && nothing_to_watch())
    if (sys::call(SYS_futex, &watcher_sleeps, FUTEX_WAIT_PRIVATE, 1, fenced ? nullptr : &at_most) == -ETIMEDOUT) break;
  __atomic_store_n(&watcher_sleeps, 0, __ATOMIC_SEQ_CST);
}

void send_tick() noexcept {
  if (tick_is_on_its_way) return;  // such signals are queued
  tick_is_on_its_way = true;
  siginfo_t info;
  __builtin_memset(&info, 0, sizeof info);
  info.si_signo = tick_signal;
  info.si_code = watchers_code;
  info.si_value.sival_ptr = &untouchable;
  if (sys::call(SYS_rt_tgsigqueueinfo, the_mode.process, the_mode.os_id, tick_signal, &info) != 0) tick_is_on_its_way = false;
}

// Half of it to one and a half: what has the same period as the looks must not stay in step with them.
long long about(long long nanoseconds, std::uint64_t& noise) noexcept {
  noise = noise * 6364136223846793005u + 1442695040888963407u;
  return nanoseconds / 2 + (long long)((noise >> 33) % std::uint64_t(nanoseconds));
}

[[gnu::used, noreturn]] void watch() {
  const mode& m = the_mode;
  sys::call(SYS_prctl, PR_SET_NAME, "ringlet-watch");
  if (notes_delays) stuck_since = nanoseconds_now();
  std::uint64_t last = 0;
  int quiet = 0;
  long long pause = look_every_ns, look_at = 0;
  std::uint64_t noise = std::uint64_t(m.process);
  while (true) {
    const timespec for_now{0, long(pause)};
    sys::call(SYS_futex, &must_end, FUTEX_WAIT_PRIVATE, 0, &for_now);
    if (must_end) sys::call(SYS_exit, 0);
    pause = look_every_ns;
    if (nothing_to_watch()) {
      if (notes_delays) stuck_since = nanoseconds_now();
      if (++quiet > looks_before_sleep) {
        sleep_until_woken();
        quiet = 0;
      }
      continue;
    }
    quiet = 0;
    const long long now = nanoseconds_now();
    const auto due = [&] { return m.hub->timers.due().time_since_epoch().count(); };
    bool must_give_way = due() <= now;
    if (now >= look_at) {
      const std::uint64_t switches = __atomic_load_n(&m.hub->switches, __ATOMIC_RELAXED);
      const bool stuck = switches == last, others_wait = __atomic_load_n(&m.hub->ready_count, __ATOMIC_RELAXED) > 0;
      if (stuck)
        must_give_way = true;
      else if (notes_delays)
        stuck_since = now;
      last = switches;
      look_at = now + about(others_wait && !stuck ? look_again_ns : look_every_ns, noise);
    }
    if (must_give_way) send_tick();
    const long long next = std::min<long long>(look_at, due());
    pause = next <= now + shortest_pause_ns ? shortest_pause_ns : next - now;
  }
}

extern "C" [[gnu::visibility("hidden"), gnu::used, noreturn]] void ringlet_watch() { watch(); }

long clone_watcher(char* stack_top) noexcept {
  constexpr long flags = CLONE_SETTLS | CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_PARENT_SETTID |
                         CLONE_CHILD_CLEARTID;
  long result;
  register long child_id asm("r10") = long(&watcher_id);
  register long tls asm("r8") = long(the_mode.main.fs_base);  // which stays
  asm volatile(
      "syscall\n\t"
      "testq %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xorl %%ebp, %%ebp\n\t"
      "call ringlet_watch\n\t"
      "1:"
      : "=a"(result)
      : "a"(SYS_clone), "D"(flags), "S"(stack_top), "d"(&watcher_id), "r"(child_id), "r"(tls)
      : "rcx", "r11", "memory");
  return result;
}

#endif

}  // namespace

void never_give_way_in(std::uintptr_t begin, std::uintptr_t end) noexcept {
  if (ranges < most_ranges) untouchable[ranges++] = {begin, end};
}

void but_give_way_in(std::uintptr_t begin, std::uintptr_t end) noexcept { spins = {begin, end}; }

bool watcher_runs() noexcept { return watched_process == the_mode.process; }

std::uint64_t times_given_way() noexcept { return gave_way; }

void wake_watcher() noexcept {
  __atomic_store_n(&watcher_sleeps, 0, __ATOMIC_SEQ_CST);
  sys::call(SYS_futex, &watcher_sleeps, FUTEX_WAKE_PRIVATE, 1);
}

void stop_watcher() noexcept {
  if (!watcher_runs()) return;
  watched_process = 0;
  must_end = 1;
  sys::call(SYS_futex, &must_end, FUTEX_WAKE_PRIVATE, 1);
  wake_watcher();
  // Not a private futex: the kernel's own wake at a thread's end is none.
  while (const int id = __atomic_load_n(&watcher_id, __ATOMIC_SEQ_CST)) sys::call(SYS_futex, &watcher_id, FUTEX_WAIT, id, nullptr);
  sys::call(SYS_gettid);  // a signal on its way comes in at the end of a system call
}

void start_watcher() noexcept {
#ifdef __x86_64__
  mode& m = the_mode;
  if (watched_process == m.process) {
    if (watcher_sleeps) wake_watcher();
    return;
  }
  if (ranges == 0 || m.living <= 1) return;
  watcher_sleeps = 0;
  must_end = 0;
  tick_is_on_its_way = false;
  sys::call(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
  const base::kernel_action ours = base::action_of(&on_tick, SA_SIGINFO | SA_RESTART | SA_NODEFER);
  if (base::set_action(tick_signal, &ours, nullptr) != 0) return;
  if (watchers_stack == 0) {
    const long stack = sys::call(SYS_mmap, nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack < 0 && stack > -4096) return;
    watchers_stack = stack;
  }
  // It inherits a mask in which everything is blocked: no handler runs there.
  const signal_set all = ~signal_set(0);
  signal_set before = 0;
  sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all);
  if (clone_watcher(reinterpret_cast<char*>(watchers_stack) + stack_bytes - 64) > 0) watched_process = m.process;
  before &= ~tick_set;
  sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &before, nullptr, sizeof before);
#endif
}

}  // namespace ringlet::threads
