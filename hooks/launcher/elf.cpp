#include "elf.hpp"

#include <cerrno>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <string_view>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

namespace ringlet::launcher {

namespace {

// The bytes of a file; every look at them is checked against its size.
class file_bytes {
 public:
  explicit file_bytes(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) throw std::system_error(errno, std::generic_category(), path);
    struct stat s {};
    if (::fstat(fd, &s) == 0 && s.st_size > 0) {
      void* at = ::mmap(nullptr, std::size_t(s.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
      if (at != MAP_FAILED) {
        data_ = static_cast<const char*>(at);
        size_ = std::size_t(s.st_size);
      }
    }
    ::close(fd);
  }
  ~file_bytes() {
    if (data_) ::munmap(const_cast<char*>(data_), size_);
  }
  file_bytes(const file_bytes&) = delete;

  // A copy, since the file promises no alignment.
  template <class T>
  std::optional<T> get(std::size_t offset) const {
    if (offset > size_ || size_ - offset < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, data_ + offset, sizeof value);
    return value;
  }
  std::string_view part(std::size_t offset, std::size_t length) const {
    if (offset > size_ || size_ - offset < length) return {};
    return {data_ + offset, length};
  }
  // The text that ends at a zero byte, inside of `within`.
  static std::string_view text(std::string_view within, std::size_t offset) {
    if (offset >= within.size()) return {};
    return within.substr(offset, within.find('\0', offset) - offset);
  }

 private:
  const char* data_ = nullptr;
  std::size_t size_ = 0;
};

using header = ElfW(Ehdr);
using segment = ElfW(Phdr);
using section = ElfW(Shdr);
using symbol = ElfW(Sym);

void read_segments(const file_bytes& file, const header& head, elf_facts& facts) {
  for (unsigned i = 0; i < head.e_phnum; ++i) {
    const auto s = file.get<segment>(head.e_phoff + std::size_t(i) * head.e_phentsize);
    if (!s) return;
    if (s->p_type == PT_DYNAMIC) facts.dynamic = true;
    if (s->p_type == PT_INTERP) facts.interpreter = file_bytes::text(file.part(s->p_offset, s->p_filesz), 0);
    if (s->p_type == PT_NOTE && file.part(s->p_offset, s->p_filesz).find(std::string_view("Go\0\0", 4)) != std::string_view::npos)
      facts.go = true;
  }
}

// By the section headers: strip keeps those of the dynamic symbols.
void read_imports(const file_bytes& file, const header& head, elf_facts& facts) {
  for (unsigned i = 0; i < head.e_shnum; ++i) {
    const auto table = file.get<section>(head.e_shoff + std::size_t(i) * head.e_shentsize);
    if (!table || table->sh_type != SHT_DYNSYM) continue;
    const auto names_section = file.get<section>(head.e_shoff + std::size_t(table->sh_link) * head.e_shentsize);
    if (!names_section) return;
    const auto names = file.part(names_section->sh_offset, names_section->sh_size);
    for (std::size_t at = 0; at + sizeof(symbol) <= table->sh_size; at += sizeof(symbol)) {
      const auto s = file.get<symbol>(table->sh_offset + at);
      if (!s) return;
      const auto name = file_bytes::text(names, s->st_name);
      if (s->st_shndx == SHN_UNDEF && !name.empty()) facts.imports.emplace_back(name);
    }
  }
}

constexpr unsigned native_bits = sizeof(void*) * 8;
constexpr unsigned native_order = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB;

}  // namespace

unsigned native_machine() noexcept {
#if defined(__x86_64__)
  return EM_X86_64;
#elif defined(__aarch64__)
  return EM_AARCH64;
#elif defined(__riscv)
  return EM_RISCV;
#elif defined(__powerpc64__)
  return EM_PPC64;
#elif defined(__s390x__)
  return EM_S390;
#elif defined(__i386__)
  return EM_386;
#elif defined(__arm__)
  return EM_ARM;
#else
  return EM_NONE;
#endif
}

std::string machine_name(unsigned machine) {
  switch (machine) {
    case EM_X86_64: return "x86-64";
    case EM_386: return "i386";
    case EM_AARCH64: return "aarch64";
    case EM_ARM: return "arm";
    case EM_RISCV: return "riscv";
    case EM_PPC64: return "ppc64";
    case EM_S390: return "s390";
    default: return "machine number " + std::to_string(machine);
  }
}

std::optional<elf_facts> read_elf(const std::string& path) {
  const file_bytes file(path);
  const auto magic = file.part(0, EI_NIDENT);
  if (magic.size() < EI_NIDENT || magic.substr(0, SELFMAG) != ELFMAG) return std::nullopt;

  elf_facts facts;
  facts.bits = magic[EI_CLASS] == ELFCLASS64 ? 64 : 32;
  facts.little_endian = magic[EI_DATA] != ELFDATA2MSB;
  // Type and machine lie at the same place in both classes.
  auto half = [&](std::size_t offset) -> unsigned {
    const auto two = file.part(offset, 2);
    if (two.size() < 2) return 0;
    const unsigned first = static_cast<unsigned char>(two[0]), second = static_cast<unsigned char>(two[1]);
    return facts.little_endian ? first | second << 8 : first << 8 | second;
  };
  facts.type = half(offsetof(header, e_type));
  facts.machine = half(offsetof(header, e_machine));
  facts.native = facts.bits == native_bits && static_cast<unsigned char>(magic[EI_DATA]) == native_order && facts.machine == native_machine();
  if (!facts.native) return facts;

  const auto head = file.get<header>(0);
  if (!head) return facts;
  read_segments(file, *head, facts);
  read_imports(file, *head, facts);
  return facts;
}

}  // namespace ringlet::launcher
