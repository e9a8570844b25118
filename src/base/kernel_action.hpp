#pragma once
// A signal's action as rt_sigaction(2) has it: for handlers of our own, where libc's names may be replaced by hooks.

#include <csignal>
#include <cstdint>

#include "base/sys.hpp"

namespace ringlet::base {

struct kernel_action {
  void (*handler)(int, siginfo_t*, void*) = nullptr;  // the kernel passes all three; or SIG_DFL, SIG_IGN
  unsigned long flags = 0;
  void (*restorer)() = nullptr;
  std::uint64_t mask = 0;

  bool is_default() const noexcept { return !handler; }
  bool is_ignored() const noexcept {
    return reinterpret_cast<std::uintptr_t>(handler) == reinterpret_cast<std::uintptr_t>(SIG_IGN);
  }
  bool has_handler() const noexcept { return !is_default() && !is_ignored(); }
  void ignore() noexcept { handler = reinterpret_cast<decltype(handler)>(reinterpret_cast<std::uintptr_t>(SIG_IGN)); }
};

#ifdef __x86_64__
// What a handler returns to, and the flag that tells the kernel of it; other processors have one of the kernel's.
extern "C" [[gnu::visibility("hidden")]] void ringlet_signal_return();
inline constexpr unsigned long has_restorer = 0x04000000;
#endif

inline kernel_action action_of(void (*handler)(int, siginfo_t*, void*), unsigned long flags, std::uint64_t mask = 0) noexcept {
#ifdef __x86_64__
  return {handler, flags | has_restorer, &ringlet_signal_return, mask};
#else
  return {handler, flags, nullptr, mask};
#endif
}

inline long set_action(int signal, const kernel_action* wanted, kernel_action* before) noexcept {
  return sys::call(SYS_rt_sigaction, signal, wanted, before, sizeof wanted->mask);
}

}  // namespace ringlet::base
