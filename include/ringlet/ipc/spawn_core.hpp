#pragma once
// What of spawned processes does not depend on the types of their arguments; users include ipc/spawn.hpp.

#include <cstdint>
#include <string>
#include <string_view>

#include <ringlet/export.hpp>

namespace ringlet::ipc {

namespace detail {
using spawned_function = int (*)(std::string_view arguments);
// Where it lies in the program, which is the same in another process of it. std::logic_error if it is not the program's.
RINGLET_EXPORT std::uint64_t place_in_program(const void* function);
RINGLET_EXPORT const void* function_at(std::uint64_t place);
// Executes this program; throws std::system_error if that fails.
[[noreturn]] RINGLET_EXPORT int execute_again(std::uint64_t place, const std::string& arguments);
}  // namespace detail

// In a process that was started by spawned: runs its function and ends the program with what that returns. Else nothing.
RINGLET_EXPORT void run_if_spawned();

}  // namespace ringlet::ipc
