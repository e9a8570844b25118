#pragma once
// Finding the fiber that keeps all the others waiting.
//
//   ringlet::blocking_monitor watch(100ms);           // this thread's hub; reports on stderr
//   ringlet::require_switches(50ms, [] { handle(request); });   // in a test
//
// A fiber that computes for long, or blocks in a call that no hook reaches, stops every fiber of its thread, I/O and timers
// among them. The monitor is a thread that looks at the hub from outside; when one fiber has run for longer than the limit
// without a switch, it says which, with the stack it is on. It costs the hub nothing per switch. To take the stack it
// interrupts the thread with SIGURG, so that a blocking call there may end with EINTR (it asks for a restart); the program's own handling
// of SIGURG goes on.

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/fiber.hpp>

namespace ringlet {

struct blocking_report {
  std::string fiber;              // its name, or "the hub" for a callback that runs there
  clock::duration at_least{};     // so long without a switch, up to now
  std::vector<void*> frames;      // innermost first; see describe_backtrace
};

// Watches the hub of the thread that makes it, until it is destroyed, on that thread. One report for each time that a fiber
// blocks. The handler runs on the monitor's thread; none: a report on stderr.
class RINGLET_EXPORT blocking_monitor {
 public:
  explicit blocking_monitor(clock::duration limit = std::chrono::milliseconds(100), std::function<void(const blocking_report&)> handler = {});
  ~blocking_monitor();
  blocking_monitor(const blocking_monitor&) = delete;
  blocking_monitor& operator=(const blocking_monitor&) = delete;
  std::size_t reports() const noexcept;

 private:
  struct state;
  friend struct monitor_list;
  std::unique_ptr<state> state_;
};

// What it was asked to switch for, it did not.
struct RINGLET_EXPORT failed_to_switch : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Looks whether its fiber lets the others run, from its making to finish() (or its end, which says nothing). Several may look at
// once. It is a tracer: none may be set, nor set back, while it looks.
class RINGLET_EXPORT switch_check {
 public:
  switch_check();
  ~switch_check();
  switch_check(const switch_check&) = delete;
  switch_check& operator=(const switch_check&) = delete;
  std::size_t switches() const noexcept;              // so often has the fiber let go of the thread
  clock::duration longest() const noexcept;           // the longest that it has kept it, up to now
  // Throws failed_to_switch if it has never let go, or has kept the thread for longer than that at once.
  void finish(clock::duration most = clock::duration::max());

 private:
  struct state;
  std::unique_ptr<state> state_;
};

// f(), which must switch, and not keep the thread for longer than `most` at once; else failed_to_switch is thrown after it.
template <class F>
std::invoke_result_t<F> require_switches(clock::duration most, F&& f) {
  switch_check check;
  if constexpr (std::is_void_v<std::invoke_result_t<F>>) {
    std::forward<F>(f)();
    check.finish(most);
  } else {
    auto result = std::forward<F>(f)();
    check.finish(most);
    return result;
  }
}

}  // namespace ringlet
