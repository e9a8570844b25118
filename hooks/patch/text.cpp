#include "text.hpp"

#include <cerrno>
#include <linux/memfd.h>
#include <sys/mman.h>

#include "base/sys.hpp"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

namespace ringlet::patch {

namespace {

constexpr std::uint64_t page = 4096;
constexpr int code_protection = PROT_READ | PROT_EXEC;

std::uint64_t down(std::uint64_t address) noexcept { return address & ~(page - 1); }
std::uint64_t up(std::uint64_t address) noexcept { return down(address + page - 1); }

// Not memcpy: libc may be what is not executable just now.
void copy(std::uint64_t to, const std::uint8_t* from, std::size_t size) noexcept {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

class blocked_signals {
 public:
  blocked_signals() noexcept {
    const std::uint64_t all = ~0ull;
    sys::call(SYS_rt_sigprocmask, 0 /* SIG_BLOCK */, &all, &before_, 8);
  }
  ~blocked_signals() { sys::call(SYS_rt_sigprocmask, 2 /* SIG_SETMASK */, &before_, nullptr, 8); }
  blocked_signals(const blocked_signals&) = delete;

 private:
  std::uint64_t before_ = 0;
};

// Copies [begin, end) with the edits into a file of memory, and maps it there. Pages that the process has changed (by an
// earlier edit) are copied as they are.
int map_copy(std::uint64_t begin, std::uint64_t end, std::span<const edit> edits) noexcept {
  // Kernels before 6.3 don't know the flag; with it vm.memfd_noexec=1 lets us execute what is in it.
  long fd = sys::call(SYS_memfd_create, "ringlet: patched code", unsigned(MFD_CLOEXEC | MFD_EXEC));
  if (fd == -EINVAL) fd = sys::call(SYS_memfd_create, "ringlet: patched code", unsigned(MFD_CLOEXEC));
  if (fd < 0) return int(fd);
  long result = 0;
  auto write_all = [&](const std::uint8_t* from, std::uint64_t size, std::uint64_t to) {
    while (size > 0 && result >= 0) {
      result = sys::call(SYS_pwrite64, int(fd), from, size, to);
      if (result == 0) result = -EIO;
      if (result > 0) from += result, size -= std::uint64_t(result), to += std::uint64_t(result);
    }
  };
  write_all(reinterpret_cast<const std::uint8_t*>(begin), end - begin, 0);
  for (const auto& e : edits) write_all(e.bytes, e.size, e.address - begin);
  if (result >= 0) result = sys::call(SYS_mmap, begin, end - begin, code_protection, MAP_PRIVATE | MAP_FIXED, int(fd), 0L);
  sys::call(SYS_close, int(fd));
  return result < 0 && result > -4096 ? int(result) : 0;
}

// The first and the last page that the edits touch.
struct range {
  std::uint64_t begin, end;
};
range pages_of(std::span<const edit> edits) noexcept { return {down(edits.front().address), up(edits.back().address + edits.back().size)}; }

int write_in_place(range r, std::span<const edit> edits) noexcept {
  int result = int(sys::call(SYS_mprotect, r.begin, r.end - r.begin, PROT_READ | PROT_WRITE));
  if (result < 0) return result;
  for (const auto& e : edits) copy(e.address, e.bytes, e.size);
  return int(sys::call(SYS_mprotect, r.begin, r.end - r.begin, code_protection));
}

}  // namespace

int write_text(std::uint64_t begin, std::uint64_t end, std::span<const edit> edits, bool only_by_copy, way& used) noexcept {
  if (edits.empty()) return 0;
  const range r = pages_of(edits);
  if (r.begin < down(begin) || r.end > up(end)) return -EINVAL;
  blocked_signals quiet;
  used = way::by_copy;
  if (only_by_copy) return map_copy(r.begin, r.end, edits);
  const int refused = write_in_place(r, edits);
  if (refused == 0) {
    used = way::in_place;
    return 0;
  }
  // Either nothing has happened, or the edits are made and the pages may not become executable again: the copy has both.
  return map_copy(r.begin, r.end, edits);
}

}  // namespace ringlet::patch
