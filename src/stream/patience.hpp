#pragma once
// A stream waits, whatever the fd's O_NONBLOCK says: whoever shares it may have set the flag for itself.

#include <fcntl.h>

#include <ringlet/io.hpp>

#include "base/sys.hpp"

namespace ringlet::detail {

// call() again and again while it says -EAGAIN for the flag's sake.
template <class Call>
ssize_t patiently(int fd, bool writes, deadline until, Call call) {
  while (true) {
    const ssize_t result = call();
    if (result != -EAGAIN || !(sys::call(SYS_fcntl, fd, F_GETFL) & O_NONBLOCK)) return result;
    const int waited = writes ? io::wait_writable(fd, until) : io::wait_readable(fd, until);
    if (waited < 0 && waited != -EINTR) return waited;
  }
}

}  // namespace ringlet::detail
