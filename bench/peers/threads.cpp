// A thread of the kernel's for each connection, and for each fiber.

#include <sched.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include <pthread.h>

#include "peer.hpp"

namespace {

struct call {
  int fd;
  std::size_t bytes;
};

void* converse(void* argument) {
  const call c = *static_cast<call*>(argument);
  delete static_cast<call*>(argument);
  peer::echo(
      c.bytes, [c](char* to, std::size_t n) { return ::read(c.fd, to, n); },
      [c](const char* from, std::size_t n) { return ::write(c.fd, from, n); });
  ::close(c.fd);
  return nullptr;
}

void serve(std::size_t bytes) {
  pthread_attr_t small;
  ::pthread_attr_init(&small);
  ::pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
  ::pthread_attr_setstacksize(&small, 64 * 1024 + bytes);
  while (true) {
    const int fd = ::accept4(peer::listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) peer::fail("accept4");
    pthread_t id;
    if (::pthread_create(&id, &small, converse, new call{fd, bytes})) peer::fail("pthread_create");
  }
}

template <class Each>
std::size_t together(std::size_t count, std::size_t n, Each each) {
  const std::size_t times = peer::share(n, count);
  std::vector<std::thread> all;
  for (std::size_t i = 0; i < count; ++i)
    all.emplace_back([=] {
      for (std::size_t i = 0; i < times; ++i) each();
    });
  for (auto& t : all) t.join();
  return times * count;
}

struct place {
  std::mutex lock;
  std::condition_variable changed;
  std::optional<int> item;
  void put(int x) {
    std::unique_lock hold(lock);
    changed.wait(hold, [this] { return !item; });
    item = x;
    changed.notify_all();
  }
  int get() {
    std::unique_lock hold(lock);
    changed.wait(hold, [this] { return item.has_value(); });
    const int x = *item;
    item.reset();
    changed.notify_all();
    return x;
  }
};

std::size_t hand_over(std::size_t n) {
  place there, back;
  std::thread other([&, n] {
    for (std::size_t i = 0; i < n; ++i) back.put(there.get());
  });
  for (std::size_t i = 0; i < n; ++i) {
    there.put(int(i));
    back.get();
  }
  other.join();
  return n;
}

}  // namespace

int main(int argc, char** argv) {
  auto yield = [] { ::sched_yield(); };
  return peer::run(argc, argv, serve,
                   {{"yield2", [=](std::size_t n) { return together(2, n, yield); }},
                    {"spawn",
                     [](std::size_t n) {
                       for (std::size_t i = 0; i < n; ++i) std::thread([] {}).join();
                       return n;
                     }},
                    {"spawn100",
                     [](std::size_t n) {
                       for (std::size_t i = 0; i < peer::share(n, 100); ++i) together(100, 100, [] {});
                       return peer::share(n, 100) * 100;
                     }},
                    {"queue", hand_over}});
}
