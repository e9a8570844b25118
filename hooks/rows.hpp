#pragma once
// The rows as numbers, and each row's switch.
//
// A hook asks its switch first: one predictable branch while nothing is enabled. Switches are plain bools read and
// written without order: a call that races with enable() is either hooked or not. An alias has its row's switch.

#include <cstddef>

#include "io/doors.hpp"
#include "libc.hpp"
#include "lot.hpp"
#include "untold.hpp"

namespace ringlet::hooks {

enum class row : unsigned {
#define SUSPENDS(result, name, group, parameters, arguments) name,
#define SHAPED(result, name, group, when, parameters, arguments) name,
#define VARIADIC(result, name, group, when, parameters, last, extra, arguments) name,
#define OBSERVES(result, name, group, parameters, arguments, told) name,
#define OFFLOADS(result, name, group, parameters, arguments, ends) name,
#define SPECIAL(name, group) name,
#include "calls.def"
  count_
};
inline constexpr std::size_t row_count = std::size_t(row::count_);

extern bool active[row_count];

RINGLET_UNTOLD inline bool is_active(row r) noexcept {
  return __builtin_expect(__atomic_load_n(&active[std::size_t(r)], __ATOMIC_RELAXED), false);
}

// Between vfork and exec: the child runs on the parent's memory and thread-local variables, but on descriptors of its
// own, so nothing it does may be told to io.
extern thread_local int vfork_children;

// What the column `when` says. Where nobody else could run meanwhile, nothing is gained by parking, and libc's own call is
// the better one: cheaper, and a signal ends it.
RINGLET_UNTOLD inline bool parking(row r) noexcept { return is_active(r) && io::may_suspend() && !lot::alone(); }
RINGLET_UNTOLD inline bool always(row r) noexcept { return is_active(r) && vfork_children == 0; }

// An allocator that locks must not be left in the middle by its fiber: others would enter it on the same thread's
// caches. Its locks are short, so they may block the thread. Empty where malloc is libc's (whose locks nobody can replace)
// or the program's own (which cannot be told from the program: README.md).
extern struct address_range {
  const char* begin;
  const char* end;
} allocator_code;
[[gnu::always_inline]] RINGLET_UNTOLD inline bool outside_allocator(row r) noexcept {
  if (!always(r)) return false;
  const char* caller = static_cast<const char*>(__builtin_return_address(0));
  return caller < allocator_code.begin || caller >= allocator_code.end;
}

}  // namespace ringlet::hooks
