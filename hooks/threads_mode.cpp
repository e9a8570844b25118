#include "threads_mode.hpp"

#include <fcntl.h>

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

enum class state { unwanted, wanted, open, refused };
std::atomic<state> now{state::unwanted};
bool reports_at_exit = false;

void report() {
  const auto counts = dispatcher::count();
  std::fprintf(stderr, "ringlet: threads made fibers: %llu; system calls answered: %llu\n",
               static_cast<unsigned long long>(threads::made()), counts.dispatched);
}

std::string open() {
  if (foreign_threads() > 1) return "the process has other threads already, made by a way that was not seen";
  const std::string closed = patch::open_door({.wanted = dispatcher::wanted_numbers(), .call = &dispatcher::dispatch});
  if (!closed.empty()) return closed;
  leave_rseq();
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
