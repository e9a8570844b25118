#include "image.hpp"

#include <algorithm>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

namespace ringlet::patch {

namespace {

constexpr std::uint64_t most_image_bytes = 1ull << 30;
constexpr std::size_t most_symbols = 1u << 20;

template <class T>
T read_as(const std::uint8_t* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// A whole file, or the reason why not.
std::vector<std::uint8_t> contents_of(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), path);
  struct stat st {};
  std::vector<std::uint8_t> bytes;
  if (::fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && std::uint64_t(st.st_size) < most_image_bytes) bytes.resize(std::size_t(st.st_size));
  for (std::size_t have = 0; have < bytes.size();) {
    const auto n = ::pread(fd, bytes.data() + have, bytes.size() - have, off_t(have));
    if (n <= 0) {
      bytes.resize(have);
      break;
    }
    have += std::size_t(n);
  }
  ::close(fd);
  return bytes;
}

}  // namespace

image image::of_loaded(const void* address) {
  struct search {
    std::uint64_t wanted;
    image found;
    const ElfW(Phdr)* headers = nullptr;
    std::size_t count = 0;
  } s{std::uint64_t(address), image(), nullptr, 0};
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        auto& want = *static_cast<search*>(data);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& p = info->dlpi_phdr[i];
          if (p.p_type != PT_LOAD || want.wanted < info->dlpi_addr + p.p_vaddr || want.wanted >= info->dlpi_addr + p.p_vaddr + p.p_memsz) continue;
          want.found.memory_ = reinterpret_cast<const std::uint8_t*>(info->dlpi_addr);
          want.found.path_ = info->dlpi_name && *info->dlpi_name ? info->dlpi_name : "the program itself";
          want.headers = info->dlpi_phdr;
          want.count = info->dlpi_phnum;
          return 1;
        }
        return 0;
      },
      &s);
  if (!s.headers) throw std::runtime_error("no loaded library has this address");
  s.found.loaded_ = true;
  s.found.read_headers(s.headers, s.count);
  return std::move(s.found);
}

image image::of_file(const std::string& path) {
  const auto file = contents_of(path);
  if (file.size() < sizeof(Elf64_Ehdr)) throw std::runtime_error("it is no ELF file");
  const auto header = read_as<Elf64_Ehdr>(file.data());
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64)
    throw std::runtime_error("it is no ELF file for x86-64");
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phoff > file.size() || header.e_phnum > (file.size() - header.e_phoff) / sizeof(Elf64_Phdr))
    throw std::runtime_error("its program headers lie outside of it");
  std::vector<Elf64_Phdr> headers(header.e_phnum);
  std::memcpy(headers.data(), file.data() + header.e_phoff, headers.size() * sizeof(Elf64_Phdr));

  // Laid out as the loader would, from address 0.
  std::uint64_t end = 0;
  for (const auto& p : headers) {
    if (p.p_type != PT_LOAD) continue;
    if (p.p_vaddr > most_image_bytes || p.p_memsz > most_image_bytes) throw std::runtime_error("its segments are too large or too far apart");
    end = std::max(end, p.p_vaddr + p.p_memsz);
  }
  if (end == 0 || end > most_image_bytes) throw std::runtime_error("it has no segments to load, or too large ones");
  image made;
  made.path_ = path;
  made.owned_ = std::make_shared<std::vector<std::uint8_t>>(end);
  for (const auto& p : headers) {
    if (p.p_type != PT_LOAD) continue;
    if (p.p_offset > file.size() || p.p_filesz > file.size() - p.p_offset || p.p_filesz > p.p_memsz) throw std::runtime_error("its segments lie outside of it");
    std::memcpy(made.owned_->data() + p.p_vaddr, file.data() + p.p_offset, p.p_filesz);
  }
  made.memory_ = made.owned_->data();
  made.read_headers(headers.data(), headers.size());
  return made;
}

void image::read_headers(const void* program_headers, std::size_t count) {
  const auto* headers = static_cast<const ElfW(Phdr)*>(program_headers);
  std::uint64_t eh_frame_header = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto& p = headers[i];
    if (p.p_type == PT_GNU_EH_FRAME) eh_frame_header = p.p_vaddr;
    // In a file, too, the program headers can be trusted no further than this: at() looks at segments only.
    if (p.p_type != PT_LOAD) continue;
    const int protection = (p.p_flags & PF_R ? PROT_READ : 0) | (p.p_flags & PF_W ? PROT_WRITE : 0) | (p.p_flags & PF_X ? PROT_EXEC : 0);
    if (p.p_flags & PF_R) segments_.push_back({p.p_vaddr, p.p_vaddr + p.p_memsz, (p.p_flags & PF_X) != 0, protection});
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (headers[i].p_type == PT_DYNAMIC) read_dynamic(headers[i].p_vaddr, headers[i].p_memsz);
    if (headers[i].p_type == PT_NOTE) read_notes(headers[i].p_vaddr, headers[i].p_memsz);
  }
  if (!eh_frame_header) throw std::runtime_error("it has no unwind tables (.eh_frame_hdr), so its functions are unknown");
  functions_ = read_functions(*this, eh_frame_header);
}

void image::read_notes(std::uint64_t address, std::uint64_t size) {
  // name size, description size, type, then both, each padded to four bytes (GNU's notes, also where the segment says 8).
  for (std::uint64_t at_note = address; at_note + 12 <= address + size;) {
    const auto* note = at(at_note, 12);
    if (!note) return;
    const auto name_size = read_as<std::uint32_t>(note), text_size = read_as<std::uint32_t>(note + 4), type = read_as<std::uint32_t>(note + 8);
    const std::uint64_t text = at_note + 12 + ((name_size + 3ull) & ~3ull);
    const auto* bytes = text_size <= 64 ? at(text, text_size) : nullptr;
    const auto* name = at(at_note + 12, name_size);
    if (type == NT_GNU_BUILD_ID && bytes && name && name_size == 4 && std::memcmp(name, "GNU", 4) == 0) {
      constexpr char digits[] = "0123456789abcdef";
      for (std::uint32_t i = 0; i < text_size; ++i) build_id_ += {digits[bytes[i] >> 4], digits[bytes[i] & 15]};
      return;
    }
    at_note = text + ((text_size + 3ull) & ~3ull);
  }
}

void image::read_dynamic(std::uint64_t address, std::uint64_t size) {
  std::uint64_t symbols = 0, strings = 0, strings_size = 0, hash = 0;
  for (std::uint64_t i = 0; i + sizeof(ElfW(Dyn)) <= size; i += sizeof(ElfW(Dyn))) {
    const auto* bytes = at(address + i, sizeof(ElfW(Dyn)));
    if (!bytes) return;
    const auto entry = read_as<ElfW(Dyn)>(bytes);
    if (entry.d_tag == DT_NULL) break;
    // The loader has made addresses of some of them; a file has offsets.
    std::uint64_t value = entry.d_un.d_ptr;
    if (loaded_ && value >= base()) value -= base();
    if (entry.d_tag == DT_SYMTAB) symbols = value;
    if (entry.d_tag == DT_STRTAB) strings = value;
    if (entry.d_tag == DT_STRSZ) strings_size = entry.d_un.d_val;
    if (entry.d_tag == DT_GNU_HASH) hash = value;
  }
  const auto* text = strings_size ? reinterpret_cast<const char*>(at(strings, strings_size)) : nullptr;
  const auto* table = at(hash, 16);
  if (!symbols || !text || !table || text[strings_size - 1] != '\0') return;

  // Only the hash table tells how many symbols there are: the last one of the longest chain.
  const auto buckets = read_as<std::uint32_t>(table), first = read_as<std::uint32_t>(table + 4), bloom = read_as<std::uint32_t>(table + 8);
  const std::uint64_t bucket_at = hash + 16 + bloom * 8ull, chain_at = bucket_at + buckets * 4ull;
  std::uint32_t last = 0;
  for (std::uint32_t i = 0; i < buckets && i < most_symbols; ++i)
    if (const auto* b = at(bucket_at + i * 4ull, 4)) last = std::max(last, read_as<std::uint32_t>(b));
  if (last < first) return;
  for (std::size_t i = 0; i < most_symbols; ++i, ++last) {
    const auto* link = at(chain_at + (last - first) * 4ull, 4);
    if (!link || (read_as<std::uint32_t>(link) & 1)) break;
  }
  for (std::uint32_t i = first; i <= last; ++i) {
    const auto* bytes = at(symbols + i * sizeof(ElfW(Sym)), sizeof(ElfW(Sym)));
    if (!bytes) return;
    const auto symbol = read_as<ElfW(Sym)>(bytes);
    const int type = ELF64_ST_TYPE(symbol.st_info);
    if (symbol.st_shndx == SHN_UNDEF || (type != STT_FUNC && type != STT_GNU_IFUNC) || symbol.st_name >= strings_size || !is_code(symbol.st_value)) continue;
    // Of several names the plain one: fewest underscores, then the shortest.
    const char* name = text + symbol.st_name;
    auto& known = exported_[symbol.st_value];
    auto rank = [](const std::string& n) { return std::pair(n.find_first_not_of('_'), n.size()); };
    if (known.empty() || rank(name) < rank(known)) known = name;
  }
}

const function_range* image::function_at(std::uint64_t address) const noexcept {
  auto after = std::upper_bound(functions_.begin(), functions_.end(), address, [](std::uint64_t a, const function_range& f) { return a < f.begin; });
  if (after == functions_.begin()) return nullptr;
  --after;
  return address < after->end ? &*after : nullptr;
}

const image::segment* image::segment_of(std::uint64_t address) const noexcept {
  for (const auto& s : segments_)
    if (address >= s.begin && address < s.end) return &s;
  return nullptr;
}

const std::uint8_t* image::at(std::uint64_t address, std::uint64_t size) const noexcept {
  const auto* s = segment_of(address);
  return s && size <= s->end - address ? memory_ + address : nullptr;
}

bool image::is_code(std::uint64_t address) const noexcept {
  const auto* s = segment_of(address);
  return s && s->executable;
}

}  // namespace ringlet::patch
