// Who switches to whom: parents, packets, death.
//
// A packet rests on its sender's stack (a dead sender's value in its body) and is taken by the receiver at once, so
// values are moved once and nothing is allocated. The one who arrives files the one who left: a dead greenlet without
// handles, or one whose last handle went while it ran, is `left_behind` and ended at the thread's next greenlet call,
// when its packet has surely been taken. Lifetimes are in lifetime.cpp.

#include "greenlet/greenlet.hpp"

#include "base/assert.hpp"
#include "base/sys.hpp"

namespace ringlet::detail {

namespace {
greenlet_exit exit_value;
packet exit_packet() { return packet{&exit_value, &typeid(greenlet_exit), nullptr, true}; }

bool is_exit(const std::exception_ptr& e) {
  try {
    std::rethrow_exception(e);
  } catch (const greenlet_exit&) {
    return true;
  } catch (...) {
    return false;
  }
}

// First thing after a switch between greenlets: the packet, and a look at who left.
inline void arrive(thread_state& t, void* message, packet& came) {
  packet& sent = *static_cast<packet*>(message);
  came.object = sent.object;
  came.type = sent.type;
  came.exit = sent.exit;
  if (sent.exception || came.exception) came.exception = std::exchange(sent.exception, nullptr);
  greenlet_state& left = *t.previous;
  if (__builtin_expect(t.tracing != nullptr, 0)) trace_packet(t, came);
  if (has_no_handle(left) && !left.is_main && !left.is_fiber && !left.filed) {
    left.filed = true;
    left.next_left = t.left_behind;
    t.left_behind = &left;
  }
}

// Where a packet for `target` really goes: past the dead to a living ancestor; one that was never started dies of an
// exception. Turns greenlet_exit into a value on the way, unless it is a fiber's kill.
greenlet_state* find_receiver(greenlet_state* target, packet& p, bool exit_goes_on = false) {
  while (true) {
    if (target->phase == greenlet_phase::unstarted && p.exception) {
      mark_dead(*target);
    }
    if (target->phase != greenlet_phase::dead) return target;
    if (p.exception && !exit_goes_on && is_exit(p.exception)) p = exit_packet();
    target = target->parent ? target->parent : &target->thread->main;
  }
}

// A flow (a fiber, or the thread's main one) may leave its base for any greenlet, but only the hub resumes a base of
// another flow, or one that waits: else two fibers would run on one's frames.
bool not_ours_to_resume(const thread_state& t, const greenlet_state& g) {
  return g.in_hub || ((g.is_fiber || g.is_main) && &g != t.base);
}

}  // namespace

void run_body(greenlet_state& self, void* message) {
  thread_state& t = *self.thread;
  packet result;
  try {
    packet first;
    arrive(t, message, first);
    if (__builtin_expect(bool(first.exception), 0)) std::rethrow_exception(std::exchange(first.exception, nullptr));
    result = self.body->run(first);
  } catch (const greenlet_exit&) {
    result = self.exit_goes_on ? packet{nullptr, nullptr, std::current_exception(), false} : exit_packet();
  } catch (...) {
    result = packet{nullptr, nullptr, std::current_exception(), false};
  }
  mark_dead(self);
  greenlet_state* receiver = find_receiver(self.parent, result, self.exit_goes_on);
  if (not_ours_to_resume(t, *receiver)) {
    // The parent belongs to another fiber, which only the hub may resume; whoever ran us gets an error instead.
    greenlet_state* caller = t.base;
    t.living.for_each([&](greenlet_state& g) {
      if (&g == self.resumed_by && g.phase == greenlet_phase::suspended && !g.in_hub) caller = &g;
    });
    RINGLET_ASSERT(!caller->in_hub, "a greenlet ended and everybody who could take its result waits in the hub");
    if (!self.exit_goes_on || !result.exception)
      result = packet{nullptr, nullptr,
                      std::make_exception_ptr(greenlet_error(
                          "ringlet: " + name_of(self) + " ended, and its parent, " + name_of(*receiver) +
                          ", belongs to another fiber, so its result cannot be delivered. Cure: create a greenlet in the fiber that "
                          "switches to it, or set_parent before switching.")),
                      false};
    receiver = caller;
  }
  // A kill ends the whole fiber, not only the greenlet in which it was parked.
  if (self.exit_goes_on && result.exception && !receiver->is_fiber && !receiver->is_main) receiver->exit_goes_on = true;
  if (receiver->phase == greenlet_phase::unstarted) give_first_context(*receiver);
  receiver->resumed_by = &self;
  switch_greenlet(t, *receiver, &result);
  RINGLET_ASSERT(false, "a dead greenlet was resumed");
}

namespace {
void begin(void* message) {
  greenlet_state& self = *thread_state::here().current;
  self.run(self, message);
}

[[gnu::cold]] std::string wrong_thread_text(const thread_state& t, const greenlet_state& target) {
  return "ringlet: cannot switch to a different thread: current is " + name_of(*t.current) + " of this thread, wanted is " +
         name_of(target) + " of " +
         (target.thread->exited.load(std::memory_order_acquire) ? "a thread that has exited" : "another thread") +
         ". Greenlets and fibers stay on the thread that made them; send a message instead (ringlet::hub post, queue).";
}

}  // namespace

void give_first_context(greenlet_state& g) {
  context::make_context(g.where, g.memory.low(), g.stack_start, &begin);
  if (!g.is_fiber) g.thread->living.push_back(g);
}

greenlet_state* greenlet_current() {
  greenlet_state* g = thread_state::here().current;
  greenlet_retain(g);
  return g;
}

namespace {
// What is not the plain case: mistakes, the dead and the not yet begun, oneself, and what has to be tidied up first.
[[gnu::cold, gnu::noinline]] void exchange_slowly(greenlet_state* target, packet& p) {
  if (!target) throw greenlet_error("ringlet: switch to an empty greenlet handle (it was default-made or moved from)");
  thread_state& t = thread_state::here();
  if (__builtin_expect(target->thread != &t, 0)) throw wrong_thread(wrong_thread_text(t, *target));
  t.tidy();
  greenlet_state& self = *t.current;
  greenlet_state* receiver = find_receiver(target, p);
  if (receiver != &self) {
    if (not_ours_to_resume(t, *receiver))
      throw greenlet_error("ringlet: " + name_of(*receiver) + (receiver->in_hub ? " waits in the hub (for I/O, time, a lock or another fiber)"
                                                                                : " belongs to another fiber than the running one") +
                           "; only the hub may resume it. Cure: wake it by an event or queue, or kill its fiber; create a generator in the "
                           "fiber that uses it.");
    if (receiver->phase == greenlet_phase::unstarted) give_first_context(*receiver);
    receiver->resumed_by = &self;
    if (p.exception) receiver->exit_goes_on = false;
    arrive(t, switch_greenlet(t, *receiver, &p), p);
  }
  if (p.exception) std::rethrow_exception(std::exchange(p.exception, nullptr));
}
}  // namespace

void greenlet_exchange(greenlet_state* target, packet& p) {
  thread_state* t = thread_state::here_or_null();
  if (__builtin_expect(!target || target->thread != t || t->untidy() || target->phase != greenlet_phase::suspended ||
                           not_ours_to_resume(*t, *target) || p.exception,
                       0))
    return exchange_slowly(target, p);
  target->resumed_by = t->current;
  arrive(*t, switch_greenlet(*t, *target, &p), p);
  if (__builtin_expect(bool(p.exception), 0)) std::rethrow_exception(std::exchange(p.exception, nullptr));
}

void throw_no_exception(const char* what) {
  throw std::invalid_argument(std::string("ringlet: ") + what + " is given a null exception_ptr: there is nothing to throw");
}

void greenlet_unexpected(const packet& came, const std::type_info& wanted) {
  throw greenlet_error("ringlet: a greenlet expected " + demangled(wanted.name()) + " from a switch and got " +
                       (came.exit ? "greenlet_exit (the other one was killed)"
                                  : came.type ? demangled(came.type->name()) : std::string("nothing (the other one sent no value or returned)")) +
                       ". Values travel by their decayed types; the sender and switch_to<T> must name the same one.");
}

}  // namespace ringlet::detail

namespace ringlet {

using detail::greenlet_phase;

greenlet greenlet::parent() const& {
  if (!state_ || !state_->parent) return {};
  detail::greenlet_borrow(state_->parent);
  return greenlet(state_->parent, true);
}

void greenlet::set_parent(const greenlet& parent) const {
  if (!state_ || !parent.state_) throw greenlet_error("ringlet: set_parent on or to an empty greenlet handle");
  if (state_->is_main) throw greenlet_error("ringlet: the main greenlet has no parent and cannot be given one");
  if (state_->is_fiber) throw greenlet_error("ringlet: a fiber's greenlet belongs to its hub and cannot be given another parent");
  if (state_->thread != parent.state_->thread || state_->thread != detail::thread_state::here_or_null())
    throw wrong_thread("ringlet: set_parent: parent cannot be on a different thread");
  for (auto* g = parent.state_; g; g = g->parent)
    if (g == state_) throw greenlet_error("ringlet: set_parent: cyclic parent chain");
  detail::set_parent_link(*state_, parent.state_);
}

bool greenlet::dead() const noexcept {
  if (!state_) return false;
  return state_->phase == greenlet_phase::dead || (state_->is_main && state_->thread->exited.load(std::memory_order_acquire));
}

bool greenlet::started() const noexcept {
  return state_ && (state_->phase == greenlet_phase::running || state_->phase == greenlet_phase::suspended);
}

std::string greenlet::describe() const {
  if (!state_) return "no greenlet";
  return detail::name_of(*state_) + ", " + detail::phase_name(*state_);
}

}  // namespace ringlet
