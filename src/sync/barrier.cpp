// A round of a barrier: those who come wait, the last one runs the action and lets them go. Each leaves a note on its stack
// on which the end of the round is written, under the lock. So nothing that happens to the barrier afterwards changes
// that; and one whose deadline passes in the same moment has still been of the party. Who gives up breaks the barrier at that
// very moment, and does not come back to it: by the time that it runs the barrier may be gone.
//
// While the action runs, which may take its time, the round is complete: the deadlines of those in it no longer count, and
// who comes now is early for the next one; if an early one gives up, that next one is broken.
//
// fork: a child has none of the parent's parties, and begins a round anew.

#include <ringlet/barrier.hpp>

#include <mutex>
#include <utility>

#include "hub/hub.hpp"

namespace ringlet {

namespace {
[[noreturn]] void throw_broken() {
  throw broken_barrier(
      "ringlet: the barrier is broken: a party gave up by deadline or kill, its action failed, or it was aborted or reset. "
      "reset() makes it as new.");
}
}  // namespace

barrier::barrier(std::size_t parties, std::function<void()> action) : parties_(parties), action_(std::move(action)) {
  if (parties == 0) throw std::invalid_argument("ringlet: a barrier needs at least one party");
}

struct barrier::party {
  barrier* of;
  party* next;
  bool passed = false;

  static bool may_give_up(void* p, bool late) noexcept { return !late || !static_cast<party*>(p)->of->acting_; }
  static void gave_up(void* p) noexcept {
    party& me = *static_cast<party*>(p);
    barrier& b = *me.of;
    party** link = &b.of_round_;
    while (*link != &me) link = &(*link)->next;
    *link = me.next;
    if (b.acting_) return;
    b.broken_ = true;
    b.end_round(false);
  }
  static bool early_may(void*, bool) noexcept { return true; }
  static void early_gave_up(void* b) noexcept { static_cast<barrier*>(b)->early_one_left_ = true; }
};

// With the lock held, first of all.
void barrier::settle() noexcept {
  const std::uint32_t now = detail::fork_tag.load(std::memory_order_relaxed);
  if (process_ == now) return;
  process_ = now;
  here_ = 0;
  of_round_ = nullptr;
  actor_ = nullptr;
  acting_ = reset_ = early_one_left_ = false;
}

std::size_t barrier::wait(deadline until) {
  detail::require_can_park("barrier");
  lock_.lock();
  settle();
  if (acting_ && actor_ == hub::running_fiber()) {
    lock_.unlock();
    throw std::logic_error("ringlet: a barrier is waited for in its own action; it would wait for itself forever");
  }
  static constexpr detail::wait_list::giving_up leaves_early{&party::early_may, &party::early_gave_up};
  while (acting_ && !broken_) {
    if (!early_.wait(lock_, until, "barrier", this, this, leaves_early)) throw_broken();
    lock_.lock();
    settle();
  }
  if (broken_) {
    lock_.unlock();
    throw_broken();
  }
  const std::size_t number = here_++;
  if (here_ == parties_) return run_action();

  party me{this, of_round_};
  of_round_ = &me;
  static constexpr detail::wait_list::giving_up leaves{&party::may_give_up, &party::gave_up};
  if (!waiters_.wait(lock_, until, "barrier", this, &me, leaves) || !me.passed) throw_broken();
  return number;
}

// The last one, with the lock held.
std::size_t barrier::run_action() {
  std::exception_ptr failed;
  if (action_) {
    acting_ = true;
    reset_ = false;
    actor_ = hub::running_fiber();
    const std::uint32_t process = process_;
    lock_.unlock();
    try {
      action_();
    } catch (...) {
      failed = std::current_exception();
    }
    lock_.lock();
    settle();
    if (process_ != process) {  // the action has forked: the round is the parent's
      lock_.unlock();
      if (failed) std::rethrow_exception(failed);
      return parties_ - 1;
    }
    acting_ = false;
    actor_ = nullptr;
  }
  const bool was_reset = std::exchange(reset_, false);
  if (failed && !was_reset) broken_ = true;
  const bool passed = !failed && !broken_ && !was_reset;
  end_round(passed);
  if (std::exchange(early_one_left_, false)) broken_ = true;
  lock_.unlock();
  if (failed) std::rethrow_exception(failed);
  if (!passed) throw_broken();
  return parties_ - 1;
}

// With the lock held.
void barrier::end_round(bool passed) noexcept {
  for (party* p = std::exchange(of_round_, nullptr); p;) {
    party* const next = p->next;
    p->passed = passed;
    p = next;
  }
  here_ = 0;
  waiters_.wake_all();
  early_.wake_all();
}

void barrier::abort() noexcept {
  std::lock_guard hold(lock_);
  settle();
  broken_ = true;
  if (acting_)
    early_.wake_all();
  else
    end_round(false);
}

void barrier::reset() noexcept {
  std::lock_guard hold(lock_);
  settle();
  broken_ = early_one_left_ = false;
  if (acting_)
    reset_ = true;
  else
    end_round(false);
}

std::size_t barrier::waiting() const noexcept {
  std::lock_guard hold(lock_);
  return acting_ || process_ != detail::fork_tag.load(std::memory_order_relaxed) ? 0 : here_;
}

bool barrier::broken() const noexcept {
  std::lock_guard hold(lock_);
  return broken_;
}

}  // namespace ringlet
