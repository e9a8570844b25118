#pragma once
// A message of some bytes, with room for one descriptor beside them (cmsg(3)). For conformance's cases, too, which know
// nothing of ringlet.

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstring>

namespace support {

struct fd_message {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec part;
  msghdr header{};

  fd_message(const void* bytes, std::size_t size) : part{const_cast<void*>(bytes), size} {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
  }
  fd_message(const fd_message&) = delete;

  // Sends it along.
  void put(int fd) {
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(c), &fd, sizeof fd);
  }
  // The one that came, or -1.
  int taken() const {
    int fd = -1;
    if (const cmsghdr* c = CMSG_FIRSTHDR(&header); c && c->cmsg_type == SCM_RIGHTS)
      std::memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
  }
};

}  // namespace support
