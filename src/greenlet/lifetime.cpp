// How a greenlet comes to be, who holds it, and how it ends: by itself, by the drop of its last handle, with its thread.
//
// A child keeps its parent's memory, and so do the handles that parent() gives, but they do not keep it from being
// unwound: else a greenlet that has a generator in its frame would hold itself by way of it, and dropping it would do
// nothing. Only one that the running greenlet, or one that waits in the hub, descends from is spared (is_awaited): a
// result is on its way to it.

#include <cstdio>

#include "base/assert.hpp"
#include "greenlet/greenlet.hpp"

namespace ringlet::detail {

namespace {
std::atomic<std::size_t> living_count{0};

void describe_owner(const void* owner, char* text, std::size_t size) {
  auto* g = static_cast<const greenlet_state*>(owner);
  std::snprintf(text, size, "greenlet %llu", static_cast<unsigned long long>(g->number));
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

void destroy_plain(greenlet_state& g) noexcept {
  if (g.body) g.body->~greenlet_body();
  g.~greenlet_state();
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

void mark_dead(greenlet_state& g) {
  if (g.phase != greenlet_phase::dead && !g.is_fiber) living_count.fetch_sub(1, std::memory_order_relaxed);
  g.phase = greenlet_phase::dead;
  g.unlink();
}

// What weak handles hold; the greenlet's own thread alone reads and writes `target`.
struct weak_block {
  std::atomic<std::uint32_t> references{1};
  thread_state* thread;
  greenlet_state* target;
};

namespace {
void expire(greenlet_state& g) noexcept {
  if (!g.weak) return;
  g.weak->target = nullptr;
  greenlet_weak_release(std::exchange(g.weak, nullptr));
}
}  // namespace

weak_block* greenlet_weak(greenlet_state* g) {
  if (!g) return nullptr;
  if (g->thread != thread_state::here_or_null())
    throw wrong_thread("ringlet: a weak handle of a greenlet or fiber can be made on its own thread only");
  if (!g->weak) g->weak = new weak_block{{1}, g->thread, g};
  greenlet_weak_retain(g->weak);
  return g->weak;
}
void greenlet_weak_retain(weak_block* w) noexcept { w->references.fetch_add(1, std::memory_order_relaxed); }
void greenlet_weak_release(weak_block* w) noexcept {
  if (w->references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete w;
}
greenlet_state* greenlet_weak_lock(weak_block* w) noexcept {
  if (!w || w->thread != thread_state::here_or_null() || !w->target) return nullptr;
  greenlet_state* g = w->target;
  // Another thread may drop the last handle just now.
  std::uint32_t n = g->references.load(std::memory_order_relaxed);
  do {
    if (n <= g->borrows.load(std::memory_order_relaxed)) return nullptr;
  } while (!g->references.compare_exchange_weak(n, n + 1, std::memory_order_acq_rel, std::memory_order_relaxed));
  return g;
}

void* greenlet_tag() noexcept {
  thread_state* t = thread_state::here_or_null();
  return t ? t->current->tag : nullptr;
}
void greenlet_set_tag(void* tag) noexcept { thread_state::here().current->tag = tag; }

void bury(greenlet_state& g) noexcept {
  RINGLET_ASSERT(g.phase == greenlet_phase::dead, "a greenlet with frames is buried");
  context::stack memory = g.memory;
  thread_state* t = g.thread;
  set_parent_link(g, nullptr);
  expire(g);
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
    g->borrows.fetch_sub(1, std::memory_order_relaxed);
    if (g->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      if (g->phase != greenlet_phase::dead) mark_dead(*g);
      bury(*g);
    }
    g = next;
  }
}

void thread_state::tidy_slow() {
  while (greenlet_state* g = left_behind) {
    left_behind = g->next_left;
    g->filed = false;
    if (has_no_handle(*g)) end_unreferenced(*this, *g);
  }
  greenlet_state* g = dropped.exchange(nullptr, std::memory_order_acquire);
  while (g) {
    greenlet_state* next = g->next_dropped;
    greenlet_give_back(g);
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

// The last reference, on another thread than its own. It is not given up but handed to the owner, in its list: what has none is
// for its owner alone to bury, and the owner may just be unwinding it, because its thread ends.
static void hand_over(greenlet_state& g) noexcept {
  thread_state& owner = *g.thread;
  owner.references.fetch_add(1, std::memory_order_relaxed);  // it must outlast the look at `exited`
  g.borrows.fetch_add(1, std::memory_order_relaxed);
  g.next_dropped = owner.dropped.load(std::memory_order_relaxed);
  while (!owner.dropped.compare_exchange_weak(g.next_dropped, &g, std::memory_order_seq_cst, std::memory_order_relaxed)) {
  }
  // The owner says that it is gone and then looks at the list; we do it the other way round, so one of us sees it.
  if (owner.exited.load(std::memory_order_seq_cst)) bury_dropped(owner);
  drop_thread_state(owner);
}

void greenlet_release(greenlet_state* g) noexcept {
  // Looked at before: afterwards it may be gone.
  thread_state* const thread = g->thread;
  const std::uint32_t borrows = g->borrows.load(std::memory_order_relaxed);
  std::uint32_t n = g->references.load(std::memory_order_acquire);
  while (n > 1) {
    if (!g->references.compare_exchange_weak(n, n - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    if (n - 1 == borrows && thread == thread_state::here_or_null() && !g->is_fiber && !g->is_main) end_unreferenced(*thread, *g);
    return;
  }
  if (g->is_main) {
    expire(*g);
    delete thread;
  } else if (thread == thread_state::here_or_null()) {
    g->references.store(0, std::memory_order_relaxed);
    end_unreferenced(*thread, *g);
  } else {
    hand_over(*g);
  }
}

}  // namespace ringlet::detail

namespace ringlet {
std::size_t living_greenlets() noexcept { return detail::living_count.load(std::memory_order_relaxed); }
}  // namespace ringlet
