#pragma once
// libc's blocking calls, made to park the calling fiber (the symbol door). Link libringlet_hooks, or preload
// libringlet-preload.so; in a linked program nothing changes until enable() is called.
//
//   ringlet::hooks::enable();                                  // everything
//   ringlet::hooks::enable({.leave_out = "dns,recvmsg"});      // all but one group and one call

#include <span>
#include <string_view>

#include <ringlet/export.hpp>

namespace ringlet::hooks {

struct options {
  // Groups (sockets, files, time, poll, dns, locks, descriptors, processes) and single calls to leave to libc, separated by commas.
  // An unknown name makes enable() throw std::invalid_argument that lists the known ones.
  std::string_view leave_out = {};
};

// Switches the hooks on for the whole process; repeating it adds what was left out before. Any thread.
RINGLET_EXPORT void enable(const options& wanted = {});
// Switches all hooks off again: every call goes to libc. Any thread; fibers that are parked in a call stay parked.
RINGLET_EXPORT void disable() noexcept;
RINGLET_EXPORT bool enabled() noexcept;

// One hooked name. verb: how it is done ("suspends", "shaped", "observes", "offloads", "alias").
struct call {
  const char* name;
  const char* group;
  const char* verb;
  const bool* active;
};
// Every libc name that is hooked, in the table's order; valid for the life of the process.
RINGLET_EXPORT std::span<const call> calls() noexcept;

}  // namespace ringlet::hooks
