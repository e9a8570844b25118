#pragma once
// Eventfds: which fds are some, and whether a write would wait. Poll does not tell: one that has room for 1 is ready,
// and a write of more than fits waits inside the call.

#include <cstdint>

struct iovec;

namespace ringlet::io {

// Of an fd that is an anonymous inode (fstat tells).
bool is_eventfd(int fd);

// What a write of these parts would add: nothing, if the kernel refuses it at once (too short, UINT64_MAX, a bad
// address) or takes it whatever is there (0).
std::uint64_t number_in(const iovec* parts);

// Whether an eventfd has no room for what is to be added, although it has room for 1.
bool is_too_full(int fd, std::uint64_t number);

}  // namespace ringlet::io
