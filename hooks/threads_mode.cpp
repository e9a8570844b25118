#include "threads_mode.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <link.h>
#include <sys/auxv.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

#include "base/sys.hpp"
#include "dispatcher.hpp"
#include "patch/door.hpp"
#include "threads/threads.hpp"

// Where glibc (2.35) has put the main thread's rseq area, and its size; absent in older ones, which register none.
extern "C" {
extern const std::ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));
}

namespace ringlet::hooks {

namespace {

// The kernel writes the CPU's number into the registered area whenever the OS thread moves, and only there: every other
// thread fiber would read an old one. Without the area, glibc asks the vDSO, in all threads.
void leave_rseq() noexcept {
  if (!&__rseq_size || !&__rseq_offset || __rseq_size == 0) return;
  constexpr int unregister = 1;
  constexpr unsigned signature = 0x53053053;
  char* const area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
  for (const unsigned size : {32u, __rseq_size, 28u})
    if (sys::call(SYS_rseq, area, size, unregister, signature) == 0) return;
}

// Kernel threads of the process that are not the runtime's helpers.
std::size_t foreign_threads() noexcept {
  const int fd = int(sys::call(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
  if (fd < 0) return 1;
  std::size_t tasks = 0;
  alignas(8) char entries[2048];
  for (long got; (got = sys::call(SYS_getdents64, fd, entries, sizeof entries)) > 0;)
    for (long at = 0; at < got;) {
      unsigned short length;
      std::memcpy(&length, entries + at + 16, sizeof length);
      tasks += entries[at + 19] != '.';
      at += length;
    }
  sys::call(SYS_close, fd);
  return tasks;
}

// Where calls of malloc go. A program that is not position-independent and takes malloc's address has a doorstep of its own
// for it, which dlsym finds first: that is not where malloc is.
const void* home_of_malloc() noexcept {
  const void* found = ::dlsym(RTLD_DEFAULT, "malloc");
  Dl_info where;
  ElfW(Sym)* symbol = nullptr;
  if (found && ::dladdr1(found, &where, reinterpret_cast<void**>(&symbol), RTLD_DL_SYMENT) && symbol && symbol->st_shndx == SHN_UNDEF)
    found = ::dlsym(RTLD_NEXT, "malloc");
  return found;
}

// Objects whose locks the runtime itself may need: it must not find them held by a thread that was made to give way.
void protect_what_we_use() noexcept {
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void*) {
        for (const void* one : {reinterpret_cast<const void*>(&::gnu_get_libc_version), reinterpret_cast<const void*>(&protect_what_we_use),
                                home_of_malloc(), reinterpret_cast<const void*>(::getauxval(AT_BASE))}) {
          std::uintptr_t low = ~std::uintptr_t(0), high = 0;
          for (int i = 0; i < info->dlpi_phnum; ++i)
            if (const auto& p = info->dlpi_phdr[i]; p.p_type == PT_LOAD) {
              low = std::min<std::uintptr_t>(low, info->dlpi_addr + p.p_vaddr);
              high = std::max<std::uintptr_t>(high, info->dlpi_addr + p.p_vaddr + p.p_memsz);
            }
          const auto at = reinterpret_cast<std::uintptr_t>(one);
          if (at >= low && at < high) {
            threads::never_give_way_in(low, high);
            break;
          }
        }
        return 0;
      },
      nullptr);
  Dl_info where;
  ElfW(Sym)* spin = nullptr;
  const auto at = reinterpret_cast<const void*>(::dlsym(RTLD_NEXT, "pthread_spin_lock"));
  if (at && ::dladdr1(at, &where, reinterpret_cast<void**>(&spin), RTLD_DL_SYMENT) && spin && spin->st_shndx != SHN_UNDEF)
    threads::but_give_way_in(reinterpret_cast<std::uintptr_t>(at), reinterpret_cast<std::uintptr_t>(at) + spin->st_size);
}

enum class state { unwanted, wanted, open, refused };
std::atomic<state> now{state::unwanted};
bool reports_at_exit = false;

void report() {
  const auto counts = dispatcher::count();
  std::fprintf(stderr, "ringlet: threads made fibers: %llu; system calls answered: %llu; made to give way: %llu\n",
               static_cast<unsigned long long>(threads::made()), counts.dispatched, static_cast<unsigned long long>(threads::times_given_way()));
}

std::string open() {
  if (foreign_threads() > 1) return "the process has other threads already, made by a way that was not seen";
  const std::string closed = patch::open_door({.wanted = dispatcher::wanted_numbers(), .call = &dispatcher::dispatch});
  if (!closed.empty()) return closed;
  leave_rseq();
  protect_what_we_use();
  if (reports_at_exit) std::atexit(&report);
  return "";
}

}  // namespace

void want_threads_as_fibers(bool reports) noexcept {
  reports_at_exit = reports;
  now.store(state::wanted);
}

bool wants_threads_as_fibers() noexcept {
  const state s = now.load(std::memory_order_relaxed);
  return s == state::wanted || s == state::open;
}

void before_a_thread_is_made() noexcept {
  state expected = state::wanted;
  if (__builtin_expect(now.load(std::memory_order_relaxed) != state::wanted, 1) || !now.compare_exchange_strong(expected, state::open)) return;
  std::string closed;
  try {
    closed = open();
  } catch (const std::exception& e) {
    closed = e.what();
  }
  if (closed.empty()) return;
  now.store(state::refused);
  std::fprintf(stderr, "ringlet: threads stay as they are: %s\n", closed.c_str());
}

}  // namespace ringlet::hooks
