// Connected sockets, and getting connected.
//
// A peer that has gone is an error of the call, never a SIGPIPE: everything is sent with MSG_NOSIGNAL.

#include <ringlet/socket.hpp>

#include <sys/un.h>

#include <ringlet/io.hpp>

#include "base/sys.hpp"
#include "io/doors.hpp"

namespace ringlet {

connection::connection(connection&& other) noexcept
    : stream(std::move(other)), fd_(std::exchange(other.fd_, -1)), peer_(other.peer_) {}

connection& connection::operator=(connection&& other) noexcept {
  if (this == &other) return *this;
  close();
  stream::operator=(std::move(other));
  fd_ = std::exchange(other.fd_, -1);
  peer_ = other.peer_;
  return *this;
}

connection::~connection() { close(); }

void connection::close() noexcept {
  if (fd_ >= 0) io::close(std::exchange(fd_, -1));
}

int connection::release() noexcept {
  forget_ahead();
  return std::exchange(fd_, -1);
}

void connection::shutdown_writing() {
  if (const long failed = sys::call(SYS_shutdown, fd_, SHUT_WR); failed < 0) detail::throw_io_failure(failed, "shutting down " + describe());
}
void connection::shutdown() {
  if (const long failed = sys::call(SYS_shutdown, fd_, SHUT_RDWR); failed < 0) detail::throw_io_failure(failed, "shutting down " + describe());
}

namespace {
socket_address asked(long number, int fd) {
  sockaddr_storage room{};
  unsigned length = sizeof room;
  if (sys::call(number, fd, &room, &length) < 0) return {};
  return socket_address(reinterpret_cast<const sockaddr*>(&room), length);
}
}  // namespace

socket_address connection::peer() const {
  if (peer_.length() == 0) peer_ = asked(SYS_getpeername, fd_);
  return peer_;
}
socket_address connection::local() const { return asked(SYS_getsockname, fd_); }

ssize_t connection::receive(void* buffer, std::size_t size, deadline until) { return io::recv(fd_, buffer, size, 0, until); }
ssize_t connection::transmit(const void* data, std::size_t size, deadline until) {
  return io::send(fd_, data, size, MSG_NOSIGNAL, until);
}
std::string connection::describe() const {
  const socket_address other = peer();
  return "the connection with " + (other.length() > sizeof other.data()->sa_family ? other.to_string() : "fd " + std::to_string(fd_));
}

connection connect_to(const socket_address& where, deadline until) {
  const long fd = sys::call(SYS_socket, where.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) detail::throw_io_failure(fd, "a socket for " + where.to_string());
  io::fd_opened(int(fd));
  connection made(int(fd), where);
  int failed;
  do failed = io::connect(int(fd), where.data(), where.length(), until);
  while (failed == -EINTR);
  if (failed == -EISCONN) failed = 0;  // after an EINTR it may have been made meanwhile
  if (failed < 0) detail::throw_io_failure(failed, "connecting to " + where.to_string());
  return made;
}

connection connect_to(std::string_view where, deadline until) {
  const auto addresses = socket_address::resolve(where, SOCK_STREAM, false, until);
  for (std::size_t i = 0;; ++i) {
    const auto left = addresses.size() - i;
    deadline mine = until;
    if (!until.is_never() && left > 1) mine = deadline((until.at() - clock::now()) / static_cast<long>(left));
    try {
      return connect_to(addresses[i], mine);
    } catch (const io_error&) {
      if (left == 1 || until.has_passed()) throw;
    }
  }
}

}  // namespace ringlet
