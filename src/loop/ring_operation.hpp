#pragma once
// An operation as the ring wants it; its user_data is the caller's to set.

#include <liburing.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstdint>

#include "loop/engine.hpp"

namespace ringlet::loop {

inline void prepare(io_uring_sqe& sqe, const operation& op) {
  const auto offset = std::uint64_t(op.offset);
  // One part needs no vector to be copied in; what one call can move at most fits the length's 32 bits.
  const unsigned length = op.count == 1 ? unsigned(std::min<std::size_t>(op.parts->iov_len, 0x7ffff000)) : 0;
  switch (op.code) {
    case opcode::nop:
      io_uring_prep_nop(&sqe);
      break;
    case opcode::readv:
      if (op.count == 1)
        io_uring_prep_read(&sqe, op.fd, op.parts->iov_base, length, offset);
      else
        io_uring_prep_readv(&sqe, op.fd, op.parts, op.count, offset);
      sqe.rw_flags = op.flags;
      break;
    case opcode::writev:
      if (op.count == 1)
        io_uring_prep_write(&sqe, op.fd, op.parts->iov_base, length, offset);
      else
        io_uring_prep_writev(&sqe, op.fd, op.parts, op.count, offset);
      sqe.rw_flags = op.flags;
      break;
    case opcode::fsync:
      io_uring_prep_fsync(&sqe, op.fd, 0);
      break;
    case opcode::fdatasync:
      io_uring_prep_fsync(&sqe, op.fd, IORING_FSYNC_DATASYNC);
      break;
    case opcode::openat:
      io_uring_prep_openat(&sqe, op.fd, op.path, op.flags, op.mode);
      break;
    case opcode::accept:
      io_uring_prep_accept(&sqe, op.fd, op.address, op.address_length, op.flags);
      break;
    case opcode::connect:
      io_uring_prep_connect(&sqe, op.fd, op.address, *op.address_length);
      break;
  }
  if (op.may_block) sqe.flags |= IOSQE_ASYNC;
}

}  // namespace ringlet::loop
