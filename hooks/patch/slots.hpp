#pragma once
// A slot: what stands behind one patched site. 128 bytes of code that nobody had before:
//
//   record                what the entry must know of the site
//   in:    moved instructions of before the `syscall`; lea record, %rcx; jmp *entry
//   pass:  syscall        (if the library's own was written over)
//   on:    moved instructions of behind it; jmp to where the library goes on
//
// Slots of a library that is loaded within two gigabytes of us (nearly every one) lie in an area inside our own object,
// so that their unwind information is in our file, and a debugger finds it there. For one that is farther away an area
// is mapped near it, and its unwind information is registered with libgcc's unwinder.
//
// Unwinding from a slot is one rule for all: the stack is as at the site, and the return address is the first word of
// the slot, `after`. rcx and r11 are free at a `syscall`, so nothing needs the stack before the entry.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "patch.hpp"

namespace ringlet::patch {

struct site_record {
  std::uint64_t after;    // the address behind the `syscall` in the library: for the unwinder, the return address
  std::uint64_t on;       // where the program goes on
  std::uint64_t pass;     // a `syscall` followed by `on`
  dispatcher call;
  std::uint64_t entry;
};

constexpr std::size_t slot_size = 128;
static_assert(sizeof(site_record) == 40);

// The code between the record and the end of the slot, relocated to `address`. Empty if it does not fit or cannot reach.
struct slot_code {
  site_record record;
  std::vector<std::uint8_t> bytes;
};

// Room for slots. Addresses only; text.hpp writes there.
class slot_area {
 public:
  // Near enough to everything in [begin, end). Returns false if there is none, with errno set.
  bool reserve(std::uint64_t begin, std::uint64_t end, std::size_t count);
  void give_back();

  std::uint64_t begin() const noexcept { return begin_; }
  std::size_t size_bytes() const noexcept { return count_ * slot_size; }
  std::uint64_t slot(std::size_t i) const noexcept { return begin_ + i * slot_size; }
  bool is_mapped() const noexcept { return mapped_bytes_ != 0; }
  // After it has been written: tells the unwinder of an area that is not part of our file.
  void register_frames();

 private:
  std::uint64_t begin_ = 0;
  std::size_t count_ = 0, mapped_bytes_ = 0;
  void* frames_ = nullptr;
};

}  // namespace ringlet::patch
