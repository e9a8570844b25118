#pragma once
// What the hub does about fork, links and handles; small pieces that hub.cpp and fiber_life.cpp call.

#include "hub/hub.hpp"

namespace ringlet::detail {
void register_fork_handler();
// In a child that a fork has just made: done by pthread_atfork's handler, or before it by the door that saw the system
// call; once.
RINGLET_SHOWN void go_on_in_child();
void start_link(fiber_state& finished, link_entry&& link);
void leave_handle(hub_state&) noexcept;  // other threads' handles of a hub that ends refer to nothing from now on
// Around fork, so that the child does not get the lock held by a thread that it does not have.
void lock_handles() noexcept;
void unlock_handles() noexcept;
}  // namespace ringlet::detail

namespace ringlet {
struct fiber_access {
  static any_fiber adopt(detail::fiber_state* f) { return any_fiber(f); }
  static detail::fiber_state* state(const any_fiber& f) { return f.state_; }
};
}  // namespace ringlet
