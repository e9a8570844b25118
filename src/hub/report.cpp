// What the hub says about itself, for people.

#include <cxxabi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <typeinfo>
#include <unordered_map>
#include <unordered_set>

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

std::string describe_all(hub_state& hub, const ringlet::hub::describe_options& how) {
  constexpr std::size_t most = 1000;
  const auto now = hub.engine->now();
  std::string text;
  std::size_t listed = 0;
  auto tell = [&](fiber_state& f, std::size_t depth) {
    const std::string indent(2 + 2 * depth, ' ');
    text += indent + describe_fiber(f, now) + "\n";
    if (how.backtraces) text += describe_backtrace(greenlet_backtrace(fiber_resting_place(&f)), (indent + "    ").c_str());
  };
  tell(hub.main_fiber, 0);
  if (!how.tree) {
    hub.fibers.for_each([&](fiber_state& f) {
      if (++listed <= most) tell(f, 0);
    });
  } else {
    // Those whose spawner has finished are told beside main.
    std::unordered_map<std::uint64_t, std::vector<fiber_state*>> children;
    std::unordered_set<std::uint64_t> alive{0};
    hub.fibers.for_each([&](fiber_state& f) { alive.insert(f.id); });
    std::vector<std::pair<fiber_state*, std::size_t>> ahead;
    hub.fibers.for_each([&](fiber_state& f) {
      if (alive.contains(f.spawned_by))
        children[f.spawned_by].push_back(&f);
      else
        ahead.emplace_back(&f, 0);
    });
    std::reverse(ahead.begin(), ahead.end());
    for (auto of_main = children[0].rbegin(); of_main != children[0].rend(); ++of_main) ahead.emplace_back(*of_main, 1);
    while (!ahead.empty()) {
      const auto [f, depth] = ahead.back();
      ahead.pop_back();
      if (++listed <= most) tell(*f, depth);
      auto& below = children[f->id];
      for (auto child = below.rbegin(); child != below.rend(); ++child) ahead.emplace_back(*child, depth + 1);
    }
  }
  if (listed > most) text += "  and " + std::to_string(listed - most) + " more\n";
  return text;
}

namespace {
struct give_to_free {
  void operator()(char* text) const noexcept { std::free(text); }
};
using demangled_name = std::unique_ptr<char, give_to_free>;
}  // namespace

std::string describe_exception(const std::exception_ptr& e) {
  if (!e) return "nothing";
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& x) {
    int status = 0;
    const demangled_name name(abi::__cxa_demangle(typeid(x).name(), nullptr, nullptr, &status));
    return std::string(status == 0 ? name.get() : typeid(x).name()) + ": " + x.what();
  } catch (const greenlet_exit& x) {
    return x.what();
  } catch (...) {
    int status = 0;
    const std::type_info* type = abi::__cxa_current_exception_type();
    const demangled_name name(type ? abi::__cxa_demangle(type->name(), nullptr, nullptr, &status) : nullptr);
    return "an exception of type " + std::string(name ? name.get() : "unknown");
  }
}

void report_error(const char* what, std::string_view who, const std::exception_ptr& error, text_pieces text) noexcept {
  hub_state* hub = hub_state::here_or_null();
  std::string failed_handler, described;
  try {
    if (hub && hub->on_error) {
      const auto handler = hub->on_error;  // it may set another
      const ringlet::hub::failure told{std::string(who), error, what};
      try {
        return handler(told);
      } catch (...) {
        failed_handler = describe_exception(std::current_exception());
      }
    }
    described = describe_exception(error);
  } catch (const std::bad_alloc&) {
  }
  std::fputs("ringlet: ", stderr);
  for (const std::string_view piece : text) std::fprintf(stderr, "%.*s", int(piece.size()), piece.data());
  std::fprintf(stderr, ": %s\n", described.empty() ? "there is no memory to say more" : described.c_str());
  if (!failed_handler.empty()) std::fprintf(stderr, "ringlet: the error handler failed: %s\n", failed_handler.c_str());
}

void report_error(const char* what, const fiber_state& f, const std::exception_ptr& error, std::string_view before,
                  std::string_view behind) noexcept {
  char number[24];  // the name of one that has none; no memory is needed for it
  std::snprintf(number, sizeof number, "fiber-%llu", static_cast<unsigned long long>(f.id));
  const std::string_view name = f.is_main_fiber ? "main" : f.given_name.empty() ? std::string_view(number) : f.given_name;
  report_error(what, name, error, {before, "'", name, "'", behind});
}

void report_unseen_error(const fiber_state& f) noexcept {
  report_error("fiber", f, f.error, "fiber ", " failed, and nobody asked for its result");
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

std::string describe_fibers(const describe_options& how) {
  auto* h = detail::hub_state::here_or_null();
  return h ? detail::describe_all(*h, how) : "  this thread has no hub\n";
}
std::string engine_name() { return std::string(detail::hub_state::here().engine->name()); }
std::string engine_reason() { return detail::hub_state::here().engine_reason; }

}  // namespace ringlet::hub
