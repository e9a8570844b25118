#pragma once
// Processes: functions that run in a child of this process, with a hub of their own.
//
//   ringlet::process p({.name = "adder"}, [](int a, int b) { return a + b == 3 ? 0 : 1; }, 1, 2);
//   p.start();
//   p.join(5s);              // parks the fiber, not the thread
//   *p.exit_code();          // 0
//
// or by deriving: `struct worker : ringlet::process { int run() override { ... } };`
//
// start() forks: the child has all that the program has, as it is at that moment, but of the fibers only a new one that runs
// the function; on a fresh hub, with the default actions for signals and none blocked. The child ends when the function
// does: by _exit, after stdout and stderr were flushed, so that neither the parent's atexit functions nor its statics'
// destructors run twice. What the child changes is its own; what is to be seen by others goes through <ringlet/ipc/...>.
//
// What the function and its arguments own is the child's: start() destroys the parent's copy. So the ends of pipes that are
// moved into a process are open there and nowhere else, and the child has no others: see ipc/pipe.hpp.
//
// Usable from fibers of any hub and from plain threads; one object from one thread at a time, except that many may join.
// The model is Python's multiprocessing.Process and gipc's.

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>

namespace ringlet {

struct process_options {
  std::string name = {};  // "process-7" if empty; the system shows it, too (ps -L, top)
  // The child is ended by SIGTERM when this process ends, however it ends, kill -9 included. ~process terminates it.
  bool daemon = false;
};

// Thrown by a child's function to end it with this status, as Python's sys.exit.
struct process_exit {
  int status = 0;
};

namespace detail {
struct process_state;

// What a process runs; owned by the parent until start, by the child afterwards.
struct process_body {
  virtual int run() = 0;
  virtual ~process_body() = default;
};

template <class F, class... Args>
struct typed_process_body final : process_body {
  F function;
  std::tuple<Args...> arguments;
  template <class G, class... As>
  explicit typed_process_body(std::in_place_t, G&& g, As&&... as) : function(std::forward<G>(g)), arguments(std::forward<As>(as)...) {}
  int run() override {
    auto call = [this](auto&... each) -> decltype(auto) { return std::invoke(function, std::move(each)...); };
    if constexpr (std::is_same_v<decltype(std::apply(call, arguments)), int>) {
      return std::apply(call, arguments);
    } else {
      std::apply(call, arguments);
      return 0;
    }
  }
};

template <class F>
concept process_function = !std::is_convertible_v<F, process_options> && !std::is_base_of_v<process_body, std::decay_t<F>>;
}  // namespace detail

class RINGLET_EXPORT process {
 public:
  // Runs f(args...), which are copied or moved into it; with std::ref(x) the child sees its own copy of x. An int that f returns
  // is the exit status, as main's; other results are dropped.
  template <detail::process_function F, class... Args>
    requires(!std::is_base_of_v<process, std::decay_t<F>>)
  explicit process(F&& f, Args&&... args) : process(process_options{}, std::forward<F>(f), std::forward<Args>(args)...) {}
  template <detail::process_function F, class... Args>
  process(process_options how, F&& f, Args&&... args)
      : process(std::move(how),
                std::unique_ptr<detail::process_body>(new detail::typed_process_body<std::decay_t<F>, std::decay_t<Args>...>(
                    std::in_place, std::forward<F>(f), std::forward<Args>(args)...))) {}

  // Waits for the end of one that runs, as std::jthread does (a daemon is terminated first, and killed if it has not ended
  // after a second). Nothing interrupts that wait.
  virtual ~process();
  process(process&&) noexcept;
  process& operator=(process&&) = delete;

  // Starts it; once: std::logic_error. std::system_error if the system makes no process now (it may be tried again).
  void start();
  // Waits for its end: true; false when the deadline passed first. Throws when the fiber is interrupted. std::logic_error before
  // start, and in a process that has not started it.
  bool join(deadline until = never);
  // Started, and not ended.
  bool is_alive();
  // How it ended: nothing before that; the status; -n if signal n ended it. lost_status if somebody else has waited for it
  // (waitpid(-1), SIGCHLD ignored) and so has got the answer.
  std::optional<int> exit_code();
  static constexpr int lost_status = 255;

  // SIGTERM, SIGKILL, any signal. False if it has ended. Never meets another process that got its number.
  bool terminate();
  bool kill();
  bool send_signal(int number);

  // 0 before start.
  int pid() const noexcept;
  // Becomes readable when it ends (a pidfd); -1 before start. Owned by the process.
  int sentinel() const noexcept;
  const std::string& name() const noexcept;
  bool is_daemon() const noexcept;
  // std::logic_error after start.
  void set_daemon(bool);
  void set_name(std::string);

 protected:
  // For deriving: run is called in the child, and its result is the exit status.
  process();
  explicit process(process_options);
  virtual int run();
  // For deriving: a member (the end of a pipe) that is the child's: start() closes the parent's copy. Called before start; the
  // object stays where it is until then.
  template <class End>
  void hand_over(End& end) {
    hand_over_by([&end] { end.close(); });
  }

 private:
  void hand_over_by(std::function<void()> close_here);
  process(process_options, std::unique_ptr<detail::process_body>);
  [[noreturn]] void run_in_child(int start_channel);
  detail::process_state& started_here(const char* verb) const;
  std::unique_ptr<detail::process_state> state_;
};

struct process_info {
  int pid = 0;
  std::string name;
  bool daemon = false;
};
// The one we are in ("main" if no ringlet::process has started it), and those that this process has started and that have
// not ended.
RINGLET_EXPORT process_info current_process();
RINGLET_EXPORT std::vector<process_info> active_children();

// Processors of the machine; and those that this process may use: its affinity mask, and its cgroup's quota rounded up.
RINGLET_EXPORT unsigned cpu_count() noexcept;
RINGLET_EXPORT unsigned usable_cpu_count() noexcept;

}  // namespace ringlet
