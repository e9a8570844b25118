#pragma once
// The verbs of `ringlet`, one function each: they get their own arguments, and return the exit status.

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ringlet::launcher {

int verb_run(std::span<char* const> arguments);
int verb_info(std::span<char* const> arguments);
int verb_calls(std::span<char* const> arguments);

// One line on stderr that begins with "ringlet: "; returns the launcher's own error status.
int error(const std::string& text);

// The word that was probably meant, or empty if none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& known);
// " (did you mean 'x'?)", or nothing.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& known);

// The object that is preloaded: $RINGLET_PRELOAD, next to this program (a build tree), or where it was installed.
// Throws std::runtime_error that says where it was looked for.
std::string preload_object();

}  // namespace ringlet::launcher
