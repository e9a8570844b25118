// Fibers that do not outlive a block.
//
// The scope stands in its fiber's chain of timeout scopes, as one without a timer: a child that fails fires it, with its
// error as what is thrown. So a failure interrupts the block in any wait, as a timeout would, and a kill shield inside the
// block holds it off.

#include <ringlet/scope.hpp>

#include <functional>
#include <list>
#include <optional>
#include <vector>

#include <ringlet/sync.hpp>
#include <ringlet/wait.hpp>

#include "hub/timeout.hpp"

namespace ringlet {

struct fiber_scope::state {
  struct child : detail::listener {
    state* scope = nullptr;
    any_fiber fiber;
    std::list<child>::iterator self;
    bool told_to_end = false;
  };
  struct cancel_later {
    std::function<void()> call;
    void operator()() const { call(); }
  };

  state() : at_begin(std::uncaught_exceptions()) {
    detail::require_can_park("a fiber_scope");
    entry.enter(detail::hub_state::here());
  }

  void adopt(const any_fiber& fiber) {
    if (hub != detail::hub_state::here_or_null()) {
      if (!fiber.started()) fiber.kill(deadline::passed());
      throw wrong_thread("ringlet: a fiber_scope is given a child on another thread than its own");
    }
    child* added = nullptr;
    try {
      added = &children.emplace_back();
    } catch (const std::bad_alloc&) {  // it must not outlive us, nor run at all
      if (!fiber.started()) fiber.kill(deadline::passed());
      throw;
    }
    child& c = *added;
    c.scope = this;
    c.fiber = fiber;
    c.self = std::prev(children.end());
    c.told = [](detail::listener& l) noexcept {
      child& ended = static_cast<child&>(l);
      ended.scope->take_leave(ended);
    };
    bool listens = false;
    try {
      listens = detail::fiber_add_listener(detail::fiber_state_of(fiber), c);
    } catch (...) {
      children.erase(c.self);
      throw;
    }
    if (!listens) take_leave(c);
    else if (is_cancelled) fiber.kill(deadline::passed());
  }

  // A child has ended. On the child's stack, or on that of who has killed it before it ran.
  void take_leave(child& ended) noexcept {
    detail::fiber_state& f = *detail::fiber_state_of(ended.fiber);
    if (f.error && first_failed.empty() && entry.fiber) {
      first_failed = ended.fiber;
      entry.instead = f.error;
      entry.fire_now();
      cancel();
    }
    const any_fiber kept = std::move(ended.fiber);
    children.erase(ended.self);
    if (!children.empty()) return;
    none_left.lock();
    none_left.wake_one();
    none_left.unlock();
  }

  void cancel() noexcept {
    is_cancelled = true;
    stop.request_stop();
    const std::exception_ptr exit = std::make_exception_ptr(greenlet_exit{});
    for (child& c : children) c.told_to_end = false;
    // Who ends leaves the list, and may take others with it; who does not, goes to its end.
    while (!children.empty() && !children.front().told_to_end) {
      children.front().told_to_end = true;
      const any_fiber f = children.front().fiber;
      children.splice(children.end(), children, children.begin());
      detail::fiber_state& victim = *detail::fiber_state_of(f);
      if (&victim != victim.hub->running)
        f.kill(exit, deadline::passed());
      else if (victim.step != detail::fiber_phase::finished)
        victim.hub->doom(victim, exit);  // a child that cancels its own scope hears of it at its next wait
    }
  }

  void wait_for_all(bool interruptible) {
    while (!children.empty()) {
      none_left.lock();
      none_left.wait(never, "fiber_scope::join", nullptr, nullptr, interruptible);
    }
  }
  void leave() noexcept {
    if (!entry.fiber) return;
    entry.leave();
    entry.fiber = nullptr;
    outer_stop.reset();
    // Where something else ended the block, the error goes the way of those that nobody asked for.
    if (!first_failed.empty()) detail::fiber_state_of(first_failed)->error_seen = entry.thrown;
  }
  // Everybody has ended, whatever it takes; then the scope is over.
  void end_all() {
    cancel();
    wait_for_all(false);
    leave();
  }
  void join() {
    try {
      wait_for_all(true);
    } catch (...) {
      end_all();
      throw;
    }
    if (first_failed.empty() || entry.thrown) return;
    entry.thrown = true;
    const std::exception_ptr error = entry.instead;
    leave();
    std::rethrow_exception(error);
  }

  detail::timeout_scope entry;
  detail::hub_state* const hub = &detail::hub_state::here();
  const int at_begin;
  std::list<child> children;  // those that have not ended
  any_fiber first_failed;
  bool is_cancelled = false;
  std::stop_source stop;
  detail::wait_queue none_left;
  std::optional<std::stop_callback<cancel_later>> outer_stop;
};

fiber_scope::fiber_scope() : state_(std::make_shared<state>()) {}

fiber_scope::fiber_scope(std::stop_token outer) : fiber_scope() {
  // The request may come on any thread, and the scope may be over when it arrives here.
  state_->outer_stop.emplace(std::move(outer), state::cancel_later{[hub = hub::here(), scope = std::weak_ptr<state>(state_)] {
    hub.post([scope] {
      if (auto s = scope.lock()) s->cancel();
    });
  }});
}

fiber_scope::~fiber_scope() noexcept(false) {
  if (std::uncaught_exceptions() > state_->at_begin) {
    state_->end_all();
    return;
  }
  struct at_end {
    state& s;
    ~at_end() { s.leave(); }
  } end{*state_};
  state_->join();
}

void fiber_scope::adopt(const any_fiber& child) { state_->adopt(child); }
void fiber_scope::join() { state_->join(); }
void fiber_scope::cancel() noexcept { state_->cancel(); }
bool fiber_scope::cancelled() const noexcept { return state_->is_cancelled; }
std::size_t fiber_scope::size() const noexcept { return state_->children.size(); }
std::stop_token fiber_scope::stop_token() const noexcept { return state_->stop.get_token(); }

}  // namespace ringlet
