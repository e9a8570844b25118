#pragma once
// How often this process's engines have entered the kernel, to submit or to wait: for reports. Of several hubs that enter
// at the same moment one may not be counted.

#include <atomic>
#include <cstdint>

namespace ringlet::loop {

inline std::atomic<std::uint64_t> kernel_entries{0};
inline void count_entry() noexcept {
  kernel_entries.store(kernel_entries.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace ringlet::loop
