#pragma once
// The system-call door as a whole: which libraries of this process are patched, in which order, and what is said when it
// cannot be.
//
// By rule: libc (before glibc 2.34 libpthread, too), and the few libraries that make their own system calls and wait in
// them: liburing, libaio. If libc can't be patched, nothing is. Everything else stays as it is, also where it has
// `syscall` instructions: libgomp and BLAS wait by spinning on memory that only native threads write, and half a door is
// worse than none.
//
// Opened while the process has one thread. A library that is loaded later is treated by the same rule, before its
// constructors run: the loader tells (loads.hpp); where it can't, whoever calls dlopen may call treat_new_libraries. Only
// those of our own namespace: a second libc that dlmopen loads keeps its own system calls.

#include <string>
#include <string_view>
#include <vector>

#include "patch.hpp"

namespace ringlet::patch {

struct door_rule {
  number_set wanted;           // variable numbers are always wanted
  dispatcher call = nullptr;
  // Runs when everything is patched, before the program: returns what is wrong, or an empty string. Besides the door's
  // own test, which knows of one thread only.
  std::string (*test)() = nullptr;
};

// Opens it. Returns an empty string, or why not, as one line without the name of the program; then every byte is as it
// was.
std::string open_door(const door_rule& rule);
// Puts the original bytes back. Nobody may be inside a dispatcher.
void close_door();
bool is_door_open() noexcept;

// Patches what has been loaded since and falls under the rule, and forgets what has been unloaded. Returns what is to be
// said about it, or an empty string. Called by itself if are_loads_watched().
std::string treat_new_libraries();
bool are_loads_watched() noexcept;

// What was done, for reports.
const std::vector<plan>& treated_libraries();

// Does the rule name a library, by the last part of its path? And of those that it does not: why a library with system
// calls of its own is left, or an empty string if nothing is known against it.
bool is_under_rule(std::string_view path) noexcept;
std::string why_left(std::string_view path);

}  // namespace ringlet::patch
