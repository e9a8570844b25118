// A short read says that a stream is empty. Where it isn't, nobody sleeps through what is there.

#include <sys/socket.h>
#include <sys/uio.h>

#include <functional>
#include <string>

#include <ringlet/ringlet.hpp>

#include "io/fd_table.hpp"
#include "io/io_support.hpp"
#include "support/fd_message.hpp"

using namespace io_test;

namespace {
struct way {
  const char* name;
  std::function<ssize_t(int fd, char* buffer, std::size_t size, ringlet::deadline)> read;
};
const way ways[] = {
    {"recv", [](int fd, char* buffer, std::size_t size, ringlet::deadline until) { return io::recv(fd, buffer, size, 0, until); }},
    {"recvmsg without room for descriptors",
     [](int fd, char* buffer, std::size_t size, ringlet::deadline until) {
       iovec part{buffer, size};
       msghdr message{};
       message.msg_iov = &part;
       message.msg_iovlen = 1;
       return io::recvmsg(fd, &message, 0, until);
     }},
    {"read", [](int fd, char* buffer, std::size_t size, ringlet::deadline until) { return io::read(fd, buffer, size, until); }},
    {"readv",
     [](int fd, char* buffer, std::size_t size, ringlet::deadline until) {
       const iovec parts[] = {{buffer, 1}, {buffer + 1, size - 1}};
       return io::readv(fd, parts, 2, until);
     }},
};

// Somebody has waited on it, and then got less than he had asked for.
void read_short(const ends& p) {
  char buffer[64];
  REQUIRE(io::recv(p.a, buffer, 1, 0, 1ms) == -ETIMEDOUT);
  REQUIRE(io::send(p.b, "x", 1, 0) == 1);
  REQUIRE(io::recv(p.a, buffer, sizeof buffer, 0, 5s) == 1);
}
}  // namespace

TEST_CASE("short reads: bytes behind passed descriptors are not slept through") {
  for (const way& each : ways) {
    CAPTURE(each.name);
    auto p = stream_pair();
    char buffer[64];
    REQUIRE(io::recv(p.a, buffer, 1, 0, 1ms) == -ETIMEDOUT);  // its poll is in the kernel now
    std::string all;
    for (int round = 0; round < 3; ++round) {
      support::fd_message with_descriptor("ab", 2);
      with_descriptor.put(p.b);
      REQUIRE(io::sendmsg(p.b, &with_descriptor.header, 0) == 2);
      REQUIRE(io::send(p.b, "cd", 2, 0) == 2);
      for (const char* expected : {"ab", "cd"}) {
        const ringlet::deadline long_from_now = 20s;  // who sleeps through them finds them then
        REQUIRE(each.read(p.a, buffer, sizeof buffer, long_from_now) == 2);
        CHECK(!long_from_now.has_passed());
        CHECK(std::string(buffer, 2) == expected);
      }
    }
  }
}

TEST_CASE("short reads: one who waits has its time limit, though it is looked for him again") {
  auto p = stream_pair();
  char buffer[64];
  read_short(p);
  CHECK(io::recv(p.a, buffer, sizeof buffer, 0, 100ms) == -ETIMEDOUT);
  read_short(p);  // and it is closed while somebody waits to look
  auto reader = ringlet::spawn([&] { return io::recv(p.a, buffer, sizeof buffer, 0, 5s); });
  REQUIRE(parked_on_fds(1));
  p.a.close();
  CHECK(reader.get() == -EBADF);
}

TEST_CASE("short reads: what comes just when it is looked for again is no reason to believe the stream no more") {
  auto p = stream_pair();
  char buffer[64];
  read_short(p);
  auto reader = ringlet::spawn([&] { return io::recv(p.a, buffer, sizeof buffer, 0, 5s); });
  REQUIRE(parked_on_fds(1));

  // Sent in the turn of the second look, after the engine was asked for news and before the look.
  struct sender : ringlet::loop::timer {
    int to = -1;
  } late;
  late.to = p.b;
  late.fire = [](ringlet::loop::timer& t) { ::send(static_cast<sender&>(t).to, "late", 4, 0); };
  auto& hub = ringlet::detail::hub_state::here();
  REQUIRE(hub.look_again_at != ringlet::clock::time_point::max());
  hub.timers.reserve_place();
  hub.timers.arm(late, hub.look_again_at);
  CHECK(reader.get() == 4);
  hub.timers.give_place_back();

  const auto* watch = ringlet::io::fd_table::find_here(p.a);
  REQUIRE(watch);
  CHECK_FALSE(watch->misleads);
  CHECK_FALSE(watch->suspected);
}
