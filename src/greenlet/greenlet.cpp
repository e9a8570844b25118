// Who switches to whom: parents, packets, death.
//
// A packet rests on its sender's stack (a dead sender's value in its body) and is taken by the receiver at once, so
// values are moved once and nothing is allocated. The one who arrives files the one who left: a dead greenlet without
// handles, or one whose last handle went while it ran, is `left_behind` and ended at the thread's next greenlet call,
// when its packet has surely been taken.
//
// A child keeps its parent's memory, and so do the handles that parent() gives, but they do not keep it from being
// unwound: else a greenlet that has a generator in its frame would hold itself by way of it, and dropping it would do
// nothing. Only one that the running greenlet, or one that waits in the hub, descends from is spared (is_awaited): a
// result is on its way to it.

#include "greenlet/greenlet.hpp"

#include <cxxabi.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/assert.hpp"
#include "base/sys.hpp"

namespace ringlet::detail {

namespace {
std::atomic<std::size_t> living_count{0};

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

std::string demangled(const std::type_info& type) {
  int status = 0;
  char* text = abi::__cxa_demangle(type.name(), nullptr, nullptr, &status);
  std::string result = status == 0 ? text : type.name();
  std::free(text);
  return result;
}

const char* phase_name(const greenlet_state& g) {
  switch (g.phase) {
    case greenlet_phase::unstarted: return "not started";
    case greenlet_phase::running: return "running";
    case greenlet_phase::suspended: return g.in_hub ? "waiting in the hub" : "suspended";
    case greenlet_phase::dead: return "dead";
  }
  return "?";
}

std::string name_of(const greenlet_state& g) {
  if (g.is_main) return "the main greenlet";
  return (g.is_fiber ? "the greenlet of fiber " : "greenlet ") + std::to_string(g.number);
}

void describe_owner(const void* owner, char* text, std::size_t size) {
  auto* g = static_cast<const greenlet_state*>(owner);
  std::snprintf(text, size, "greenlet %llu", static_cast<unsigned long long>(g->number));
}

void mark_dead(greenlet_state& g) {
  if (g.phase != greenlet_phase::dead && !g.is_fiber) living_count.fetch_sub(1, std::memory_order_relaxed);
  g.phase = greenlet_phase::dead;
  g.unlink();
}

bool has_no_handle(const greenlet_state& g) {
  return g.references.load(std::memory_order_acquire) == g.borrows.load(std::memory_order_relaxed);
}

bool is_ancestor(const greenlet_state& g, const greenlet_state& of) {
  for (auto* a = &of; a; a = a->parent)
    if (a == &g) return true;
  return false;
}

// A result is on its way to it: the running greenlet, or one that waits in the hub, descends from it.
bool is_awaited(thread_state& t, const greenlet_state& g) {
  if (is_ancestor(g, *t.current)) return true;
  bool found = false;
  t.living.for_each([&](const greenlet_state& other) { found = found || (other.in_hub && is_ancestor(g, other)); });
  return found;
}

// First thing after a switch between greenlets: the packet, and a look at who left.
inline void arrive(thread_state& t, void* message, packet& came) {
  packet& sent = *static_cast<packet*>(message);
  came.object = sent.object;
  came.type = sent.type;
  came.exit = sent.exit;
  if (sent.exception || came.exception) came.exception = std::exchange(sent.exception, nullptr);
  greenlet_state& left = *t.previous;
  if (has_no_handle(left) && !left.is_main && !left.is_fiber && !left.filed) {
    left.filed = true;
    left.next_dropped = t.left_behind;
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

void run_body(greenlet_state& self, void* message) {
  thread_state& t = *self.thread;
  packet result;
  try {
    packet first;
    arrive(t, message, first);
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

void destroy_plain(greenlet_state& g) noexcept {
  if (g.body) g.body->~greenlet_body();
  g.~greenlet_state();
}

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

// The last handle of a suspended greenlet has gone: unwinds it now, as if the current one were its parent.
void kill_dropped(thread_state& t, greenlet_state& g) {
  greenlet_retain(&g);
  greenlet_state* own_parent = g.parent;
  if (own_parent) greenlet_retain(own_parent);
  set_parent_link(g, t.current);
  try {
    packet exit{nullptr, nullptr, std::make_exception_ptr(greenlet_exit{}), false};
    greenlet_exchange(&g, exit);
  } catch (const greenlet_exit&) {
  } catch (const std::exception& e) {
    std::fprintf(stderr, "ringlet: %s was dropped and failed while it unwound: %s\n", name_of(g).c_str(), e.what());
  } catch (...) {
    std::fprintf(stderr, "ringlet: %s was dropped and failed while it unwound\n", name_of(g).c_str());
  }
  set_parent_link(g, own_parent);
  if (own_parent) greenlet_release(own_parent);
  if (g.phase != greenlet_phase::dead)
    std::fprintf(stderr, "ringlet: %s was dropped and did not end on greenlet_exit; it lives on until its thread ends\n",
                 name_of(g).c_str());
  if (g.references.fetch_sub(1, std::memory_order_acq_rel) == 1 && g.phase == greenlet_phase::dead && !g.filed) bury(g);
}

// No handle is left; on the owner's thread.
void end_unreferenced(thread_state& t, greenlet_state& g) {
  const bool is_borrowed = g.references.load(std::memory_order_acquire) != 0;
  switch (g.phase) {
    case greenlet_phase::running: return;  // whoever it switches to files it
    case greenlet_phase::unstarted:
      if (is_borrowed) return;  // it will be begun by what they return
      mark_dead(g);
      [[fallthrough]];
    case greenlet_phase::dead:
      if (!is_borrowed && !g.filed) bury(g);
      return;
    case greenlet_phase::suspended:
      if (g.is_main || g.in_hub || g.is_fiber || (is_borrowed && is_awaited(t, g))) return;
      kill_dropped(t, g);
      return;
  }
}
}  // namespace

void give_first_context(greenlet_state& g) {
  context::make_context(g.where, g.memory.low(), g.stack_start, &begin);
  if (!g.is_fiber) g.thread->living.push_back(g);
}

void bury(greenlet_state& g) noexcept {
  RINGLET_ASSERT(g.phase == greenlet_phase::dead, "a greenlet with frames is buried");
  context::stack memory = g.memory;
  thread_state* t = g.thread;
  set_parent_link(g, nullptr);
  context::stack_pool* pool = t->stacks;
  context::drop_context(g.where);
  g.unlink();
  g.destroy(g);
  if (memory.base) pool->give_back(memory);  // a hub's main fiber has no stack of ours
  drop_thread_state(*t);
}

void end_living(thread_state& t) noexcept {
  for (int rounds = 0; rounds < 10 && !t.living.empty(); ++rounds) {
    base::intrusive_list<greenlet_state, living_link> now;
    now.take_all(t.living);
    while (greenlet_state* g = now.pop_front()) {
      t.living.push_back(*g);
      if (g->phase != greenlet_phase::suspended || g->in_hub) continue;
      greenlet_retain(g);
      greenlet_state* own_parent = g->parent;
      if (own_parent) greenlet_retain(own_parent);
      set_parent_link(*g, t.current);
      try {
        packet exit{nullptr, nullptr, std::make_exception_ptr(greenlet_exit{}), false};
        greenlet_exchange(g, exit);
      } catch (...) {
        std::fprintf(stderr, "ringlet: %s failed while it unwound at its thread's end\n", name_of(*g).c_str());
      }
      set_parent_link(*g, own_parent);
      if (own_parent) greenlet_release(own_parent);
      greenlet_release(g);
    }
    t.tidy();
  }
  // From here on any thread may bury what is left, so nobody may find it in a list of ours.
  while (greenlet_state* g = t.living.pop_front()) {
    if (g->in_hub) continue;
    std::fprintf(stderr, "ringlet: %s did not end on greenlet_exit at its thread's end\n", name_of(*g).c_str());
    if (g->references.load(std::memory_order_acquire) != 0) continue;
    mark_dead(*g);
    bury(*g);
  }
}

// What was dropped when its thread could no longer unwind it: the memory goes, the frames' destructors do not run.
void bury_dropped(thread_state& t) noexcept {
  greenlet_state* g = t.dropped.exchange(nullptr, std::memory_order_seq_cst);
  while (g) {
    greenlet_state* next = g->next_dropped;
    if (g->phase != greenlet_phase::dead) mark_dead(*g);
    bury(*g);
    g = next;
  }
}

void thread_state::tidy_slow() {
  while (greenlet_state* g = left_behind) {
    left_behind = g->next_dropped;
    g->filed = false;
    if (has_no_handle(*g)) end_unreferenced(*this, *g);
  }
  greenlet_state* g = dropped.exchange(nullptr, std::memory_order_acquire);
  while (g) {
    greenlet_state* next = g->next_dropped;
    end_unreferenced(*this, *g);
    g = next;
  }
}

greenlet_state* greenlet_create(std::size_t body_size, std::size_t body_alignment, std::size_t stack_size_bytes) {
  thread_state& t = thread_state::here();
  t.tidy();
  context::install_overflow_report(&describe_owner);
  auto* g = make_on_stack<greenlet_state>(t, body_size, body_alignment, stack_size_bytes);
  g->run = &run_body;
  g->destroy = &destroy_plain;
  g->number = t.next_number++;
  living_count.fetch_add(1, std::memory_order_relaxed);
  return g;
}

void* greenlet_body_storage(greenlet_state* g) noexcept { return g->body_storage; }

void greenlet_adopt_body(greenlet_state* g, greenlet_body* body, greenlet_state* parent) {
  g->body = body;
  if (!parent) throw greenlet_error("ringlet: a greenlet's parent is an empty handle");
  if (parent->thread != g->thread) throw wrong_thread("ringlet: a greenlet's parent must be of the thread that makes it");
  set_parent_link(*g, parent);
}

void greenlet_discard(greenlet_state* g) noexcept {
  mark_dead(*g);
  bury(*g);
}

void set_parent_link(greenlet_state& g, greenlet_state* parent) {
  if (parent) greenlet_borrow(parent);
  if (greenlet_state* former = std::exchange(g.parent, parent)) greenlet_give_back(former);
}

void greenlet_borrow(greenlet_state* g) noexcept {
  greenlet_retain(g);
  g->borrows.fetch_add(1, std::memory_order_relaxed);
}

void greenlet_give_back(greenlet_state* g) noexcept {
  g->borrows.fetch_sub(1, std::memory_order_relaxed);
  greenlet_release(g);
}

void greenlet_retain(greenlet_state* g) noexcept { g->references.fetch_add(1, std::memory_order_relaxed); }

void greenlet_release(greenlet_state* g) noexcept {
  // Looked at before: afterwards it may be gone.
  thread_state* const thread = g->thread;
  const std::uint32_t borrows = g->borrows.load(std::memory_order_relaxed);
  const std::uint32_t left = g->references.fetch_sub(1, std::memory_order_acq_rel) - 1;
  if (left != 0) {
    if (left == borrows && thread == thread_state::here_or_null() && !g->is_fiber && !g->is_main) end_unreferenced(*thread, *g);
    return;
  }
  if (g->is_main) {
    delete g->thread;
    return;
  }
  thread_state* here = thread_state::here_or_null();
  if (here == g->thread) {
    end_unreferenced(*here, *g);
    return;
  }
  thread_state& owner = *g->thread;
  owner.references.fetch_add(1, std::memory_order_relaxed);  // it must outlast the look at `exited`
  g->next_dropped = owner.dropped.load(std::memory_order_relaxed);
  while (!owner.dropped.compare_exchange_weak(g->next_dropped, g, std::memory_order_seq_cst, std::memory_order_relaxed)) {
  }
  // The owner says that it is gone and then looks at the list; we do it the other way round, so one of us sees it.
  if (owner.exited.load(std::memory_order_seq_cst)) bury_dropped(owner);
  drop_thread_state(owner);
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

void greenlet_unexpected(const packet& came, const std::type_info& wanted) {
  throw greenlet_error("ringlet: a greenlet expected " + demangled(wanted) + " from a switch and got " +
                       (came.exit ? "greenlet_exit (the other one was killed)"
                                  : came.type ? demangled(*came.type) : std::string("nothing (the other one sent no value or returned)")) +
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

std::size_t living_greenlets() noexcept { return detail::living_count.load(std::memory_order_relaxed); }

}  // namespace ringlet
