#pragma once
// Ends of pipes from fds that were got elsewhere (a connection); they own them, and are closed in children as others are.

#include <ringlet/ipc/pipe.hpp>

namespace ringlet::ipc {
struct end_maker {
  static byte_end make(int fd, bool sends, bool receives);
};
}  // namespace ringlet::ipc
