// Writing to a pipe that perhaps nobody reads.
//
// No flag forbids the SIGPIPE that comes of it (Linux has one from 6.18 on). So the signal is blocked for the length of the call,
// which does not wait, and one that came of it is taken away again: it is this thread's own, nobody else can get it.

#include "stream/pipe_write.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/uio.h>
#include <time.h>

#include <algorithm>
#include <cstdint>

#include "base/sys.hpp"
#include "io/wait.hpp"

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

namespace ringlet::detail {

namespace {
// While it lives, a SIGPIPE of this thread's own making waits; at the end it is taken away, unless there was one before.
class no_sigpipe {
 public:
  no_sigpipe() noexcept {
    std::uint64_t pending = 0;
    sys::call(SYS_rt_sigpending, &pending, sizeof pending);
    was_pending_ = pending & only_;
    sys::call(SYS_rt_sigprocmask, SIG_BLOCK, &only_, &before_, sizeof only_);
  }
  ~no_sigpipe() {
    const timespec at_once{0, 0};
    if (raised && !was_pending_) sys::call(SYS_rt_sigtimedwait, &only_, nullptr, &at_once, sizeof only_);
    sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &before_, nullptr, sizeof only_);
  }
  no_sigpipe(const no_sigpipe&) = delete;
  bool raised = false;

 private:
  static constexpr std::uint64_t only_ = std::uint64_t(1) << (SIGPIPE - 1);
  std::uint64_t before_ = 0;
  bool was_pending_ = false;
};
}  // namespace

ssize_t try_pipe(int fd, const void* data, std::size_t size) noexcept {
  const iovec part{const_cast<void*>(data), std::min<std::size_t>(size, 0x7ffff000)};
  no_sigpipe guard;
  ssize_t got = sys::call(SYS_pwritev2, fd, &part, 1, -1L, -1L, RWF_NOWAIT);
  // Pipes of older kernels do not know the flag; but one that is ready takes this much at once (pipe(7)).
  if (got == -EOPNOTSUPP) got = io::polled_ready(fd, POLLOUT) ? sys::call(SYS_write, fd, data, std::min<std::size_t>(size, 4096)) : -EAGAIN;
  guard.raised = got == -EPIPE;
  return got;
}

}  // namespace ringlet::detail
