// How many processors there are, and how many of them we may use: the affinity mask, cut to what the cgroup's quota pays for
// (a container with two of sixty-four processors' time shall not start sixty-four workers).

#include <ringlet/process.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <fcntl.h>
#include <limits>
#include <unistd.h>

#include "base/sys.hpp"

namespace ringlet {

namespace {

// What of a small file fits; empty if there is none.
std::string contents(const std::string& path) {
  char buffer[4096];
  const long fd = sys::call(SYS_openat, AT_FDCWD, path.c_str(), O_RDONLY | O_CLOEXEC, 0L);
  if (fd < 0) return {};
  const long got = sys::call(SYS_read, fd, buffer, sizeof buffer);
  sys::call(SYS_close, fd);
  return got > 0 ? std::string(buffer, std::size_t(got)) : std::string();
}

unsigned processors(double quota, double period) noexcept {
  if (!(quota > 0) || !(period > 0)) return std::numeric_limits<unsigned>::max();
  return unsigned(std::max(1.0, std::ceil(quota / period)));
}

// The least of the group's own quota and those of the groups around it.
unsigned quota_of_cgroup() {
  unsigned least = std::numeric_limits<unsigned>::max();
  const std::string groups = contents("/proc/self/cgroup");
  const auto at = groups.find("0::");
  if (at != groups.npos) {
    std::string group = groups.substr(at + 3, groups.find('\n', at) - at - 3);
    while (true) {
      const std::string limit = contents("/sys/fs/cgroup" + (group == "/" ? "" : group) + "/cpu.max");
      if (!limit.empty() && !limit.starts_with("max")) {
        char* end = nullptr;
        const double quota = std::strtod(limit.c_str(), &end);
        least = std::min(least, processors(quota, std::strtod(end, nullptr)));
      }
      const auto parent = group.rfind('/');
      if (parent == group.npos || group == "/") break;
      group.resize(std::max<std::size_t>(parent, 1));
    }
  }
  for (const char* folder : {"/sys/fs/cgroup/cpu/", "/sys/fs/cgroup/cpu,cpuacct/"}) {
    const double quota = std::atof(contents(std::string(folder) + "cpu.cfs_quota_us").c_str());
    least = std::min(least, processors(quota, std::atof(contents(std::string(folder) + "cpu.cfs_period_us").c_str())));
  }
  return least;
}

}  // namespace

unsigned cpu_count() noexcept { return unsigned(std::max(1L, ::sysconf(_SC_NPROCESSORS_CONF))); }

unsigned usable_cpu_count() noexcept {
  unsigned count = 0;
  unsigned long mask[1024 / sizeof(long)] = {};
  const long bytes = sys::call(SYS_sched_getaffinity, 0, sizeof mask, mask);
  for (long i = 0; i < bytes / long(sizeof mask[0]); ++i) count += unsigned(std::popcount(mask[i]));
  if (count == 0) count = cpu_count();
  try {
    count = std::min(count, quota_of_cgroup());
  } catch (const std::exception&) {  // no memory to ask
  }
  return std::max(count, 1u);
}

}  // namespace ringlet
