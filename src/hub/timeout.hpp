#pragma once
// A timeout scope's inside: a timer that marks the scope fired and interrupts its fiber.

#include <ringlet/timeout.hpp>

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

  // The one to be told first: the outermost fired one ends the most.
  static timeout_scope* first_fired(timeout_scope* innermost) noexcept {
    timeout_scope* found = nullptr;
    for (auto* s = innermost; s; s = s->outer)
      if (s->fired && !s->thrown && !s->cancelled) found = s;
    return found;
  }
  void rearm(hub_state& hub) {
    place = npos;
    if (!fired && !cancelled && !until.is_never()) hub.timers.arm(*this, until.at());
  }
  [[noreturn]] void raise() {
    thrown = true;
    throw timeout_expired(*face, face->id());
  }
};

}  // namespace ringlet::detail
