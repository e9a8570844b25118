#pragma once
// See pipe_write.cpp.

#include <cstddef>
#include <sys/types.h>

namespace ringlet::detail {
// Writes as much as the pipe has room for now: so many bytes; -EAGAIN: none; -EPIPE, and no signal: nobody reads.
ssize_t try_pipe(int fd, const void* data, std::size_t size) noexcept;
}  // namespace ringlet::detail
