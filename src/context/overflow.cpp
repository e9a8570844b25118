// A stack overflow, reported with the fiber's name instead of as a bare SIGSEGV.
//
// The handler runs on an alternate stack (the overflowed one has no room). It only looks the address up among our guard
// pages, writes one line, and puts back what was there before: returning then faults again, and the program dies, dumps
// core or handles the signal as it would have without us. Faults elsewhere pass through unchanged.

#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstring>

#include "base/sys.hpp"
#include "context/alternate_stack.hpp"
#include "context/stack.hpp"

namespace ringlet::context {

namespace {
std::atomic<void (*)(const void*, char*, std::size_t)> describe_owner{nullptr};
struct sigaction before;

void on_fault(int signal_number, siginfo_t* info, void* machine) {
  const void* owner = nullptr;
  std::size_t stride = 0;
  if (find_guard(info->si_addr, &owner, &stride)) {
    char name[96] = "?";
    if (auto describe = describe_owner.load(std::memory_order_relaxed); owner && describe) describe(owner, name, sizeof name);
    char text[512];
    const int n = std::snprintf(text, sizeof text,
                                "ringlet: stack overflow in %s: its %zu KiB stack is full (address %p is in its guard page).\n"
                                "ringlet: cure: spawn it with a larger stack_size_bytes, or set RINGLET_STACK_SIZE (for example 256k); "
                                "untouched pages cost nothing.\n",
                                name, stride / 1024, info->si_addr);
    sys::call(SYS_write, 2, text, n < int(sizeof text) ? n : int(sizeof text) - 1);
  } else if ((before.sa_flags & SA_SIGINFO) && before.sa_sigaction) {
    before.sa_sigaction(signal_number, info, machine);
    return;
  } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(signal_number);
    return;
  }
  ::sigaction(signal_number, &before, nullptr);
  // A SIGSEGV sent by kill(2) does not fault again by itself.
  if (info->si_code <= 0) sys::call(SYS_tgkill, ::getpid(), sys::call(SYS_gettid), signal_number);
}
}  // namespace

void install_overflow_report(void (*describe)(const void* owner, char* text, std::size_t size), bool knows_better) noexcept {
  if (knows_better || !describe_owner.load(std::memory_order_relaxed)) describe_owner.store(describe, std::memory_order_relaxed);
  static const bool once = [] {
    struct sigaction ours;
    std::memset(&ours, 0, sizeof ours);
    ours.sa_sigaction = &on_fault;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&ours.sa_mask);
    ::sigaction(SIGSEGV, &ours, &before);
    return true;
  }();
  (void)once;
}

namespace {
// Taken down again when the thread ends, unless somebody has put up another in its place.
struct alternate_stack {
  void* memory = nullptr;
  static constexpr std::size_t bytes = 64 * 1024;
  ~alternate_stack() { take_down(); }
  void take_down() noexcept {
    if (!memory) return;
    stack_t current;
    if (::sigaltstack(nullptr, &current) == 0 && current.ss_sp == memory) {
      if (current.ss_flags & SS_ONSTACK) return;
      stack_t none{};
      none.ss_flags = SS_DISABLE;
      ::sigaltstack(&none, nullptr);
      ::munmap(memory, bytes);
      memory = nullptr;
    }
  }
};
thread_local alternate_stack for_this_thread;
}  // namespace

void install_alternate_stack_for_thread() noexcept {
  stack_t current;
  if (for_this_thread.memory || ::sigaltstack(nullptr, &current) != 0 || !(current.ss_flags & SS_DISABLE)) return;
  void* memory = ::mmap(nullptr, alternate_stack::bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return;  // an overflow will then be a bare SIGSEGV
  stack_t ours{};
  ours.ss_sp = memory;
  ours.ss_size = alternate_stack::bytes;
  if (::sigaltstack(&ours, nullptr) == 0)
    for_this_thread.memory = memory;
  else
    ::munmap(memory, alternate_stack::bytes);
}

void take_down_alternate_stack_of_thread() noexcept { for_this_thread.take_down(); }

}  // namespace ringlet::context
