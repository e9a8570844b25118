// The hub itself: made and ended with its thread; waiting, who runs next, the turn. What a fiber is to it: fiber_life.cpp.

#include "hub/hub.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "base/thread_end.hpp"
#include "hub/debug.hpp"
#include "hub/fork.hpp"
#include "loop/clock.hpp"
#include "loop/refusal.hpp"

namespace ringlet::detail {

namespace {
// Between two turns at least so many resumptions, for a turn is a clock reading and maybe a system call.
constexpr unsigned least_budget = 64;
constexpr std::size_t hub_stack_bytes = 256 * 1024;

thread_local hub_state* hub_of_thread = nullptr;

// Asked for with each hub, not by a thread_local of our own: a program's thread_local that is destroyed after ours may
// still make one.
void at_thread_end(void*) noexcept {
  if (sys::call(SYS_gettid) == ::getpid())
    process_ends.store(true, std::memory_order_relaxed);  // before the first static is destroyed (exit(3))
  else if (hub_of_thread)
    delete hub_of_thread;
}

struct wait_timer : loop::timer {
  waiter* who;
};

void describe_stack_owner(const void* owner, char* text, std::size_t size) {
  auto* g = static_cast<const greenlet_state*>(owner);
  if (hub_of_thread && g == hub_of_thread->own)
    std::snprintf(text, size, "the hub");
  else if (g->is_fiber) {
    // In a signal handler, perhaps inside malloc: no string is made.
    auto* f = static_cast<const fiber_state*>(g);
    if (f->given_name.empty())
      std::snprintf(text, size, "fiber 'fiber-%llu'", static_cast<unsigned long long>(f->id));
    else
      std::snprintf(text, size, "fiber '%s'", f->given_name.c_str());
  } else
    std::snprintf(text, size, "greenlet %llu", static_cast<unsigned long long>(g->number));
}
}  // namespace

hub_state* hub_state::here_or_null() noexcept { return hub_of_thread; }

void hub_state::show_to(std::uintptr_t fs_base, std::uintptr_t fs_base_now) noexcept {
  *reinterpret_cast<hub_state**>(reinterpret_cast<std::uintptr_t>(&hub_of_thread) - fs_base_now + fs_base) = hub_of_thread;
  thread_state::show_to(fs_base, fs_base_now);
}

hub_state& hub_state::here() {
  if (__builtin_expect(hub_of_thread != nullptr, 1)) return *hub_of_thread;
  const auto microseconds = loop::number_from_environment("RINGLET_SPIN", 0, std::chrono::microseconds(spin_habit::longest).count());
  hub_state& made = make_here(loop::make_engine());
  made.spin.limit = std::chrono::microseconds(microseconds.value_or(0));
  return made;
}

hub_state& hub_state::make_here(loop::engine_choice choice) {
  RINGLET_ASSERT(!hub_of_thread, "a thread is given a second hub");
  thread_state& t = thread_state::here();  // first, so that it goes last
  hub_of_thread = new hub_state(t, std::move(choice));
  base::at_thread_end(&at_thread_end, nullptr);
  return *hub_of_thread;
}

hub_state::hub_state(thread_state& t, loop::engine_choice choice)
    : thread(t), engine(std::move(choice.made)), engine_reason(std::move(choice.reason)), main_fiber(*new fiber_state), process(::getpid()) {
  register_fork_handler();
  context::install_overflow_report(&describe_stack_owner, true);
  std::unique_ptr<fiber_state> main_if_refused(&main_fiber);
  timers.reserve_place();
  own = make_on_stack<greenlet_state>(t, 0, 16, hub_stack_bytes);
  own->is_fiber = own->in_hub = true;
  own->run = [](greenlet_state&, void*) { hub_of_thread->run_turns(); };
  own->destroy = [](greenlet_state& g) noexcept { g.~greenlet_state(); };
  main_if_refused.release();  // from here on nothing is refused
  if (engine->name() == "simulated") loop::set_thread_clock(engine.get());
  turn_time = engine->now();
  give_first_context(*own);
  own->phase = greenlet_phase::suspended;
  main_fiber.hub = this;
  main_fiber.thread = &t;
  main_fiber.is_main = main_fiber.is_fiber = main_fiber.is_main_fiber = true;
  main_fiber.step = fiber_phase::running;
  main_fiber.resume_at = &t.main;
  main_fiber.destroy = [](greenlet_state& g) noexcept { delete &static_cast<fiber_state&>(g); };
  t.references.fetch_add(1, std::memory_order_relaxed);  // the main fiber's
  chief = &main_fiber;
  running = &main_fiber;
  show_to_debuggers(*this);
}

// The thread ends: its fibers are killed and given some turns to end; what resists is left as it is. Who ends may leave
// new ones behind (its links), so it is done more than once.
hub_state::~hub_state() {
  leave_handle(*this);
  const deadline patience = std::chrono::seconds(1);
  for (int rounds = 0; rounds < 100 && running == &main_fiber && !fibers.empty(); ++rounds) {
    std::vector<any_fiber> all;
    fibers.for_each([&](fiber_state& f) {
      greenlet_retain(&f);
      all.push_back(fiber_access::adopt(&f));
    });
    try {
      if (killall(all, patience)) continue;
      std::fprintf(stderr, "ringlet: a thread ended while fibers of its hub would not:\n%s", describe_all(*this).c_str());
    } catch (...) {
    }
    break;
  }
  if (running == &main_fiber && main_fiber.extras) drop_locals(main_fiber);
  leave_handle(*this);  // what ended just now may have asked for one
  // Those that resisted leave what they wait on; nobody may find them there.
  ends = true;
  fibers.for_each([](fiber_state& f) {
    if (f.waiting && f.waiting->withdraw) f.waiting->withdraw(*f.waiting);
  });
  // A waker on another thread may have given us its message and not yet be out of send().
  while (senders.load(std::memory_order_acquire) != 0) sys::call(SYS_sched_yield);
  drop_messages();
  for (auto forget : let_go)
    if (forget) forget(*this);
  if (engine->name() == "simulated") loop::set_thread_clock(nullptr);
  on_error = nullptr;
  hide_from_debuggers(*this);
  running = nullptr;
  thread.base = &thread.main;
  hub_of_thread = nullptr;
  if (fibers.empty()) {
    own->phase = greenlet_phase::dead;
    bury(*own);
  }
  main_fiber.step = fiber_phase::finished;
  main_fiber.phase = greenlet_phase::dead;
  main_fiber.is_main = false;  // from now on an ordinary dead one
  greenlet_release(&main_fiber);
}

// --- waiting ---------------------------------------------------------------------------------------------------------

wake_reason hub_state::wait(waiter& w, deadline until) {
  RINGLET_ASSERT(can_park(), "something waits on the hub's own stack");
  fiber_state& self = *running;
  if (w.fiber != &self) w.fiber = &self;  // no write where another thread may already read
  w.reason = wake_reason::none;
  if (w.interruptible && interrupted() && (!w.withdraw || w.withdraw(w))) return w.reason = wake_reason::interrupted;

  if (w.signals.effect != signal_effect::none && __builtin_expect(self.signal_due || met_signal(w.signals), 0)) {
    w.signalled = true;
    self.met_as = w.signals.effect;
    if (!w.withdraw || w.withdraw(w)) return w.reason = wake_reason::interrupted;
  }

  wait_timer alarm;
  if (!until.is_never()) {
    alarm.who = &w;
    alarm.fire = [](loop::timer& t) {
      waiter& late = *static_cast<wait_timer&>(t).who;
      if (late.reason != wake_reason::none) return;  // woken in this very turn: what arrived in time wins
      if (late.withdraw && !late.withdraw(late)) return;
      late.fiber->hub->wake(late, wake_reason::timed_out);
    };
    timers.arm(alarm, until.at());
  }
  self.waiting = &w;
  self.since = turn_time;
  do switch_away();
  while (w.reason == wake_reason::none);
  self.waiting = nullptr;
  if (alarm.armed()) timers.cancel(alarm);
  return w.reason;
}

void hub_state::wake(waiter& w, wake_reason reason) {
  w.reason = reason;
  make_ready(*w.fiber);
}

void hub_state::wake_anywhere(waiter& w, wake_reason reason) {
  hub_state* theirs = w.fiber->hub;
  if (theirs == hub_of_thread) return theirs->wake(w, reason);
  // The reason is set by the message, on the waiter's own thread, where its timer looks at it.
  w.deliver = [](message& m) {
    waiter& woken = static_cast<waiter&>(m);
    woken.fiber->hub->wake(woken, wake_reason::woken);
  };
  theirs->send(w);
}

void hub_state::yield() {
  if (ready_count == 0 && budget > 0) {
    // Nobody else is ready; still, one who only yields must let the loop turn now and then.
    --budget;
    return;
  }
  RINGLET_ASSERT(can_park(), "something yields on the hub's own stack");
  running->step = fiber_phase::ready;
  ready_fibers.push_back(*running);
  ++ready_count;
  switch_away();
}

void hub_state::give_way() {
  RINGLET_ASSERT(can_park(), "something gives way on the hub's own stack");
  running->step = fiber_phase::ready;
  computing.push_back(*running);
  budget = 0;
  switch_away();
}

// --- who runs next ---------------------------------------------------------------------------------------------------

void hub_state::make_ready(fiber_state& f) {
  if (__builtin_expect(f.is_ghost(), 0)) return;
  RINGLET_ASSERT(f.step == fiber_phase::parked, "a fiber is readied that does not wait");
  f.step = fiber_phase::ready;
  ready_fibers.push_back(f);
  ++ready_count;
}

fiber_state* hub_state::take_next() {
  if (budget == 0) return nullptr;
  fiber_state* next = ready_fibers.pop_front();
  if (!next) return nullptr;
  --budget;
  --ready_count;
  next->step = fiber_phase::running;
  return next;
}

// Gives the thread to the next ready fiber, or to the hub's own greenlet; returns when the calling one is resumed.
void hub_state::switch_away() {
  fiber_state& self = *running;
  greenlet_state& stack = *thread.current;
  self.resume_at = &stack;
  if (self.step == fiber_phase::running) self.step = fiber_phase::parked;
  fiber_state* next = take_next();
  if (next == &self) return;
  ++switches;
  io_streak = 0;
  stack.in_hub = true;
  run_as(next);
  switch_greenlet<context::sides::alike>(thread, next ? *next->resume_at : *own, nullptr);
  stack.in_hub = false;
  landed();
}

inline void hub_state::run_as(fiber_state* f) noexcept {
  running = f;
  thread.base = !f ? own : f->is_main_fiber ? &thread.main : f;
}

// After every switch by the hub: lets go of a fiber that ended just before.
inline void hub_state::landed() {
  if (__builtin_expect(thread.tracing != nullptr, 0)) trace();
  fiber_state* done = std::exchange(just_finished, nullptr);
  if (__builtin_expect(!done, 1)) return;
  if (done->left_stack) done->left_stack(*done);
  greenlet_release(done);
}

// The switch cannot fail any more: what the tracer throws is thrown at the fiber's next wait.
void hub_state::trace() {
  std::exception_ptr thrown = trace_switch(thread);
  if (!thrown) return;
  if (running)
    doom(*running, std::move(thrown));
  else
    report_error("tracer", "the hub", thrown, {"the tracer failed in the hub, and was removed"});
}

void hub_state::sleep() {
  asleep.store(true, std::memory_order_relaxed);
  wait_for_anything();
  asleep.store(false, std::memory_order_relaxed);
}

// Whether somebody had something for us before it was time to sleep.
bool hub_state::spin_for_news(clock::time_point now) {
  for (const auto end = std::min({now + spin.limit, timers.earliest(), look_again_at}); now < end; now = engine->now()) {
    engine->wait(clock::time_point::min());
    if (ready_count > 0 || inbox.load(std::memory_order_relaxed) || engine->signal_seen) return true;
    if (signals_handled.load(std::memory_order_relaxed) != signals_told) return true;
    spin_habit::breathe();
  }
  return false;
}

// --- the turn --------------------------------------------------------------------------------------------------------

void hub_state::run_turns() {
  landed();
  while (true) {
    // 2 read the clock: now() of the engine, below, for the timers
    // 3 submit and wait   4 reap completions
    if (signals_handled.load(std::memory_order_relaxed) != signals_told) tell_of_signal();
    if (ready_count > 0 || !computing.empty()) {
      engine->wait(clock::time_point::min());
    } else if (spin.limit == clock::duration::zero()) {
      sleep();
    } else {
      const auto begun = engine->now();
      if (!spin.pays() || !spin_for_news(begun)) sleep();
      spin.idle_took(engine->now() - begun);
    }
    turns.store(turns.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    if (engine->signal_seen || signals_handled.load(std::memory_order_relaxed) != signals_told) tell_of_signal();
    // 5 expire timers
    turn_time = engine->now();
    if (timers.size() > 0) timers.expire(turn_time);
    if (__builtin_expect(turn_time >= look_again_at, 0)) look_again(*this);
    // 6 messages from other threads
    deliver_messages();
    // Last, so that who was woken by the kernel or a timer runs before those who compute.
    if (__builtin_expect(!computing.empty(), 0)) {
      ready_fibers.push_back(*computing.pop_front());
      ++ready_count;
    }
    // Whose unwinding may wait, so not on this stack.
    if (thread.untidy()) unwind_dropped();
    // 1 run those that are ready
    budget = std::clamp<std::size_t>(ready_count, std::min(least_budget, most_budget), most_budget);
    if (fiber_state* next = take_next()) {
      run_as(next);
      ++switches;
      switch_greenlet(thread, *next->resume_at, nullptr);
      landed();
    }
  }
}

void hub_state::unwind_dropped() noexcept {
  try {
    spawn({.name = "unwinds dropped greenlets"}, [t = &thread] { t->tidy(); });
  } catch (const std::exception&) {  // no stack now: the thread's next use of greenlets does it
  }
}

// --- first and last on a stack ---------------------------------------------------------------------------------------

// The reference that the hub held goes when the next one has landed.
void hub_state::switch_to_next_for_good() {
  just_finished = running;
  fiber_state* next = take_next();
  run_as(next);
  ++switches;
  switch_greenlet(thread, next ? *next->resume_at : *own, nullptr);
  RINGLET_ASSERT(false, "a finished fiber was resumed");
  __builtin_unreachable();
}

void hub_state::arrive_first() noexcept {
  running->in_hub = false;
  landed();
}

void hub_state::leave_for_good() {
  RINGLET_ASSERT(running && running != &main_fiber, "the main fiber's stack is not left for good");
  running->phase = greenlet_phase::dead;
  conclude(*running);
  switch_to_next_for_good();
}

}  // namespace ringlet::detail

// Here, because it is nearly nothing but the above.
void ringlet::yield() {
  detail::hub_state& hub = detail::hub_state::here();
  if (!hub.can_park()) detail::require_can_park("yield");
  if (hub.interrupted()) hub.throw_interrupt();
  hub.yield();
  if (hub.interrupted()) hub.throw_interrupt();
}
