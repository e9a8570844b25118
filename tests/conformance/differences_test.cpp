// Where fibers are meant to differ from threads: what a kill and a timeout scope do to a call, and that closing a
// descriptor ends the waits on it (a thread would wait on, and then take a byte from a file nobody has any more).

#include "conformance.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ringlet/fiber.hpp>
#include <ringlet/hooks.hpp>
#include <ringlet/timeout.hpp>

namespace {

struct hooked {
  hooked() { ringlet::hooks::enable(); }
  ~hooked() { ringlet::hooks::disable(); }
};

// One waiting call, by name; -1 and errno when it is ended.
struct waiting_call {
  const char* name;
  int (*call)(int fd);
};
const waiting_call waits[] = {
    {"read", [](int fd) { char c; return int(::read(fd, &c, 1)); }},
    {"recv", [](int fd) { char c; return int(::recv(fd, &c, 1, 0)); }},
    {"recvmsg", [](int fd) { msghdr m{}; return int(::recvmsg(fd, &m, 0)); }},
    {"recvmmsg", [](int fd) { mmsghdr m{}; return ::recvmmsg(fd, &m, 1, 0, nullptr); }},
};
const waiting_call other_waits[] = {
    {"nanosleep", [](int) { const timespec t{100, 0}; return ::nanosleep(&t, nullptr); }},
    {"usleep", [](int) { return ::usleep(100000000); }},
    {"poll", [](int fd) { pollfd p{fd, POLLIN, 0}; return ::poll(&p, 1, -1); }},
    {"ppoll", [](int fd) { pollfd p{fd, POLLIN, 0}; return ::ppoll(&p, 1, nullptr, nullptr); }},
    {"select", [](int fd) { fd_set s; FD_ZERO(&s); FD_SET(fd, &s); return ::select(fd + 1, &s, nullptr, nullptr, nullptr); }},
};

struct pair {
  int a, b;
  pair() {
    int both[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, both) == 0);
    a = both[0];
    b = both[1];
  }
  ~pair() {
    if (a >= 0) ::close(a);
    ::close(b);
  }
};

}  // namespace

TEST_CASE("close: a fiber that waits on the fd gets EBADF") {
  hooked on;
  for (const auto& each : waits) {
    CAPTURE(each.name);
    pair s;
    int result = 0, error = 0;
    auto waiter = ringlet::spawn([&] {
      result = each.call(s.a);
      error = errno;
    });
    ringlet::yield();
    CHECK(::close(std::exchange(s.a, -1)) == 0);
    CHECK(waiter.join(5s));
    CHECK(result == -1);
    CHECK(error == EBADF);
  }
}

TEST_CASE("close: by another thread ends a fiber's wait, too") {
  hooked on;
  pair s;
  int error = 0;
  auto waiter = ringlet::spawn([&] {
    char c;
    if (::read(s.a, &c, 1) < 0) error = errno;
  });
  std::thread thread;
  auto starter = ringlet::spawn([&] { thread = std::thread([&] { ::close(std::exchange(s.a, -1)); }); });
  CHECK(waiter.join(5s));
  starter.join();
  thread.join();
  CHECK(error == EBADF);
}

TEST_CASE("dup2: what waited on the number that is given another file gets EBADF") {
  hooked on;
  pair s, other;
  int error = 0;
  auto waiter = ringlet::spawn([&] {
    char c;
    if (::read(s.a, &c, 1) < 0) error = errno;
  });
  ringlet::yield();
  CHECK(::dup2(other.a, s.a) == s.a);
  CHECK(waiter.join(5s));
  CHECK(error == EBADF);
  char c = 0;
  CHECK(::write(other.b, "y", 1) == 1);
  CHECK(::read(s.a, &c, 1) == 1);
  CHECK(c == 'y');
}

TEST_CASE("fclose and close_range: waits on what they close end with EBADF") {
  hooked on;
  for (int which = 0; which < 2; ++which) {
    pair s;
    int error = 0;
    FILE* file = which == 0 ? ::fdopen(s.a, "r") : nullptr;
    auto waiter = ringlet::spawn([&] {
      char c;
      if (::read(s.a, &c, 1) < 0) error = errno;
    });
    ringlet::yield();
    if (file) CHECK(::fclose(file) == 0);
    else CHECK(::close_range(unsigned(s.a), unsigned(s.a), 0) == 0);
    s.a = -1;
    CHECK(waiter.join(5s));
    CHECK(error == EBADF);
  }
}

TEST_CASE("kill: a killed fiber's call is -1 with ECANCELED, and so is each further one") {
  hooked on;
  auto check = [](const waiting_call& each) {
    CAPTURE(each.name);
    pair s;
    int results[2]{}, errors[2]{};
    auto victim = ringlet::spawn([&] {
      for (int i = 0; i < 2; ++i) {
        results[i] = each.call(s.a);
        errors[i] = errno;
      }
    });
    ringlet::yield();
    victim.kill(ringlet::deadline::passed());
    CHECK(victim.join(5s));
    for (int i = 0; i < 2; ++i) {
      CHECK(results[i] == -1);
      CHECK(errors[i] == ECANCELED);
    }
  };
  for (const auto& each : waits) check(each);
  for (const auto& each : other_waits) check(each);
}

TEST_CASE("timeout: a scope that runs out ends a call with ECANCELED") {
  hooked on;
  pair s;
  auto fiber = ringlet::spawn([&] {
    ringlet::timeout limit(20ms);
    char c;
    errno = 0;
    CHECK(::read(s.a, &c, 1) == -1);
    CHECK(errno == ECANCELED);
    CHECK(limit.expired());
  });
  CHECK(fiber.join(5s));
}

TEST_CASE("hooks: switched off, a fiber's calls block its thread as libc's do") {
  int ran = 0;
  auto other = ringlet::spawn([&] { ++ran; });
  const timespec moment{0, 2000000};
  ::nanosleep(&moment, nullptr);
  CHECK(ran == 0);
  ringlet::hooks::enable();
  ::nanosleep(&moment, nullptr);
  CHECK(ran == 1);
  ringlet::hooks::disable();
  other.join();
}

TEST_CASE("hooks: many fibers wait at once, and each gets its own") {
  hooked on;
  constexpr int many = 300;
  std::vector<int> ends(2 * many);
  for (int i = 0; i < many; ++i) REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, &ends[2 * i]) == 0);
  int right = 0;
  std::vector<ringlet::any_fiber> all;
  for (int i = 0; i < many; ++i)
    all.push_back(ringlet::spawn([&, i] {
      int got = -1;
      if (::recv(ends[2 * i], &got, sizeof got, MSG_WAITALL) == sizeof got && got == i) ++right;
    }));
  ringlet::yield();
  for (int i = many; i-- > 0;) CHECK(::write(ends[2 * i + 1], &i, sizeof i) == sizeof i);
  ringlet::joinall(all);
  CHECK(right == many);
  for (int fd : ends) ::close(fd);
}
