#pragma once
// Where at a site a jump can be written, and whether an instruction may be moved to a slot.

#include <cstdint>
#include <set>

#include "flow.hpp"
#include "patch.hpp"

namespace ringlet::patch {

constexpr unsigned long_jump_size = 5, short_jump_size = 2;

// Bytes that are written over already, so that windows of neighbours don't overlap.
class taken_ranges {
 public:
  bool is_free(std::uint64_t begin, std::uint64_t end) const noexcept;
  void take(std::uint64_t begin, std::uint64_t end) { ranges_.insert({begin, end}); }

 private:
  std::set<std::pair<std::uint64_t, std::uint64_t>> ranges_;
};

// Is the instruction the same when it stands elsewhere (its rip-relative operand or target adjusted)?
bool can_move_before(const instruction& i) noexcept;
bool can_move_after(const instruction& i) noexcept;

// Chooses the site's window (how, window, window_size, padding). `at` is the index of its `syscall` in the body.
// First for all sites of a library the ones in front, which may not lose their instructions to a neighbour's.
bool choose_window_before(site& s, const image& of, flow& in, const body& b, std::size_t at, taken_ranges& taken);
bool choose_other_window(site& s, const image& of, flow& in, const body& b, std::size_t at, taken_ranges& taken);

}  // namespace ringlet::patch
