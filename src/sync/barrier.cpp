// A round of a barrier: those who come wait, the last one runs the action and lets them go. Each leaves a note on its stack
// on which the end of the round is written, under the lock. So nothing that happens to the barrier afterwards changes
// that; and one whose deadline passes in the same moment has still been of the party.
//
// While the action runs, which may take its time, the round is complete: the deadlines of those in it no longer count, and
// who comes now is early for the next one.

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
  party* next = nullptr;
  bool over = false;  // the round
  bool passed = false;
};

std::size_t barrier::wait(deadline until) {
  lock_.lock();
  while (acting_ && !broken_) {
    early_.wait(lock_, never, "barrier", this);
    lock_.lock();
  }
  if (broken_) {
    lock_.unlock();
    throw_broken();
  }
  const std::size_t number = here_++;
  if (here_ == parties_) return run_action();

  party me{of_round_};
  of_round_ = &me;
  std::exception_ptr interrupted;
  try {
    if (waiters_.wait(lock_, until, "barrier", this)) {
      if (!me.passed) throw_broken();
      return number;
    }
  } catch (const broken_barrier&) {
    throw;
  } catch (...) {
    interrupted = std::current_exception();
  }
  lock_.lock();
  if (!me.over && acting_ && !interrupted) {
    waiters_.wait(lock_, never, "barrier", this, nullptr, false);
  } else {
    if (!me.over && acting_) {
      party** link = &of_round_;
      while (*link != &me) link = &(*link)->next;
      *link = me.next;
    } else if (!me.over) {
      broken_ = true;
      end_round(false);
    }
    lock_.unlock();
  }
  if (interrupted) std::rethrow_exception(interrupted);
  if (!me.passed) throw_broken();
  return number;
}

// The last one, with the lock held.
std::size_t barrier::run_action() {
  std::exception_ptr failed;
  if (action_) {
    acting_ = true;
    reset_ = false;
    lock_.unlock();
    try {
      action_();
    } catch (...) {
      failed = std::current_exception();
    }
    lock_.lock();
    acting_ = false;
  }
  const bool was_reset = std::exchange(reset_, false);
  if (failed && !was_reset) broken_ = true;
  const bool passed = !failed && !broken_ && !was_reset;
  end_round(passed);
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
    p->over = true;
    p = next;
  }
  here_ = 0;
  waiters_.wake_all();
  early_.wake_all();
}

void barrier::abort() noexcept {
  std::lock_guard hold(lock_);
  broken_ = true;
  if (acting_)
    early_.wake_all();
  else
    end_round(false);
}

void barrier::reset() noexcept {
  std::lock_guard hold(lock_);
  broken_ = false;
  if (acting_)
    reset_ = true;
  else
    end_round(false);
}

std::size_t barrier::waiting() const noexcept {
  std::lock_guard hold(lock_);
  return acting_ ? 0 : here_;
}

bool barrier::broken() const noexcept {
  std::lock_guard hold(lock_);
  return broken_;
}

}  // namespace ringlet
