// A million fibers at once on one thread, and what each costs.

#include <cstdio>
#include <fstream>
#include <string>

#include <ringlet/ringlet.hpp>

#include "context/stack.hpp"
#include "support/support.hpp"

using namespace std::chrono_literals;

namespace {
// A line of /proc/self/status or /proc/meminfo, in KiB.
long kilobytes(const char* file, const std::string& name) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with(name + ":")) return std::stol(line.substr(name.size() + 1));
  return 0;
}
}  // namespace

TEST_CASE("sleep: a million fibers sleep at once, and all wake") {
  if (ringlet::context::guards() != ringlet::context::guard_kind::regions)
    RINGLET_SKIP("no guard regions here (Linux 6.13): mprotect guards end at about 32,700 stacks");
  const long fibers = support::is_instrumented() ? 5'000 : 1'000'000;
  if (kilobytes("/proc/meminfo", "MemAvailable") < fibers / 1000 * 6 * 1024) RINGLET_SKIP("a million stacks want 6 GB of memory");
  support::allow_seconds(240);
  const long resident = kilobytes("/proc/self/status", "VmRSS"), tables = kilobytes("/proc/self/status", "VmPTE");
  long asleep = 0, awake = 0;
  ringlet::deadline moment;
  const auto begun = ringlet::clock::now();
  for (long i = 0; i < fibers; ++i)
    ringlet::spawn([&] {
      ++asleep;
      ringlet::sleep(moment);
      ++awake;
    });
  // One moment for all, so far away that even on a busy machine everybody is asleep by then: spawning touches a page of
  // each, which is most of the work.
  moment = ringlet::deadline((ringlet::clock::now() - begun) + 3s);
  for (int turns = 0; turns < 1'000'000 && asleep < fibers; ++turns) ringlet::yield();
  CHECK(asleep == fibers);
  const auto now = ringlet::hub::count();
  CHECK(now.timers == std::size_t(fibers));
  std::printf("sleep: %ld fibers asleep: %.0f bytes resident each, %.0f of page tables\n", fibers,
              double(kilobytes("/proc/self/status", "VmRSS") - resident) * 1024 / double(fibers),
              double(kilobytes("/proc/self/status", "VmPTE") - tables) * 1024 / double(fibers));
  CHECK(awake == 0);
  ringlet::sleep(moment);
  for (int turns = 0; turns < 1'000'000 && awake < fibers; ++turns) ringlet::yield();
  CHECK(awake == fibers);
  CHECK(ringlet::hub::count().fibers == 0);
}
