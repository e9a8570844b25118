#include "flow.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace ringlet::patch {

namespace {

using kind = instruction::kind;

constexpr std::size_t most_table_entries = 4096;
constexpr int most_sweeps = 6;

// First bytes of a lea, a call, a long jump, a long conditional one.
constexpr auto may_branch = [] {
  std::array<bool, 256> table{};
  for (const int byte : {0x8d, 0xe8, 0xe9, 0x0f}) table[std::size_t(byte)] = true;
  return table;
}();

std::int32_t displacement(const std::uint8_t* bytes) noexcept {
  std::int32_t d;
  std::memcpy(&d, bytes, sizeof d);
  return d;
}

}  // namespace

// From the begin, one instruction behind the other. Where the next would cover a boundary, what lies before that is a
// filler, if nothing falls into it: behind a call that does not return, assemblers put any bytes (in glibc 2.41's
// ____longjmp_chk: 05 05 05).
body flow::sweep(const function_range& f, const std::set<std::uint64_t>& boundaries) const {
  body b;
  b.range = &f;
  const auto* bytes = image_.at(f.begin, f.end - f.begin);
  if (!bytes) return b;
  std::uint64_t at = f.begin;
  auto boundary = boundaries.upper_bound(at);
  for (instruction one; at < f.end; at = one.end()) {
    while (boundary != boundaries.end() && *boundary <= at) ++boundary;
    const std::uint64_t next = boundary == boundaries.end() ? f.end : *boundary;
    if (!decoder_.decode(bytes + (at - f.begin), f.end - at, at, one) || one.end() > next) {
      if (b.instructions.empty() || next == f.end || next - at > 15) return b;
      const kind before = b.instructions.back().what;
      if (before != kind::call && before != kind::indirect_call && before != kind::jump && before != kind::indirect_jump && before != kind::ret && before != kind::stop) return b;
      one = {};
      one.address = at;
      one.bytes = bytes + (at - f.begin);
      one.size = std::uint8_t(next - at);
      one.what = kind::stop;
      b.instructions.push_back(one);
      continue;
    }
    b.has_vectors |= one.has_vectors;
    b.has_wide_vectors |= one.has_wide_vectors;
    b.jumps_away |= one.branches() && one.what != kind::call && (one.target < f.begin || one.target >= f.end);
    b.instructions.push_back(one);
  }
  b.whole = at == f.end;
  return b;
}

// A function's own branches tell where instructions begin; if that is not where they were found, once more.
body flow::decode(const function_range& f) const {
  std::set<std::uint64_t> boundaries;
  for (const auto pad : f.landing_pads)
    if (pad > f.begin && pad < f.end) boundaries.insert(pad);
  for (int i = 0; i < most_sweeps; ++i) {
    body b = sweep(f, boundaries);
    std::set<std::uint64_t> wanted = boundaries;
    bool all_met = true;
    for (const auto& one : b.instructions) {
      if (!one.branches() || one.target <= f.begin || one.target >= f.end || !wanted.insert(one.target).second) continue;
      const auto met = std::lower_bound(b.instructions.begin(), b.instructions.end(), one.target, [](const instruction& o, std::uint64_t a) { return o.address < a; });
      all_met &= met != b.instructions.end() && met->address == one.target;
    }
    if (all_met) return b;
    boundaries = std::move(wanted);
  }
  body b = sweep(f, boundaries);
  b.whole = false;
  return b;
}

void flow::explore(const std::vector<std::uint64_t>& addresses) {
  for (const auto address : addresses) {
    const auto* f = image_.function_at(address);
    if (f && !bodies_.contains(f->begin)) bodies_.emplace(f->begin, decode(*f));
  }
  note_insides(addresses);
  for (const auto& [begin, b] : bodies_) {
    entered_.insert(begin);
    for (const auto pad : b.range->landing_pads) entered_.insert(pad);
    enter_from(b);
  }
  for (const auto& [address, name] : image_.exported()) enter_surely(address);
  enter_from_elsewhere();
  enter_from_data();
  doubt_boundaries();
}

void flow::enter_surely(std::uint64_t address) {
  entered_.insert(address);
  if (is_inside(address)) surely_entered_.insert(address);
}

void flow::doubt_boundaries() {
  for (const auto address : surely_entered_) {
    auto& b = bodies_.at(image_.function_at(address)->begin);
    const auto met = std::lower_bound(b.instructions.begin(), b.instructions.end(), address, [](const instruction& i, std::uint64_t a) { return i.address < a; });
    if (met == b.instructions.end() || met->address != address) b.whole = false;
  }
}

void flow::enter_from(const body& b) {
  for (const auto& i : b.instructions) {
    if (i.branches()) enter_surely(i.target);
    // An address of code that is loaded (a label, a pointer to a function) may be jumped to from anywhere.
    if (i.loads_address && image_.is_code(i.target)) enter_surely(i.target);
  }
}

void flow::note_insides(const std::vector<std::uint64_t>& addresses) {
  if (bodies_.empty()) return;
  inside_begin_ = bodies_.begin()->first;
  inside_.assign(bodies_.rbegin()->second.range->end - inside_begin_, false);
  for (const auto address : addresses) {
    const auto* f = image_.function_at(address);
    if (!f) continue;
    const std::uint64_t begin = std::max(f->begin + 1, address - std::min(address, known_before)), end = std::min(f->end, address + known_behind);
    for (std::uint64_t a = begin; a < end; ++a) inside_[a - inside_begin_] = true;
  }
}

// GCC's and Clang's tables hold, for each case, the distance of its code from the table's own beginning; the function
// loads that beginning with lea. Where a table ends is not written anywhere: we read on while the entries point to code,
// which can only find too many.
void flow::enter_table(std::uint64_t table) {
  for (std::size_t n = 0; n < most_table_entries; ++n) {
    const auto* entry = image_.at(table + n * 4, 4);
    if (!entry) return;
    const auto target = table + std::uint64_t(std::int64_t(displacement(entry)));
    if (!image_.is_code(target)) return;
    if (is_inside(target)) entered_.insert(target);
  }
}

// Relocated pointers: in a loaded library they are in place; in a file they are addends of the relocation table, or in
// place, too.
void flow::enter_from_data() {
  for (const auto& segment : image_.segments()) {
    if (segment.executable) continue;
    const auto* data = image_.at(segment.begin, segment.end - segment.begin);
    if (!data) continue;
    for (std::uint64_t i = 0; i + 8 <= segment.end - segment.begin; i += 8) {
      std::uint64_t word;
      std::memcpy(&word, data + i, sizeof word);
      if (is_inside(word)) entered_.insert(word);
      if (image_.loaded() && is_inside(word - image_.base())) entered_.insert(word - image_.base());
    }
  }
}

const body& flow::body_of(const function_range& f) {
  if (const auto own = bodies_.find(f.begin); own != bodies_.end()) return own->second;
  auto at = others_.find(f.begin);
  if (at == others_.end()) at = others_.emplace(f.begin, decode(f)).first;
  return at->second;
}

bool flow::has_wide_vectors(const body& b) {
  if (b.has_wide_vectors) return true;
  if (!b.jumps_away) return false;
  for (const auto& i : b.instructions) {
    if (!i.branches() || i.what == kind::call) continue;
    // To the begin of another function: a tail call, where no vector register is alive but arguments.
    const auto* other = image_.function_at(i.target);
    if (other && other != b.range && other->begin != i.target && body_of(*other).has_wide_vectors) return true;
  }
  return false;
}

flow::answer flow::is_branch(std::uint64_t source, std::uint64_t target) {
  const auto* f = image_.function_at(source);
  if (!f) return answer::unknown;  // code that no table describes
  const body& b = body_of(*f);
  if (!b.whole) return answer::unknown;
  auto i = std::lower_bound(b.instructions.begin(), b.instructions.end(), source, [](const instruction& one, std::uint64_t a) { return one.address < a; });
  // A prefix (bnd, a hint, notrack) may stand before what we took for the first byte.
  if (i == b.instructions.end() || i->address != source) {
    if (i == b.instructions.begin()) return answer::no;
    --i;
  }
  return i->branches() && i->target == target ? answer::yes : answer::no;
}

bool flow::is_entered(std::uint64_t address) {
  if (entered_.contains(address)) return true;
  const auto [first, last] = perhaps_entered_.equal_range(address);
  for (auto i = first; i != last; ++i) {
    if (is_branch(i->second, address) == answer::no) continue;  // of what is unknown we believe the worst
    entered_.insert(address);
    return true;
  }
  perhaps_entered_.erase(first, last);
  return false;
}

// All code is searched for bytes that would be a branch into one of our functions, wherever an instruction might begin;
// the few that are found near a site are looked at with the decoder when somebody asks. Decoding everything would take
// a hundred times as long.
void flow::enter_from_elsewhere() {
  for (const auto& segment : image_.segments()) {
    if (!segment.executable) continue;
    const std::uint64_t size = segment.end - segment.begin;
    const auto* code = image_.at(segment.begin, size);
    if (!code) continue;
    for (std::uint64_t i = 0; i + 6 <= size; ++i) {
      if (!may_branch[code[i]]) continue;
      std::uint64_t at_distance;
      if (code[i] == 0x8d && (code[i + 1] & 0xc7) == 0x05) {  // lea of a rip-relative operand
        enter_table(segment.begin + i + 6 + std::uint64_t(std::int64_t(displacement(code + i + 2))));
        continue;
      }
      if (code[i] == 0xe8 || code[i] == 0xe9) at_distance = i + 1;
      else if ((code[i + 1] & 0xf0) == 0x80) at_distance = i + 2;
      else continue;
      const std::uint64_t target = segment.begin + at_distance + 4 + std::uint64_t(std::int64_t(displacement(code + at_distance)));
      if (is_inside(target)) perhaps_entered_.emplace(target, segment.begin + i);
    }
    // Short branches reach no further than a neighbour.
    for (const auto& [begin, b] : bodies_) {
      if (begin < segment.begin || b.range->end > segment.end) continue;
      const std::uint64_t first = begin - segment.begin, last = b.range->end - segment.begin;
      for (std::uint64_t i = first > 130 ? first - 130 : 0; i + 2 <= std::min(size, last + 130); ++i) {
        if (i == first) i = last;  // its own are known
        if (i + 2 > size) break;
        if (code[i] != 0xeb && (code[i] & 0xf0) != 0x70 && (code[i] & 0xfc) != 0xe0) continue;
        const std::uint64_t target = i + 2 + std::uint64_t(std::int64_t(std::int8_t(code[i + 1])));
        if (target > first && target < last && is_inside(segment.begin + target)) perhaps_entered_.emplace(segment.begin + target, segment.begin + i);
      }
    }
  }
}

bool flow::is_straight(std::uint64_t begin, std::uint64_t end) {
  for (std::uint64_t a = begin + 1; a < end; ++a)
    if (is_entered(a)) return false;
  return true;
}

}  // namespace ringlet::patch
