#pragma once
// What the launcher wants to know of a program file before it is executed: is it an ELF file that a preloaded library
// can reach at all, and which libc names does it import.
//
// Reads, never trusts: a file may be truncated or lie about its offsets; whatever points outside of it counts as absent.

#include <optional>
#include <string>
#include <vector>

namespace ringlet::launcher {

struct elf_facts {
  unsigned bits = 0;          // 32 or 64
  bool little_endian = true;
  unsigned machine = 0;       // EM_*
  unsigned type = 0;          // ET_*
  bool native = false;        // this processor's class, byte order and machine: what is below is known only then
  bool dynamic = false;       // has PT_DYNAMIC
  std::string interpreter;    // PT_INTERP: the loader; empty for a static program, PIE or not
  bool go = false;            // made by Go's linker: makes its own system calls
  std::vector<std::string> imports;  // undefined dynamic symbols, without versions
};

// The file's facts, or nothing if it is no ELF file. Throws std::system_error if it cannot be read.
std::optional<elf_facts> read_elf(const std::string& path);

std::string machine_name(unsigned machine);
unsigned native_machine() noexcept;

}  // namespace ringlet::launcher
