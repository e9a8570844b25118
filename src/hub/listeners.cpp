// Who wants to know that something has become ready.
//
// In a forked child the listeners of fibers that the child does not have are still in the lists; they are passed over.

#include <ringlet/wait.hpp>

#include "base/assert.hpp"
#include "hub/hub.hpp"

namespace ringlet::detail {

namespace {
bool is_ghost(const listener& l) noexcept { return l.generation != fork_generation.load(std::memory_order_relaxed); }
}  // namespace

void listener_list::add(listener& l) noexcept {
  RINGLET_ASSERT(!l.linked, "a listener is put into a second list");
  l.generation = fork_generation.load(std::memory_order_relaxed);
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
  if (!l.linked) return;
  if (l.before)
    l.before->after = l.after;
  else
    first_ = l.after;
  if (l.after)
    l.after->before = l.before;
  else
    last_ = l.before;
  l.linked = false;
}

void listener_list::tell_those() noexcept {
  while (listener* l = first_) {
    first_ = l->after;
    (first_ ? first_->before : last_) = nullptr;
    l->linked = false;
    if (!is_ghost(*l)) l->told(*l);
  }
}

void listener_list::check_none_left() noexcept {
  if (process_ends.load(std::memory_order_relaxed)) return;
  for (listener* l = first_; l; l = l->after) RINGLET_ASSERT(is_ghost(*l), "something is destroyed while a wait still listens to it");
}

}  // namespace ringlet::detail
