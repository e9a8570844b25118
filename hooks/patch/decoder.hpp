#pragma once
// One x86-64 instruction at a time, in the words that the planner needs. Capstone does the decoding: of the decoders
// that Debian packages it is the only one with a static archive (Zydis and diStorm come as shared objects, which would
// be one more library in every process that is preloaded, and would have to be there at run time).

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

namespace ringlet::patch {

struct instruction {
  enum class kind : std::uint8_t {
    plain,
    syscall,
    jump,              // direct, always taken
    conditional_jump,  // direct: jcc, jrcxz, loop
    call,              // direct
    indirect_jump,
    indirect_call,
    ret,
    stop,              // hlt, ud2, int3: nothing follows
    nop,
  };
  std::uint64_t address = 0;
  std::uint64_t target = 0;           // of a direct branch, or of a rip-relative operand
  const std::uint8_t* bytes = nullptr;
  std::uint8_t size = 0;
  std::uint8_t displacement_at = 0;   // where in the bytes the 32 bits of a rip-relative operand are; 0 for none
  kind what = kind::plain;
  bool loads_address = false;         // lea of a rip-relative operand
  bool changes_stack_pointer = false;
  bool writes_rax = false;
  bool has_vectors = false;           // an operand is a vector register
  bool has_wide_vectors = false;      // ... and it is AVX's, whose upper halves we do not save
  std::optional<std::uint32_t> number;  // what it puts in rax, if it is a constant

  std::uint64_t end() const noexcept { return address + size; }
  bool branches() const noexcept { return what == kind::jump || what == kind::conditional_jump || what == kind::call; }
};

class decoder {
 public:
  decoder();
  ~decoder();
  decoder(const decoder&) = delete;

  // False if these are no instruction, or one that is cut off.
  bool decode(const std::uint8_t* bytes, std::size_t size, std::uint64_t address, instruction& into);
  explicit operator bool() const noexcept { return ready_; }

 private:
  struct state;
  std::unique_ptr<state> state_;
  bool ready_ = false;
};

}  // namespace ringlet::patch
