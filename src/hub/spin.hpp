#pragma once
// Looking for news for a moment before falling asleep. To sleep and be woken takes some microseconds: whose peer answers
// sooner than that has its answer in half the time, and pays with the processor. Never unless it is asked for.

#include <algorithm>
#include <chrono>

#include "loop/clock.hpp"

namespace ringlet::detail {

// Whether it pays is told by how long nobody was ready, lately: a hub whose news always takes longer than it may look for
// sleeps at once, and tries again when a sleep was short.
class spin_habit {
 public:
  static constexpr std::chrono::milliseconds longest{1};
  clock::duration limit{};  // to look for so long; 0: never

  bool pays() const noexcept { return hope_ > 0; }
  void idle_took(clock::duration idle) noexcept {
    hope_ = idle <= limit ? std::min(hope_ + 1, most_hope) : std::max(hope_ - 2, 0);
  }
  // Leaves the core's resources to its other thread for some cycles.
  static void breathe() noexcept {
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
  }

 private:
  static constexpr int most_hope = 8;  // so many short ones weigh as much as four long ones
  int hope_ = 0;
};

}  // namespace ringlet::detail
