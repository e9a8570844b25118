// What the hub says about itself, for people.

#include <cstdio>
#include <cxxabi.h>
#include <typeinfo>

#include "hub/hub.hpp"

namespace ringlet::detail {

namespace {
std::string seconds_text(clock::duration d) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f s", std::chrono::duration<double>(d).count());
  return text;
}
}  // namespace

std::string describe_fiber(const fiber_state& f, clock::time_point now) {
  std::string text = f.is_main_fiber ? "main fiber" : "fiber " + std::to_string(f.id) + " '" + f.name() + "'";
  switch (f.step) {
    case fiber_phase::delayed: return text + ": to begin later";
    case fiber_phase::scheduled: return text + ": not begun";
    case fiber_phase::ready: return text + ": ready";
    case fiber_phase::running: return text + ": running";
    case fiber_phase::finished: return text + ": finished";
    case fiber_phase::parked: break;
  }
  text += ": parked in ";
  if (const waiter* w = f.waiting) {
    text += w->what;
    if (w->fd >= 0) text += "(fd " + std::to_string(w->fd) + ")";
    if (w->whom) {
      char address[32];
      std::snprintf(address, sizeof address, " on %p", w->whom);
      text += address;
    }
  } else {
    text += "the hub";
  }
  return text + " for " + seconds_text(now - f.since);
}

std::string describe_all(hub_state& hub) {
  const auto now = hub.engine->now();
  std::string text = "  " + describe_fiber(hub.main_fiber, now) + "\n";
  std::size_t listed = 0;
  hub.fibers.for_each([&](fiber_state& f) {
    if (++listed <= 1000) text += "  " + describe_fiber(f, now) + "\n";
  });
  if (listed > 1000) text += "  and " + std::to_string(listed - 1000) + " more\n";
  return text;
}

std::string describe_exception(const std::exception_ptr& e) {
  if (!e) return "nothing";
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& x) {
    int status = 0;
    char* name = abi::__cxa_demangle(typeid(x).name(), nullptr, nullptr, &status);
    std::string text = std::string(status == 0 ? name : typeid(x).name()) + ": " + x.what();
    std::free(name);
    return text;
  } catch (const greenlet_exit& x) {
    return x.what();
  } catch (...) {
    int status = 0;
    const std::type_info* type = abi::__cxa_current_exception_type();
    char* name = type ? abi::__cxa_demangle(type->name(), nullptr, nullptr, &status) : nullptr;
    std::string text = "an exception of type " + std::string(name ? name : "unknown");
    std::free(name);
    return text;
  }
}

void report_unseen_error(const fiber_state& f) noexcept {
  try {
    auto* h = hub_state::here_or_null();
    if (h && h->on_error) {
      const auto handler = h->on_error;  // it may set another one
      try {
        return handler({f.name(), f.error});
      } catch (...) {
        std::fprintf(stderr, "ringlet: the error handler of this thread's hub failed: %s; it was told of this:\n",
                     describe_exception(std::current_exception()).c_str());
      }
    }
    std::fprintf(stderr, "ringlet: fiber '%s' failed, and nobody asked for its result: %s\n", f.name().c_str(),
                 describe_exception(f.error).c_str());
  } catch (...) {
  }
}

}  // namespace ringlet::detail

namespace ringlet::hub {

std::function<void(const failure&)> set_error_handler(std::function<void(const failure&)> handler) {
  return std::exchange(detail::hub_state::here().on_error, std::move(handler));
}

counts count() noexcept {
  counts c;
  auto* h = detail::hub_state::here_or_null();
  if (!h) return c;
  c.fibers = h->fiber_count;
  c.ready = h->ready_count;
  c.timers = h->timers.size();
  c.operations = h->engine->operations_in_flight() + h->foreign_work;
  c.fd_waits = h->fd_waits;
  c.watched_fds = h->watched_fds;
  c.stacks = h->thread.stacks->in_use() - 1;
  c.switches = h->switches;
  return c;
}

std::string describe_fibers() {
  auto* h = detail::hub_state::here_or_null();
  return h ? detail::describe_all(*h) : "  this thread has no hub\n";
}
std::string engine_name() { return std::string(detail::hub_state::here().engine->name()); }
std::string engine_reason() { return detail::hub_state::here().engine_reason; }

}  // namespace ringlet::hub
