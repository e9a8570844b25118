// Telling a tracer of each switch.
//
// It is told in the greenlet that was switched to, right after the switch. While it runs, `tracing` is null, so that what
// it does is not traced. Where it left from is kept by a reference that ends nobody: the one who left may have lost its last
// handle, and what it sent still lies on its stack.

#include <ringlet/trace.hpp>

#include "greenlet/greenlet.hpp"

namespace ringlet {
struct trace_access {
  static greenlet borrow(detail::greenlet_state* g) {
    detail::greenlet_borrow(g);
    return greenlet(g, true);
  }
};
}  // namespace ringlet

namespace ringlet::detail {

struct trace_state {
  tracer call;
  unsigned references = 1;
};

namespace {
void let_go(trace_state* s) {
  if (s && --s->references == 0) delete s;
}

std::exception_ptr tell(thread_state& t, trace_kind kind) noexcept {
  trace_state* s = t.tracer;
  ++s->references;
  t.tracing = nullptr;
  greenlet_state& left = *t.previous;
  left.references.fetch_add(1, std::memory_order_relaxed);
  std::exception_ptr thrown;
  try {
    const greenlet origin = trace_access::borrow(&left), target = trace_access::borrow(t.current);
    s->call(trace_event{kind, origin, target});
  } catch (...) {
    thrown = std::current_exception();
    if (t.tracer == s) {
      t.tracer = nullptr;
      let_go(s);
    }
  }
  left.references.fetch_sub(1, std::memory_order_acq_rel);
  t.tracing = t.tracer;
  let_go(s);
  return thrown;
}
}  // namespace

void trace_packet(thread_state& t, packet& came) noexcept {
  if (std::exception_ptr thrown = tell(t, came.exception ? trace_kind::thrown : trace_kind::switched)) came = packet{nullptr, nullptr, std::move(thrown), false};
}
std::exception_ptr trace_switch(thread_state& t) noexcept { return tell(t, trace_kind::switched); }

void drop_tracer(thread_state& t) noexcept {
  t.tracing = nullptr;
  let_go(std::exchange(t.tracer, nullptr));
}

}  // namespace ringlet::detail

namespace ringlet {

tracer get_trace() {
  auto* t = detail::thread_state::here_or_null();
  return t && t->tracer ? t->tracer->call : tracer();
}

tracer set_trace(tracer call) {
  auto& t = detail::thread_state::here();
  tracer former = get_trace();
  auto* made = call ? new detail::trace_state{std::move(call)} : nullptr;
  const bool inside = t.tracer && !t.tracing;  // a tracer sets another: that one begins when it returns
  detail::let_go(std::exchange(t.tracer, made));
  if (!inside) t.tracing = made;
  return former;
}

}  // namespace ringlet
