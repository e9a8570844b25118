// The program's signal handlers, wrapped: before one runs, the hub is told, wherever the thread is at that moment.
//
// A handler that runs while another fiber has the thread ends no system call, so the main fiber's wait would never learn of
// it. The kernel is given one wrapper for all signals; which handler it stands for is remembered here, and what the
// program asks for is answered as if its own were installed. Everything else of an action (mask, flags, SA_RESETHAND, the
// alternate stack) is the kernel's, untouched. Signals of faults are not wrapped: they end no wait.
//
// Any thread, and in handlers: sigaction(2) and signal(2) are async-signal-safe, so are these.

#include "libc.hpp"

#include <signal.h>

#include <atomic>
#include <type_traits>

#include "dialect.hpp"
#include "hub/hub.hpp"
#include "real.hpp"
#include "shaped.hpp"
#include "signals.hpp"

namespace ringlet::hooks {

namespace {

constexpr int most_signals = 65;
using handler_type = void (*)(int, siginfo_t*, void*);  // the kernel passes all three, whatever SA_SIGINFO says

struct handled {
  std::atomic<handler_type> handler{nullptr};
  std::atomic<bool> restarts{false};
};
handled signals[most_signals];

bool is_wrapped(int number) noexcept {
  return number > 0 && number < most_signals && number != SIGSEGV && number != SIGBUS && number != SIGFPE && number != SIGILL &&
         number != SIGTRAP && number != SIGSYS;
}

// The hub is told first: a handler may leave by siglongjmp.
void wrapper(int number, siginfo_t* info, void* machine) {
  handled& s = signals[number];
  detail::signal_handled(s.restarts.load(std::memory_order_relaxed));
  s.handler.load(std::memory_order_acquire)(number, info, machine);
}

// One union of the kernel's, two names.
sighandler_t plain(handler_type h) noexcept {
  struct sigaction both;
  both.sa_sigaction = h;
  return both.sa_handler;
}
handler_type full(sighandler_t h) noexcept {
  struct sigaction both;
  both.sa_handler = h;
  return both.sa_sigaction;
}

bool is_function(sighandler_t h) noexcept { return h != SIG_DFL && h != SIG_IGN && h != SIG_ERR && h != SIG_HOLD; }

void look_at_flags(int number) noexcept {
  struct sigaction now;
  if (real::sigaction(number, nullptr, &now) == 0)
    signals[number].restarts.store((now.sa_flags & SA_RESTART) != 0, std::memory_order_relaxed);
}

// signal(2) and its kin, by the original `install`.
template <class Install>
sighandler_t install_handler(int number, sighandler_t handler, Install install) {
  if (!is_wrapped(number)) return install(number, handler);
  handled& s = signals[number];
  handler_type before = s.handler.load(std::memory_order_relaxed);
  sighandler_t answer;
  if (is_function(handler)) {
    before = s.handler.exchange(full(handler), std::memory_order_acq_rel);
    answer = install(number, plain(&wrapper));
    if (answer == SIG_ERR)
      s.handler.store(before, std::memory_order_release);
    else
      look_at_flags(number);
  } else {
    answer = install(number, handler);
  }
  return answer == plain(&wrapper) ? plain(before) : answer;
}

}  // namespace

void wrap_handlers() noexcept {
  detail::handlers_are_wrapped_in(reinterpret_cast<void (*)()>(&wrapper));
  for (int number = 1; number < most_signals; ++number) {
    struct sigaction now;
    if (!is_wrapped(number) || real::sigaction(number, nullptr, &now) != 0) continue;
    if (!is_function(now.sa_handler) || now.sa_sigaction == &wrapper) continue;
    shaped::sigaction(number, &now, nullptr);
  }
}

void unwrap_handlers() noexcept {
  for (int number = 1; number < most_signals; ++number) {
    struct sigaction now;
    if (!is_wrapped(number) || real::sigaction(number, nullptr, &now) != 0 || now.sa_sigaction != &wrapper) continue;
    now.sa_sigaction = signals[number].handler.load(std::memory_order_acquire);
    real::sigaction(number, &now, nullptr);
  }
}

namespace shaped {

int sigaction(int number, const struct sigaction* wanted, struct sigaction* before) {
  if (!is_wrapped(number)) return real::sigaction(number, wanted, before);
  handled& s = signals[number];
  handler_type old_handler = s.handler.load(std::memory_order_relaxed);
  int answer;
  if (wanted && is_function(wanted->sa_handler)) {
    struct sigaction mine = *wanted;
    const bool old_restarts = s.restarts.exchange((mine.sa_flags & SA_RESTART) != 0, std::memory_order_relaxed);
    old_handler = s.handler.exchange(mine.sa_sigaction, std::memory_order_acq_rel);
    mine.sa_sigaction = &wrapper;
    answer = real::sigaction(number, &mine, before);
    if (answer != 0) {  // SIGKILL, SIGSTOP and the implementation's own
      s.handler.store(old_handler, std::memory_order_release);
      s.restarts.store(old_restarts, std::memory_order_relaxed);
    }
  } else {
    answer = real::sigaction(number, wanted, before);
  }
  if (answer == 0 && before && before->sa_sigaction == &wrapper) before->sa_sigaction = old_handler;
  return answer;
}

sighandler_t signal(int number, sighandler_t handler) {
  return install_handler(number, handler, [](int n, sighandler_t h) { return real::signal(n, h); });
}
sighandler_t sysv_signal(int number, sighandler_t handler) {
  return install_handler(number, handler, [](int n, sighandler_t h) { return real::sysv_signal(n, h); });
}
sighandler_t sigset(int number, sighandler_t handler) {
  return install_handler(number, handler, [](int n, sighandler_t h) { return real::sigset(n, h); });
}

int siginterrupt(int number, int interrupt) {
  const int answer = real::siginterrupt(number, interrupt);
  if (answer == 0 && is_wrapped(number)) look_at_flags(number);
  return answer;
}

}  // namespace shaped

}  // namespace ringlet::hooks
