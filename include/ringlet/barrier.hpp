#pragma once
// A barrier: so many parties wait for each other, again and again. Usable from fibers of any hub and from plain threads.
// The model is Python's threading.Barrier.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>

#include <ringlet/deadline.hpp>
#include <ringlet/sync.hpp>

namespace ringlet {

// The barrier is broken, or was reset while one waited: not all parties will come.
struct RINGLET_EXPORT broken_barrier : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class RINGLET_EXPORT barrier {
 public:
  // The action is run by the last to come, before anybody goes on. std::invalid_argument for no parties.
  explicit barrier(std::size_t parties, std::function<void()> action = {});
  ~barrier() { lock_.lock(); }  // who has let us go may not have left yet

  // Waits until all parties are here. Returns this one's number, 0 for the first to come: in each round everybody has another.
  // Who gives up (by deadline, kill or timeout) breaks the barrier for all, and so does an action that throws: then whoever
  // waits or comes gets broken_barrier, until reset(); the killed one, and the one that ran the action, what it was. Once all
  // are here and the action runs, deadlines no longer count. std::logic_error in the barrier's own action.
  std::size_t wait(deadline until = never);

  // Breaks it: for when a party cannot come.
  void abort() noexcept;
  // As new. Those who wait get broken_barrier.
  void reset() noexcept;

  std::size_t parties() const noexcept { return parties_; }
  std::size_t waiting() const noexcept;
  bool broken() const noexcept;

 private:
  struct party;
  void settle() noexcept;
  void end_round(bool passed) noexcept;
  std::size_t run_action();

  const std::size_t parties_;
  const std::function<void()> action_;
  mutable detail::wait_lock lock_;
  std::size_t here_ = 0;      // of this round
  party* of_round_ = nullptr; // those of them that wait
  bool acting_ = false;       // the last has come and runs the action
  bool early_one_left_ = false;     // meanwhile: the next round is broken
  const void* actor_ = nullptr;     // the fiber that runs it
  std::uint32_t process_ = detail::fork_tag.load(std::memory_order_relaxed);  // whose parties these are
  bool reset_ = false;        // meanwhile
  bool broken_ = false;
  detail::wait_list waiters_;
  detail::wait_list early_;   // for the next round, while the action runs
};

}  // namespace ringlet
