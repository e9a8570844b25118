// Pipes: a pair of packet sockets, each end of which knows what it may do and whether this process is to have it.

#include <ringlet/ipc/pipe.hpp>

#include <fcntl.h>
#include <sys/socket.h>

#include <ringlet/io.hpp>

#include "process/ends.hpp"
#include "process/failures.hpp"
#include "process/handles.hpp"
#include "process/packets.hpp"

namespace ringlet::ipc {

struct byte_end::state : process_detail::handle {
  bool sends, receives;
  state(int fd, bool s, bool r) : sends(s), receives(r) { process_detail::add(*this, fd); }
  ~state() { process_detail::close(*this); }
};

byte_end end_maker::make(int fd, bool sends, bool receives) {
  byte_end e;
  e.state_ = std::make_unique<byte_end::state>(fd, sends, receives);
  return e;
}

byte_end::byte_end() noexcept = default;
byte_end::~byte_end() = default;
byte_end::byte_end(byte_end&&) noexcept = default;
byte_end& byte_end::operator=(byte_end&&) noexcept = default;

byte_end::state& byte_end::opened(const char* verb) const {
  if (state_ && state_->fd >= 0) return *state_;
  if (state_ && state_->left_behind)
    throw std::logic_error(std::string("ringlet: ") + verb + ": this end of a pipe was not handed over to this process; move it into the process "
                           "(as an argument, or captured by value), a duplicate() if the parent shall keep one");
  throw std::logic_error(std::string("ringlet: ") + verb + " on an end of a pipe that is closed or was moved away");
}

bool byte_end::send_bytes(std::string_view message, deadline until) {
  state& s = opened("send");
  if (!s.sends) throw std::logic_error("ringlet: send on the reading end of a one-way pipe; use the other end, or a duplex pipe");
  switch (process_detail::send_packet(s.fd, message, until, "ipc send")) {
    case process_detail::sent::yes: return true;
    case process_detail::sent::late: return false;
    default: throw end_of_pipe("ringlet: send into a pipe whose other side is closed: every process that had it has closed it or ended");
  }
}

std::optional<std::string> byte_end::receive_bytes(deadline until) {
  std::string message;
  if (!receive_into(message, until)) return std::nullopt;
  return message;
}

bool byte_end::receive_into(std::string& message, deadline until) {
  state& s = opened("receive");
  if (!s.receives) throw std::logic_error("ringlet: receive on the writing end of a one-way pipe; use the other end, or a duplex pipe");
  switch (process_detail::receive_packet(s.fd, message, until, "ipc receive").how) {
    case process_detail::received::kind::message: return true;
    case process_detail::received::kind::late: return false;
    default: throw end_of_pipe("ringlet: receive from a pipe whose other side is closed: every process that had it has closed it or ended");
  }
}

bool byte_end::wait_readable(deadline until) {
  state& s = opened("wait_readable");
  while (true) {
    const int result = io::wait_readable(s.fd, until);
    if (result >= 0) return true;
    if (!process_detail::waited(result, "wait_readable")) return false;
  }
}

byte_end byte_end::duplicate() const {
  state& s = opened("duplicate");
  const long fd = sys::call(SYS_fcntl, s.fd, F_DUPFD_CLOEXEC, 3L);
  if (fd < 0) process_detail::fail(fd, "no fd for another end of a pipe (see ulimit -n)");
  return end_maker::make(int(fd), s.sends, s.receives);
}

void byte_end::close() noexcept {
  if (state_) process_detail::close(*state_);
}
bool byte_end::is_open() const noexcept { return state_ && state_->fd >= 0; }
bool byte_end::can_send() const noexcept { return is_open() && state_->sends; }
bool byte_end::can_receive() const noexcept { return is_open() && state_->receives; }
int byte_end::fd() const noexcept { return state_ ? state_->fd : -1; }

int byte_end::keep_over_exec() const {
  state& s = opened("keep_over_exec");
  sys::call(SYS_fcntl, s.fd, F_SETFD, 0L);
  return s.fd;
}
byte_end byte_end::adopt(int fd, bool can_send, bool can_receive) {
  if (const long failed = sys::call(SYS_fcntl, fd, F_SETFD, long(FD_CLOEXEC)); failed < 0) process_detail::fail(failed, "an end of a pipe that was passed on");
  return end_maker::make(fd, can_send, can_receive);
}

byte_pipe_ends byte_pipe() {
  const auto ends = process_detail::make_packets();
  return {end_maker::make(ends.first, false, true), end_maker::make(ends.second, true, false)};
}

byte_duplex_ends byte_duplex() {
  const auto ends = process_detail::make_packets();
  return {end_maker::make(ends.first, true, true), end_maker::make(ends.second, true, true)};
}

}  // namespace ringlet::ipc
