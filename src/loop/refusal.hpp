#pragma once
// Why the kernel refuses a ring, in words an operator can act on. Found out by looking (sysctl, seccomp mode, limits),
// not guessed from the errno alone.

#include <memory>
#include <optional>
#include <string>

#include "loop/engine.hpp"

namespace ringlet::loop {

struct refusal {
  std::string cause;  // "io_uring_setup: EPERM; a seccomp filter is active, as in Docker's default profile"
  std::string cure;   // one sentence
  int error = 0;      // positive errno
};

refusal diagnose(const char* call, int error);  // error: positive errno

// make_uring_engine with the cure besides the cause. Throws std::runtime_error for a bad RINGLET_RING_ENTRIES.
std::unique_ptr<engine> set_up_uring_engine(refusal&);

// A whole number from the environment; nullopt if unset or empty. Throws std::runtime_error that names the variable,
// the value and the range.
std::optional<unsigned> number_from_environment(const char* name, unsigned least, unsigned most);

}  // namespace ringlet::loop
