// The public calls on fibers: spawn, join, kill, links.

#include <ringlet/fiber.hpp>

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "hub/fork.hpp"
#include "hub/hub.hpp"

namespace ringlet {

using detail::fiber_phase;
using detail::fiber_state;
using detail::hub_state;
using detail::wake_reason;

namespace {
fiber_state& checked(fiber_state* f, const char* what) {
  if (!f) throw std::logic_error(std::string("ringlet: ") + what + " on an empty fiber handle (it was default-made or moved from)");
  if (f->thread != detail::thread_state::here_or_null() || !hub_state::here_or_null())
    throw wrong_thread(std::string("ringlet: ") + what + " of fiber '" + f->name() +
                       "' from another thread than its own. Cure: post to its hub (ringlet::hub::here().post), or share an event or queue.");
  return *f;
}

bool finished(const fiber_state* f) { return f->step == fiber_phase::finished; }

// Waits until some of the listed fibers have finished; told of each in the order they finish.
struct joiner : detail::waiter {
  struct listener : detail::listener {
    joiner* owner = nullptr;
    fiber_state* of = nullptr;
    std::size_t place = 0;  // in the list
  };
  std::vector<std::size_t> done;  // places, since last looked at
  bool parked = false;

  static void on_finished(detail::listener& l) noexcept {
    const auto& told = static_cast<listener&>(l);
    joiner& j = *told.owner;
    j.done.push_back(told.place);  // has room
    if (j.parked && j.reason == wake_reason::none) {
      j.parked = false;
      told.of->hub->wake(j);
    }
  }
};

bool join_one(fiber_state& f, deadline until) {
  if (finished(&f)) return true;
  hub_state& hub = *f.hub;
  const any_fiber keep = (detail::fiber_retain(&f), fiber_access::adopt(&f));  // its end may drop the handle that it is joined by
  detail::require_can_park("join");
  if (hub.running == &f) throw std::logic_error("ringlet: fiber '" + f.name() + "' joins itself; it would wait forever");
  // One waiter, one listener, no allocation.
  struct single : detail::waiter, detail::listener {};
  single w;
  w.what = "join";
  w.whom = &f;
  w.told = [](detail::listener& l) noexcept {
    auto& s = static_cast<single&>(l);
    s.fiber->hub->wake(s);
  };
  w.withdraw = [](detail::waiter& x) {
    auto& s = static_cast<single&>(x);
    if (!static_cast<detail::listener&>(s).linked) return false;
    static_cast<fiber_state*>(const_cast<void*>(s.whom))->listeners.remove(s);
    return true;
  };
  w.fiber = hub.running;
  f.listeners.add(w);
  switch (hub.wait(w, until)) {
    case wake_reason::interrupted: hub.throw_interrupt();
    default: return finished(&f);
  }
}

void add_link(fiber_state& f, detail::link_entry&& entry) {
  if (finished(&f)) {
    detail::start_link(f, std::move(entry));
    return;
  }
  if (!f.links) f.links = new std::vector<detail::link_entry>;
  f.links->push_back(std::move(entry));
}

any_fiber retained(fiber_state* f) {
  detail::fiber_retain(f);
  return fiber_access::adopt(f);
}
}  // namespace

// --- spawning --------------------------------------------------------------------------------------------------------

namespace detail {

fiber_state* fiber_create(const spawn_options& how, std::size_t body_size, std::size_t body_alignment) {
  return hub_state::here().create(how, body_size, body_alignment);
}

void* fiber_body_storage(fiber_state* f) noexcept { return f->body_storage; }

void fiber_start(fiber_state* f, body* work, const deadline* later) {
  hub_state& hub = *f->hub;
  f->work = work;
  if (hub.running && hub.running->extras && hub.running->extras->inherited) {
    try {
      inherit(*f, *hub.running);
    } catch (...) {
      fiber_discard(f);
      throw;
    }
  }
  fiber_retain(f);  // the hub's, until it has finished
  hub.fibers.push_back(*f);
  ++hub.fiber_count;
  if (__builtin_expect(f->is_daemon, 0)) ++hub.daemon_count;
  if (!later) {
    hub.schedule(*f);
    if (__builtin_expect(hub.has_spawn_callbacks, 0)) call_spawn_callbacks(hub, *f);
    return;
  }
  f->step = fiber_phase::delayed;
  f->start_timer.fiber = f;
  f->start_timer.fire = [](loop::timer& t) {
    fiber_state& owner = *static_cast<delayed_start&>(t).fiber;
    owner.hub->schedule(owner);
  };
  if (!later->is_never()) hub.timers.arm(f->start_timer, later->at());
  if (__builtin_expect(hub.has_spawn_callbacks, 0)) call_spawn_callbacks(hub, *f);
}

void fiber_discard(fiber_state* f) noexcept {
  f->hub->timers.give_place_back();
  f->phase = greenlet_phase::dead;
  bury(*f);
}

bool fiber_add_listener(fiber_state* f, listener& l) {
  checked(f, "wait");
  if (finished(f)) return false;
  if (f == f->hub->running) throw std::logic_error("ringlet: fiber '" + f->name() + "' waits for its own end; it would wait forever");
  f->listeners.add(l);
  return true;
}
void fiber_remove_listener(fiber_state* f, listener& l) noexcept { f->listeners.remove(l); }

greenlet_state* fiber_greenlet(fiber_state* f) noexcept { return f; }
greenlet_state* fiber_resting_place(fiber_state* f) noexcept {
  if (f->thread != thread_state::here_or_null()) return nullptr;
  return f->hub && f->hub == hub_state::here_or_null() && f->hub->running == f ? f->thread->current : f->resume_at;
}
weak_block* fiber_weak(fiber_state* f) { return greenlet_weak(f); }
fiber_state* fiber_weak_lock(weak_block* w) noexcept { return static_cast<fiber_state*>(greenlet_weak_lock(w)); }
void fiber_retain(fiber_state* f) noexcept { greenlet_retain(f); }
void fiber_release(fiber_state* f) noexcept { greenlet_release(f); }

body* fiber_result(fiber_state* f, deadline until) {
  checked(f, "get");
  if (f->is_main_fiber) throw std::logic_error("ringlet: the main fiber has no result to get");
  const any_fiber keep = (fiber_retain(f), fiber_access::adopt(f));
  if (!join_one(*f, until))
    throw not_ready("ringlet: fiber '" + f->name() + "' was not finished when get's deadline passed");
  if (f->error) {
    f->error_seen = true;
    std::rethrow_exception(f->error);
  }
  if (f->was_exit) throw greenlet_exit{};
  return f->work;
}

// Each link runs in a fiber of its own, so that one that throws or waits stops nobody.
void start_link(fiber_state& f, link_entry&& link) {
  const bool failed = f.error != nullptr;
  if ((link.filter == 1 && failed) || (link.filter == 2 && !failed)) return;
  if (failed) f.error_seen = true;
  try {
    any_fiber about = retained(&f);
    spawn({.name = f.name() + "'s link"}, [call = std::move(link.call), about]() mutable { call(about); });
  } catch (...) {
    report_error("link", f, std::current_exception(), "a link of fiber ", " could not run");
  }
}

}  // namespace detail

// --- any_fiber -------------------------------------------------------------------------------------------------------

bool any_fiber::join(deadline until) const { return join_one(checked(state_, "join"), until); }

bool any_fiber::ready() const noexcept { return state_ && finished(state_); }
bool any_fiber::successful() const noexcept { return ready() && !state_->error; }
bool any_fiber::started() const noexcept {
  return state_ && (state_->step == fiber_phase::running || state_->step == fiber_phase::parked || state_->step == fiber_phase::ready);
}
std::exception_ptr any_fiber::exception() const noexcept {
  if (!state_) return nullptr;
  if (state_->error) state_->error_seen = true;
  return state_->error;
}

bool any_fiber::kill(deadline until) const { return kill(std::make_exception_ptr(greenlet_exit{}), until); }

bool any_fiber::kill(std::exception_ptr reason, deadline until) const {
  fiber_state& f = checked(state_, "kill");
  if (!reason) throw std::invalid_argument("ringlet: kill needs a reason: a null exception_ptr was given");
  if (finished(&f)) return true;
  hub_state& hub = *f.hub;
  if (&f == hub.running) hub.die(reason);
  if (f.step == fiber_phase::delayed || f.step == fiber_phase::scheduled) {
    hub.finish_unstarted(f, reason);
    return true;
  }
  hub.doom(f, std::move(reason));
  if (until == deadline::passed()) return false;
  return join_one(f, until);
}

std::uint64_t any_fiber::link(std::function<void(any_fiber)> call) const {
  fiber_state& f = checked(state_, "link");
  const auto id = f.hub->next_link_id++;
  add_link(f, {id, 0, std::move(call)});
  return id;
}
std::uint64_t any_fiber::link_value(std::function<void(any_fiber)> call) const {
  fiber_state& f = checked(state_, "link_value");
  const auto id = f.hub->next_link_id++;
  add_link(f, {id, 1, std::move(call)});
  return id;
}
std::uint64_t any_fiber::link_exception(std::function<void(any_fiber)> call) const {
  fiber_state& f = checked(state_, "link_exception");
  const auto id = f.hub->next_link_id++;
  add_link(f, {id, 2, std::move(call)});
  return id;
}
void any_fiber::unlink(std::uint64_t id) const noexcept {
  if (state_ && state_->links) std::erase_if(*state_->links, [id](const auto& entry) { return entry.id == id; });
}

void any_fiber::unlink_all() const noexcept {
  if (state_ && state_->links) state_->links->clear();
}
bool any_fiber::has_links() const noexcept { return state_ && state_->links && !state_->links->empty(); }

std::string any_fiber::name() const { return state_ ? state_->name() : "no fiber"; }
void any_fiber::set_name(std::string_view name) const { if (state_) state_->given_name = name; }
std::uint64_t any_fiber::id() const noexcept { return state_ ? state_->id : 0; }
std::uint64_t any_fiber::spawned_by() const noexcept { return state_ ? state_->spawned_by : 0; }
std::uint32_t any_fiber::slot() const {
  fiber_state& f = checked(state_, "slot");
  if (f.extras && f.extras->slot) return f.extras->slot;
  if (finished(&f)) return 0;
  auto& slots = f.hub->slots;
  auto free = std::find(slots.begin(), slots.end(), false);
  if (free == slots.end()) free = slots.insert(slots.end(), false);
  *free = true;
  return f.extra().slot = std::uint32_t(free - slots.begin()) + 1;
}
std::string any_fiber::describe() const {
  if (!state_) return "no fiber";
  fiber_state& f = checked(state_, "describe");
  return detail::describe_fiber(f, f.hub->engine->now());
}

// --- many ------------------------------------------------------------------------------------------------------------

std::vector<any_fiber> joinall(std::vector<any_fiber> fibers, const joinall_options& how) {
  std::vector<any_fiber> result;
  const std::size_t wanted = std::min(how.count, fibers.size());
  if (wanted == 0) return result;
  result.reserve(wanted);
  hub_state& hub = hub_state::here();
  joiner j;
  j.what = "joinall";
  j.withdraw = [](detail::waiter& w) {
    return std::exchange(static_cast<joiner&>(w).parked, false);
  };
  j.done.reserve(fibers.size());
  std::vector<joiner::listener> listeners(fibers.size());
  struct unlink_all {
    std::vector<joiner::listener>& all;
    ~unlink_all() {
      for (auto& l : all)
        if (l.linked) l.of->listeners.remove(l);
    }
  } unlink_at_end{listeners};
  auto take = [&](std::size_t place) {
    const fiber_state* const f = fiber_access::state(fibers[place]);
    result.push_back(std::move(fibers[place]));
    if (how.raise_error && f->error) {
      result.back().exception();  // seen
      std::rethrow_exception(f->error);
    }
  };
  // Named twice, waited for once. No other joinall runs while the marks are set, so they need not be taken away.
  const std::uint64_t mark = hub.next_link_id++;
  std::size_t different = 0;
  for (std::size_t i = 0; i < fibers.size(); ++i) {
    fiber_state& f = checked(fiber_access::state(fibers[i]), "joinall");
    if (std::exchange(f.joinall_mark, mark) == mark) continue;
    ++different;
    if (finished(&f)) {
      j.done.push_back(i);
      continue;
    }
    if (&f == hub.running) throw std::logic_error("ringlet: a fiber in joinall joins itself; it would wait forever");
    listeners[i].owner = &j;
    listeners[i].of = &f;
    listeners[i].place = i;
    listeners[i].told = &joiner::on_finished;
    f.listeners.add(listeners[i]);
  }
  const std::size_t reachable = std::min(wanted, different);
  while (true) {
    for (std::size_t i = 0; i < j.done.size() && result.size() < reachable; ++i) take(j.done[i]);
    j.done.clear();
    if (result.size() >= reachable) return result;
    detail::require_can_park("joinall");
    j.parked = true;
    switch (hub.wait(j, how.until)) {
      case wake_reason::interrupted: hub.throw_interrupt(); break;
      case wake_reason::timed_out:
        for (const std::size_t place : j.done) take(place);
        return result;
      default: break;
    }
  }
}

bool killall(std::vector<any_fiber> fibers, deadline until) {
  return killall(std::move(fibers), std::make_exception_ptr(greenlet_exit{}), until);
}

bool killall(std::vector<any_fiber> fibers, std::exception_ptr reason, deadline until) {
  hub_state& hub = hub_state::here();
  bool kill_self = false;
  std::vector<any_fiber> others;
  for (auto& f : fibers) {
    if (&checked(fiber_access::state(f), "killall") == hub.running) {
      kill_self = true;
      continue;
    }
    f.kill(reason, deadline::passed());
    others.push_back(f);
  }
  const std::size_t count = others.size();
  std::size_t ended = 0;
  if (until == deadline::passed())
    ended = std::count_if(others.begin(), others.end(), [](const auto& f) { return f.ready(); });
  else {
    joinall(others, {.until = until});
    ended = std::count_if(others.begin(), others.end(), [](const auto& f) { return f.ready(); });
  }
  if (kill_self) detail::hub_state::here().die(reason);
  return ended == count;
}

any_fiber current() {
  hub_state& hub = hub_state::here();
  if (!hub.running) throw std::logic_error("ringlet: current() inside the hub itself (a callback runs there), where no fiber runs");
  return retained(hub.running);
}

void sleep(deadline until) {
  hub_state& hub = hub_state::here();
  detail::require_can_park("sleep");
  if (hub.interrupted()) hub.throw_interrupt();
  if (until.has_passed()) {
    hub.yield();
    if (hub.interrupted()) hub.throw_interrupt();
    return;
  }
  detail::waiter w;
  w.what = "sleep";
  if (hub.wait(w, until) == wake_reason::interrupted) hub.throw_interrupt();
}

}  // namespace ringlet
