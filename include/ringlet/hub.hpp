#pragma once
// The hub: who runs next on this thread. Made when a thread first spawns or waits; one per thread, gone with it.
//
// Its turn: 1 run the fibers that were ready when the turn began; 2 read the clock; 3 submit and wait, not at all if
// someone is ready, else until the earliest deadline; 4 reap completions; 5 expire timers; 6 messages from other threads.

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/fiber.hpp>

namespace ringlet::hub {

// A hub as other threads may hold it.
class RINGLET_EXPORT handle {
 public:
  handle() noexcept = default;
  // Runs f in a fiber of that hub, soon. Any thread; in the order posted. False if the hub has gone.
  bool post(std::function<void()> f) const;

 private:
  struct shared;
  std::shared_ptr<shared> shared_;
  friend RINGLET_EXPORT handle here();
  friend struct handle_access;
};
// This thread's hub, made if there is none. While somebody holds a handle, a hub that has nothing to do waits for posts
// instead of reporting a deadlock.
RINGLET_EXPORT handle here();

// An error that nobody would see otherwise: of a fiber whose result nobody has asked for, and of other things of the program's.
struct failure {
  std::string fiber;  // its name
  std::exception_ptr error;
  const char* what = "fiber";  // or "link", "post", "spawn callback", "tracer"
};
// From now on calls `handler` with each such failure of this thread, instead of writing to stderr; an empty one: stderr
// again. Returns the one before. It may be called on any stack of the thread, the hub's own among them, and so must not wait;
// it may spawn and kill. What it throws is told on stderr.
RINGLET_EXPORT std::function<void(const failure&)> set_error_handler(std::function<void(const failure&)> handler);

struct counts {
  std::size_t fibers = 0;       // not finished; the main fiber is not counted
  std::size_t ready = 0;
  std::size_t timers = 0;
  std::size_t operations = 0;   // in the kernel or on helper threads
  std::size_t fd_waits = 0;     // fibers parked on an fd
  std::size_t watched_fds = 0;  // with a poll in the kernel
  std::size_t stacks = 0;       // in use, the hub's own not counted
  std::uint64_t switches = 0;
};
// Of this thread; all zero if it has no hub.
RINGLET_EXPORT counts count() noexcept;

struct describe_options {
  bool tree = false;        // each under the one that spawned it
  bool backtraces = false;  // where each is parked
};
// What every fiber of this thread's hub does: name, parked in what on what and since when. For people.
RINGLET_EXPORT std::string describe_fibers(const describe_options& how = {});

// The fibers of this thread that have not finished, in the order of their spawning; the main fiber is not among them.
RINGLET_EXPORT std::vector<any_fiber> fibers();

// So many fibers at most run in one turn, before I/O, timers and other threads are looked at again: 4096, unless it is set.
// Fewer make I/O prompter, more make crowds faster. Of this thread; returns the former one. std::invalid_argument for 0.
RINGLET_EXPORT std::size_t set_turn_limit(std::size_t resumptions);

// Where nobody is ready, the hub looks for news for so long before it sleeps: an answer that comes sooner is then had in
// about half the time, at the price of the processor. Where news keeps taking longer it sleeps at once; while somebody is
// ready it has no effect. 0 (never), unless it or RINGLET_SPIN (microseconds) is set; 1 ms at most. Of this thread; returns
// the former one. std::invalid_argument for more, or for less than 0.
RINGLET_EXPORT std::chrono::nanoseconds set_spin(std::chrono::nanoseconds longest);

// Waits until every other fiber of this thread has finished, those spawned meanwhile among them, and daemons not: true; false
// when the deadline passed. What can never finish is a deadlock_error, as in any wait.
RINGLET_EXPORT bool join(deadline until = never);

// Calls f, in the spawner, with every fiber of this thread that is spawned from now on, before it runs. It must not wait.
// Returns an id for remove_spawn_callback, which is true if it was there.
RINGLET_EXPORT std::uint64_t add_spawn_callback(std::function<void(const any_fiber&)> f);
RINGLET_EXPORT bool remove_spawn_callback(std::uint64_t id) noexcept;
// "uring" or "epoll" (or "simulated"), and why.
RINGLET_EXPORT std::string engine_name();
RINGLET_EXPORT std::string engine_reason();

}  // namespace ringlet::hub
