// From a plan to a running program.
//
// clone(CLONE_VM | CLONE_VFORK): no page table is copied, so it costs the same whatever the parent's size; the parent's
// thread sleeps until the child has left for its program or has written down, in the memory that they share, which step
// failed and why. The child has a stack of its own and makes raw system calls only: no allocation, no lock, no libc. All
// signals are blocked around it, and the child has put every handler back to its default before any is let through: a
// handler in the shared memory would run in the wrong process.
//
// It is done on the calling thread, not on a helper: a parent-death signal is the thread's that made the child.

#include "process/start.hpp"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cstdint>
#include <memory>
#include <new>

#include "base/kernel_action.hpp"
#include "base/sys.hpp"

namespace ringlet::detail {

namespace {

constexpr std::size_t child_stack_bytes = 32768;

struct child_order {
  const start_plan& plan;
  start_result& result;
  std::uint64_t mask;  // that its program begins with
  pid_t parent;
  int stream[3];
};

// The child's functions run in the parent's memory: what sanitizers would note down there is not theirs.
#define IN_CHILD __attribute__((noinline, no_sanitize("address", "undefined", "thread")))

IN_CHILD int failed(child_order& o, const char* step, long result) noexcept {
  o.result.error = int(-result);
  o.result.step = step;
  return 127;
}

IN_CHILD void default_signals(bool keep, std::uint64_t ignored_beneath) noexcept {
  for (int number = 1; number <= 64; ++number) {
    base::kernel_action now, then;
    if (base::set_action(number, nullptr, &now) != 0) continue;
    const bool ignored = now.is_ignored() || (now.has_handler() && (ignored_beneath & std::uint64_t(1) << (number - 1)));
    const bool stays_ignored = ignored && (keep || (number != SIGPIPE && number != SIGXFSZ));
    if (stays_ignored) then.ignore();
    if (now.handler != then.handler) base::set_action(number, &then, nullptr);
  }
}

// 0, 1 and 2 may be each other's sources: first all are brought out of the way.
IN_CHILD long place_streams(child_order& o) noexcept {
  for (int& from : o.stream) {
    if (from < 0 || from > 2) continue;
    const long aside = sys::call(SYS_fcntl, from, F_DUPFD_CLOEXEC, 3);
    if (aside < 0) return aside;
    from = int(aside);
  }
  for (int to = 0; to < 3; ++to) {
    if (o.stream[to] < 0) continue;
    const long placed = sys::call(SYS_dup3, o.stream[to], to, 0);
    if (placed < 0) return placed;
  }
  return 0;
}

IN_CHILD long close_the_rest(const start_plan& p) noexcept {
  if (sys::call(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC) < 0) {  // before Linux 5.11
    rlimit most{};
    sys::call(SYS_prlimit64, 0, RLIMIT_NOFILE, nullptr, &most);
    const int end = most.rlim_cur > 65536 ? 65536 : int(most.rlim_cur);
    for (int fd = 3; fd < end; ++fd) sys::call(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
  }
  for (const int fd : p.keep_fds)
    if (fd > 2)
      if (const long kept = sys::call(SYS_fcntl, fd, F_SETFD, 0); kept < 0) return kept;
  return 0;
}

IN_CHILD int become_program(void* order) noexcept {
  auto& o = *static_cast<child_order*>(order);
  const start_plan& p = o.plan;
  default_signals(p.keep_signals, p.ignored);
  if (p.new_session)
    if (const long r = sys::call(SYS_setsid); r < 0) return failed(o, "setsid", r);
  if (p.set_group)
    if (const long r = sys::call(SYS_setpgid, 0, p.group); r < 0) return failed(o, "setpgid", r);
  if (p.die_with_parent) {
    if (const long r = sys::call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0L, 0L, 0L); r < 0) return failed(o, "prctl", r);
    if (sys::call(SYS_getppid) != o.parent) return failed(o, "prctl", -ESRCH);
  }
  if (const long r = place_streams(o); r < 0) return failed(o, "redirect", r);
  if (p.directory)
    if (const long r = sys::call(SYS_chdir, p.directory); r < 0) return failed(o, "chdir", r);
  if (const long r = close_the_rest(p); r < 0) return failed(o, "keep_fds", r);
  sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &o.mask, nullptr, sizeof o.mask);
  // As execvp(3): one that may not be executed is told only if there is none that may.
  long answer = -ENOENT;
  for (const std::string& path : p.candidates) {
    const long r = sys::call(SYS_execve, path.c_str(), p.arguments.data(), p.environment.data());
    if (r == -EACCES || answer == -EACCES) answer = -EACCES;
    else answer = r;
    if (r != -EACCES && r != -ENOENT && r != -ENOTDIR && r != -ENODEV && r != -ESTALE && r != -ETIMEDOUT) {
      answer = r;
      break;
    }
  }
  return failed(o, "exec", answer);
}

// clone(2) onto a stack of its own: the pid, or -errno. Not libc's, which sanitizers intercept and doors patch.
long clone_onto(char* stack_end, unsigned long flags, int* pidfd, int (*run)(void*) noexcept, void* argument) noexcept {
#if defined(__x86_64__)
  auto top = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(stack_end) & ~std::uintptr_t(15));
  *--top = reinterpret_cast<void*>(run);
  *--top = argument;
  long result;
  register long r10 asm("r10") = 0;
  register long r8 asm("r8") = 0;
  asm volatile(
      "syscall\n\t"
      "testq %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xorl %%ebp, %%ebp\n\t"
      "popq %%rdi\n\t"
      "popq %%rax\n\t"
      "callq *%%rax\n\t"
      "movl %%eax, %%edi\n\t"
      "movl $60, %%eax\n\t"  // exit
      "syscall\n\t"
      "hlt\n\t"
      "1:"
      : "=a"(result)
      : "0"(long(SYS_clone)), "D"(flags), "S"(top), "d"(pidfd), "r"(r10), "r"(r8)
      : "rcx", "r11", "memory");
  return result;
#else
  const int pid = ::clone(reinterpret_cast<int (*)(void*)>(run), stack_end, int(flags), argument, pidfd);
  return pid < 0 ? -errno : pid;
#endif
}

}  // namespace

start_result start_program(const start_plan& plan) noexcept {
  start_result result;
  const std::unique_ptr<char[]> stack(new (std::nothrow) char[child_stack_bytes]);
  if (!stack) {
    result.error = ENOMEM;
    result.step = "clone";
    return result;
  }
  const std::uint64_t all = ~std::uint64_t(0);
  std::uint64_t before = 0;
  sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all);
  child_order order{plan, result, plan.keep_signals ? before : 0, pid_t(sys::call(SYS_getpid)), {plan.streams[0], plan.streams[1], plan.streams[2]}};
  int pidfd = -1;
  const long pid = clone_onto(stack.get() + child_stack_bytes, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &pidfd, &become_program, &order);
  sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &before, nullptr, sizeof before);
  if (pid < 0) {
    result.error = int(-pid);
    result.step = "clone";
  } else if (result.error) {
    while (sys::call(SYS_wait4, pid, nullptr, __WALL, nullptr) == -EINTR) {  // it is on its way out
    }
    sys::call(SYS_close, pidfd);
  } else {
    result.pid = pid_t(pid);
    result.pidfd = pidfd;
  }
  return result;
}

}  // namespace ringlet::detail
