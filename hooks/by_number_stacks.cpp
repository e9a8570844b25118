// Rows of syscalls.def about the stacks that libc maps for its threads: from some thousands of threads on they are one
// mapping of the kernel's, however many they are.
//
// libc maps a stack without access and then makes all but the guard accessible: two mappings for the kernel, of which a
// process may have 65,530 (vm.max_map_count), and so 32,000 threads. What is mapped accessible, next to another such, becomes one
// with it; guards in it are installed by madvise (Linux 6.13; glibc 2.42 does so itself). That costs a page of page
// tables a stack, so it is done only where the other way would come near the limit.

#include <sys/mman.h>

#include "base/sys.hpp"
#include "by_number.hpp"

namespace ringlet::by_number {

namespace {

constexpr std::size_t from_threads = 16'000;
constexpr int install_guard = 102;  // MADV_GUARD_INSTALL

// Mapped, and not yet made accessible, as its owner thinks. libc does both in one go; a few, should somebody come between.
struct new_stack {
  char* at = nullptr;
  std::size_t size = 0;
};
new_stack new_stacks[8];
unsigned next_new_stack = 0;

}  // namespace

long map(void* at, std::size_t size, int access, int flags, int fd) noexcept {
  if (threads::living() < from_threads || at || access != PROT_NONE || flags != (MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK) || fd != -1) return pass;
  const long got = sys::call(SYS_mmap, nullptr, size, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (got > 0 || got < -4095) new_stacks[next_new_stack++ % std::size(new_stacks)] = {pointer<char>(got), size};
  return got;
}

long protect(void* at, std::size_t size, int access) noexcept {
  if (threads::living() < from_threads) return pass;
  for (new_stack& s : new_stacks) {
    if (!s.at || at <= s.at || static_cast<char*>(at) + size != s.at + s.size) continue;
    char* const guard = s.at;
    const auto guard_size = std::size_t(static_cast<char*>(at) - guard);
    s.at = nullptr;
    if (sys::call(SYS_madvise, guard, guard_size, install_guard) != 0)
      if (const long refused = sys::call(SYS_mprotect, guard, guard_size, PROT_NONE)) return refused;
    return access == (PROT_READ | PROT_WRITE) ? 0 : sys::call(SYS_mprotect, at, size, access);
  }
  return pass;
}

}  // namespace ringlet::by_number
