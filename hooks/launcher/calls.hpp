#pragma once
// The names that the symbol door replaces, read from its table. (The hooks themselves are not linked into the launcher:
// they would replace its own calls.)

#include <span>
#include <string_view>

namespace ringlet::launcher {

struct hooked_call {
  std::string_view name, group, verb;
  std::string_view alias_of;  // the row whose group and switch it shares, or empty
};
std::span<const hooked_call> hooked_calls() noexcept;

// The row of that name, or null.
const hooked_call* find_hooked(std::string_view name) noexcept;

}  // namespace ringlet::launcher
