// The thread that watches a hub, and the check that a fiber switches.
//
// The hub tells only its turns and whether it sleeps. A turn that is long may be a crowd of short runs, so before anything
// is reported the hub's own count of switches is asked, twice, a limit apart: by a signal, whose handler runs on the hub's
// thread and so may read it. The second one takes the stack.

#include <ringlet/monitor.hpp>
#include <ringlet/trace.hpp>

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#include <unwind.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <system_error>

#include "base/assert.hpp"
#include "base/kernel_action.hpp"
#include "base/sys.hpp"
#include "context/sanitizer.hpp"
#include "hub/hub.hpp"
#include "loop/early_end.hpp"

namespace ringlet {

namespace {
constexpr std::size_t most_frames = 64;
constexpr int the_signal = SIGURG;

clock::time_point real_now() {
  timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return clock::time_point(std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec));
}
}  // namespace

struct blocking_monitor::state {
  detail::hub_state* hub;
  clock::duration limit;
  std::function<void(const blocking_report&)> handler;
  long thread_id = 0;
  int process = 0;
  std::atomic<long> watcher_id{0};  // its thread's; negative when it has left
  std::atomic<std::uint32_t> stop{0};
  std::atomic<std::size_t> count{0};

  // Between watcher and signal handler. asked: the watcher waits; answered: the handler has written.
  enum { idle, asked, answered };
  std::atomic<std::uint32_t> probe{idle};
  bool wants_stack = false;
  std::uint64_t switches = 0;
  char name[64] = {};
  void* frames[most_frames];
  std::size_t frame_count = 0;

  void answer() noexcept {
    switches = hub->switches;
    frame_count = 0;
    if (wants_stack) {
      const detail::fiber_state* f = hub->running;
      if (!f)
        std::snprintf(name, sizeof name, "the hub");
      else if (f->is_main_fiber)
        std::snprintf(name, sizeof name, "main");
      else if (f->given_name.empty())
        std::snprintf(name, sizeof name, "fiber-%llu", static_cast<unsigned long long>(f->id));
      else
        std::snprintf(name, sizeof name, "%s", f->given_name.c_str());
      ::_Unwind_Backtrace(
          [](_Unwind_Context* at, void* argument) {
            auto& s = *static_cast<state*>(argument);
            if (s.frame_count == most_frames) return _URC_END_OF_STACK;
            if (const auto ip = _Unwind_GetIP(at)) s.frames[s.frame_count++] = reinterpret_cast<void*>(ip);
            return _URC_NO_REASON;
          },
          this);
    }
    probe.store(answered, std::memory_order_release);
  }

  // Asks the hub's thread; false if it did not answer in time (the signal is blocked there).
  bool ask(bool with_stack) {
    wants_stack = with_stack;
    probe.store(asked, std::memory_order_release);
    siginfo_t info{};
    info.si_signo = the_signal;
    info.si_code = SI_QUEUE;
    info.si_pid = process;
    info.si_value.sival_ptr = this;
    if (sys::call(SYS_rt_tgsigqueueinfo, process, thread_id, the_signal, &info) != 0) return false;
    for (int waited_ms = 0; waited_ms < 1000 && !stop.load(std::memory_order_relaxed); ++waited_ms) {
      if (probe.load(std::memory_order_acquire) == answered) return true;
      pause(std::chrono::milliseconds(1));
    }
    return false;
  }
  void pause(clock::duration d) {
    const timespec t{time_t(d.count() / 1'000'000'000), long(d.count() % 1'000'000'000)};
    sys::call(SYS_futex, &stop, FUTEX_WAIT_PRIVATE, 0, &t);
  }

  void watch() {
    const auto tick = std::max<clock::duration>(limit / 4, std::chrono::milliseconds(1));
    std::uint64_t turn = ~std::uint64_t(0), run = 0;
    enum { quiet, probed, reported } stage = quiet;
    clock::time_point since{};
    while (!stop.load(std::memory_order_acquire)) {
      pause(tick);
      if (stop.load(std::memory_order_acquire)) return;
      const std::uint64_t turn_now = hub->turns.load(std::memory_order_relaxed);
      if (hub->asleep.load(std::memory_order_relaxed) || turn_now != turn) {
        turn = turn_now;
        stage = quiet;
        continue;
      }
      if (stage == quiet) {
        since = real_now();
        if (!ask(false)) continue;
        run = switches;
        stage = probed;
      } else if (const auto now = real_now(); now - since >= limit && stage == probed) {
        if (!ask(true)) continue;
        if (switches != run) {
          run = switches;
          since = now;
          continue;
        }
        stage = reported;
        tell(now - since);
      } else if (stage == reported && now - since >= 10 * limit) {
        // A crowd may follow in the same turn: is it the same run still?
        if (!ask(false)) continue;
        if (switches != run) stage = quiet;
        since = now - limit;
      }
    }
  }

  void tell(clock::duration blocked) {
    count.fetch_add(1, std::memory_order_relaxed);
    blocking_report report{name, blocked, {}};
    // The handler's own frames and the signal's are not the fiber's.
    report.frames.assign(frames + std::min<std::size_t>(frame_count, 3), frames + frame_count);
    try {
      if (handler) return handler(report);
      std::fprintf(stderr, "ringlet: fiber '%s' has run for %.3f s without letting others run. Cure: yield() in long computations; offload "
                           "blocking calls that no hook reaches. It is here:\n%s",
                   report.fiber.c_str(), std::chrono::duration<double>(blocked).count(), describe_backtrace(report.frames).c_str());
    } catch (...) {
      std::fprintf(stderr, "ringlet: a blocking_monitor's handler failed: %s\n", detail::describe_exception(std::current_exception()).c_str());
    }
  }
};

// Who is alive; the handler looks here, so that a signal that comes late, or is the program's own, is told apart.
struct monitor_list {
  static constexpr std::size_t most = 256;
  static inline std::atomic<void*> alive[most] = {};
  static inline base::kernel_action before = {};

  static void on_signal(int number, siginfo_t* info, void* machine) {
    const int kept = errno;
    void* const who = info->si_code == SI_QUEUE ? info->si_value.sival_ptr : nullptr;
    bool ours = false;
    for (auto& each : alive) ours = ours || (who && each.load(std::memory_order_acquire) == who);
    if (ours) {
      blocking_monitor::state& s = *static_cast<blocking_monitor::state*>(who);
      if (s.hub == detail::hub_state::here_or_null() && s.probe.load(std::memory_order_acquire) == blocking_monitor::state::asked) s.answer();
    } else if (before.has_handler()) {
      before.handler(number, info, machine);
    }
    errno = kept;
  }
#if RINGLET_TSAN
  // ThreadSanitizer must hear of a handler: it lets none run within its own code.
  static void install() {
    struct sigaction ours {};
    ours.sa_sigaction = &on_signal;
    ours.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    ::sigaction(the_signal, &ours, nullptr);
  }
#else
  static void install() {
    base::kernel_action now;
    base::set_action(the_signal, nullptr, &now);
    if (now.handler == &on_signal) return;
    before = now;
    const base::kernel_action ours = base::action_of(&on_signal, SA_SIGINFO | SA_RESTART | SA_ONSTACK);
    base::set_action(the_signal, &ours, nullptr);
    loop::share_early_end_signal(before.has_handler() ? nullptr : &on_signal);
  }
#endif
};

blocking_monitor::blocking_monitor(clock::duration limit, std::function<void(const blocking_report&)> handler)
    : state_(std::make_unique<state>()) {
  state& s = *state_;
  s.hub = &detail::hub_state::here();
  s.limit = std::max<clock::duration>(limit, std::chrono::milliseconds(1));
  s.handler = std::move(handler);
  s.thread_id = sys::call(SYS_gettid);
  s.process = ::getpid();
  auto* place = std::find_if(std::begin(monitor_list::alive), std::end(monitor_list::alive), [&](auto& each) {
    void* none = nullptr;
    return each.compare_exchange_strong(none, &s, std::memory_order_acq_rel);
  });
  if (place == std::end(monitor_list::alive)) throw std::runtime_error("ringlet: more than 256 blocking_monitors at once");
  monitor_list::install();
  // The new thread inherits the mask: no handler of the program's runs on it.
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t watcher;
  const int error = ::pthread_create(
      &watcher, nullptr,
      [](void* argument) -> void* {
        auto& watched = *static_cast<state*>(argument);
        const long self = sys::call(SYS_gettid);
        watched.watcher_id.store(self, std::memory_order_relaxed);
        watched.watch();
        watched.watcher_id.store(-self, std::memory_order_release);
        return nullptr;
      },
      &s);
  if (error == 0) ::pthread_detach(watcher);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) {
    place->store(nullptr, std::memory_order_release);
    throw std::system_error(error, std::generic_category(), "ringlet: no thread for a blocking_monitor");
  }
  detail::silent_threads.fetch_add(1, std::memory_order_relaxed);
}

blocking_monitor::~blocking_monitor() {
  state& s = *state_;
  for (auto& each : monitor_list::alive) {
    void* us = &s;
    each.compare_exchange_strong(us, nullptr, std::memory_order_acq_rel);
  }
  if (s.process != ::getpid()) return;  // forked: the thread is not here
  detail::silent_threads.fetch_sub(1, std::memory_order_relaxed);  // before: another hub must not count one that has gone
  s.stop.store(1, std::memory_order_release);
  sys::call(SYS_futex, &s.stop, FUTEX_WAKE_PRIVATE, 1);
  // Until the kernel has forgotten it, too: one that is on its way out would be taken for somebody who may yet wake us.
  long id;
  while ((id = s.watcher_id.load(std::memory_order_acquire)) >= 0) sys::call(SYS_sched_yield);
  for (int i = 0; i < 1'000'000 && sys::call(SYS_tgkill, s.process, -id, 0) == 0; ++i) sys::call(SYS_sched_yield);
}

std::size_t blocking_monitor::reports() const noexcept { return state_->count.load(std::memory_order_relaxed); }

// --- switch_check ----------------------------------------------------------------------------------------------------

// One tracer for all checks of a thread, and so nothing while nobody checks. It goes on to tell the one before, and leaves with
// the last check, unless somebody has set another meanwhile.
struct switch_check::state {
  struct everybody {
    std::vector<state*> all;
    tracer before;
  };
  struct telling {
    std::shared_ptr<everybody> whom;
    void operator()(const trace_event& e) const {
      for (state* s : whom->all) s->note();
      if (whom->before) whom->before(e);
    }
  };
  any_fiber fiber = current();
  clock::time_point resumed = real_now();
  std::size_t switches = 0;
  clock::duration longest{};
  std::shared_ptr<everybody> among;

  state() {
    tracer now = get_trace();
    if (const auto* ours = now.target<telling>()) {
      among = ours->whom;
    } else {
      among = std::make_shared<everybody>();
      among->before = std::move(now);
      set_trace(telling{among});
    }
    among->all.push_back(this);
  }
  ~state() { end(); }
  void end() {
    if (!among) return;
    std::erase(among->all, this);
    if (among->all.empty())
      if (const tracer now = get_trace(); now.target<telling>() && now.target<telling>()->whom == among) set_trace(among->before);
    among.reset();
  }

  void note() {
    if (current_id() == fiber.id()) {
      if (away) resumed = real_now();
      away = false;
    } else if (!away) {
      away = true;
      ++switches;
      longest = std::max(longest, clock::duration(real_now() - resumed));
    }
  }
  static std::uint64_t current_id() {
    const auto* f = static_cast<const detail::fiber_state*>(hub::running_fiber());
    return f ? f->id : ~std::uint64_t(0);
  }
  bool away = false;
};

switch_check::switch_check() : state_(std::make_unique<state>()) {}
switch_check::~switch_check() = default;
std::size_t switch_check::switches() const noexcept { return state_->switches; }
clock::duration switch_check::longest() const noexcept { return std::max(state_->longest, clock::duration(real_now() - state_->resumed)); }

void switch_check::finish(clock::duration most) {
  const clock::duration longest_run = longest();
  state_->end();
  auto ms = [](clock::duration d) { return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(d).count()) + " ms"; };
  if (state_->switches == 0)
    throw failed_to_switch("ringlet: fiber '" + state_->fiber.name() + "' has not let others run at all. Cure: it must wait, sleep or yield.");
  if (longest_run > most)
    throw failed_to_switch("ringlet: fiber '" + state_->fiber.name() + "' has kept the thread for " + ms(longest_run) + " at once; allowed are " +
                           ms(most) + ". Cure: yield() in long computations; offload blocking calls that no hook reaches.");
}

}  // namespace ringlet
