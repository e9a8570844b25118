#pragma once
// Starting a program in a child that shares our memory until exec. See start.cpp.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <sys/types.h>

namespace ringlet::detail {

// All that the child needs, made ready by the parent: it may not allocate.
struct start_plan {
  std::vector<std::string> candidates;  // paths to be tried in turn
  std::vector<const char*> arguments;   // null at the end
  std::vector<const char*> environment;
  int streams[3] = {-1, -1, -1};        // -1: as it is
  const char* directory = nullptr;
  std::vector<int> keep_fds;
  bool new_session = false;
  bool set_group = false;
  pid_t group = 0;
  bool die_with_parent = false;
  bool keep_signals = false;
  std::uint64_t ignored = 0;  // beneath a handler of ours: ignored in the program, too. Bit 0 is signal 1
};

struct start_result {
  pid_t pid = -1;
  int pidfd = -1;  // close-on-exec
  int error = 0;   // an errno: there is no child
  const char* step = "";
};

// Blocks the thread until the child has reached its new program, or has failed.
start_result start_program(const start_plan&) noexcept;

// The signals that were ignored until somebody began to listen for them (signals.cpp).
std::uint64_t ignored_beneath_listeners() noexcept;

}  // namespace ringlet::detail
