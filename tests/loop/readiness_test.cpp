// What an engine promises about readiness, over all three engines.

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <deque>

#include "engines.hpp"

using namespace loop_test;

namespace {
void put(int fd, const std::string& bytes = "x") {
  REQUIRE(::write(fd, bytes.data(), bytes.size()) == ssize_t(bytes.size()));
}
std::string drain(int fd) {
  char all[4096];
  const ssize_t n = ::recv(fd, all, sizeof all, MSG_DONTWAIT);
  return n > 0 ? std::string(all, size_t(n)) : std::string();
}
constexpr auto passed = clock::time_point::min();
}  // namespace

ENGINE_CASE("readiness: arriving data make a pipe, a socket pair and a TCP connection ready to read") {
  MAKE_ENGINE(e);
  std::vector<support::fd_pair> pairs;
  pairs.push_back(support::make_pipe());
  pairs.push_back(support::make_socketpair());
  auto listener = support::listen_on_free_port();
  auto client = support::connect_to_port(listener.port);
  pairs.push_back({support::fd(::accept(listener.socket, nullptr, nullptr)), std::move(client)});
  for (auto& [reader, writer] : pairs) {
    watcher w(reader);
    REQUIRE(e.arm(w, direction::in) == 0);
    CHECK(w.is_armed(direction::in));
    CHECK_FALSE(w.is_armed(direction::out));
    put(writer);
    CHECK(turn_until(e, [&] { return w.saw(POLLIN); }));
    CHECK_FALSE(w.saw(POLLOUT));
    e.disarm(w);
    CHECK(w.armed == 0);
  }
}

ENGINE_CASE("readiness: a listening socket is ready when somebody connects") {
  MAKE_ENGINE(e);
  auto listener = support::listen_on_free_port();
  watcher w(listener.socket);
  REQUIRE(e.arm(w, direction::in) == 0);
  auto client = support::connect_to_port(listener.port);
  CHECK(turn_until(e, [&] { return w.saw(POLLIN); }));
  e.disarm(w);
}

ENGINE_CASE("readiness: what was there before is told at arming") {
  MAKE_ENGINE(e);
  auto [a, b] = support::make_socketpair();
  put(b);
  watcher w(a);
  REQUIRE(e.arm(w, direction::in) == 0);
  REQUIRE(e.arm(w, direction::out) == 0);
  CHECK(turn_until(e, [&] { return w.saw(POLLIN | POLLOUT); }));
  e.disarm(w);
}

ENGINE_CASE("readiness: every arrival is a new edge, drained before or not") {
  MAKE_ENGINE(e);
  auto [a, b] = support::make_socketpair();
  watcher w(a);
  REQUIRE(e.arm(w, direction::in) == 0);
  for (int round = 0; round < 20; ++round) {
    settle(e);
    w.told.clear();
    put(b);
    REQUIRE(turn_until(e, [&] { return !w.told.empty(); }));
    if (round % 2) drain(a);
  }
  e.disarm(w);
}

ENGINE_CASE("readiness: drained and filled again between two turns is told") {
  MAKE_ENGINE(e);
  auto [a, b] = support::make_socketpair();
  watcher w(a);
  REQUIRE(e.arm(w, direction::in) == 0);
  put(b);
  REQUIRE(turn_until(e, [&] { return w.saw(POLLIN); }));
  settle(e);
  for (int round = 0; round < 20; ++round) {
    drain(a);
    w.told.clear();
    put(b);
    REQUIRE(turn_until(e, [&] { return !w.told.empty(); }));
  }
  e.disarm(w);
}

KERNEL_ENGINE_CASE("readiness: without a new event nothing is told again") {
  MAKE_ENGINE(e);
  auto [a, b] = support::make_socketpair();
  watcher w(a);
  REQUIRE(e.arm(w, direction::in) == 0);
  put(b);
  REQUIRE(turn_until(e, [&] { return w.saw(POLLIN); }));
  settle(e);
  const auto before = w.told.size();
  settle(e);
  CHECK(w.told.size() == before);
  e.disarm(w);
}

ENGINE_CASE("readiness: a full socket is ready to write when the peer has read") {
  MAKE_ENGINE(e);
  auto [a, b] = support::make_socketpair();
  const std::string much(65536, 'm');
  while (::send(a, much.data(), much.size(), MSG_DONTWAIT) > 0) {
  }
  watcher w(a);
  REQUIRE(e.arm(w, direction::out) == 0);
  settle(e);
  if (e.name() != "simulated") CHECK_FALSE(w.saw(POLLOUT));
  w.all = 0;
  while (!drain(b).empty()) {
  }
  CHECK(turn_until(e, [&] { return w.saw(POLLOUT); }));
  e.disarm(w);
}

ENGINE_CASE("readiness: each of many fds tells of itself") {
  MAKE_ENGINE(e);
  struct line {
    support::fd_pair ends;
    watcher w;
  };
  std::deque<line> lines;
  for (int i = 0; i < 100; ++i) {
    auto ends = support::make_socketpair();
    const int reader = ends.first;
    lines.push_back({std::move(ends), watcher(reader)});
    REQUIRE(e.arm(lines.back().w, direction::in) == 0);
  }
  for (unsigned i = 0; i < 100; i += 3) put(lines[i].ends.second);
  CHECK(turn_until(e, [&] {
    for (unsigned i = 0; i < 100; i += 3)
      if (!lines[i].w.saw(POLLIN)) return false;
    return true;
  }));
  if (e.name() != "simulated")
    for (unsigned i = 0; i < 100; ++i)
      if (i % 3) CHECK(lines[i].w.told.empty());
  for (auto& l : lines) e.disarm(l.w);
}

ENGINE_CASE("readiness: a peer that has gone is told as RDHUP, then HUP") {
  MAKE_ENGINE(e);
  auto [a, b] = support::make_socketpair();
  watcher w(a);
  REQUIRE(e.arm(w, direction::in) == 0);
  ::shutdown(b, SHUT_WR);
  CHECK(turn_until(e, [&] { return w.saw(POLLIN | POLLRDHUP); }));
  b.reset();
  CHECK(turn_until(e, [&] { return w.saw(POLLHUP); }));
  e.disarm(w);
}

ENGINE_CASE("readiness: a pipe's two ends tell HUP and ERR when the other goes") {
  MAKE_ENGINE(e);
  auto first = support::make_pipe();
  watcher reader(first.first);
  REQUIRE(e.arm(reader, direction::in) == 0);
  first.second.reset();
  CHECK(turn_until(e, [&] { return reader.saw(POLLHUP); }));
  e.disarm(reader);

  auto second = support::make_pipe();
  watcher writer(second.second);
  REQUIRE(e.arm(writer, direction::out) == 0);
  second.first.reset();
  CHECK(turn_until(e, [&] { return writer.saw(POLLERR); }));
  e.disarm(writer);
}

ENGINE_CASE("readiness: a regular file is refused, or told as ready and not armed") {
  MAKE_ENGINE(e);
  support::fd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  watcher w(file);
  const int result = e.arm(w, direction::in);
  if (result != -EPERM) {
    REQUIRE(result == 0);
    CHECK(turn_until(e, [&] { return w.saw(POLLIN); }));
  }
  CHECK(w.armed == 0);
}

ENGINE_CASE("readiness: a number that is not open is refused, or told as NVAL and not armed") {
  MAKE_ENGINE(e);
  watcher w(9999);
  const int result = e.arm(w, direction::in);
  if (result != -EBADF) {
    REQUIRE(result == 0);
    CHECK(turn_until(e, [&] { return w.saw(POLLNVAL); }));
  }
  CHECK(w.armed == 0);
  watcher none(-1);
  CHECK(e.arm(none, direction::out) == -EBADF);
}

ENGINE_CASE("disarm: close afterwards sends the end of file at once") {
  MAKE_ENGINE(e);
  auto listener = support::listen_on_free_port();
  for (int round = 0; round < 50; ++round) {
    support::fd a, b;
    if (round % 2) {
      auto pair = support::make_socketpair();
      a = std::move(pair.first), b = std::move(pair.second);
    } else {
      b = support::connect_to_port(listener.port);
      a = support::fd(::accept(listener.socket, nullptr, nullptr));
    }
    watcher w(a);
    REQUIRE(e.arm(w, direction::in) == 0);
    if (round % 3) REQUIRE(e.arm(w, direction::out) == 0);
    if (round % 5) e.wait(passed);
    e.disarm(w);
    a.reset();
    char byte;
    CHECK(::recv(b, &byte, 1, MSG_DONTWAIT) == 0);
  }
}

ENGINE_CASE("disarm: events that are just arriving neither hold it up nor are told later") {
  MAKE_ENGINE(e);
  auto [a, b] = support::make_socketpair();
  for (int round = 0; round < 200; ++round) {
    watcher w(a);
    REQUIRE(e.arm(w, direction::in) == 0);
    REQUIRE(e.arm(w, direction::out) == 0);
    if (round % 2) e.wait(passed);
    put(b);
    if (round % 3) drain(a);
    e.disarm(w);
    const auto told = w.told.size();
    put(b);
    e.wait(passed);
    CHECK(w.told.size() == told);
    CHECK(w.armed == 0);
    drain(a);
  }
}

ENGINE_CASE("disarm: what others are told meanwhile is not lost") {
  MAKE_ENGINE(e);
  auto [a, b] = support::make_socketpair();
  auto [c, d] = support::make_socketpair();
  watcher going(a), staying(c);
  REQUIRE(e.arm(going, direction::in) == 0);
  REQUIRE(e.arm(staying, direction::in) == 0);
  settle(e);
  put(d);
  put(b);
  e.disarm(going);
  CHECK(turn_until(e, [&] { return staying.saw(POLLIN); }));
  e.disarm(staying);
}

ENGINE_CASE("disarm: in the notify of one, another with an event of the same turn may go") {
  MAKE_ENGINE(e);
  struct killer : readiness {
    engine* e = nullptr;
    std::unique_ptr<watcher> victim;
    bool done = false;
  };
  for (int round = 0; round < 50; ++round) {
    auto [a, b] = support::make_socketpair();
    auto [c, d] = support::make_socketpair();
    killer k;
    k.e = &e;
    k.fd = a;
    k.victim = std::make_unique<watcher>(c);
    k.notify = [](readiness& r, unsigned) {
      auto& self = static_cast<killer&>(r);
      if (!self.victim) return;
      self.e->disarm(*self.victim);
      self.victim.reset();  // a late notify would hit freed memory
      self.done = true;
    };
    REQUIRE(e.arm(k, direction::in) == 0);
    REQUIRE(e.arm(*k.victim, direction::in) == 0);
    e.wait(passed);
    put(b);
    put(d);
    CHECK(turn_until(e, [&] { return k.done; }));
    settle(e);
    e.disarm(k);
  }
}

ENGINE_CASE("disarm: of what is not armed does nothing") {
  MAKE_ENGINE(e);
  watcher w(0);
  e.disarm(w);
  CHECK(w.armed == 0);
}

ENGINE_CASE("arm: works again on a number that a new file has got") {
  MAKE_ENGINE(e);
  int number = -1;
  for (int round = 0; round < 20; ++round) {
    auto [a, b] = support::make_socketpair();
    if (number >= 0) CHECK(a.get() == number);
    number = a;
    watcher w(a);
    REQUIRE(e.arm(w, direction::in) == 0);
    put(b);
    REQUIRE(turn_until(e, [&] { return w.saw(POLLIN); }));
    e.disarm(w);
  }
}

ENGINE_CASE("arm: from inside a notify") {
  MAKE_ENGINE(e);
  struct chain : readiness {
    engine* e = nullptr;
    watcher* next = nullptr;
  };
  auto [a, b] = support::make_socketpair();
  auto [c, d] = support::make_socketpair();
  watcher second(c);
  chain first;
  first.fd = a;
  first.e = &e;
  first.next = &second;
  first.notify = [](readiness& r, unsigned) {
    auto& self = static_cast<chain&>(r);
    if (!self.next->is_armed(direction::in)) CHECK(self.e->arm(*self.next, direction::in) == 0);
  };
  REQUIRE(e.arm(first, direction::in) == 0);
  put(b);
  put(d);
  CHECK(turn_until(e, [&] { return second.saw(POLLIN); }));
  e.disarm(first);
  e.disarm(second);
}

namespace {
// Arms 500 at once, makes all ready at once, and that again: each is told each time, and whatever the overflow
// un-armed can be armed again.
void five_hundred_at_once(engine& e) {
  struct line {
    support::fd_pair ends;
    watcher w;
  };
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  std::deque<line> lines;
  for (int i = 0; i < 500; ++i) {
    auto ends = support::make_socketpair();
    const int reader = ends.first;
    lines.push_back({std::move(ends), watcher(reader)});
  }
  for (auto& l : lines) REQUIRE(e.arm(l.w, direction::in) == 0);
  for (int round = 0; round < 3; ++round) {
    for (auto& l : lines) {
      drain(l.ends.first);
      l.w.all = 0;
      if (!l.w.is_armed(direction::in)) REQUIRE(e.arm(l.w, direction::in) == 0);
      put(l.ends.second);
    }
    std::size_t told = 0;
    CHECK(turn_until(e, [&] {
      told = 0;
      for (auto& l : lines) told += l.w.saw(POLLIN);
      return told == lines.size();
    }));
    CHECK(told == lines.size());
  }
  for (auto& l : lines) e.disarm(l.w);
  for (auto& l : lines) {
    const int writer = l.ends.second;
    drain(l.ends.first);
    l.ends.first.reset();
    char byte;
    CHECK(::recv(writer, &byte, 1, MSG_DONTWAIT) == 0);
  }
}
}  // namespace

ENGINE_CASE("arm: five hundred fds at once") {
  MAKE_ENGINE(e);
  five_hundred_at_once(e);
}

TEST_CASE("tiny ring: overflows lose no readiness") {
  for (const char* entries : {"1", "2", "3", "4", "8"}) {
    CAPTURE(entries);
    variable_set set("RINGLET_RING_ENTRIES", entries);
    std::string why_not;
    const auto e = make_uring_engine(&why_not);
    if (!e) RINGLET_SKIP("no ring: " + why_not);
    five_hundred_at_once(*e);
    // The wake-up's own poll may have been ended by the overflow.
    e->wake();
    e->wait(clock::time_point::max());
  }
}
