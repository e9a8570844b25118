// Waiting for children. One child by its number is a pidfd that becomes readable when it ends; for "any child", groups,
// and stops, nothing can be polled, so a helper thread waits (a child is its process's, not a thread's).
//
// The status is always taken by a real call that does not wait, so who gets it, and ECHILD, is the kernel's matter.

#include "libc.hpp"

#include <ringlet/io.hpp>

#include "base/sys.hpp"
#include "dialect.hpp"
#include "offloaded.hpp"
#include "real.hpp"
#include "shaped.hpp"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace ringlet::hooks::shaped {

namespace {

// Parks until the child has ended: 0, or -errno (no pidfd: an old kernel, or not a child's number any more).
int wait_for_end(pid_t pid) {
  const long fd = sys::call(SYS_pidfd_open, pid, 0);
  if (fd < 0) return int(fd);
  io::fd_opened(int(fd));
  const int answer = io::wait_for_child(int(fd));
  io::close(int(fd));
  return answer;
}

// now() asks without waiting, and gives nothing() if there is nothing yet; wholly() waits, on a helper thread.
template <class Result, class Now, class Wholly>
Result wait_for(const char* what, pid_t one, Now now, Wholly wholly) {
  while (true) {
    bool nothing_yet = false;
    const Result answer = now(nothing_yet);
    if (!nothing_yet) return answer;
    if (one <= 0) return offloaded(what, detail::signal_effect::ends_unless_restarted, wholly);
    const int waited = wait_for_end(one);
    if (waited == -ECANCELED || waited == -EINTR) return to_libc<Result>(waited);
    if (waited < 0) return offloaded(what, detail::signal_effect::ends_unless_restarted, wholly);
  }
}

}  // namespace

pid_t wait4(pid_t pid, int* status, int flags, rusage* usage) {
  if (flags & WNOHANG) return real::wait4(pid, status, flags, usage);
  const bool only_its_end = !(flags & (WUNTRACED | WCONTINUED));
  return wait_for<pid_t>(
      "wait4", only_its_end ? pid : 0,
      [&](bool& nothing_yet) {
        const pid_t found = real::wait4(pid, status, flags | WNOHANG, usage);
        nothing_yet = found == 0;
        return found;
      },
      [=] { return real::wait4(pid, status, flags, usage); });
}

pid_t wait3(int* status, int flags, rusage* usage) { return shaped::wait4(-1, status, flags, usage); }
pid_t waitpid(pid_t pid, int* status, int flags) { return shaped::wait4(pid, status, flags, nullptr); }
pid_t wait(int* status) { return shaped::wait4(-1, status, 0, nullptr); }

int waitid(idtype_t kind, id_t id, siginfo_t* found, int flags) {
  if (flags & WNOHANG) return real::waitid(kind, id, found, flags);
  const bool only_its_end = (flags & WEXITED) && !(flags & (WSTOPPED | WCONTINUED));
  siginfo_t own;
  siginfo_t* const answer = found ? found : &own;
  return wait_for<int>(
      "waitid", only_its_end && kind == P_PID ? pid_t(id) : 0,
      [&](bool& nothing_yet) {
        answer->si_pid = 0;
        const int result = real::waitid(kind, id, answer, flags | WNOHANG);
        nothing_yet = result == 0 && answer->si_pid == 0;
        return result;
      },
      [=] { return real::waitid(kind, id, found, flags); });
}

}  // namespace ringlet::hooks::shaped
