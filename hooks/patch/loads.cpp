#include "loads.hpp"

#include <array>
#include <cstring>
#include <link.h>

#include "image.hpp"
#include "slots.hpp"
#include "text.hpp"

namespace ringlet::patch {

namespace {

constexpr unsigned jump_size = 5;

struct watch {
  std::uint64_t place = 0;  // of the jump, 0: not watching
  std::array<std::uint8_t, jump_size> original{};
  slot_area area;
  void (*then)() = nullptr;
};
watch& the_watch() {
  static watch* one = new watch;
  return *one;
}

// In place of the loader's empty function.
void loader_says() {
  if (_r_debug.r_state == r_debug::RT_CONSISTENT) the_watch().then();
}

bool write(std::uint64_t place, const std::uint8_t* bytes) {
  const edit one{place, bytes, jump_size};
  way used{};
  return write_text(place, place + jump_size, {&one, 1}, false, used) == 0;
}

}  // namespace

bool watch_loads(void (*then)()) {
  watch& w = the_watch();
  if (w.place) return true;
  const auto place = std::uint64_t(_r_debug.r_brk);
  if (!place) return false;
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(place);
  // Exactly a `ret` and padding.
  constexpr std::uint8_t ret = 0xc3;
  if (bytes[0] != ret || !is_padding(bytes + 1, 15)) return false;
  if (!w.area.reserve(place, place + jump_size, 1)) return false;

  std::array<std::uint8_t, slot_size> slot;
  slot.fill(0xcc);
  // To the unwinder we are still at that function's first instruction.
  const site_record record{place + 1, 0, 0, nullptr, std::uint64_t(&loader_says)};
  std::memcpy(slot.data(), &record, sizeof record);
  const std::uint8_t jump_by_memory[] = {0xff, 0x25};
  const std::uint64_t in = w.area.slot(0) + sizeof record;
  const auto to_entry = std::int32_t(std::int64_t(w.area.slot(0) + offsetof(site_record, entry)) - std::int64_t(in + 6));
  std::memcpy(slot.data() + sizeof record, jump_by_memory, 2);
  std::memcpy(slot.data() + sizeof record + 2, &to_entry, 4);
  const edit one{w.area.slot(0), slot.data(), slot_size};
  way used{};
  if (write_text(w.area.begin(), w.area.begin() + w.area.size_bytes(), {&one, 1}, w.area.is_mapped(), used) != 0) return false;
  w.area.register_frames();

  std::array<std::uint8_t, jump_size> jump{0xe9};
  const auto distance = std::int32_t(std::int64_t(in) - std::int64_t(place + jump_size));
  std::memcpy(jump.data() + 1, &distance, 4);
  std::memcpy(w.original.data(), bytes, jump_size);
  w.then = then;
  if (!write(place, jump.data())) {
    w.area.give_back();
    return false;
  }
  w.place = place;
  return true;
}

void unwatch_loads() {
  watch& w = the_watch();
  if (!w.place || !write(w.place, w.original.data())) return;
  w.place = 0;
  w.area.give_back();
}

}  // namespace ringlet::patch
