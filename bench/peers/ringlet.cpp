// ringlet, by plain read and write under the hooks, or (argument `io` after all others) by the direct calls.

#include <ringlet/ringlet.hpp>

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <deque>
#include <string>
#include <vector>

#include "peer.hpp"

namespace {

bool direct = false;

void converse(int fd, std::size_t bytes) {
  if (direct) {
    peer::echo(
        bytes, [fd](char* to, std::size_t n) { return ringlet::io::read(fd, to, n); },
        [fd](const char* from, std::size_t n) { return ringlet::io::write(fd, from, n); });
    ringlet::io::close(fd);
  } else {
    peer::echo(
        bytes, [fd](char* to, std::size_t n) { return ::read(fd, to, n); },
        [fd](const char* from, std::size_t n) { return ::write(fd, from, n); });
    ::close(fd);
  }
}

void serve(std::size_t bytes) {
  if (!direct) ringlet::hooks::enable();
  while (true) {
    const int fd = direct ? ringlet::io::accept4(peer::listener, nullptr, nullptr, SOCK_CLOEXEC)
                          : ::accept4(peer::listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) peer::fail("accept4");
    ringlet::spawn(converse, fd, bytes);
  }
}

std::size_t by_hand(std::size_t n) {
  static ringlet::greenlet other([] {
    auto parent = ringlet::greenlet::current().parent();
    while (true) parent.switch_to();
  });
  for (std::size_t i = 0; i < n; i += 2) other.switch_to();
  return n;
}

template <std::size_t Count, class Each>
std::size_t together(std::size_t n, Each each) {
  const std::size_t times = peer::share(n, Count);
  std::vector<ringlet::any_fiber> all;
  for (std::size_t i = 0; i < Count; ++i)
    all.push_back(ringlet::spawn([times, each] {
      for (std::size_t i = 0; i < times; ++i) each();
    }));
  ringlet::joinall(all);
  return times * Count;
}

std::size_t spawn_100(std::size_t n) {
  std::vector<ringlet::any_fiber> all;
  for (std::size_t i = 0; i < peer::share(n, 100); ++i) {
    for (int j = 0; j < 100; ++j) all.push_back(ringlet::spawn([] {}));
    ringlet::joinall(all);
    all.clear();
  }
  return peer::share(n, 100) * 100;
}

std::size_t hand_over(std::size_t n) {
  ringlet::queue<int> there{1}, back{1};
  auto other = ringlet::spawn([&, n] {
    for (std::size_t i = 0; i < n; ++i) back.put(*there.get());
  });
  for (std::size_t i = 0; i < n; ++i) {
    there.put(int(i));
    back.get();
  }
  other.join();
  return n;
}

void arm_others() {
  static std::deque<ringlet::timer> others;
  while (others.size() < peer::armed) others.emplace_back(std::chrono::hours(2), [] {});
}

std::size_t arm_and_cancel(std::size_t n) {
  arm_others();
  for (std::size_t i = 0; i < n; ++i) ringlet::timer(std::chrono::hours(1), [] {}).cancel();
  return n;
}

std::size_t limits(std::size_t n) {
  arm_others();
  for (std::size_t i = 0; i < n; ++i) ringlet::timeout limit(std::chrono::hours(1));
  return n;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[argc - 1]) == "io") direct = true, --argc;
  auto yield = [] { ringlet::yield(); };
  return peer::run(
      argc, argv, serve,
      {{"switch", by_hand},
       {"yield2", [=](std::size_t n) { return together<2>(n, yield); }},
       {"yield1000", [=](std::size_t n) { return together<peer::crowd>(n, yield); }},
       {"spawn",
        [](std::size_t n) {
          for (std::size_t i = 0; i < n; ++i) ringlet::spawn([] {}).join();
          return n;
        }},
       {"spawn100", spawn_100},
       {"queue", hand_over},
       {"sleep1000",
        [](std::size_t n) { return together<peer::crowd>(n, [] { ringlet::sleep(std::chrono::milliseconds(1)); }); }},
       {"timer", arm_and_cancel},
       {"timeout", limits}});
}
