#pragma once
// The hub: who runs next on this thread.
//
// A fiber gives up the thread in one way, wait(), and gets it back in one way, ready(). Everything that waits (a
// readiness, an operation, a timer, an event) is a reason for somebody to call ready() later. The fiber that gives up
// switches straight to the next ready one; the hub's own greenlet runs only to make a turn (see run_turns), when nobody is
// ready or enough have run since the last one, so the loop's depth never adds to a fiber's stack.
//
// A fiber is a flow of control, not a stack: it may switch between greenlets by hand, and resumes in the greenlet in which
// it parked.
//
// One hub per thread; all members on that thread only, except send() and wake_remotely().
// Always true: the running fiber is in no queue; a ready one is in exactly one; a parked one is in none and its waiter
// is known to something that can end the wait.

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ringlet/fiber.hpp>
#include <ringlet/hub.hpp>
#include <ringlet/wait.hpp>

#include "base/intrusive_list.hpp"
#include "base/shown.hpp"
#include "greenlet/greenlet.hpp"
#include "hub/spin.hpp"
#include "hub/waiter.hpp"
#include "loop/engine.hpp"
#include "loop/timers.hpp"

namespace ringlet::detail {

struct hub_state;
struct timeout_scope;

// Counts the forks between the first process and this one. A fiber of an older count is a ghost: its frames are in this
// process's memory, and nobody may resume them.
inline std::atomic<unsigned> fork_generation{0};
// The main thread has begun to end: what is static is destroyed whoever waits on it.
inline std::atomic<bool> process_ends{false};

enum class fiber_phase : std::uint8_t { delayed, scheduled, ready, running, parked, finished };

struct ready_link : base::list_link {};
struct all_link : base::list_link {};

struct link_entry {
  std::uint64_t id;
  int filter;  // 0 any, 1 value, 2 exception
  std::function<void(any_fiber)> call;
};

struct delayed_start : loop::timer {
  fiber_state* fiber = nullptr;
};

// What few fibers have; made when it is first asked for.
struct fiber_extras {
  struct local {
    std::uint64_t key;
    void* value;
    void (*destroy)(void*) noexcept;
  };
  std::vector<local> locals;  // by key
  struct inherited_local {
    std::uint64_t key;
    std::shared_ptr<const void> value;
  };
  std::shared_ptr<const std::vector<inherited_local>> inherited;  // by key; shared until one of the fibers sets another
  std::uint32_t slot = 0;
};

struct fiber_state : greenlet_state, ready_link, all_link {
  hub_state* hub = nullptr;
  greenlet_state* resume_at = nullptr;  // where it parked: itself, or a greenlet it switched to
  fiber_phase step = fiber_phase::scheduled;
  bool is_main_fiber = false;
  unsigned generation = fork_generation.load(std::memory_order_relaxed);
  bool error_seen = false;
  bool was_exit = false;  // ended by greenlet_exit
  bool is_daemon = false;
  unsigned shields = 0;    // here, and not among the extras: a destructor that shields itself cannot be refused memory
  bool signal_due = false;  // a handler is to run on it as soon as it ends what it does: its waits end at once
  signal_effect met_as = signal_effect::none;  // what that meant to the wait that ended so
  waiter* waiting = nullptr;
  clock::time_point since{};       // parked since (the clock of the hub's last turn)
  std::exception_ptr kill_pending;  // thrown at its next C++ wait
  std::exception_ptr kill_deferred;  // came while a shield was up
  timeout_scope* scopes = nullptr;  // innermost first
  struct body* work = nullptr;
  std::exception_ptr error;
  listener_list listeners;  // told when it has finished
  std::vector<link_entry>* links = nullptr;
  delayed_start start_timer;
  // Called once its stack has been left for good, on the next one's: what may take the stack must not be told before.
  void (*left_stack)(fiber_state&) = nullptr;
  std::uint64_t id = 0, spawned_by = 0;
  std::uint64_t joinall_mark = 0;  // of the joinall that has met it last
  std::string given_name;
  std::unique_ptr<fiber_extras> extras;

  fiber_extras& extra() {
    if (!extras) extras = std::make_unique<fiber_extras>();
    return *extras;
  }
  bool is_ghost() const noexcept { return generation != fork_generation.load(std::memory_order_relaxed); }
  std::string name() const { return is_main_fiber ? "main" : given_name.empty() ? "fiber-" + std::to_string(id) : given_name; }
};

struct RINGLET_SHOWN hub_state {
  thread_state& thread;
  std::unique_ptr<loop::engine> engine;
  std::string engine_reason;
  loop::timers timers;
  fiber_state* running = nullptr;
  fiber_state* just_finished = nullptr;  // its stack was left for good; the next one to run lets go of it
  base::intrusive_list<fiber_state, ready_link> ready_fibers;
  base::intrusive_list<fiber_state, ready_link> computing;  // who gave way: one a turn, behind all that are ready
  std::size_t ready_count = 0;
  unsigned budget = 0;  // resumptions left until the next turn
  unsigned most_budget = 4096;  // or I/O and timers would wait behind a crowd
  spin_habit spin;         // before it sleeps
  unsigned io_streak = 0;  // calls that succeeded at once since the last switch
  base::intrusive_list<fiber_state, all_link> fibers;  // unfinished ones, main not among them
  std::size_t fiber_count = 0;
  std::size_t daemon_count = 0;
  listener_list idle;             // told when few are left: see join
  struct spawn_callback {
    std::uint64_t id;
    std::function<void(const any_fiber&)> call;
  };
  std::vector<spawn_callback> spawn_callbacks;
  bool has_spawn_callbacks = false;
  std::vector<bool> slots;        // those that are taken
  std::atomic<std::uint64_t> turns{0};  // for the monitor, as is the next
  std::atomic<bool> asleep{false};
  fiber_state& main_fiber;        // on the heap: handles of it may outlive the hub
  fiber_state* chief = nullptr;   // who is told of a deadlock: main, or in a child the fiber that forked
  greenlet_state* own = nullptr;  // the hub's own greenlet
  clock::time_point turn_time{};
  std::uint64_t switches = 0;
  std::uint64_t next_id = 1, next_link_id = 1;
  std::size_t fd_waits = 0;       // somebody parks on an fd
  std::size_t foreign_work = 0;   // helper threads or other hubs owe us a message
  std::size_t watched_fds = 0;
  void* fd_watches = nullptr;     // io's, per hub
  clock::time_point look_again_at = clock::time_point::max();  // then the hub calls the next, in its turn
  void (*look_again)(hub_state&) = nullptr;                    // io's
  std::function<void(const hub::failure&)> on_error;  // of what nobody else sees; empty: stderr
  void (*let_go[2])(hub_state&) = {};  // io's and sync's: forget what this hub has, at fork (in the child) and at its end
  std::uint64_t switches_at_silence = ~std::uint64_t(0);  // nothing has run since the hub last slept in vain
  clock::duration next_silence{};
  bool deadlock_reported = false;
  bool never_in_deadlock = false;  // threads are fibers: a program that waits for ever may wait for a signal or a process
  void (*hands_out_signals)(hub_state&) = nullptr;  // instead of telling the main fiber: threads are fibers, each has a mask
  bool in_item_code = false;  // an item of a queue is copied or destroyed under its lock: nobody may wait there
  bool main_gone = false;  // in a child that another fiber than the main one has forked
  bool ends = false;       // its thread does
  bool forked = false;     // true while a forked child lets go of what its parent had
  int exit_status = 0;     // of such a child: 1 if the fiber that forked has failed
  int process = 0;
  // Handlers that have run on this thread, and those of them without SA_RESTART; written by signal_handled().
  std::atomic<std::uint32_t> signals_handled{0}, signals_not_restarting{0};
  std::uint32_t signals_told = 0;
  std::atomic<delegated_call*> main_delegated{nullptr};  // for signal handlers of this thread
  std::atomic<message*> inbox{nullptr};
  std::atomic<unsigned> senders{0};     // other threads inside send(): the hub must not go under them
  std::atomic<void*> handle{nullptr};   // what other threads hold of us, if they do

  explicit hub_state(thread_state&, loop::engine_choice);
  ~hub_state();
  static hub_state& here();  // made on first use; throws std::runtime_error if no engine can be made
  static hub_state* here_or_null() noexcept;
  // For a control block that is to run on this thread, too (context::thread_image): there, here() is this thread's.
  static void show_to(std::uintptr_t fs_base, std::uintptr_t fs_base_now) noexcept;
  // For tests: gives this thread, which has none, a hub on this engine.
  static hub_state& make_here(loop::engine_choice);
  // On a fiber, not on the hub's own stack: parking is possible. (Nor in an item's own code, see item_code.)
  bool can_park() const noexcept { return running != nullptr; }

  // Parks the running fiber. The waiter has been put where it will be found; it is taken out again when the deadline
  // passes or the fiber is interrupted. Does not throw.
  wake_reason wait(waiter&, deadline until = never);
  // Ends a wait: on this thread; on the thread of any fiber. The waiter has been claimed.
  void wake(waiter&, wake_reason reason = wake_reason::woken);
  static void wake_anywhere(waiter&, wake_reason reason = wake_reason::woken);
  void yield();
  // The running fiber lets all that are ready, and what the kernel and the timers make ready now, run first.
  void give_way();

  // A kill or a fired timeout scope that the running fiber has not been told of.
  bool interrupted() const noexcept {
    return __builtin_expect(running->kill_pending || (running->scopes && scope_has_fired()), 0);
  }
  // For a call of the running fiber that begins to wait now: its waits end when a handler runs from here on.
  signal_watch watch_signals(signal_effect effect) const noexcept {
    return {running == &main_fiber || hands_out_signals ? effect : signal_effect::none, signals_handled.load(std::memory_order_relaxed),
            signals_not_restarting.load(std::memory_order_relaxed)};
  }
  // Throws it and so settles it.
  [[noreturn]] void throw_interrupt();
  // The running fiber kills itself: all of it, also from inside a greenlet that it has switched to.
  [[noreturn]] void die(const std::exception_ptr& reason);
  void doom(fiber_state&, std::exception_ptr reason);  // throws it there, at once or when its shields are down
  void interrupt(fiber_state&);  // it has something pending: ends its wait if it may

  // A signal handler is to run on this fiber: ends its wait if a thread's would end. What ending means to the wait
  // (whether SA_RESTART would restart the call), or none if it goes on or does not wait.
  signal_effect end_wait_by_signal(fiber_state&);

  fiber_state* create(const spawn_options&, std::size_t body_size, std::size_t body_alignment);
  // Takes on a fiber that was made elsewhere, on a stack that is not ours; it is scheduled. Needed are run and destroy.
  // std::bad_alloc: nothing has happened.
  void admit(fiber_state&);
  // The first thing that such a fiber's first frame does.
  void arrive_first() noexcept;
  // The running fiber has finished (its listeners are told): leaves its stack, and never comes back.
  [[noreturn]] void leave_for_good();
  void schedule(fiber_state&);
  void finish_unstarted(fiber_state&, std::exception_ptr reason);
  void send(message&);  // any thread: delivered in this hub's next turn
  void deliver_messages();
  void drop_messages() noexcept;
  void after_fork_in_child();

 private:
  bool scope_has_fired() const noexcept;
  bool met_signal(const signal_watch&) const noexcept;
  friend struct fiber_entry;
  void make_ready(fiber_state&);
  void switch_away();
  void run_as(fiber_state*) noexcept;
  fiber_state* take_next();
  void landed();
  void run_turns();
  [[noreturn]] void switch_to_next_for_good();
  void unwind_dropped() noexcept;
  void wait_for_anything();
  void sleep();
  bool spin_for_news(clock::time_point now);
  bool look_for_deadlock();
  void tell_of_signal();
  void conclude(fiber_state&);
  void trace();
};

// A handler is about to run on this thread; told by whoever wraps the program's handlers (a door), from inside the signal.
// Async-signal-safe.
RINGLET_SHOWN void signal_handled(bool restarts) noexcept;
// The wrapper, by which its own handlers are told from those that nobody wraps.
RINGLET_SHOWN void handlers_are_wrapped_in(void (*wrapper)()) noexcept;

// Refuses a call that would block where blocking cannot be: on the hub's own stack. For the public calls.
void require_can_park(const char* what);
void drop_locals(fiber_state&) noexcept;  // on its own stack
void inherit(fiber_state& child, const fiber_state& spawner);
std::string describe_fiber(const fiber_state&, clock::time_point now);
std::string describe_all(hub_state&, const ringlet::hub::describe_options& how = {});
std::string describe_exception(const std::exception_ptr&);
void report_unseen_error(const fiber_state&) noexcept;
// Tells this thread's error handler, or stderr: `who` has failed, `text` as a sentence without the error.
// `text` in pieces: there may be no memory to put them together.
using text_pieces = std::initializer_list<std::string_view>;
void report_error(const char* what, std::string_view who, const std::exception_ptr&, text_pieces text) noexcept;
// About a fiber: before its name, and behind it.
void report_error(const char* what, const fiber_state& who, const std::exception_ptr&, std::string_view before,
                  std::string_view behind) noexcept;
void call_spawn_callbacks(hub_state&, fiber_state&);
// Threads of ours that wake nobody by themselves.
inline std::atomic<std::size_t> silent_threads{0};

}  // namespace ringlet::detail

namespace ringlet::hub {
// Identity of the running fiber, for owner tables; null without a hub.
RINGLET_SHOWN const void* running_fiber() noexcept;
}  // namespace ringlet::hub
