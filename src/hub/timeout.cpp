#include "hub/timeout.hpp"

#include <atomic>
#include <new>

#include "base/assert.hpp"

namespace ringlet {

struct timeout::impl : detail::timeout_scope {};

namespace {
std::atomic<std::uint64_t> next_id{1};
}

timeout::timeout(deadline until) : id_(next_id.fetch_add(1, std::memory_order_relaxed)) {
  static_assert(sizeof(impl) <= sizeof storage_);
  detail::require_can_park("a timeout scope");
  auto& hub = detail::hub_state::here();
  auto* s = ::new (storage_) impl;
  s->face = this;
  s->fiber = hub.running;
  s->until = until;
  s->outer = hub.running->scopes;
  hub.running->scopes = s;
  s->fire = [](loop::timer& t) {
    auto& scope = static_cast<detail::timeout_scope&>(t);
    scope.fired = true;
    scope.fiber->hub->interrupt(*scope.fiber);
  };
  if (!until.is_never()) hub.timers.arm(*s, until.at());
}

timeout::~timeout() {
  auto* s = reinterpret_cast<impl*>(storage_);
  s->fiber->hub->timers.cancel(*s);
  detail::timeout_scope** link = &s->fiber->scopes;
  while (*link && *link != s) link = &(*link)->outer;
  RINGLET_ASSERT(*link == s, "a timeout scope ends on a fiber that did not begin it");
  *link = s->outer;
  s->~impl();
}

bool timeout::pending() const noexcept {
  auto* s = reinterpret_cast<const impl*>(storage_);
  return !s->fired && !s->cancelled;
}
bool timeout::expired() const noexcept { return reinterpret_cast<const impl*>(storage_)->fired; }
void timeout::cancel() noexcept {
  auto* s = reinterpret_cast<impl*>(storage_);
  detail::hub_state& hub = *s->fiber->hub;
  hub.timers.cancel(*s);
  // One that has fired is on its way to its fiber already; only that fiber itself can still ignore it.
  if (!s->fired || (!s->thrown && s->fiber == hub.running)) s->cancelled = true;
}

}  // namespace ringlet
