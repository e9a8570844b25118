#include "base/lock.hpp"

#include <linux/futex.h>
#include <sched.h>

#include "base/sys.hpp"

namespace ringlet::base {

void lock::acquire_slow() noexcept {
  for (int spins = 0; spins < 100; ++spins) {
    std::uint32_t free = 0;
    if (state_.load(std::memory_order_relaxed) == 0 && state_.compare_exchange_weak(free, 1, std::memory_order_acquire)) return;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
  }
  while (state_.exchange(2, std::memory_order_acquire) != 0)
    sys::call(SYS_futex, &state_, FUTEX_WAIT_PRIVATE, 2, nullptr);
}

void lock::wake() noexcept { sys::call(SYS_futex, &state_, FUTEX_WAKE_PRIVATE, 1); }

}  // namespace ringlet::base
