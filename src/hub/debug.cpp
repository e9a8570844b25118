#include "hub/debug.hpp"

#include "base/sys.hpp"

#pragma GCC diagnostic ignored "-Winvalid-offsetof"

namespace ringlet::detail {

static_assert(std::is_same_v<clock::duration, std::chrono::nanoseconds>);
static_assert(sizeof(base::intrusive_list<fiber_state, all_link>) == sizeof(base::list_link));  // so it begins with its head

namespace {
constexpr std::uint32_t link_in_fiber() noexcept {
  // A base has no offsetof; the distance is the same from any address.
  constexpr std::uintptr_t anywhere = 4096;
  auto* const f = reinterpret_cast<fiber_state*>(anywhere);
  return std::uint32_t(reinterpret_cast<std::uintptr_t>(static_cast<base::list_link*>(static_cast<all_link*>(f))) - anywhere);
}
}  // namespace

#define AT(type, field) std::uint32_t(offsetof(type, field))
debug_table ringlet_debug_table{
    .most_hubs = sizeof debug_table::hubs / sizeof(debug_table::entry),
    .hub = {AT(hub_state, fibers), AT(hub_state, running), AT(hub_state, turn_time), AT(hub_state, switches), AT(hub_state, asleep), AT(hub_state, own)},
    .fiber = {link_in_fiber(), AT(fiber_state, step), AT(fiber_state, waiting), AT(fiber_state, since), AT(fiber_state, id), AT(fiber_state, given_name),
              AT(fiber_state, resume_at)},
    .greenlet = {AT(greenlet_state, where.sp), AT(greenlet_state, where.image), AT(greenlet_state, where.has_run)},
    .waiter = {AT(waiter, what), AT(waiter, whom), AT(waiter, fd), 0},
    .thread = {},
    .hubs = {},
};

void show_to_debuggers(hub_state& hub) noexcept {
  for (auto& e : ringlet_debug_table.hubs) {
    const void* free = nullptr;
    if (!e.hub.compare_exchange_strong(free, &hub, std::memory_order_acquire, std::memory_order_relaxed)) continue;
    e.main_fiber = &hub.main_fiber;
    e.os_id = sys::call(SYS_gettid);
    return;
  }
  __atomic_fetch_add(&ringlet_debug_table.not_shown, 1, __ATOMIC_RELAXED);
}

void hide_from_debuggers(hub_state& hub) noexcept {
  for (auto& e : ringlet_debug_table.hubs)
    if (e.hub.load(std::memory_order_relaxed) == &hub) return e.hub.store(nullptr, std::memory_order_release);  // the next of the place writes there after this
  __atomic_fetch_sub(&ringlet_debug_table.not_shown, 1, __ATOMIC_RELAXED);
}

void only_debuggers_hub(hub_state& hub) noexcept {
  for (auto& e : ringlet_debug_table.hubs) e.hub.store(nullptr, std::memory_order_relaxed);
  ringlet_debug_table.not_shown = 0;
  show_to_debuggers(hub);
}

}  // namespace ringlet::detail
