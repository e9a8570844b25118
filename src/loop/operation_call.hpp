#pragma once
// An operation done as the plain system call that it stands for, on the thread that calls this: what a helper thread
// does under the epoll engine, and what the simulated engine does at a moment of its choosing.

#include "base/sys.hpp"
#include "loop/engine.hpp"

namespace ringlet::loop {

inline int call_operation(const operation& op) noexcept {
  // preadv2 takes the position in two halves; on 64-bit kernels the low half is all of it.
  const auto position = static_cast<long>(op.offset);
  const auto high = sizeof(long) == 8 ? 0L : static_cast<long>(op.offset >> 32);
  switch (op.code) {
    case opcode::nop:
      return 0;
    case opcode::readv:
      return int(sys::call(SYS_preadv2, op.fd, op.parts, op.count, position, high, op.flags));
    case opcode::writev:
      return int(sys::call(SYS_pwritev2, op.fd, op.parts, op.count, position, high, op.flags));
    case opcode::fsync:
      return int(sys::call(SYS_fsync, op.fd));
    case opcode::fdatasync:
      return int(sys::call(SYS_fdatasync, op.fd));
    case opcode::openat:
      return int(sys::call(SYS_openat, op.fd, op.path, op.flags, op.mode));
    case opcode::accept:
    case opcode::connect:
      break;  // see engine::waits_for_sockets
  }
  return -ENOSYS;
}

}  // namespace ringlet::loop
