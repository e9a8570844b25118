#pragma once
// What the io tests share: an fd that is closed the way the direct API asks for, and running a case on fibers.

#include <poll.h>

#include <utility>

#include <ringlet/fiber.hpp>
#include <ringlet/hub.hpp>
#include <ringlet/io.hpp>

#include "support/support.hpp"

namespace io_test {

using namespace std::chrono_literals;
namespace io = ringlet::io;

class owned {
 public:
  owned() = default;
  explicit owned(int fd) : fd_(fd) {}
  owned(support::fd&& other) : fd_(other.release()) {}
  owned(owned&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  owned& operator=(owned&& other) noexcept { std::swap(fd_, other.fd_); return *this; }
  ~owned() { close(); }
  operator int() const { return fd_; }
  void close() { if (fd_ >= 0) io::close(std::exchange(fd_, -1)); }

 private:
  int fd_ = -1;
};

struct ends {
  owned a, b;
};
inline ends stream_pair() {
  auto p = support::make_socketpair();
  return {owned(std::move(p.first)), owned(std::move(p.second))};
}
inline ends pipe_pair() {  // a reads, b writes
  auto p = support::make_pipe();
  return {owned(std::move(p.first)), owned(std::move(p.second))};
}

// Lets everybody who can run do so until the fiber waits (bounded).
template <class Until>
bool turn_until(Until done) {
  for (int turns = 0; turns < 100000; ++turns) {
    if (done()) return true;
    ringlet::yield();
  }
  return false;
}
// The kernel's own word, at this moment (a packet over loopback may need one).
inline bool is_readable(int fd, int milliseconds = 0) {
  pollfd p{fd, POLLIN, 0};
  return ::poll(&p, 1, milliseconds) == 1;
}
// The number of fibers that wait on an fd is what it should be: so they are parked, not about to be.
inline bool parked_on_fds(std::size_t n) {
  return turn_until([n] { return ringlet::hub::count().fd_waits == n || ringlet::hub::count().operations >= n; });
}

}  // namespace io_test
