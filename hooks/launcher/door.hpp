#pragma once
// What the system-call door would do with a program: which of its libraries would be patched, at how many sites, and why
// not, if not. Looked up in the files; nothing is executed or changed.

#include <string>
#include <vector>

namespace ringlet::launcher {

// Prints it. `files` are the program and its libraries, libc's too. `each_site`: a line for every system call found.
void tell_door(const std::vector<std::string>& files, bool each_site);

}  // namespace ringlet::launcher
