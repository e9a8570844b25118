#pragma once
// One parked fiber and what it waits for. Lives on the fiber's stack while it waits.
//
// Whoever ends the wait first claims the waiter: the waker (from any thread, under the lock of what is waited for), the
// timer, or a kill. The latter two claim by `withdraw`, which takes the waiter out of its queue and says whether it was
// still there: one that was not has been claimed by a waker whose message is under way.

#include <atomic>
#include <cstdint>

#include "base/intrusive_list.hpp"
#include "loop/timers.hpp"

namespace ringlet::detail {

struct fiber_state;

enum class wake_reason : std::uint8_t { none, woken, timed_out, interrupted };

// What other threads put into a hub's inbox.
struct message {
  message* next = nullptr;
  void (*deliver)(message&) = nullptr;  // on the hub's own stack; must not wait or throw
  void (*drop)(message&) = nullptr;     // instead, when the hub ends first; null: nothing to free
};

// What a signal handler that ran meanwhile does to the main fiber's wait, as it would to a thread's (signal(7)).
enum class signal_effect : std::uint8_t { none, ends, ends_unless_restarted };
// The same, with how many handlers had run when the call began: those that ran since then have met it.
struct signal_watch {
  signal_effect effect = signal_effect::none;
  std::uint32_t handled = 0, not_restarting = 0;
};

// A call of the main fiber's that another thread makes for it. When a handler that ends such a call runs, a thread's call has
// ended already, and what the handler does, or anybody after it, can't be its answer any more: so the wrapper ends it.
struct delegated_call {
  void (*end_in_handler)(delegated_call&) noexcept = nullptr;
};

struct waiter : base::list_link, message {
  fiber_state* fiber = nullptr;  // set before another thread can find it, then constant
  wake_reason reason = wake_reason::none;
  bool interruptible = true;
  signal_watch signals;
  bool signalled = false;      // ended, or asked to end, by a signal
  const char* what = "?";      // for reports: "recv", "event"
  const void* whom = nullptr;  // the event's address; null with an fd
  int fd = -1;
  bool (*withdraw)(waiter&) = nullptr;  // null: nothing to take it out of
};

}  // namespace ringlet::detail
