// The order of preference is by how little changes:
//
//   number_before, before  the `syscall` itself stays, so a call that is passed at the site is made by libc's own
//                          instruction; glibc 2.41's cancellation looks at that address
//   padding                nothing is moved, but bytes between functions are used
//   after, around          the `syscall` is written over and made by the slot
//
// Instructions that move the stack pointer are never moved to a slot: the unwind information of slots says that the
// stack is as the site's function has it at the `syscall`.

#include "windows.hpp"

#include <cstring>
#include <optional>

namespace ringlet::patch {

namespace {

using kind = instruction::kind;
constexpr std::size_t most_moved = 4;       // instructions on either side
constexpr unsigned most_window_bytes = 24;  // what they may be together

bool ends_flow(const instruction& i) noexcept { return i.what == kind::jump || i.what == kind::ret || i.what == kind::stop || i.what == kind::indirect_jump; }

struct window {
  std::uint64_t begin, end;
};

std::optional<window> before(const body& b, std::size_t at, flow& in, const taken_ranges& taken) {
  const std::uint64_t syscall = b.instructions[at].address;
  for (std::size_t n = 1; n <= most_moved && n <= at; ++n) {
    const auto& first = b.instructions[at - n];
    if (!can_move_before(first)) return std::nullopt;
    const std::uint64_t begin = first.address;
    // Whoever jumps to the `syscall` itself would not be seen, so its address counts as inside.
    if (!in.is_straight(begin, syscall + 1)) return std::nullopt;
    if (syscall - begin < long_jump_size) continue;
    return taken.is_free(begin, syscall) ? std::optional(window{begin, syscall}) : std::nullopt;
  }
  return std::nullopt;
}

// The end of a window that begins at or before the syscall and holds it.
std::optional<window> over(const body& b, std::size_t first, std::size_t at, flow& in, const taken_ranges& taken) {
  const std::uint64_t begin = b.instructions[first].address;
  for (std::size_t i = first; i < at; ++i)
    if (!can_move_before(b.instructions[i])) return std::nullopt;
  for (std::size_t n = 0; n <= most_moved && at + n < b.instructions.size(); ++n) {
    const auto& last = b.instructions[at + n];
    if (n > 0 && !can_move_after(last)) return std::nullopt;
    if (!in.is_straight(begin, last.end())) return std::nullopt;
    if (last.end() - begin >= long_jump_size) return taken.is_free(begin, last.end()) ? std::optional(window{begin, last.end()}) : std::nullopt;
    if (n > 0 && ends_flow(last)) return std::nullopt;
  }
  return std::nullopt;
}

// Five bytes of padding within a short jump's reach: no-operations between functions, or inside this one behind an
// instruction after which nothing follows. Nothing executes them.
std::optional<std::uint64_t> padding_near(const image& of, flow& in, const body& b, std::uint64_t syscall, const taken_ranges& taken) {
  const std::uint64_t from = syscall + short_jump_size;
  auto usable = [&](std::uint64_t begin) {
    const auto* bytes = of.at(begin, long_jump_size);
    const auto distance = std::int64_t(begin - from);
    return bytes && distance >= -128 && distance <= 127 && !in.is_entered(begin) && in.is_straight(begin, begin + long_jump_size) && taken.is_free(begin, begin + long_jump_size);
  };
  for (std::size_t i = 0; i + 1 < b.instructions.size(); ++i) {
    if (!ends_flow(b.instructions[i])) continue;
    std::size_t last = i + 1;
    while (last < b.instructions.size() && b.instructions[last].what == kind::nop && !in.is_entered(b.instructions[last].address)) ++last;
    const std::uint64_t begin = b.instructions[i].end(), end = b.instructions[last - 1].end();
    if (last > i + 1 && end - begin >= long_jump_size && usable(begin)) return begin;
  }
  // The gap behind this function, and the one before it.
  const auto& all = of.functions();
  const auto own = std::size_t(b.range - all.data());
  auto gap = [&](std::uint64_t begin, std::uint64_t end) -> std::optional<std::uint64_t> {
    if (end < begin + long_jump_size || end - begin > 15 || !of.at(begin, end - begin)) return std::nullopt;
    for (std::uint64_t a = begin; a < end; ++a)
      if (in.is_entered(a)) return std::nullopt;
    return usable(begin) && is_padding(of.at(begin, end - begin), end - begin) ? std::optional(begin) : std::nullopt;
  };
  if (own + 1 < all.size())
    if (const auto found = gap(b.range->end, all[own + 1].begin)) return found;
  if (own > 0)
    if (const auto found = gap(all[own - 1].end, b.range->begin)) return found;
  return std::nullopt;
}

}  // namespace

bool taken_ranges::is_free(std::uint64_t begin, std::uint64_t end) const noexcept {
  for (const auto& [b, e] : ranges_)
    if (begin < e && b < end) return false;
  return true;
}

bool can_move_before(const instruction& i) noexcept { return (i.what == kind::plain || i.what == kind::nop) && !i.changes_stack_pointer; }

bool can_move_after(const instruction& i) noexcept {
  if (i.what == kind::jump || i.what == kind::ret || i.what == kind::stop) return true;
  // Only jcc has a long form.
  if (i.what == kind::conditional_jump) return (i.bytes[0] & 0xf0) == 0x70 || i.bytes[0] == 0x0f;
  return can_move_before(i);
}

namespace {
bool choose(site& s, const image& of, taken_ranges& taken, shape how, const window& w) {
  const auto* bytes = of.at(w.begin, w.end - w.begin);
  if (!bytes || w.end - w.begin > most_window_bytes) return false;
  std::memcpy(s.original, bytes, w.end - w.begin);
  s.how = how;
  s.window = w.begin;
  s.window_size = std::uint8_t(w.end - w.begin);
  taken.take(w.begin, w.end);
  return true;
}
}  // namespace

bool choose_window_before(site& s, const image& of, flow& in, const body& b, std::size_t at, taken_ranges& taken) {
  const auto w = before(b, at, in, taken);
  if (!w) return false;
  const auto& last = b.instructions[at - 1];
  return choose(s, of, taken, last.number && last.address == w->begin && last.size == long_jump_size ? shape::number_before : shape::before, *w);
}

bool choose_other_window(site& s, const image& of, flow& in, const body& b, std::size_t at, taken_ranges& taken) {
  if (const auto place = padding_near(of, in, b, s.address, taken)) {
    s.padding = *place;
    std::memcpy(s.original_padding, of.at(*place, long_jump_size), long_jump_size);
    taken.take(*place, *place + long_jump_size);
    return choose(s, of, taken, shape::padding, {s.address, s.address + short_jump_size});
  }
  for (std::size_t n = 0; n <= most_moved && n <= at; ++n)
    if (const auto w = over(b, at - n, at, in, taken); w && choose(s, of, taken, n == 0 ? shape::after : shape::around, *w)) return true;
  return false;
}

}  // namespace ringlet::patch
