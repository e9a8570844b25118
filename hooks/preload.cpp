// The constructor of libringlet-preload.so: what a program that knows nothing of us gets.
//
//   RINGLET_DISABLE=1    nothing: every call is libc's
//   RINGLET_LEAVE_OUT    groups and calls to leave to libc, as hooks::options::leave_out; a wrong value is told on stderr
//                        and counts as empty
//   RINGLET_THREADS      fibers: every thread is a fiber, by the system-call door; native: they stay as they are
//   RINGLET_DOOR         symbol: the symbol door, whatever RINGLET_THREADS says; syscall without RINGLET_THREADS=fibers: the
//                        system-call door with nothing behind it (each call is passed on: for tests of the door)
//   RINGLET_REPORT=1     what threads as fibers did, on stderr at exit
//
// It runs before main and after libc's own start, but perhaps before other libraries' constructors: no hub is made
// here, no thread, no descriptor; the main thread gets its hub when it first spawns.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

#include <ringlet/hooks.hpp>

#include "io/doors.hpp"
#ifdef RINGLET_HAVE_PATCH
#include "patch/door.hpp"
#include "threads_mode.hpp"
#endif

namespace {

// True if the system-call door was asked for and is open.
bool open_syscall_door() {
  const char* door = secure_getenv("RINGLET_DOOR");
  if (!door || std::strcmp(door, "syscall") != 0) return false;
#ifdef RINGLET_HAVE_PATCH
  const std::string closed = ringlet::patch::open_door({.wanted = ringlet::patch::number_set::all(), .call = ringlet::patch::pass_at_site});
#else
  const std::string closed = "it was built without an instruction decoder (Capstone)";
#endif
  if (closed.empty()) return true;
  std::fprintf(stderr, "ringlet: the system-call door stays closed, the symbol door is used: %s\n", closed.c_str());
  return false;
}

// True if threads are to be fibers from the first one on; the symbol door then stays closed.
bool threads_are_to_be_fibers() {
  const char* threads = secure_getenv("RINGLET_THREADS");
  const char* door = secure_getenv("RINGLET_DOOR");
  if (door && std::strcmp(door, "symbol") == 0) return false;
  if (!threads || !*threads || std::strcmp(threads, "native") == 0) return false;
  if (std::strcmp(threads, "fibers") != 0) {
    std::fprintf(stderr, "ringlet: RINGLET_THREADS=%s is not understood (fibers or native); threads stay as they are\n", threads);
    return false;
  }
#ifdef RINGLET_HAVE_PATCH
  const char* report = secure_getenv("RINGLET_REPORT");
  ringlet::hooks::want_threads_as_fibers(report && *report && std::strcmp(report, "0") != 0);
  return true;
#else
  std::fputs("ringlet: threads stay as they are, the symbol door is used: this was built without an instruction decoder (Capstone)\n", stderr);
  return false;
#endif
}

[[gnu::constructor]] void switch_on() {
  // A program with more rights than its caller must not be steered by its caller's environment.
  const char* off = secure_getenv("RINGLET_DISABLE");
  if (off && *off && std::strcmp(off, "0") != 0) return;
  if (threads_are_to_be_fibers()) return;
  if (open_syscall_door()) return;
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
