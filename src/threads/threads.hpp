#pragma once
// Threads as fibers: what the program, libc and the kernel's interface think is a thread, and is a fiber of the one hub.
//
// libc builds a thread itself (stack, control block, thread-local storage) and ends in one clone3. The system-call door
// hands that call, and every other one that concerns threads, to these functions; they answer as the kernel would.
// Nothing of pthreads is re-implemented, and no name or layout of libc's is known here.
//
// A thread_block is what the kernel keeps of a thread: id, signal mask, pending signals, robust list, alternate stack.
// The FS base is moved with the stack by the switch itself (context::thread_image). One hub: the OS thread on which the first
// thread was made. Other kernel threads (the runtime's helpers) are left as they are.
//
// Who may call: the door's dispatcher, on the hub's OS thread, between entering and leaving the runtime (`inside`);
// what other threads may call says so. Kernel dialect throughout.
//
// Always true: an id of a thread fiber is at least first_id, above every id of the kernel's and within what a futex word
// can hold; it never reaches the kernel.

#include <csignal>
#include <cstddef>
#include <cstdint>

#include <ucontext.h>

#include "context/context.hpp"
#include "hub/hub.hpp"

struct futex_waitv;

namespace ringlet::threads {

using signal_set = std::uint64_t;  // bit n - 1 for signal n, as the kernel has it
constexpr signal_set bit_of(int signal) noexcept { return signal_set(1) << (signal - 1); }
inline constexpr signal_set never_blocked = bit_of(SIGKILL) | bit_of(SIGSTOP);

inline constexpr int first_id = 0x10000000, last_id = 0x3ffffff0;
constexpr bool is_fiber_id(long id) noexcept { return id >= first_id && id <= last_id; }

struct thread_block : context::thread_image {
  detail::fiber_state* fiber = nullptr;
  int id = 0;
  int* clear_child_id = nullptr;  // cleared and woken at its end (set_tid_address)
  void* robust_list = nullptr;
  signal_set mask = 0;
  signal_set pending = 0;         // sent to this thread, not yet delivered
  signal_set awaited = 0;         // it is in sigwait for these
  signal_set mask_before = 0;     // to be put back when the call that set `mask` for its length ends
  bool mask_is_temporary = false;
  bool mask_is_applied = false;   // also one of libc's own is the OS thread's while this runs (state.hpp, is_libcs_own)
  bool ended_by_signal = false;   // the wait that just ended did so for a handler
  const struct place* programs = nullptr;  // while it sends itself a signal
  std::uintptr_t fault_within = 0;  // where on its stack the program's handler of a fault within the runtime began (signals.hpp)
  bool may_restart = true;        // and every such handler asks for calls to be restarted
  bool is_main = false;
  bool is_gone = false;           // main only: it has called exit(2)
  stack_t alternate{};            // sigaltstack
  char name[16] = {};             // prctl(PR_SET_NAME)
  void* affinity = nullptr;       // what sched_setaffinity was told (1024 bits); null: nothing
  thread_block* next_of_id = nullptr;
};

// True while the OS thread runs the runtime rather than the program: signal handlers of the program wait.
extern volatile bool inside;

// --- the mode ---------------------------------------------------------------------------------------------------------

// Makes the calling OS thread's flow the main fiber of a hub on which threads become fibers; it must be the only thread.
// 0, or -errno with the reason in `why`. Once.
int begin(const char** why) noexcept;
bool begun() noexcept;
// Is this the hub's OS thread? Any thread.
inline bool here() noexcept { return begun() && detail::hub_state::here_or_null() != nullptr; }
// Does anybody else live whom the caller's waiting would hold up?
bool alone() noexcept;
thread_block& current() noexcept;
// The thread of this id, or null.
thread_block* find(int id) noexcept;
std::size_t living() noexcept;        // threads, main among them
std::uint64_t made() noexcept;        // since the begin
// The runtime itself is making a thread, which is to be the kernel's. Any thread.
bool runtime_makes_thread() noexcept;
int os_id() noexcept;                 // the OS thread's id, which is the main thread's

// --- life -------------------------------------------------------------------------------------------------------------

inline constexpr std::size_t frame_room = 256;

struct birth {
  std::uintptr_t stack_top;   // where the new thread's stack pointer begins
  std::uintptr_t fs_base;
  int* parent_id = nullptr;   // written at once
  int* child_id = nullptr;    // written at once
  int* clear_child_id = nullptr;
  const void* frame = nullptr;  // copied: at most frame_room bytes
  std::size_t frame_size = 0;
  void (*enter)(void* frame) = nullptr;  // first on the new stack; does not return
};
// A new thread, queued: its id, or -errno.
long create(const birth&) noexcept;
// exit(2) of the calling thread: what it held is given up as the kernel does, and its stack is left for good.
[[noreturn]] void exit_thread(int status) noexcept;
// In the child of a fork, which has the calling thread only.
void after_fork_in_child() noexcept;

// Code in which no thread is made to give way; without any, none ever is.
void never_give_way_in(std::uintptr_t begin, std::uintptr_t end) noexcept;
// A part of such code in which they are all the same: it only spins.
void but_give_way_in(std::uintptr_t begin, std::uintptr_t end) noexcept;
std::uint64_t times_given_way() noexcept;
std::uint64_t switches() noexcept;        // of the hub, since its begin
std::uint64_t kernel_entries() noexcept;  // of its engine

// A time for which one thread has kept all others waiting.
struct delay {
  long long nanoseconds = 0;
  int thread = 0;  // 0: the hub itself
  char name[16] = {};
  void* frames[24] = {};  // innermost first
  std::size_t frame_count = 0;
};
// They are noted from here on, if set before the first thread is made.
extern bool notes_delays;
// The five longest, in order.
void each_delay(void (*each)(const delay&, void*), void* with);
// Runs, if there is anybody to watch.
void start_watcher() noexcept;
// What the program believes of the watcher's signal is made true of the kernel's: it outlives exec.
void ready_for_exec() noexcept;
// Returns once it has ended, and no signal of it is on its way.
void stop_watcher() noexcept;
extern volatile int watcher_sleeps;
void wake_watcher() noexcept;
// The runtime is left for the program.
inline void leave() noexcept {
  inside = false;
  if (__builtin_expect(watcher_sleeps, 0)) wake_watcher();
}

// --- futex ------------------------------------------------------------------------------------------------------------

// futex(2). Any thread; one that is not the hub's waits in the kernel. Ends with -EINTR where a signal ends it.
long futex(std::uint32_t* word, int operation, std::uint32_t value, std::uintptr_t timeout_or_count, std::uint32_t* word2,
           std::uint32_t value3) noexcept;
// futex_waitv(2), the same.
long futex_waitv(const ::futex_waitv* words, unsigned count, unsigned flags, const timespec* limit, clockid_t clock) noexcept;

// --- signals ----------------------------------------------------------------------------------------------------------

// rt_sigaction(2); handlers of the program are called by way of ours, which see to it that they run on a thread's stack and
// never within the runtime.
long set_action(int signal, const void* wanted, void* before, std::size_t size) noexcept;
long set_mask(int how, const signal_set* wanted, signal_set* before, std::size_t size) noexcept;
long pending(signal_set* into, std::size_t size) noexcept;
// tgkill and rt_tgsigqueueinfo (then with an info) to a thread of ours.
long send(thread_block& to, int signal, const siginfo_t* info) noexcept;
long wait_for(const signal_set* wanted, siginfo_t* found, const timespec* timeout, std::size_t size) noexcept;
long suspend(const signal_set* mask, std::size_t size) noexcept;
long pause() noexcept;
long set_alternate_stack(const stack_t* wanted, stack_t* before) noexcept;
// The calling thread's mask is to be the OS thread's in fact: a child is about to be made that shares our memory and handlers.
void apply_mask() noexcept;
// The calling thread's mask for the length of this system call (ppoll and its like).
void mask_for_this_call(signal_set) noexcept;
// What the thread's own call has raised (SIGPIPE) while it blocks that waits for it alone: off the kernel's list, which is the
// OS thread's and so everybody's.
void keep_signals_of_calls(thread_block&) noexcept;
// The call that has ended with EINTR did so for a signal that came between two of its waits.
void remember_met_signals(thread_block& self) noexcept;
// A signal that this thread does not block is waiting for it.
bool has_signal_due() noexcept;
// The kernel's timers may send this signal to threads of ours, even if the program has no handler for it.
bool expect_timer_signal(int signal) noexcept;
// A timer of the kernel's that was made to signal a thread of ours: its signals go there.
void timer_signals(int timer, int id) noexcept;

// Where the program is while its thread is in here: a handler is shown these registers, not the runtime's. glibc since 2.41
// cancels a thread that waits only if they say that it stands at the one `syscall` instruction of its cancellable calls.
struct place {
  void (*show)(greg_t* registers, const void* from) noexcept;
  const void* from;
};
// The end of a system call: delivers what is pending for this thread, on its own stack, outside of the runtime. A handler
// may leave it by longjmp or by the thread's cancellation: nothing in the caller's frame may need a destructor.
void deliver_signals(thread_block&, place programs);

}  // namespace ringlet::threads
