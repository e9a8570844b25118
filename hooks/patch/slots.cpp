#include "slots.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>

#include "base/sys.hpp"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#ifdef __x86_64__
extern "C" {
extern const std::uint8_t ringlet_patch_slots[131072] __attribute__((visibility("hidden")));
void __register_frame(void*);
void __deregister_frame(void*);
}
#else
static const std::uint8_t ringlet_patch_slots[128] = {};
static void __register_frame(void*) {}
static void __deregister_frame(void*) {}
#endif

namespace ringlet::patch {

namespace {

constexpr std::uint64_t page = 4096;
// A jump reaches two gigabytes; moved instructions may look a little further than the code of the library.
constexpr std::uint64_t reach = 0x7fffffffull - (64ull << 20);

std::size_t used_of_own_area = 0;  // slots, always whole pages: a page in use is never written again

bool is_near(std::uint64_t area, std::uint64_t size, std::uint64_t begin, std::uint64_t end) noexcept {
  return std::max(area + size, end) - std::min(area, begin) < reach;
}

// What __register_frame wants: a CIE and one FDE for the whole area, ended by a zero. The rule is entry.cpp's.
struct frame_table {
  std::uint8_t bytes[96];
};

frame_table make_frames(std::uint64_t begin, std::uint64_t size) noexcept {
  frame_table t{};
  std::uint8_t* at = t.bytes;
  auto put = [&](const auto& value) {
    std::memcpy(at, &value, sizeof value);
    at += sizeof value;
  };
  const std::uint8_t common[] = {1, 0 /* no augmentation */, 1, 0x78 /* -8 */, 16 /* the return address */,
                                 0x0c, 7, 0 /* the caller's stack pointer is rsp + 0 */,
                                 0x16, 16, 6, 0x80, 0x00, 0x09, 0x80, 0x1a, 0x06 /* the return address is the slot's first word */,
                                 0, 0, 0};
  static_assert((4 + sizeof common) % 8 == 0);
  put(std::uint32_t(4 + sizeof common));
  put(std::uint32_t(0));
  put(common);
  put(std::uint32_t(4 + 16));
  put(std::uint32_t(at - t.bytes));  // back to the CIE
  put(begin);
  put(size);
  put(std::uint32_t(0));
  return t;
}

}  // namespace

bool slot_area::reserve(std::uint64_t begin, std::uint64_t end, std::size_t count) {
  const std::size_t per_page = page / slot_size;
  count = (count + per_page - 1) / per_page * per_page;
  const auto own = std::uint64_t(ringlet_patch_slots);
  if (is_near(own, sizeof ringlet_patch_slots, begin, end) && (used_of_own_area + count) * slot_size <= sizeof ringlet_patch_slots) {
    begin_ = own + used_of_own_area * slot_size;
    used_of_own_area += count;
    count_ = count;
    return true;
  }
  // Anywhere near it, nearest first.
  const std::uint64_t size = count * slot_size, step = 4ull << 20;
  for (std::uint64_t away = step; away < reach; away += step) {
    for (const std::uint64_t place : {(begin & ~(page - 1)) - away, ((end + page - 1) & ~(page - 1)) + away}) {
      if (!is_near(place, size, begin, end)) continue;
      const long got = sys::call(SYS_mmap, place, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0L);
      if (got == long(place)) {
        begin_ = place;
        count_ = count;
        mapped_bytes_ = size;
        return true;
      }
      // A kernel before 4.17 takes the address for a hint.
      if (got > 0) sys::call(SYS_munmap, got, size);
    }
  }
  errno = ENOMEM;
  return false;
}

void slot_area::give_back() {
  if (frames_) {
    __deregister_frame(frames_);
    delete static_cast<frame_table*>(frames_);
    frames_ = nullptr;
  }
  if (mapped_bytes_) sys::call(SYS_munmap, begin_, mapped_bytes_);
  mapped_bytes_ = 0;
  count_ = 0;
}

void slot_area::register_frames() {
  if (!mapped_bytes_ || frames_) return;
  frames_ = new frame_table(make_frames(begin_, size_bytes()));
  __register_frame(frames_);
}

}  // namespace ringlet::patch
