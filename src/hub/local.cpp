// A fiber's own values: a short list sorted by key; those that are inherited, in a map that fibers share until one of them
// changes it.

#include <ringlet/local.hpp>

#include <algorithm>
#include <cstdio>

#include "hub/hub.hpp"

namespace ringlet::detail {

namespace {
std::atomic<std::uint64_t> next_key{1};

fiber_extras* extras_here() noexcept {
  hub_state* hub = hub_state::here_or_null();
  return hub && hub->running ? hub->running->extras.get() : nullptr;
}

// The first entry whose key is not smaller.
template <class Entries>
auto place_of(Entries& entries, std::uint64_t key) {
  return std::lower_bound(entries.begin(), entries.end(), key, [](const auto& entry, std::uint64_t wanted) { return entry.key < wanted; });
}
}  // namespace

std::uint64_t new_local_key() noexcept { return next_key.fetch_add(1, std::memory_order_relaxed); }

void* local_find(std::uint64_t key) noexcept {
  fiber_extras* extras = extras_here();
  if (!extras) return nullptr;
  auto at = place_of(extras->locals, key);
  return at != extras->locals.end() && at->key == key ? at->value : nullptr;
}

void local_put(std::uint64_t key, void* value, void (*destroy)(void*) noexcept) {
  require_can_park("a fiber_local");
  auto& locals = hub_state::here().running->extra().locals;
  auto at = place_of(locals, key);
  if (at != locals.end() && at->key == key) {
    const fiber_extras::local former = std::exchange(*at, {key, value, destroy});
    former.destroy(former.value);
  } else {
    locals.insert(at, {key, value, destroy});
  }
}

void local_drop(std::uint64_t key) noexcept {
  fiber_extras* extras = extras_here();
  if (!extras) return;
  auto at = place_of(extras->locals, key);
  if (at == extras->locals.end() || at->key != key) return;
  const fiber_extras::local former = *at;
  extras->locals.erase(at);
  former.destroy(former.value);
}

// Last made, first destroyed; a destructor may look at others, and so make new ones.
void drop_locals(fiber_state& f) noexcept {
  // Its end is not interrupted any more: a kill that arrived in a waiting destructor would be std::terminate.
  f.kill_pending = nullptr;
  ++f.shields;
  auto& locals = f.extras->locals;
  for (int made_anew = 0; !locals.empty(); ) {
    const fiber_extras::local last = locals.back();
    locals.pop_back();
    const std::size_t left = locals.size();
    last.destroy(last.value);
    if (locals.size() > left && ++made_anew > 1000) {
      std::fprintf(stderr, "ringlet: fiber '%s' has ended, but its fiber_locals' destructors go on making new ones; they are left\n", f.name().c_str());
      locals.clear();
    }
  }
  f.extras->inherited.reset();
}

const void* inherited_find(std::uint64_t key) noexcept {
  fiber_extras* extras = extras_here();
  if (!extras || !extras->inherited) return nullptr;
  auto at = place_of(*extras->inherited, key);
  return at != extras->inherited->end() && at->key == key ? at->value.get() : nullptr;
}

void inherited_put(std::uint64_t key, std::shared_ptr<const void> value) {
  require_can_park("an inherited_local");
  auto& shared = hub_state::here().running->extra().inherited;
  auto changed = shared ? std::make_shared<std::vector<fiber_extras::inherited_local>>(*shared)
                        : std::make_shared<std::vector<fiber_extras::inherited_local>>();
  auto at = place_of(*changed, key);
  const bool there = at != changed->end() && at->key == key;
  if (!value) {
    if (there) changed->erase(at);
  } else if (there) {
    at->value = std::move(value);
  } else {
    changed->insert(at, {key, std::move(value)});
  }
  std::shared_ptr<const std::vector<fiber_extras::inherited_local>> former = std::move(shared);  // its values' destructors see the new state
  shared = changed->empty() ? nullptr : std::move(changed);
}

void inherit(fiber_state& child, const fiber_state& spawner) { child.extra().inherited = spawner.extras->inherited; }

}  // namespace ringlet::detail
