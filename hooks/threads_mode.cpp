#include "threads_mode.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <link.h>
#include <sys/auxv.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <ringlet/fiber.hpp>

#include "base/sys.hpp"
#include "dispatcher.hpp"
#include "io/doors.hpp"
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

// Go's runtime waits by system calls in its own code, which no door reaches, also where its threads are libc's (cgo): one
// such wait would stop the hub for good. Its linker leaves a note in every object that it makes.
bool has_go_code() noexcept {
  return ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void*) {
        constexpr char maker[] = "Go\0";
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& p = info->dlpi_phdr[i];
          if (p.p_type != PT_NOTE) continue;
          const auto* at = reinterpret_cast<const char*>(info->dlpi_addr + p.p_vaddr);
          for (const char* const end = at + p.p_memsz; at + sizeof(ElfW(Nhdr)) + sizeof maker <= end;) {
            ElfW(Nhdr) note;
            std::memcpy(&note, at, sizeof note);
            at += sizeof note;
            if (note.n_namesz == sizeof maker && std::memcmp(at, maker, sizeof maker) == 0) return 1;
            at += (std::size_t(note.n_namesz) + 3) / 4 * 4 + (std::size_t(note.n_descsz) + 3) / 4 * 4;
          }
        }
        return 0;
      },
      nullptr) != 0;
}

enum class state { unwanted, wanted, open, refused };
std::atomic<state> now{state::unwanted};
bool reports_at_exit = false;

// Frames of ours are of no news to whoever reads the report.
std::string frames_text(const threads::delay& d) {
  std::vector<void*> frames(d.frames, d.frames + d.frame_count);
  Dl_info ours{}, where{};
  ::dladdr(reinterpret_cast<const void*>(&frames_text), &ours);
  std::erase_if(frames, [&](void* at) { return ::dladdr(at, &where) != 0 && where.dli_fbase == ours.dli_fbase; });
  return describe_backtrace(frames, "ringlet:     ");
}

void report() {
  using number = unsigned long long;
  const auto counts = dispatcher::count();
  std::string text = "ringlet: threads made fibers: " + std::to_string(threads::made()) + "; system calls answered: " + std::to_string(counts.dispatched) +
                     "; made to give way: " + std::to_string(threads::times_given_way()) + "\n";
  rusage used{};
  sys::call(SYS_getrusage, RUSAGE_SELF, &used);
  text += "ringlet: switches: " + std::to_string(threads::switches()) + "; entries into the kernel to submit or wait: " + std::to_string(threads::kernel_entries()) +
          "; peak memory: " + std::to_string(used.ru_maxrss / 1024) + " MiB\n";
  for (const auto& library : patch::treated_libraries()) {
    const std::string name = library.library.substr(library.library.rfind('/') + 1);
    text += "ringlet: " + name + ": " + (library.applied ? "" : "left whole: " + library.refused + "; ") + "system calls led to us: " +
            std::to_string(library.applied ? library.wanted_count() : 0) + ", left native: " +
            std::to_string(library.applied ? library.native_count() : library.sites.size()) + "\n";
  }
  std::vector<std::pair<number, std::string>> parks;
  dispatcher::each_wait([](const char* name, number times, void* to) { static_cast<decltype(parks)*>(to)->emplace_back(times, name); }, &parks);
  std::sort(parks.rbegin(), parks.rend());
  text += "ringlet: calls that parked:";
  for (const auto& [times, name] : parks) text += " " + name + " " + std::to_string(times);
  text += parks.empty() ? " none\n" : "\n";
  threads::each_delay(
      [](const threads::delay& d, void* to) {
        const std::string who = d.thread == 0 ? "the hub" : "thread " + std::to_string(d.thread) + " '" + std::string(d.name, ::strnlen(d.name, sizeof d.name)) + "'";
        char milliseconds[32];
        std::snprintf(milliseconds, sizeof milliseconds, "%.1f ms", double(d.nanoseconds) / 1e6);
        *static_cast<std::string*>(to) += "ringlet: " + who + " kept the others waiting for " + milliseconds + ":\n" + frames_text(d);
      },
      &text);
  std::fputs(text.c_str(), stderr);
}

std::string open() {
  if (foreign_threads() > 1) return "the process has other threads already, made by a way that was not seen";
  if (has_go_code()) return "there is Go code in it, which makes its system calls by itself: its waits would hold up all threads";
  const std::string closed = patch::open_door({.wanted = dispatcher::wanted_numbers(), .call = &dispatcher::dispatch});
  if (!closed.empty()) return closed;
  leave_rseq();
  io::observe_descriptors(true);  // every call that changes what is known of a descriptor comes by us now
  protect_what_we_use();
  if (reports_at_exit) std::atexit(&report);
  return "";
}

}  // namespace

void want_threads_as_fibers(bool reports) noexcept {
  reports_at_exit = threads::notes_delays = reports;
  if (reports) dispatcher::count_parks();
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
