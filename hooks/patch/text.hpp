#pragma once
// Writes over code that is mapped, never writable and executable at once.
//
// In place, where the system lets code that was written to become executable again: perf and /proc/self/maps go on
// showing the library's file. Elsewhere (PR_SET_MDWE, SELinux without execmod) a copy of the pages is made in a memfd,
// changed there, and mapped over the original: one system call, and nothing was ever both.
//
// In place, the pages are not executable for a moment, and they may be libc's: what runs then is only our own code and
// raw system calls, with signals blocked.

#include <cstdint>
#include <span>

namespace ringlet::patch {

struct edit {
  std::uint64_t address;
  const std::uint8_t* bytes;
  std::uint32_t size;
};

enum class way : std::uint8_t { in_place, by_copy };

// Makes all edits, which are sorted by address and lie in [begin, end), code that is mapped readable and executable.
// Tries in place unless `only_by_copy`. 0, or -errno and nothing is changed; `used` says how it was done.
int write_text(std::uint64_t begin, std::uint64_t end, std::span<const edit> edits, bool only_by_copy, way& used) noexcept;

}  // namespace ringlet::patch
