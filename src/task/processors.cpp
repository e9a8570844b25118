// How many processors this process may use: by affinity, and by the quota that a container sets (cgroup's cpu.max, or v1's
// cpu.cfs_quota_us), rounded up. A quota binds whoever is below it, so all groups up to the root are looked at.

#include "task/processors.hpp"

#include <ringlet/hub_threads.hpp>

#include <fcntl.h>
#include <sched.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <string_view>

#include "base/sys.hpp"

namespace ringlet {

namespace {

std::string contents_of(const std::string& path) {
  const int fd = int(sys::call(SYS_openat, AT_FDCWD, path.c_str(), O_RDONLY | O_CLOEXEC, 0));
  if (fd < 0) return {};
  std::string all;
  char part[4096];
  for (long got; (got = sys::call(SYS_read, fd, part, sizeof part)) > 0;) all.append(part, std::size_t(got));
  sys::call(SYS_close, fd);
  return all;
}

// "200000", " 100000"; none for "max", "-1" and what is no number.
std::optional<long> number_in(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  long value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && value > 0 ? std::optional(value) : std::nullopt;
}

std::size_t allowed(const std::optional<long>& quota, const std::optional<long>& period) {
  if (!quota || !period) return std::numeric_limits<std::size_t>::max();
  return std::size_t(std::max(1L, (*quota + *period - 1) / *period));
}

// Of the group and those above it.
template <class Limit>
std::size_t least_of(const std::string& root, std::string group, Limit limit) {
  std::size_t least = std::numeric_limits<std::size_t>::max();
  for (;;) {
    least = std::min(least, limit(root + group));
    const auto slash = group.rfind('/');
    if (slash == group.npos || group.empty()) return least;
    group.resize(slash);
  }
}

}  // namespace

namespace detail {

std::size_t processors_by_quota(const std::string& own_groups, const std::string& root) {
  std::size_t least = std::numeric_limits<std::size_t>::max();
  for (std::size_t at = 0; at < own_groups.size();) {
    const auto end = std::min(own_groups.find('\n', at), own_groups.size());
    const std::string line = own_groups.substr(at, end - at);  // 0::/GROUP, or 3:cpu,cpuacct:/GROUP
    at = end + 1;
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    std::string group = line.substr(second + 1);
    if (group == "/") group.clear();
    if (controllers == ",,")
      least = std::min(least, least_of(root, group, [](const std::string& path) {
                         const std::string text = contents_of(path + "/cpu.max");
                         const auto space = text.find(' ');
                         return space == text.npos ? allowed({}, {}) : allowed(number_in(text), number_in(std::string_view(text).substr(space)));
                       }));
    else if (controllers.find(",cpu,") != controllers.npos)
      for (const char* mounted : {"/cpu", "/cpu,cpuacct"})
        least = std::min(least, least_of(root + mounted, group, [](const std::string& path) {
                           return allowed(number_in(contents_of(path + "/cpu.cfs_quota_us")), number_in(contents_of(path + "/cpu.cfs_period_us")));
                         }));
  }
  return least;
}

}  // namespace detail

std::size_t usable_processors() noexcept {
  std::size_t by_affinity = 1;
  cpu_set_t usable;
  CPU_ZERO(&usable);
  if (::sched_getaffinity(0, sizeof usable, &usable) == 0) by_affinity = std::size_t(std::max(1, CPU_COUNT(&usable)));
  try {
    return std::min(by_affinity, detail::processors_by_quota(contents_of("/proc/self/cgroup"), "/sys/fs/cgroup"));
  } catch (...) {
    return by_affinity;
  }
}

}  // namespace ringlet
