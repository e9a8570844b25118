// A timer is a fiber that waits for its own cancellation, to the moment; so who cancels may be on any thread.

#include <ringlet/timer.hpp>

#include <atomic>

#include <ringlet/fiber.hpp>
#include <ringlet/sync.hpp>

#include "hub/hub.hpp"

namespace ringlet {

struct timer::state {
  enum class phase { waiting, begun, cancelled };
  std::atomic<phase> step{phase::waiting};
  std::atomic<const void*> runs_in{nullptr};  // the fiber that calls the function
  event cancelling;
  event over;
  bool leave(phase to) noexcept {
    phase expected = phase::waiting;
    return step.compare_exchange_strong(expected, to);
  }
};

timer::timer(deadline when, std::function<void()> f) : state_(std::make_shared<state>()) {
  if (!f) throw std::invalid_argument("ringlet: a timer without a function to call");
  // However the fiber ends, and even if it never runs.
  struct ending {
    std::shared_ptr<state> of;
    explicit ending(std::shared_ptr<state> s) noexcept : of(std::move(s)) {}
    ending(ending&&) noexcept = default;
    ~ending() {
      if (!of) return;
      of->leave(state::phase::cancelled);
      of->over.set();
    }
  };
  spawn({.name = "timer"}, [when, end = ending(state_), call = std::move(f)]() mutable {
    state& s = *end.of;
    if (s.cancelling.wait(when) || !s.leave(state::phase::begun)) return;
    s.runs_in.store(hub::running_fiber(), std::memory_order_relaxed);
    struct at_end {
      state& s;
      ~at_end() { s.runs_in.store(nullptr, std::memory_order_relaxed); }
    } returned{s};
    call();
  });
}

bool timer::cancel() noexcept {
  const auto kept = state_;  // who joins may destroy this timer as soon as it is over
  if (!kept) return false;
  const bool cancelled_now = kept->leave(state::phase::cancelled);
  if (cancelled_now) {
    kept->over.set();
    kept->cancelling.set();
  }
  return cancelled_now || kept->step.load() == state::phase::cancelled;
}

bool timer::join(deadline until) const {
  const auto kept = state_;
  if (!kept) return true;
  if (const void* self = hub::running_fiber(); self && self == kept->runs_in.load(std::memory_order_relaxed))
    throw std::logic_error("ringlet: a timer is joined by its own function; it would wait for itself forever");
  return kept->over.wait(until);
}
bool timer::finished() const noexcept { return !state_ || state_->over.is_set(); }
bool timer::cancelled() const noexcept { return state_ && state_->step.load() == state::phase::cancelled; }
bool timer::add_listener(detail::listener& l) noexcept { return state_ && state_->over.add_listener(l); }
void timer::remove_listener(detail::listener& l) noexcept { if (state_) state_->over.remove_listener(l); }

}  // namespace ringlet
