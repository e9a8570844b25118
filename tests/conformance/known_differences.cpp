// Where a door differs from the kernel, and why. Such a case must differ, so that a surprise success is noticed.

#include "conformance.hpp"

#include <string_view>

namespace conformance {
namespace {

constexpr const char* no_pending_signals =
    "the kernel holds no thread's pending signals for it: a signalfd hears only what is sent to the process while every thread "
    "blocks it, as the programs that use one do";

constexpr known_difference all[] = {
    // case, by symbols, by system calls
    {"signalfd: waits for a signal", nullptr, no_pending_signals},
};

}  // namespace

std::span<const known_difference> known_differences() { return all; }
known_difference known_difference_of(std::string_view name) {
  for (const known_difference& each : all)
    if (name == each.name) return each;
  return {};
}

}  // namespace conformance
