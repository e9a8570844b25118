#pragma once
// The one syntax of hooks::options::leave_out and RINGLET_LEAVE_OUT.

#include <string>
#include <string_view>
#include <vector>

#include <ringlet/hooks.hpp>

namespace ringlet::hooks {

// The calls that the text names, singly or by group; throws std::invalid_argument for a name that is neither.
std::vector<const call*> parse_leave_out(std::string_view text);
std::string known_names();

}  // namespace ringlet::hooks
