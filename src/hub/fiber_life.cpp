// A fiber's life, as the hub sees it: made, scheduled, run to its end, told of to all who wait for it.
//
// Always true: a fiber that has begun ends on its own stack, which the next one to run lets go of; one that has not begun
// ends where it is killed.

#include <cstdlib>
#include <utility>

#include "hub/fork.hpp"
#include "hub/hub.hpp"

namespace ringlet::detail {

struct fiber_entry {
  static void run(greenlet_state& g, void*) {
    auto& self = static_cast<fiber_state&>(g);
    hub_state& hub = *self.hub;
    hub.arrive_first();
    try {
      if (hub.interrupted()) hub.throw_interrupt();
      self.work->run();
    } catch (const greenlet_exit&) {
      self.was_exit = true;
    } catch (...) {
      self.error = std::current_exception();
    }
    if (self.extras) drop_locals(self);
    self.phase = greenlet_phase::dead;
    hub.conclude(self);
    if (hub.main_gone) {
      if (&self == hub.chief && self.error) {
        report_unseen_error(self);
        hub.exit_status = 1;
      }
      if (hub.fiber_count == 0) std::exit(hub.exit_status);
    }
    hub.switch_to_next_for_good();
  }
  static void destroy(greenlet_state& g) noexcept {
    auto& self = static_cast<fiber_state&>(g);
    if (self.error && !self.error_seen) report_unseen_error(self);
    if (self.work) self.work->~body();
    delete self.links;
    self.~fiber_state();
  }
};

fiber_state* hub_state::create(const spawn_options& how, std::size_t body_size, std::size_t body_alignment) {
  if (can_park()) thread.tidy();
  timers.reserve_place();
  fiber_state* f = nullptr;
  try {
    f = make_on_stack<fiber_state>(thread, body_size, body_alignment, how.stack_size_bytes);
  } catch (...) {
    timers.give_place_back();
    throw;
  }
  f->is_fiber = true;
  f->hub = this;
  f->run = &fiber_entry::run;
  f->destroy = &fiber_entry::destroy;
  f->resume_at = f;
  f->id = f->number = next_id++;
  if (running) f->spawned_by = running->id;
  f->is_daemon = how.daemon;
  try {
    if (!how.name.empty()) f->given_name = how.name;
  } catch (...) {
    fiber_discard(f);
    throw;
  }
  return f;
}

void hub_state::admit(fiber_state& f) {
  timers.reserve_place();
  f.is_fiber = true;
  f.hub = this;
  f.thread = &thread;
  f.resume_at = &f;
  f.id = f.number = next_id++;
  thread.references.fetch_add(1, std::memory_order_relaxed);
  fibers.push_back(f);
  ++fiber_count;
  schedule(f);
}

void hub_state::schedule(fiber_state& f) {
  f.in_hub = true;
  give_first_context(f);
  f.phase = greenlet_phase::suspended;
  f.step = fiber_phase::parked;
  make_ready(f);
  f.step = fiber_phase::scheduled;
}

// Everything of a fiber's end but leaving its stack.
void hub_state::conclude(fiber_state& f) {
  f.step = fiber_phase::finished;
  static_cast<all_link&>(f).unlink();
  timers.give_place_back();
  --fiber_count;
  f.kill_pending = nullptr;
  if (__builtin_expect(f.is_daemon, 0)) --daemon_count;
  if (__builtin_expect(f.extras && f.extras->slot, 0)) slots[f.extras->slot - 1] = false;
  f.listeners.tell_all();
  if (f.links)
    for (auto& link : std::exchange(*f.links, {})) start_link(f, std::move(link));
  if (fiber_count - daemon_count <= 1) idle.tell_all();
}

void hub_state::finish_unstarted(fiber_state& f, std::exception_ptr reason) {
  if (f.step == fiber_phase::delayed) {
    timers.cancel(f.start_timer);
  } else {
    static_cast<ready_link&>(f).unlink();
    --ready_count;
  }
  try {
    std::rethrow_exception(reason);
  } catch (const greenlet_exit&) {
    f.was_exit = true;
  } catch (...) {
    f.error = reason;
  }
  f.phase = greenlet_phase::dead;
  conclude(f);
  if (f.work) f.work->forget();
  greenlet_release(&f);
}

}  // namespace ringlet::detail
