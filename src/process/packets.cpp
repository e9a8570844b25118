#include "process/packets.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <ringlet/io.hpp>

#include "io/doors.hpp"
#include "process/failures.hpp"

namespace ringlet::process_detail {

namespace {

enum class kind : std::uint64_t { inside = 0x72696e676c657431, beside = 0x72696e676c657432 };
// So that several go into a usual socket buffer, and a round number of bytes is still inside when it was packed.
constexpr std::size_t most_inside = (std::size_t(128) << 10) + 256;
// Of a bigger message so much goes inside all the same: so the socket's limit counts it, and there are not hundreds of them
// under way, which would cost memory, and caches more than that.
constexpr std::size_t inside_of_big = std::size_t(64) << 10;
constexpr std::size_t piece = std::size_t(4) << 20;  // of a big copy, between two of which others may run

struct fd_owner {
  int fd = -1;
  ~fd_owner() {
    if (fd >= 0) sys::call(SYS_close, fd);
  }
};

void breathe() {
  detail::hub_state& h = detail::hub_state::here();
  if (!h.can_park()) return;
  h.yield();
  if (h.interrupted()) h.throw_interrupt();
}

int put_beside(std::string_view message) {
  fd_owner file{int(sys::call(SYS_memfd_create, "ringlet message", MFD_CLOEXEC))};
  if (file.fd < 0) fail(file.fd, "a message of " + std::to_string(message.size()) + " bytes needs a memfd (a limit on open files? see ulimit -n)");
  while (!message.empty()) {
    const long put = sys::call(SYS_write, file.fd, message.data(), std::min(piece, message.size()));
    if (put == -EINTR) continue;
    if (put < 0) fail(put, "a message of many bytes does not fit into memory");
    message.remove_prefix(std::size_t(put));
    if (!message.empty()) breathe();
  }
  return std::exchange(file.fd, -1);
}

// The rest of a message of which `inside` bytes have come.
void take_beside(int fd, std::string& message, std::size_t inside) {
  struct stat s;
  if (const long failed = sys::call(SYS_fstat, fd, &s)) fail(failed, "a message's size");
  message.resize(inside + std::size_t(s.st_size));
  for (std::size_t at = inside; at < message.size();) {
    const long got = sys::call(SYS_pread64, fd, message.data() + at, std::min(piece, message.size() - at), at - inside);
    if (got == -EINTR) continue;
    if (got <= 0) fail(got ? got : -EIO, "a message beside its packet cannot be read");
    at += std::size_t(got);
    if (at < message.size()) breathe();
  }
}

// One for each thread and for each who receives at the same time: taken while it is in use.
constinit thread_local std::unique_ptr<char[]> spare_buffer;
struct buffer {
  std::unique_ptr<char[]> bytes = spare_buffer ? std::move(spare_buffer) : std::make_unique_for_overwrite<char[]>(most_inside);
  ~buffer() { spare_buffer = std::move(bytes); }
};

// Where cmsg(3) lays out one fd that goes with a packet.
struct fd_room {
  alignas(cmsghdr) char bytes[CMSG_SPACE(sizeof(int))];
};
void attach(msghdr& packet, fd_room& room, int fd) {
  packet.msg_control = room.bytes;
  packet.msg_controllen = sizeof room.bytes;
  cmsghdr* head = CMSG_FIRSTHDR(&packet);
  *head = {.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  std::memcpy(CMSG_DATA(head), &fd, sizeof fd);
}
// -1: none came with it.
int attached(const msghdr& packet) {
  const cmsghdr* head = CMSG_FIRSTHDR(&packet);
  int fd = -1;
  if (head && head->cmsg_type == SCM_RIGHTS) std::memcpy(&fd, CMSG_DATA(head), sizeof fd);
  return fd;
}

}  // namespace

packet_ends make_packets() {
  int ends[2];
  if (const long failed = sys::call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
    fail(failed, "a pipe needs a socket pair (a limit on open files? see ulimit -n)");
  const int size = 4 << 20;  // as much as net.core.wmem_max allows
  for (int fd : ends) {
    sys::call(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    io::fd_opened(fd);
  }
  return {ends[0], ends[1]};
}

sent send_packet(int fd, std::string_view message, deadline until, const char* what) {
  fd_owner beside;
  kind how = kind::inside;
  std::size_t inside = message.size();
  if (inside > most_inside) {
    inside = inside_of_big;
    beside.fd = put_beside(message.substr(inside));
    how = kind::beside;
  }
  while (true) {
    iovec parts[] = {{&how, sizeof how}, {const_cast<char*>(message.data()), inside}};
    fd_room room{};
    msghdr packet{};
    packet.msg_iov = parts;
    packet.msg_iovlen = 2;
    if (how == kind::beside) attach(packet, room, beside.fd);
    const long result = io::sendmsg(fd, &packet, MSG_NOSIGNAL, until);
    if (result >= 0) return sent::yes;
    if (result == -EPIPE || result == -ECONNRESET || result == -ENOTCONN) return sent::nobody_reads;
    if (result == -EMSGSIZE && inside > 0) {  // a system with very small socket buffers
      if (beside.fd >= 0) sys::call(SYS_close, std::exchange(beside.fd, -1));
      inside = 0;
      beside.fd = put_beside(message);
      how = kind::beside;
      continue;
    }
    if (!waited(int(result), what)) return sent::late;
  }
}

received receive_packet(int fd, std::string& message, deadline until, const char* what) {
  received result;
  while (true) {
    buffer into;
    kind how{};
    // Straight into the string as far as it reaches: one that is used again is as long as the message, most often.
    const std::size_t direct = std::min(message.size(), most_inside);
    iovec parts[] = {{&how, sizeof how}, {message.data(), direct}, {into.bytes.get(), most_inside}};
    fd_room room;
    msghdr packet{};
    packet.msg_iov = parts;
    packet.msg_iovlen = 3;
    packet.msg_control = room.bytes;
    packet.msg_controllen = sizeof room.bytes;
    const long got = io::recvmsg(fd, &packet, MSG_CMSG_CLOEXEC, until);
    if (got == 0) {
      result.how = received::kind::ended;
      return result;
    }
    if (got == -ECONNRESET) {  // said once, before what the peer sent while it lived
      result.peer_left_unread = true;
      continue;
    }
    if (got < 0) {
      if (waited(int(got), what)) continue;
      return result;
    }
    const std::size_t inside = std::size_t(got) - sizeof how;
    if (inside > direct)
      message.resize(direct), message.append(into.bytes.get(), inside - direct);
    else if (how == kind::inside)
      message.resize(inside);
    if (how == kind::beside) {
      fd_owner beside{attached(packet)};
      if (beside.fd < 0) fail(-EMFILE, "a big message came, but no fd is left to take it with; it is lost (see ulimit -n)");
      take_beside(beside.fd, message, inside);
    }
    result.how = received::kind::message;
    return result;
  }
}

}  // namespace ringlet::process_detail
