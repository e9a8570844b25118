#include "calls.hpp"

#include <cstdio>
#include <cstdlib>  // __GLIBC_PREREQ, which some rows ask
#include <string>

#include "verbs.hpp"

namespace ringlet::launcher {

namespace {
constexpr hooked_call table[] = {
#define SUSPENDS(result, name, group, ...) {#name, #group, "suspends", {}},
#define SHAPED(result, name, group, ...) {#name, #group, "shaped", {}},
#define VARIADIC(result, name, group, ...) {#name, #group, "shaped", {}},
#define OBSERVES(result, name, group, ...) {#name, #group, "observes", {}},
#define OFFLOADS(result, name, group, ...) {#name, #group, "offloads", {}},
#define ALIAS(name, of) {#name, {}, "alias", #of},
#define ALIAS_UNDECLARED(name, of) {#name, {}, "alias", #of},
#define SPECIAL(name, group) {#name, #group, "observes", {}},
#include "../calls.def"
};

const char help[] =
    "usage: ringlet calls\n"
    "\n"
    "Lists the calls of libc that are hooked: name, group, and how.\n"
    "\n"
    "  suspends  the fiber is parked until the kernel has the answer\n"
    "  shaped    the same, in other words: descriptor sets, remainders, locks\n"
    "  offloads  the kernel has no such operation: a helper thread does it while the fiber is parked\n"
    "  observes  goes to libc; what became of the descriptor is remembered\n"
    "  alias     another name of the call that is named beside it\n"
    "\n"
    "Groups and names (not of aliases) are what `ringlet run --leave-out` takes.\n";
}  // namespace

std::span<const hooked_call> hooked_calls() noexcept { return table; }

const hooked_call* find_hooked(std::string_view name) noexcept {
  for (const auto& call : table)
    if (call.name == name) return &call;
  return nullptr;
}

int verb_calls(std::span<char* const> arguments) {
  if (!arguments.empty()) {
    const std::string_view first = arguments[0];
    if (first == "--help" || first == "-h") return std::fputs(help, stdout), 0;
    return error("calls: it takes no arguments, '" + std::string(first) + "' is one");
  }
  for (const auto& call : table) {
    const auto* row = call.alias_of.empty() ? &call : find_hooked(call.alias_of);
    std::printf("%-26s %-12s %s%s%s\n", call.name.data(), row ? row->group.data() : "", call.verb.data(),
                call.alias_of.empty() ? "" : " of ", call.alias_of.empty() ? "" : call.alias_of.data());
  }
  return 0;
}

}  // namespace ringlet::launcher
