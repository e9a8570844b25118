// Telling a fiber of something while it waits: a kill, a timeout whose time is up, an error of its scope's.
//
// What it is told of lies ready first (kill_pending, a fired scope), then its wait is ended if it may be. The wait asks what
// it was, and throws that; so one that comes while the fiber runs is told at its next wait, and none is told twice.

#include "base/assert.hpp"
#include "hub/hub.hpp"
#include "hub/timeout.hpp"

namespace ringlet::detail {

bool hub_state::scope_has_fired() const noexcept { return timeout_scope::first_fired(running->scopes) != nullptr; }

void hub_state::die(const std::exception_ptr& reason) {
  if (thread.current != thread.base) thread.current->exit_goes_on = true;
  std::rethrow_exception(reason);
}

void hub_state::throw_interrupt() {
  if (running->kill_pending) {
    if (thread.current != thread.base) thread.current->exit_goes_on = true;
    std::rethrow_exception(std::exchange(running->kill_pending, nullptr));
  }
  timeout_scope* fired = timeout_scope::first_fired(running->scopes);
  RINGLET_ASSERT(fired, "a wait was interrupted by nothing");
  fired->raise();
}

void hub_state::doom(fiber_state& f, std::exception_ptr reason) {
  if (f.shields > 0) {
    if (!f.kill_deferred) f.kill_deferred = std::move(reason);
    return;
  }
  if (!f.kill_pending) f.kill_pending = std::move(reason);
  interrupt(f);
}

void hub_state::interrupt(fiber_state& f) {
  waiter* w = f.waiting;
  if (!w || f.step != fiber_phase::parked || !w->interruptible || w->reason != wake_reason::none) return;
  if (w->withdraw && !w->withdraw(*w)) return;
  wake(*w, wake_reason::interrupted);
}

void require_can_park(const char* what) {
  hub_state& hub = hub_state::here();
  if (hub.can_park()) return;
  if (hub.in_item_code)
    throw std::logic_error(std::string("ringlet: ") + what +
                           " would block in an item's own code (its copy constructor, or a comparison of priorities), which a queue "
                           "calls with its lock held. Cure: do there nothing that waits.");
  throw std::logic_error(std::string("ringlet: ") + what +
                         " would block inside the hub itself (a callback runs there); only fibers may wait. Cure: spawn a "
                         "fiber from the callback and wait there.");
}

}  // namespace ringlet::detail

namespace ringlet::hub {
const void* running_fiber() noexcept {
  auto* h = detail::hub_state::here_or_null();
  return h ? h->running : nullptr;
}
}  // namespace ringlet::hub
