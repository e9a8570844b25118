// apply and restore: from a plan to slots and jumps.

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <optional>

#include "base/sys.hpp"
#include "decoder.hpp"
#include "patch.hpp"
#include "slots.hpp"
#include "text.hpp"
#include "windows.hpp"

#ifdef __x86_64__
extern "C" {
void ringlet_patch_entry() __attribute__((visibility("hidden")));
void ringlet_patch_entry_with_vectors() __attribute__((visibility("hidden")));
[[noreturn]] void ringlet_patch_resume(const ringlet::patch::registers*) __attribute__((visibility("hidden")));
}
#else
static void ringlet_patch_entry() {}
static void ringlet_patch_entry_with_vectors() {}
[[noreturn]] static void ringlet_patch_resume(const ringlet::patch::registers*) { __builtin_trap(); }
#endif

namespace ringlet::patch {

namespace {

using kind = instruction::kind;

// The slots of the libraries that are patched now, by their base address.
std::map<std::uint64_t, slot_area>& areas() {
  static std::map<std::uint64_t, slot_area> all;
  return all;
}

// Code that is written for a place.
class emitter {
 public:
  explicit emitter(std::uint64_t address) noexcept : address_(address) {}
  std::uint64_t here() const noexcept { return address_ + size_; }
  bool good() const noexcept { return good_; }
  std::size_t size() const noexcept { return size_; }
  const std::uint8_t* bytes() const noexcept { return bytes_.data(); }

  void put(const void* bytes, std::size_t n) noexcept {
    if (size_ + n > bytes_.size()) {
      good_ = false;
      return;
    }
    std::memcpy(bytes_.data() + size_, bytes, n);
    size_ += n;
  }
  // An instruction of which the last four bytes are the distance from its end.
  void put_with_distance(std::initializer_list<std::uint8_t> first, std::uint64_t target) noexcept {
    put(first.begin(), first.size());
    put_distance(target, 4);
  }
  // Moves an instruction here.
  void move(const instruction& i) noexcept {
    if (i.what == kind::jump) return put_with_distance({0xe9}, i.target);
    if (i.what == kind::conditional_jump) return put_with_distance({0x0f, std::uint8_t(0x80 | ((i.bytes[0] == 0x0f ? i.bytes[1] : i.bytes[0]) & 0x0f))}, i.target);
    if (!i.displacement_at) return put(i.bytes, i.size);
    put(i.bytes, i.displacement_at);
    put_distance(i.target, unsigned(i.size - i.displacement_at));
    put(i.bytes + i.displacement_at + 4, i.size - i.displacement_at - 4u);
  }

 private:
  // Four bytes, `to_end` bytes before the end of their instruction.
  void put_distance(std::uint64_t target, unsigned to_end) noexcept {
    const auto distance = std::int64_t(target - (here() + to_end));
    const auto narrow = std::int32_t(distance);
    if (narrow != distance) good_ = false;
    put(&narrow, 4);
  }
  std::array<std::uint8_t, slot_size> bytes_{};
  std::uint64_t address_;
  std::size_t size_ = 0;
  bool good_ = true;
};

// What is written for one site.
struct written_site {
  std::array<std::uint8_t, slot_size> slot{};
  std::array<std::uint8_t, 32> window{};
  std::array<std::uint8_t, long_jump_size> padding{};
};

std::optional<written_site> write_site(decoder& with, const site& s, std::uint64_t base, std::uint64_t slot, dispatcher d) {
  // The record comes first in the slot, but is known last.
  emitter code(slot + sizeof(site_record));
  const std::uint64_t syscall = base + s.address, after = syscall + 2, window = base + s.window, window_end = window + s.window_size;
  const bool keeps_syscall = s.how == shape::number_before || s.how == shape::before;

  std::vector<instruction> moved;
  for (std::uint64_t at = window; at < window_end;) {
    instruction i;
    if (!with.decode(s.original + (at - window), window_end - at, at, i)) return std::nullopt;
    moved.push_back(i);
    at = i.end();
  }
  for (const auto& i : moved)
    if (i.address < syscall) code.move(i);
  code.put_with_distance({0x48, 0x8d, 0x0d}, slot);                                     // lea record, %rcx
  code.put_with_distance({0xff, 0x25}, slot + offsetof(site_record, entry));            // jmp *entry

  site_record record{after, after, syscall, d, 0};
  record.entry = std::uint64_t(s.has_vectors ? &ringlet_patch_entry_with_vectors : &ringlet_patch_entry);
  if (!keeps_syscall) {
    record.pass = code.here();
    const std::uint8_t instruction_bytes[] = {0x0f, 0x05};
    code.put(instruction_bytes, 2);
    if (s.how != shape::padding) record.on = code.here();
    bool goes_on = true;
    for (const auto& i : moved) {
      if (i.address < after) continue;
      code.move(i);
      goes_on = i.what != kind::jump && i.what != kind::ret && i.what != kind::stop;
    }
    if (goes_on) code.put_with_distance({0xe9}, window_end);
  }
  if (!code.good() || sizeof record + code.size() > slot_size) return std::nullopt;

  written_site w;
  w.slot.fill(0xcc);
  std::memcpy(w.slot.data(), &record, sizeof record);
  std::memcpy(w.slot.data() + sizeof record, code.bytes(), code.size());

  // What is left of the window traps: nothing should ever come there.
  w.window.fill(0xcc);
  const std::uint64_t in = slot + sizeof(site_record), jump_at = s.how == shape::padding ? base + s.padding : window;
  emitter jump(jump_at);
  jump.put_with_distance({0xe9}, in);
  if (!jump.good()) return std::nullopt;
  if (s.how == shape::padding) {
    std::memcpy(w.padding.data(), jump.bytes(), long_jump_size);
    w.window[0] = 0xeb;
    w.window[1] = std::uint8_t(std::int8_t(s.padding - (s.address + short_jump_size)));
  } else {
    std::memcpy(w.window.data(), jump.bytes(), long_jump_size);
  }
  return w;
}

std::string system_says(int error) { return std::string(strerrordesc_np(error) ? strerrordesc_np(error) : "?") + " (" + (strerrorname_np(error) ? strerrorname_np(error) : "?") + ")"; }

std::string fail(plan& p, const std::string& reason) {
  p.refused = reason;
  return reason;
}

// All that is written into a library, by address, and the range that it lies in.
struct library_edits {
  std::vector<edit> list;
  std::uint64_t begin() const noexcept { return list.front().address; }
  std::uint64_t end() const noexcept { return list.back().address + list.back().size; }
  void sort() { std::sort(list.begin(), list.end(), [](const edit& a, const edit& b) { return a.address < b.address; }); }
};

library_edits original_edits(const plan& p) {
  library_edits edits;
  for (const auto& s : p.sites) {
    if (s.how == shape::none) continue;
    edits.list.push_back({p.base + s.window, s.original, s.window_size});
    if (s.how == shape::padding) edits.list.push_back({p.base + s.padding, s.original_padding, long_jump_size});
  }
  edits.sort();
  return edits;
}

}  // namespace

std::string apply(plan& p, dispatcher d) {
  if (!p.refused.empty()) return p.refused;
  if (p.applied) return "";
  if (!p.loaded) return fail(p, "it is a file, not a loaded library");
  const library_edits before = original_edits(p);
  if (before.list.empty()) {
    p.applied = true;
    return "";
  }
  for (const auto& e : before.list)
    if (std::memcmp(reinterpret_cast<const void*>(e.address), e.bytes, e.size) != 0) return fail(p, "its code is not what it was when it was looked at: somebody else patches it");

  slot_area area;
  const auto count = std::size_t(std::count_if(p.sites.begin(), p.sites.end(), [](const site& s) { return s.how != shape::none; }));
  if (!area.reserve(before.begin(), before.end(), count)) return fail(p, "no room for slots within two gigabytes of it");

  decoder with;
  std::vector<written_site> written;
  written.reserve(count);
  std::vector<edit> slots;
  library_edits jumps;
  for (const auto& s : p.sites) {
    if (s.how == shape::none) continue;
    const std::uint64_t slot = area.slot(written.size());
    auto w = write_site(with, s, p.base, slot, d);
    if (!w) {
      area.give_back();
      return fail(p, "an instruction that must be moved does not fit into its slot");
    }
    written.push_back(*w);
    const auto& kept = written.back();  // stays: the room was reserved
    slots.push_back({slot, kept.slot.data(), slot_size});
    jumps.list.push_back({p.base + s.window, kept.window.data(), s.window_size});
    if (s.how == shape::padding) jumps.list.push_back({p.base + s.padding, kept.padding.data(), long_jump_size});
  }
  jumps.sort();

  // The slots first: if code can't be written here, it is found out on pages that nobody executes. What was possible for
  // them is the way for the library, too.
  way used{};
  if (const int error = write_text(area.begin(), area.begin() + area.size_bytes(), slots, area.is_mapped(), used); error != 0) {
    area.give_back();
    return fail(p, "code can be written neither in place nor by a copy in a memfd: " + system_says(-error));
  }
  area.register_frames();
  if (const int error = write_text(jumps.begin(), jumps.end(), jumps.list, used == way::by_copy, used); error != 0) {
    area.give_back();
    return fail(p, "its code cannot be written: " + system_says(-error));
  }
  areas()[p.base] = area;
  p.applied = true;
  p.how_written = used == way::in_place ? "in place" : "by a patched copy";
  return "";
}

std::string restore(plan& p) {
  if (!p.applied) return "";
  const library_edits before = original_edits(p);
  way used{};
  if (!before.list.empty())
    if (const int error = write_text(before.begin(), before.end(), before.list, p.how_written != "in place", used); error != 0) return "its code cannot be restored: " + system_says(-error);
  p.applied = false;
  if (const auto found = areas().find(p.base); found != areas().end()) {
    found->second.give_back();
    areas().erase(found);
  }
  return "";
}

void forget(const plan& p) {
  const auto found = areas().find(p.base);
  if (!p.applied || found == areas().end()) return;
  found->second.give_back();
  areas().erase(found);
}

#ifdef __x86_64__
// Left by a jump: kernels that mitigate Retbleed and its like come back with the processor's memory of return addresses
// cleared, and a `ret` that is mispredicted costs as much as all the rest.
[[gnu::naked]] void pass_through(registers&) noexcept {
  asm(R"(
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    movq %rdi, %rbx
    movq 96(%rbx), %rax
    movq 80(%rbx), %rsi
    movq 88(%rbx), %rdx
    movq 48(%rbx), %r10
    movq 64(%rbx), %r8
    movq 56(%rbx), %r9
    movq 72(%rbx), %rdi
    syscall
    movq %rax, 96(%rbx)
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    popq %rcx
    .cfi_adjust_cfa_offset -8
    .cfi_register %rip, %rcx
    jmpq *%rcx
  )");
}
#else
void pass_through(registers& r) noexcept {
  r.rax = std::uint64_t(sys::call(long(r.rax), r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9));
}
#endif

void pass_at_site(registers& r) noexcept { r.rip = r.site->pass; }

void resume(const registers& r) noexcept { ringlet_patch_resume(&r); }

std::uint64_t address_of_site(const registers& r) noexcept { return r.site->after; }

}  // namespace ringlet::patch
