// Where a door differs from the kernel, and why. Such a case must differ, so that a surprise success is noticed.

#include "conformance.hpp"

#include <string_view>

namespace conformance {
namespace {

constexpr const char* by_helper = "the call is made by a helper thread, which gets no signals: no EINTR (hooks/README.md, docs/threads.md)";
constexpr const char* no_row = "the call has no row there: it stops its thread, and no other fiber of it runs meanwhile (hooks/README.md)";
constexpr const char* no_pending_signals =
    "the kernel holds no thread's pending signals for it: a signalfd hears only what is sent to the process while every thread "
    "blocks it, as the programs that use one do";

constexpr known_difference all[] = {
    // case, by symbols, by system calls
    {"signalfd: waits for a signal", nullptr, no_pending_signals},
    {"signals: flock: one without SA_RESTART", by_helper, by_helper},
    {"signals: fcntl, F_SETLKW: one without SA_RESTART", by_helper, by_helper},
    {"signals: lockf: one without SA_RESTART", by_helper, by_helper},
    {"signals: waitpid for any child: one without SA_RESTART", by_helper, by_helper},
    {"signals: waitpid for stops: one without SA_RESTART", by_helper, by_helper},
    {"signals: splice from a pipe: one without SA_RESTART", by_helper, by_helper},
    {"signals: msgrcv: one without SA_RESTART", no_row, by_helper},
    {"signals: msgrcv: one with SA_RESTART", no_row, by_helper},
    {"signals: semop: one without SA_RESTART", no_row, by_helper},
    {"signals: semop: one with SA_RESTART", no_row, by_helper},
    {"signals: mq_receive: one without SA_RESTART", no_row, by_helper},
    {"signals: mq_receive: one with SA_RESTART", no_row, nullptr},
};

}  // namespace

std::span<const known_difference> known_differences() { return all; }
known_difference known_difference_of(std::string_view name) {
  for (const known_difference& each : all)
    if (name == each.name) return each;
  return {};
}

}  // namespace conformance
