// Those who want to know what the hub does: who is spawned, and when all have finished.

#include <algorithm>
#include <climits>
#include <stdexcept>
#include <utility>

#include "base/assert.hpp"
#include "hub/fork.hpp"
#include "hub/hub.hpp"

namespace ringlet::detail {

void call_spawn_callbacks(hub_state& hub, fiber_state& f) {
  std::vector<hub_state::spawn_callback> calls;
  try {
    calls = hub.spawn_callbacks;  // one may add or remove others
  } catch (...) {
    return report_error("spawn callback", f, std::current_exception(), "the spawn callbacks could not be called for fiber ", "");
  }
  fiber_retain(&f);
  struct let_go {
    fiber_state& f;
    ~let_go() { fiber_release(&f); }
  } at_end{f};
  for (const auto& each : calls) {
    try {
      fiber_retain(&f);
      each.call(fiber_access::adopt(&f));
    } catch (...) {
      report_error("spawn callback", f, std::current_exception(), "a spawn callback failed for fiber ", "");
    }
  }
}

}  // namespace ringlet::detail

namespace ringlet::hub {

using detail::hub_state;

std::uint64_t add_spawn_callback(std::function<void(const any_fiber&)> f) {
  hub_state& h = hub_state::here();
  const auto id = h.next_link_id++;
  h.spawn_callbacks.push_back({id, std::move(f)});
  h.has_spawn_callbacks = true;
  return id;
}

bool remove_spawn_callback(std::uint64_t id) noexcept {
  hub_state* h = hub_state::here_or_null();
  if (!h) return false;
  const bool found = std::erase_if(h->spawn_callbacks, [id](const auto& each) { return each.id == id; }) > 0;
  h->has_spawn_callbacks = !h->spawn_callbacks.empty();
  return found;
}

std::vector<any_fiber> fibers() {
  std::vector<any_fiber> all;
  if (hub_state* h = hub_state::here_or_null())
    h->fibers.for_each([&](detail::fiber_state& f) {
      detail::fiber_retain(&f);
      all.push_back(fiber_access::adopt(&f));
    });
  return all;
}

std::size_t set_turn_limit(std::size_t resumptions) {
  if (resumptions == 0) throw std::invalid_argument("ringlet: a turn in which no fiber runs would be the last");
  return std::exchange(hub_state::here().most_budget, unsigned(std::min<std::size_t>(resumptions, UINT_MAX)));
}

std::chrono::nanoseconds set_spin(std::chrono::nanoseconds longest) {
  if (longest < longest.zero() || longest > detail::spin_habit::longest)
    throw std::invalid_argument("ringlet: a hub looks for news from 0 to 1 ms before it sleeps, not for longer");
  hub_state& h = hub_state::here();
  if (h.engine->name() == "simulated") return {};  // whose time passes in sleep only
  return std::exchange(h.spin.limit, std::chrono::duration_cast<ringlet::clock::duration>(longest));
}

// Told whenever no more than one awaited fiber is left, and looks again.
bool join(deadline until) {
  hub_state& h = hub_state::here();
  detail::require_can_park("hub::join");
  struct waiting : detail::waiter, detail::listener {};
  const bool counts_itself = h.running != &h.main_fiber && !h.running->is_daemon;
  while (h.fiber_count - h.daemon_count > std::size_t(counts_itself)) {
    if (h.interrupted()) h.throw_interrupt();
    if (until == deadline::passed()) return false;
    waiting w;
    w.what = "hub::join";
    w.fiber = h.running;
    w.told = [](detail::listener& l) noexcept {
      auto& told = static_cast<waiting&>(l);
      told.fiber->hub->wake(told);
    };
    w.withdraw = [](detail::waiter& x) {
      auto& late = static_cast<waiting&>(x);
      if (!static_cast<detail::listener&>(late).linked) return false;
      late.fiber->hub->idle.remove(late);
      return true;
    };
    h.idle.add(w);
    switch (h.wait(w, until)) {
      case detail::wake_reason::interrupted: h.throw_interrupt();
      case detail::wake_reason::timed_out: return h.fiber_count - h.daemon_count <= std::size_t(counts_itself);
      default: break;
    }
  }
  return true;
}

}  // namespace ringlet::hub
