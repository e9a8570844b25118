#pragma once
// Being told of every switch between greenlets of a thread, those between fibers among them: for monitors and profilers.
//
//   auto before = ringlet::set_trace([](const ringlet::trace_event& e) { log(e.origin.describe(), e.target.describe()); });
//
// Costs a predicted branch a switch while nobody traces.

#include <functional>

#include <ringlet/export.hpp>
#include <ringlet/greenlet.hpp>

namespace ringlet {

enum class trace_kind { switched, thrown };  // thrown: an exception is raised in the target

struct trace_event {
  trace_kind kind;
  const greenlet& origin;  // may be dead: its end was the switch
  const greenlet& target;  // runs now
};

// Called in the target, right after the switch, also the very first one; not for the switches that it makes itself. If it
// throws, it is removed, and the target gets that exception in place of what the switch brought (a fiber at its next wait).
// In a switch of the hub's it must not wait.
using tracer = std::function<void(const trace_event&)>;

// Of this thread. Returns the one before; an empty one ends tracing.
RINGLET_EXPORT tracer set_trace(tracer);
RINGLET_EXPORT tracer get_trace();

}  // namespace ringlet
