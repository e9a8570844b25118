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
// Below the smallest usual socket buffer, so that several go into one.
constexpr std::size_t most_inside = std::size_t(64) << 10;
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

std::string take_beside(int fd) {
  struct stat s;
  if (const long failed = sys::call(SYS_fstat, fd, &s)) fail(failed, "a message's size");
  std::string message;
  message.resize(std::size_t(s.st_size));
  for (std::size_t at = 0; at < message.size();) {
    const long got = sys::call(SYS_pread64, fd, message.data() + at, std::min(piece, message.size() - at), at);
    if (got == -EINTR) continue;
    if (got <= 0) fail(got ? got : -EIO, "a message beside its packet cannot be read");
    at += std::size_t(got);
    if (at < message.size()) breathe();
  }
  return message;
}

// One for each thread and for each who receives at the same time: taken while it is in use.
constinit thread_local std::unique_ptr<char[]> spare_buffer;
struct buffer {
  std::unique_ptr<char[]> bytes = spare_buffer ? std::move(spare_buffer) : std::make_unique_for_overwrite<char[]>(most_inside);
  ~buffer() { spare_buffer = std::move(bytes); }
};

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
  if (message.size() > most_inside) {
    beside.fd = put_beside(message);
    how = kind::beside;
  }
  while (true) {
    iovec parts[] = {{&how, sizeof how}, {const_cast<char*>(message.data()), message.size()}};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr packet{};
    packet.msg_iov = parts;
    packet.msg_iovlen = 2;
    if (how == kind::beside) {
      packet.msg_iovlen = 1;
      packet.msg_control = control;
      packet.msg_controllen = sizeof control;
      cmsghdr* c = CMSG_FIRSTHDR(&packet);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(c), &beside.fd, sizeof(int));
    }
    const long result = io::sendmsg(fd, &packet, MSG_NOSIGNAL, until);
    if (result >= 0) return sent::yes;
    if (result == -EPIPE || result == -ECONNRESET || result == -ENOTCONN) return sent::nobody_reads;
    if (result == -EMSGSIZE && how == kind::inside) {  // a system with very small socket buffers
      beside.fd = put_beside(message);
      how = kind::beside;
      continue;
    }
    if (!waited(int(result), what)) return sent::late;
  }
}

received receive_packet(int fd, deadline until, const char* what) {
  received result;
  while (true) {
    buffer into;
    kind how{};
    iovec parts[] = {{&how, sizeof how}, {into.bytes.get(), most_inside}};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr packet{};
    packet.msg_iov = parts;
    packet.msg_iovlen = 2;
    packet.msg_control = control;
    packet.msg_controllen = sizeof control;
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
    if (how == kind::inside) {
      result.message.assign(into.bytes.get(), std::size_t(got) - sizeof how);
    } else {
      fd_owner beside;
      if (const cmsghdr* c = CMSG_FIRSTHDR(&packet); c && c->cmsg_type == SCM_RIGHTS) std::memcpy(&beside.fd, CMSG_DATA(c), sizeof(int));
      if (beside.fd < 0) fail(-EMFILE, "a big message came, but no fd is left to take it with; it is lost (see ulimit -n)");
      result.message = take_beside(beside.fd);
    }
    result.how = received::kind::message;
    return result;
  }
}

}  // namespace ringlet::process_detail
