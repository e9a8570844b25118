// State Threads. On poll(2): Debian's build knows no epoll, and its select ends at 1,024 descriptors.

#include <st.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <vector>

#include "peer.hpp"

namespace {

constexpr int stack_bytes = 64 * 1024;
std::size_t buffer_bytes = 0;

void* converse(void* argument) {
  const auto fd = static_cast<st_netfd_t>(argument);
  peer::echo(
      buffer_bytes, [fd](char* to, std::size_t n) { return st_read(fd, to, n, ST_UTIME_NO_TIMEOUT); },
      [fd](const char* from, std::size_t n) { return st_write(fd, from, n, ST_UTIME_NO_TIMEOUT); });
  st_netfd_close(fd);
  return nullptr;
}

void serve(std::size_t bytes) {
  buffer_bytes = bytes;
  st_netfd_t listener = st_netfd_open_socket(peer::listener);
  if (!listener) peer::fail("st_netfd_open_socket");
  while (true) {
    st_netfd_t fd = st_accept(listener, nullptr, nullptr, ST_UTIME_NO_TIMEOUT);
    if (!fd) peer::fail("st_accept");
    if (!st_thread_create(converse, fd, 0, stack_bytes + int(bytes))) peer::fail("st_thread_create");
  }
}

template <class Body>
st_thread_t begin(Body& body) {
  auto run = [](void* b) -> void* {
    (*static_cast<Body*>(b))();
    return nullptr;
  };
  st_thread_t t = st_thread_create(run, &body, 1, stack_bytes);
  if (!t) peer::fail("st_thread_create");
  return t;
}

template <class Each>
std::size_t together(std::size_t count, std::size_t n, Each each) {
  const std::size_t times = peer::share(n, count);
  auto body = [=] {
    for (std::size_t i = 0; i < times; ++i) each();
  };
  std::vector<st_thread_t> all;
  for (std::size_t i = 0; i < count; ++i) all.push_back(begin(body));
  for (auto t : all) st_thread_join(t, nullptr);
  return times * count;
}

// 1.9 has no yield, and a sleep of no time asks the kernel. So each wakes the next and waits for the one before: a way
// through the scheduler and one switch each time, which is what a yield is.
std::size_t take_turns(std::size_t count, std::size_t n) {
  static std::vector<st_cond_t> turn;
  while (turn.size() < count) turn.push_back(st_cond_new());
  const std::size_t times = peer::share(n, count);
  std::size_t begun = 0;
  auto body = [&] {
    const std::size_t self = begun++;
    for (std::size_t i = 0; i < times; ++i) {
      st_cond_wait(turn[self]);
      st_cond_signal(turn[(self + 1) % count]);
    }
  };
  std::vector<st_thread_t> all;
  for (std::size_t i = 0; i < count; ++i) all.push_back(begin(body));
  while (begun < count) st_usleep(0);
  st_cond_signal(turn[0]);
  for (auto t : all) st_thread_join(t, nullptr);
  return times * count;
}

struct place {
  st_cond_t changed = st_cond_new();
  bool full = false;
  int item = 0;
  void put(int x) {
    while (full) st_cond_wait(changed);
    item = x, full = true;
    st_cond_signal(changed);
  }
  int get() {
    while (!full) st_cond_wait(changed);
    full = false;
    st_cond_signal(changed);
    return item;
  }
};

std::size_t hand_over(std::size_t n) {
  static place there, back;
  auto answer = [n] {
    for (std::size_t i = 0; i < n; ++i) back.put(there.get());
  };
  st_thread_t other = begin(answer);
  for (std::size_t i = 0; i < n; ++i) {
    there.put(int(i));
    back.get();
  }
  st_thread_join(other, nullptr);
  return n;
}

}  // namespace

int main(int argc, char** argv) {
  st_set_eventsys(ST_EVENTSYS_POLL);
  if (st_init() < 0) peer::fail("st_init");
  auto nothing = [] {};
  return peer::run(argc, argv, serve,
                   {{"yield2", [](std::size_t n) { return take_turns(2, n); }},
                    {"yield1000", [](std::size_t n) { return take_turns(peer::crowd, n); }},
                    {"spawn",
                     [=](std::size_t n) mutable {
                       for (std::size_t i = 0; i < n; ++i) st_thread_join(begin(nothing), nullptr);
                       return n;
                     }},
                    {"spawn100",
                     [=](std::size_t n) {
                       for (std::size_t i = 0; i < peer::share(n, 100); ++i) together(100, 100, nothing);
                       return peer::share(n, 100) * 100;
                     }},
                    {"queue", hand_over},
                    {"sleep1000", [](std::size_t n) { return together(peer::crowd, n, [] { st_usleep(1000); }); }}});
}
