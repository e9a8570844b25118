#pragma once
// How many processors a quota of the control groups allows; of those named in /proc/self/cgroup, below their mount. The
// greatest number if none.

#include <cstddef>
#include <string>

namespace ringlet::detail {
std::size_t processors_by_quota(const std::string& own_groups, const std::string& root);
}
