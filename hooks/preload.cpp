// The constructor of libringlet-preload.so: what a program that knows nothing of us gets.
//
//   RINGLET_DISABLE=1    nothing: every call is libc's
//   RINGLET_LEAVE_OUT    groups and calls to leave to libc, as hooks::options::leave_out; a wrong value is told on stderr
//                        and counts as empty
//
// It runs before main and after libc's own start, but perhaps before other libraries' constructors: no hub is made
// here, no thread, no descriptor; the main thread gets its hub when it first spawns.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include <ringlet/hooks.hpp>

#include "io/doors.hpp"

namespace {

[[gnu::constructor]] void switch_on() {
  // A program with more rights than its caller must not be steered by its caller's environment.
  const char* off = secure_getenv("RINGLET_DISABLE");
  if (off && *off && std::strcmp(off, "0") != 0) return;
  const char* leave_out = secure_getenv("RINGLET_LEAVE_OUT");
  try {
    ringlet::hooks::enable({.leave_out = leave_out ? leave_out : ""});
  } catch (const std::exception& e) {
    std::fprintf(stderr, "ringlet: RINGLET_LEAVE_OUT=%s is not understood, nothing is left out: %s\n", leave_out, e.what());
    ringlet::hooks::enable();
  }
  ringlet::io::adopt_thread();
}

}  // namespace
