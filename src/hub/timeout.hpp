#pragma once
// A timeout scope's inside: a timer that marks the scope fired and interrupts its fiber.
//
// A fiber's scopes are a chain on its stack, innermost first. Two more kinds of links stand in it: a shield, past which
// nobody looks, so that what was opened outside of it waits until it has gone; and a scope without a timer that somebody
// else fires (a structured scope whose child has failed).

#include <ringlet/timeout.hpp>

#include "base/assert.hpp"
#include "hub/hub.hpp"

namespace ringlet::detail {

struct timeout_scope : loop::timer {
  timeout* face = nullptr;
  fiber_state* fiber = nullptr;
  timeout_scope* outer = nullptr;
  deadline until;
  bool fired = false;
  bool thrown = false;
  bool cancelled = false;
  bool is_shield = false;
  std::exception_ptr instead;  // thrown in place of timeout_expired

  // One with a deadline has reserved its timer's place.
  void enter(hub_state& hub) {
    RINGLET_ASSERT(hub.running, "a scope is opened on the hub's own stack");
    fiber = hub.running;
    outer = fiber->scopes;
    fiber->scopes = this;
    fire = [](loop::timer& t) { static_cast<timeout_scope&>(t).fire_now(); };
    if (!until.is_never()) hub.timers.arm(*this, until.at());
  }
  void leave() {
    fiber->hub->timers.cancel(*this);
    timeout_scope** link = &fiber->scopes;
    while (*link && *link != this) link = &(*link)->outer;
    RINGLET_ASSERT(*link == this, "a timeout scope or kill shield ends on a fiber that did not begin it");
    *link = outer;
  }
  void fire_now() {
    fired = true;
    if (first_fired(fiber->scopes)) fiber->hub->interrupt(*fiber);
  }
  // The one to be told first: the outermost fired one this side of a shield ends the most.
  static timeout_scope* first_fired(timeout_scope* innermost) noexcept {
    timeout_scope* found = nullptr;
    for (auto* s = innermost; s && !s->is_shield; s = s->outer)
      if (s->fired && !s->thrown && !s->cancelled) found = s;
    return found;
  }
  void rearm(hub_state& hub) {
    place = npos;
    if (!fired && !cancelled && !until.is_never()) hub.timers.arm(*this, until.at());
  }
  [[noreturn]] void raise() {
    thrown = true;
    if (instead) std::rethrow_exception(instead);
    throw timeout_expired(*face, face->id());
  }
};

}  // namespace ringlet::detail
