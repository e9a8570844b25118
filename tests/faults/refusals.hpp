#pragma once
// The kernel refuses: chosen system calls of this process fail now and then, whoever makes them and however.
//
// A seccomp filter turns the chosen numbers into SIGSYS; the handler refuses each nth and makes the others itself, from
// the one place that the filter lets through. Nothing of libc takes part, so it works beneath ringlet's doors as well.
// SIGSYS must never be blocked, or the kernel kills: so calls that change the mask are among the chosen, and lose that
// bit. What makes a new thread cannot be made from a handler: clone and clone3 are refused always, by the filter
// itself.
//
// x86-64; elsewhere, and where filters are refused, install_refusals says false.

#include <string_view>
#include <vector>

namespace faults {

struct refusal_rule {
  long number;              // of the system call
  int error;                // what it fails with
  unsigned long every = 1;  // each so-manieth
  unsigned long from = 1;   // not before so many
  unsigned long most = ~0ul;
};

// A rule as text, "io_uring_enter:EAGAIN:3", "eventfd2:EMFILE:1:2" (every, from, most). Exits with 2 if it is not
// understood.
refusal_rule parse_rule(std::string_view);
bool install_refusals(const std::vector<refusal_rule>&);
unsigned long refusals_made();

}  // namespace faults
