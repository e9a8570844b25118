// The ends of the fibers of one map or imap, told to their owner.

#include <ringlet/mapping.hpp>

#include <vector>

#include "base/assert.hpp"
#include "hub/fork.hpp"
#include "hub/hub.hpp"

namespace ringlet::detail {

namespace {
std::exception_ptr end_of(fiber_state& f) noexcept {
  if (f.error) {
    f.error_seen = true;
    return f.error;
  }
  return f.was_exit ? std::make_exception_ptr(greenlet_exit{}) : nullptr;
}
}  // namespace

struct batch::watched : listener {
  batch* owner;
  std::size_t index;
  any_fiber fiber;
  watched* before = nullptr;
  watched* after = nullptr;
  bool told_to_end = false;

  watched(batch& b, const any_fiber& f, std::size_t i) : owner(&b), index(i), fiber(f), after(b.first_) {
    if (after) after->before = this;
    b.first_ = this;
    told = [](listener& l) noexcept {
      auto& w = static_cast<watched&>(l);
      w.end(end_of(w.state()));
    };
  }
  fiber_state& state() const noexcept { return *fiber_access::state(fiber); }
  // Tells, and is gone.
  void end(std::exception_ptr error) noexcept {
    batch& b = *owner;
    (before ? before->after : b.first_) = after;
    if (after) after->before = before;
    b.ended(index, std::move(error));
    if (b.idle()) b.changed();
    delete this;
  }
  // In a forked child, those who ran in the parent never end; they count as killed.
  static void end_ghosts(batch& b) noexcept {
    if (fork_generation.load(std::memory_order_relaxed) == 0) return;
    for (watched* w = b.first_; w;) {
      watched* next = w->after;
      if (w->state().is_ghost()) {
        w->state().listeners.remove(*w);
        w->end(std::make_exception_ptr(greenlet_exit{}));
      }
      w = next;
    }
  }
};

batch::~batch() { RINGLET_ASSERT(idle(), "the results of fibers are destroyed while the fibers run"); }

void batch::watch(const any_fiber& f, std::size_t index) {
  fiber_state& state = *fiber_access::state(f);
  if (state.step == fiber_phase::finished) return ended(index, end_of(state));
  watched* w = nullptr;
  try {
    w = new watched(*this, f, index);
  } catch (const std::bad_alloc&) {  // what it would work with is about to go, so it must not even begin
    if (!f.started()) f.kill(deadline::passed());
    throw;
  }
  state.listeners.add(*w);
  if (killing_) f.kill(deadline::passed());  // begun by a feeder that had its place before it was killed
}

void batch::changed() noexcept {
  changed_.lock();
  while (changed_.wake_one()) {
  }
  changed_.unlock();
}

void batch::wait_change(const char* what) {
  watched::end_ghosts(*this);
  changed_.lock();
  changed_.wait(never, what, this);
}

void batch::wait_idle(const char* what) {
  watched::end_ghosts(*this);
  while (!idle()) wait_change(what);
}

void batch::kill_all() noexcept {
  watched::end_ghosts(*this);
  killing_ = true;
  std::vector<any_fiber> all;
  try {
    for (watched* w = first_; w; w = w->after) all.push_back(w->fiber);
  } catch (const std::bad_alloc&) {  // one at a time, in no order
    all.clear();
    for (watched* w = first_; w;) {
      const bool told = std::exchange(w->told_to_end, true);
      const any_fiber f = w->fiber;
      if (!told && !f.ready()) f.kill(deadline::passed());
      w = told ? w->after : first_;  // who ended has left, and may have taken others along
    }
  }
  for (auto f = all.rbegin(); f != all.rend(); ++f)  // the oldest first
    if (!f->ready()) f->kill(deadline::passed());
  while (!idle()) {
    changed_.lock();
    changed_.wait(never, "the end of what map or imap began", this, nullptr, false);
  }
}

}  // namespace ringlet::detail
