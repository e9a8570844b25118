// Signals for fibers.
//
// The handler does three things that are allowed in a signal: it writes a record into a ring, counts, and wakes the fibers
// that are parked on the counter. All else is done by those fibers: each listener reads the ring from where it was on, and
// takes what it listens for. A record is published by its own sequence number, written last; so a handler that another one
// has interrupted, or that runs on another thread, is waited for, and a listener that was lapped sees it and falls back on
// the counts.
//
// The kernel is asked with raw calls: a door's wrapper around handlers would tell the program's calls of signals that are
// none of its business. A forked child gets the actions of before; a listener that it has kept begins to listen anew when
// it waits.

#include <ringlet/signals.hpp>

#include <pthread.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include <ringlet/fiber.hpp>
#include <ringlet/stream.hpp>

#include "base/kernel_action.hpp"
#include "base/lock.hpp"
#include "base/sys.hpp"
#include "hub/fork.hpp"
#include "hub/hub.hpp"
#include "process/start.hpp"
#include "sync/address_wait.hpp"

namespace ringlet {

namespace {

constexpr int most_signals = 65;
constexpr std::uint64_t ring_size = 256;

struct record {
  std::atomic<std::uint64_t> published{0};  // its number + 1
  std::atomic<int> number{0}, code{0}, sender{0}, value{0};
  std::atomic<unsigned> user{0};
  std::atomic<std::uint32_t> count{0};  // total[number] with it
};
record records[ring_size];
std::atomic<std::uint64_t> next_record{0};  // the address that listeners park on
std::atomic<std::uint32_t> total[most_signals];

void note(int number, siginfo_t* info, void*) {
  if (number <= 0 || number >= most_signals) return;
  const std::uint32_t count = total[number].fetch_add(1, std::memory_order_relaxed) + 1;
  const std::uint64_t mine = next_record.fetch_add(1, std::memory_order_acq_rel);
  record& r = records[mine % ring_size];
  r.published.store(0, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  const bool by_somebody = info->si_code <= 0;  // SI_USER, SI_QUEUE, SI_TKILL …
  const bool has_sender = by_somebody || number == SIGCHLD;
  r.number.store(number, std::memory_order_relaxed);
  r.code.store(info->si_code, std::memory_order_relaxed);
  r.sender.store(has_sender ? int(info->si_pid) : 0, std::memory_order_relaxed);
  r.user.store(has_sender ? unsigned(info->si_uid) : 0, std::memory_order_relaxed);
  r.value.store(info->si_code == SI_QUEUE ? info->si_value.sival_int : 0, std::memory_order_relaxed);
  r.count.store(count, std::memory_order_relaxed);
  r.published.store(mine + 1, std::memory_order_release);
  sync::wake_address_from_anywhere(&next_record);
}

// --- the kernel's side -----------------------------------------------------------------------------------------------

struct installed {
  unsigned listeners = 0;
  base::kernel_action before;
};
base::lock table_lock;
installed table[most_signals];

void before_fork() { table_lock.acquire(); }
void after_fork_in_parent() { table_lock.release(); }
void after_fork_in_child() {
  for (int number = 1; number < most_signals; ++number)
    if (std::exchange(table[number].listeners, 0) > 0) base::set_action(number, &table[number].before, nullptr);
  table_lock.release();
}

void check(int number) {
  const char* why = nullptr;
  if (number <= 0 || number >= most_signals || number == 32 || number == 33) why = "there is no such signal for programs";
  if (number == SIGKILL || number == SIGSTOP) why = "nothing can listen for it";
  if (number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL || number == SIGTRAP || number == SIGSYS)
    why = "it tells of a fault in the code that runs, which cannot go on";
  if (why) throw std::invalid_argument("ringlet: listening for signal " + std::to_string(number) + ": " + why);
}

void listen(int number) {
  base::lock_guard hold(table_lock);
  installed& t = table[number];
  if (t.listeners++ > 0) return;
  const base::kernel_action ours = base::action_of(&note, SA_SIGINFO | SA_RESTART | SA_ONSTACK, ~std::uint64_t(0));
  base::set_action(number, &ours, &t.before);
}

void stop_listening(int number) noexcept {
  base::lock_guard hold(table_lock);
  installed& t = table[number];
  if (t.listeners == 0 || --t.listeners > 0) return;
  base::kernel_action now;
  base::set_action(number, nullptr, &now);
  // Somebody may have installed his own meanwhile.
  if (now.handler == &note) base::set_action(number, &t.before, nullptr);
}

// As if it had come after the object that did not get to tell of it. Others that listen have had it.
void raise_again(int number) noexcept {
  {
    base::lock_guard hold(table_lock);
    if (table[number].listeners > 0) return;
  }
  sys::call(SYS_kill, sys::call(SYS_getpid), number);
}

}  // namespace

std::uint64_t detail::ignored_beneath_listeners() noexcept {
  base::lock_guard hold(table_lock);
  std::uint64_t found = 0;
  for (int number = 1; number < most_signals; ++number)
    if (table[number].listeners > 0 && reinterpret_cast<std::uintptr_t>(table[number].before.handler) == reinterpret_cast<std::uintptr_t>(SIG_IGN)) found |= std::uint64_t(1) << (number - 1);
  return found;
}

std::string signal_info::name() const {
  const char* known = ::sigabbrev_np(number);
  if (known) return "SIG" + std::string(known);
  return number >= 34 && number < most_signals ? "SIGRTMIN+" + std::to_string(number - 34) : "signal " + std::to_string(number);
}

// --- a listener ------------------------------------------------------------------------------------------------------

struct signals::impl {
  const std::vector<int> numbers;
  std::uint64_t position = 0;
  // By number. The position and a total are not read in one moment: a record that a total has covered is passed over.
  std::uint32_t covered[most_signals] = {};
  std::uint32_t seen[most_signals] = {};  // covered, or taken since then
  std::vector<signal_info> lapped;  // what the counts tell of
  unsigned generation = 0;
  std::atomic<bool> closed{false};
  // interrupt_on_signal's: who made it, and what that fiber has been told.
  const void* whom = nullptr;
  signal_interrupt told;
  std::exception_ptr thrown;

  explicit impl(std::vector<int> wanted) : numbers(tidy(std::move(wanted))) {
    static const int once = ::pthread_atfork(&before_fork, &after_fork_in_parent, &after_fork_in_child);
    (void)once;
    begin();
  }
  ~impl() { close(); }

  static std::vector<int> tidy(std::vector<int> wanted) {
    if (wanted.empty()) throw std::invalid_argument("ringlet: listening for no signal at all");
    for (const int number : wanted) check(number);
    std::sort(wanted.begin(), wanted.end());
    wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
    return wanted;
  }
  static unsigned this_generation() noexcept { return detail::fork_generation.load(std::memory_order_relaxed); }
  void begin() {
    generation = this_generation();
    position = next_record.load(std::memory_order_acquire);
    for (const int number : numbers) {
      covered[number] = seen[number] = total[number].load(std::memory_order_relaxed);
      listen(number);
    }
    lapped.clear();
  }
  // No signal comes to it from now on; who waits is told. False: it was closed already.
  bool close() noexcept {
    if (closed.exchange(true)) return false;
    if (generation == this_generation())
      for (const int number : numbers) stop_listening(number);
    sync::wake_address_from_anywhere(&next_record);
    return true;
  }
  bool wants(int number) const noexcept { return std::binary_search(numbers.begin(), numbers.end(), number); }

  std::optional<signal_info> take() {
    if (generation != this_generation()) begin();
    while (true) {
      if (!lapped.empty()) {
        const signal_info first = lapped.front();
        lapped.erase(lapped.begin());
        return first;
      }
      if (position == next_record.load(std::memory_order_acquire)) return std::nullopt;
      const record& r = records[position % ring_size];
      const std::uint64_t published = r.published.load(std::memory_order_acquire);
      signal_info found;
      found.number = r.number.load(std::memory_order_relaxed);
      found.code = r.code.load(std::memory_order_relaxed);
      found.sender = r.sender.load(std::memory_order_relaxed);
      found.user = r.user.load(std::memory_order_relaxed);
      found.value = r.value.load(std::memory_order_relaxed);
      const std::uint32_t count = r.count.load(std::memory_order_relaxed);
      std::atomic_thread_fence(std::memory_order_acquire);
      if (next_record.load(std::memory_order_relaxed) - position > ring_size || published > position + 1) {
        fall_back();
        continue;
      }
      if (published != position + 1) return std::nullopt;  // its handler is still writing, and wakes us
      if (r.published.load(std::memory_order_relaxed) != published) continue;
      ++position;
      if (!wants(found.number) || std::int32_t(count - covered[found.number]) <= 0) continue;
      ++seen[found.number];
      return found;
    }
  }
  void fall_back() {
    position = next_record.load(std::memory_order_acquire);
    for (const int number : numbers) {
      const std::uint32_t now = total[number].load(std::memory_order_relaxed);
      const bool is_new = now != seen[number];
      covered[number] = seen[number] = now;
      if (!is_new) continue;
      signal_info bare;
      bare.number = number;
      lapped.push_back(bare);
    }
  }

  // `counts`: somebody whom a signal may wake is no sign of a deadlock.
  std::optional<signal_info> wait(deadline until, bool counts) {
    detail::require_can_park("signals::wait");
    detail::hub_state& hub = detail::hub_state::here();
    while (true) {
      if (auto found = take()) return found;
      if (closed.load() || until == deadline::passed()) return std::nullopt;
      struct expecting {
        std::size_t& n;
        const bool on;
        expecting(std::size_t& c, bool o) : n(c), on(o) { n += on; }
        ~expecting() { n -= on; }
      } mark(hub.foreign_work, counts);
      const auto nothing_new = [](const void* argument) {
        auto& me = *static_cast<const impl*>(argument);
        return !me.closed.load() && me.position == next_record.load(std::memory_order_acquire);
      };
      switch (sync::wait_on_address(&next_record, until, "a signal", true, nothing_new, this)) {
        case sync::address_result::interrupted: hub.throw_interrupt();
        case sync::address_result::timed_out: return take();
        default: break;
      }
    }
  }
};

signals::signals(std::vector<int> numbers) : impl_(std::make_shared<impl>(std::move(numbers))) {}
signals::~signals() { impl_->close(); }
std::optional<signal_info> signals::wait(deadline until) {
  const auto kept = impl_;  // the object may go while somebody waits
  return kept->wait(until, true);
}

signal_handler::signal_handler(std::vector<int> numbers, std::function<void(const signal_info&)> f)
    : impl_(std::make_shared<signals::impl>(std::move(numbers))) {
  if (!f) throw std::invalid_argument("ringlet: a signal_handler without a function to call");
  spawn({.name = "signal_handler", .daemon = true}, [of = impl_, f = std::move(f)] {
    // What f refers to may have gone with the object, so none that came before its end is told after it.
    for (auto arrived = of->wait(never, true); arrived && !of->closed; arrived = of->wait(never, true)) {
      const auto begin = [&] {
        try {
          spawn({.name = arrived->name()}, [of, f, s = *arrived] {
            if (!of->closed) f(s);
          });
        } catch (const std::bad_alloc&) {  // a signal is nobody's to refuse: it waits until there is memory
          return false;
        }
        return true;
      };
      while (!begin() && !of->closed) sleep(std::chrono::milliseconds(1));
    }
  });
}
signal_handler::~signal_handler() { impl_->close(); }

interrupt_on_signal::interrupt_on_signal(std::vector<int> numbers) : impl_(std::make_shared<signals::impl>(std::move(numbers))) {
  impl_->whom = hub::running_fiber();
  spawn({.name = "interrupt_on_signal", .daemon = true}, [of = impl_, whom = current()] {
    const auto arrived = of->wait(never, false);
    const bool in_time = of->close();
    if (!arrived) return;
    if (!in_time) return raise_again(arrived->number);
    if (whom.ready()) return;
    of->told = {arrived->number};
    of->thrown = std::make_exception_ptr(of->told);
    whom.kill(of->thrown, deadline::passed());
  });
}

// What came in time, but found no wait in which to be thrown, is not thrown where nobody expects it any more.
interrupt_on_signal::~interrupt_on_signal() {
  const bool was_open = impl_->close();
  detail::hub_state* hub = detail::hub_state::here_or_null();
  if (!hub || hub->running != impl_->whom || impl_->generation != signals::impl::this_generation()) return;
  if (was_open) {
    while (const auto late = impl_->take()) raise_again(late->number);
    return;
  }
  auto& me = *hub->running;
  for (std::exception_ptr* pending : {&me.kill_pending, &me.kill_deferred})
    if (*pending && *pending == impl_->thrown) {
      *pending = nullptr;
      raise_again(impl_->told.number);
    }
}

}  // namespace ringlet
