#pragma once
// The program to be started: where it is, and why it might not be reached by a preloaded library.
//
// LD_PRELOAD fails silently: a static program, a setuid one, one of another libc simply runs without us, and its user
// finds out much later. So the launcher looks first, and refuses with reason and cure. What it does not find wrong it
// leaves to execve(2), which is the judge.

#include <optional>
#include <string>

namespace ringlet::launcher {

// Exit statuses as env(1) and timeout(1) have them.
enum : int { status_own_error = 125, status_cannot_execute = 126, status_not_found = 127 };

struct refusal {
  int status;
  std::string reason;  // "it is a static program", continues "cannot run 'x': "
  std::string cure;    // a sentence, or empty
};

struct found_program {
  std::string path;
  std::optional<refusal> refused;
};
// Searches PATH as execvp(3) does.
found_program find_program(const std::string& name);

// Why the hooks would not work in this file, or nothing. Follows #! to the interpreters.
std::optional<refusal> why_not_hookable(const std::string& path);

// Would executing the file make the kernel drop LD_PRELOAD (a change of user, group or capabilities)? The reason, or
// empty.
std::string secure_execution(const std::string& path);

}  // namespace ringlet::launcher
