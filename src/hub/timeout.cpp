#include "hub/timeout.hpp"

#include <ringlet/generator.hpp>

#include <atomic>
#include <new>
#include <stdexcept>

#include "base/assert.hpp"

namespace ringlet::detail {

bool has_scopes_on_this_stack() noexcept {
  const hub_state* hub = hub_state::here_or_null();
  if (!hub || !hub->running || !hub->running->scopes) return false;
  const greenlet_state& here = *hub->thread.current;
  for (const timeout_scope* s = hub->running->scopes; s; s = s->outer)
    if (reinterpret_cast<const char*>(s) >= here.memory.base && reinterpret_cast<const char*>(s) < here.memory.base + here.memory.stride) return true;
  return false;
}

void generator_destroyed_inside() noexcept {
  RINGLET_REQUIRE(fork_generation.load(std::memory_order_relaxed) != 0 || process_ends.load(std::memory_order_relaxed),
                  "a generator is destroyed while it runs: a fiber waits inside it, or it destroys itself. Cure: kill or join that fiber first.");
}

}  // namespace ringlet::detail

namespace ringlet {

struct timeout::impl : detail::timeout_scope {};

namespace {
std::atomic<std::uint64_t> next_id{1};
}

timeout::timeout(deadline until, std::exception_ptr instead) : id_(next_id.fetch_add(1, std::memory_order_relaxed)) {
  static_assert(sizeof(impl) <= sizeof storage_);
  detail::require_can_park("a timeout scope");
  auto& hub = detail::hub_state::here();
  hub.timers.reserve_place();
  auto* s = ::new (storage_) impl;
  s->face = this;
  s->until = until;
  s->instead = std::move(instead);
  s->enter(hub);
}

timeout::~timeout() {
  auto* s = reinterpret_cast<impl*>(storage_);
  s->leave();
  s->fiber->hub->timers.give_place_back();
  s->~impl();
}

bool timeout::pending() const noexcept {
  auto* s = reinterpret_cast<const impl*>(storage_);
  return !s->fired && !s->cancelled;
}
bool timeout::expired() const noexcept { return reinterpret_cast<const impl*>(storage_)->fired; }
bool timeout::thrown() const noexcept { return reinterpret_cast<const impl*>(storage_)->thrown; }
void timeout::cancel() noexcept {
  auto* s = reinterpret_cast<impl*>(storage_);
  detail::hub_state& hub = *s->fiber->hub;
  hub.timers.cancel(*s);
  // One that has fired is on its way to its fiber already; only that fiber itself can still ignore it.
  if (!s->fired || (!s->thrown && s->fiber == hub.running)) s->cancelled = true;
}
void timeout::restart(deadline until) {
  auto* s = reinterpret_cast<impl*>(storage_);
  detail::hub_state& hub = *s->fiber->hub;
  if (s->fiber != hub.running)
    throw std::logic_error("ringlet: a timeout scope is restarted by another fiber than its own, which may be on its way out of it");
  hub.timers.cancel(*s);
  s->fired = s->thrown = s->cancelled = false;
  s->until = until;
  if (!until.is_never()) hub.timers.arm(*s, until.at());
}

// --- shields ---------------------------------------------------------------------------------------------------------

struct kill_shield::impl : detail::timeout_scope {};

kill_shield::kill_shield() {
  static_assert(sizeof(impl) <= sizeof storage_);
  detail::require_can_park("a kill shield");
  detail::hub_state& hub = detail::hub_state::here();
  detail::fiber_state& f = *hub.running;
  auto* s = ::new (storage_) impl;
  s->is_shield = true;
  s->enter(hub);
  if (f.shields++ == 0) f.kill_deferred = std::exchange(f.kill_pending, nullptr);
}

kill_shield::~kill_shield() {
  auto* s = reinterpret_cast<impl*>(storage_);
  detail::fiber_state& f = *s->fiber;
  s->leave();
  if (--f.shields == 0 && f.kill_deferred) f.kill_pending = std::exchange(f.kill_deferred, nullptr);
  s->~impl();
}

}  // namespace ringlet
