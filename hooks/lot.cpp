#include "lot.hpp"

#include "hub/hub.hpp"

namespace ringlet::hooks::lot {

detail::signal_watch watch_signals(detail::signal_effect effect) noexcept { return detail::hub_state::here().watch_signals(effect); }

const void* running_fiber() noexcept {
  auto* hub = detail::hub_state::here_or_null();
  return hub ? hub->running : nullptr;
}

bool on_main_fiber() noexcept {
  auto* hub = detail::hub_state::here_or_null();
  return !hub || hub->running == &hub->main_fiber;
}

bool alone() noexcept {
  auto* hub = detail::hub_state::here_or_null();
  return !hub || (hub->fiber_count == 0 && hub->running == &hub->main_fiber && hub->timers.size() == 0 && !hub->handle);
}

expecting::expecting() noexcept { ++detail::hub_state::here().foreign_work; }
expecting::~expecting() { --detail::hub_state::here().foreign_work; }

}  // namespace ringlet::hooks::lot
