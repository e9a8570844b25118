// Who wants to know that something has become ready.
//
// A forked child has none of those who listened in its parent: a list of the parent's counts as empty there. Who waits in the
// fiber that forked, and so lives on in both, asks again (iwait does).

#include <ringlet/wait.hpp>

#include "base/assert.hpp"
#include "hub/hub.hpp"

namespace ringlet::detail {

namespace {
unsigned this_process() noexcept { return fork_generation.load(std::memory_order_relaxed); }
}  // namespace

void listener_list::add(listener& l) noexcept {
  const unsigned now = this_process();
  RINGLET_ASSERT(!l.linked || l.generation != now, "a listener is put into a second list");
  if (generation_ != now) {
    generation_ = now;
    first_ = last_ = nullptr;
  }
  l.generation = now;
  l.before = last_;
  l.after = nullptr;
  l.linked = true;
  if (last_)
    last_->after = &l;
  else
    first_ = &l;
  last_ = &l;
}

void listener_list::remove(listener& l) noexcept {
  if (!std::exchange(l.linked, false) || l.generation != this_process()) return;
  if (l.before)
    l.before->after = l.after;
  else
    first_ = l.after;
  if (l.after)
    l.after->before = l.before;
  else
    last_ = l.before;
}

void listener_list::tell_those() noexcept {
  if (generation_ != this_process()) {
    first_ = last_ = nullptr;
    return;
  }
  while (listener* l = first_) {
    first_ = l->after;
    (first_ ? first_->before : last_) = nullptr;
    l->linked = false;
    l->told(*l);
  }
}

void listener_list::check_none_left() noexcept {
  if (process_ends.load(std::memory_order_relaxed)) return;
  RINGLET_REQUIRE(generation_ != this_process(), "something is destroyed while a wait still listens to it");
}

}  // namespace ringlet::detail
