// The same for libc's names under the hooks, and what else can be short: address space for stacks, helper threads.

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "io/io_support.hpp"
#include "shortage.hpp"

#include <ringlet/hooks.hpp>
#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;
using faults::act_function;
using faults::resource;
using faults::sweep;

namespace {

struct hooked {
  hooked() { ringlet::hooks::enable(); }
  ~hooked() { ringlet::hooks::disable(); }
};

// libc's dialect: refused with an errno that says so.
template <class Result>
bool is_done(Result got) {
  return got >= 0;
}
bool is_shortage(int error) { return error == ENOMEM || error == EAGAIN; }

}  // namespace

TEST_CASE("no memory: hooked calls fail with ENOMEM, and what they were to get stays") {
  const hooked on;
  sweep("recv", [](const act_function& act) {
    auto ends = support::make_socketpair();
    const int high = ::fcntl(ends.first, F_DUPFD_CLOEXEC, 700);
    auto sender = ringlet::spawn([&] {
      ringlet::sleep(20us);
      REQUIRE(::send(ends.second, "x", 1, 0) == 1);
    });
    char c = 0;
    int error = 0;
    const bool done = act([&] {
      const bool got = is_done(::recv(high, &c, 1, 0));
      error = errno;
      return got;
    });
    sender.join();
    if (!done) CHECK(is_shortage(error));
    if (!done) CHECK(::recv(high, &c, 1, 0) == 1);
    CHECK(c == 'x');
    ::close(high);
  });
  sweep("select, poll", [](const act_function& act) {
    std::vector<support::fd_pair> pipes;
    std::vector<pollfd> fds;
    fd_set all;
    FD_ZERO(&all);
    for (int i = 0; i < 40; ++i) {
      pipes.push_back(support::make_pipe());
      fds.push_back({pipes.back().first, POLLIN, 0});
      FD_SET(pipes.back().first, &all);
    }
    auto writer = ringlet::spawn([&] {
      ringlet::sleep(20us);
      REQUIRE(::write(pipes[7].second, "x", 1) == 1);
    });
    int polled = 0, selected = 0, error = 0;
    act([&] {
      polled = ::poll(fds.data(), fds.size(), 10'000);
      if (polled < 0) error = errno;
      selected = ::select(FD_SETSIZE, &all, nullptr, nullptr, nullptr);
      if (selected < 0) error = errno;
      return polled == 1 && selected == 1;
    });
    writer.join();
    CHECK((polled == 1 || (polled == -1 && is_shortage(error))));
    CHECK((selected == 1 || (selected == -1 && is_shortage(error))));
  });
}

TEST_CASE("no memory: hooked locks and conditions hand over as ever") {
  const hooked on;
  sweep("pthread", [](const act_function& act) {
    pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t c = PTHREAD_COND_INITIALIZER;
    int turn = 0, inside = 0;
    bool crowded = false;
    std::vector<ringlet::fiber<>> all;
    for (int i = 0; i < 20; ++i)
      all.push_back(ringlet::spawn([&, i] {
        ::pthread_mutex_lock(&m);
        while (turn != 19 - i) ::pthread_cond_wait(&c, &m);
        crowded |= ++inside != 1;
        ringlet::yield();
        --inside;
        ++turn;
        ::pthread_cond_broadcast(&c);
        ::pthread_mutex_unlock(&m);
      }));
    act([&] {
      for (auto& f : all) f.join();
      return true;
    });
    for (auto& f : all) f.join();
    CHECK(turn == 20);
    CHECK_FALSE(crowded);
    ::pthread_cond_destroy(&c);
    ::pthread_mutex_destroy(&m);
  });
}

TEST_CASE("no memory: a name is looked up, or the resolver says EAI_MEMORY, and the next one is answered") {
  if (!support::localhost_resolves()) RINGLET_SKIP("libc does not know localhost here");
  const hooked on;
  for (resource short_of : {resource::memory, resource::threads})
    sweep(
        "getaddrinfo",
        [](const act_function& act) {
          auto other = ringlet::spawn([] { ringlet::sleep(1ms); });  // else the call is libc's own
          addrinfo* found = nullptr;
          int result = 0;
          const bool done = act([&] { return (result = ::getaddrinfo("localhost", "80", nullptr, &found)) == 0; });
          if (done) ::freeaddrinfo(found);
          if (!done) CHECK((result == EAI_MEMORY || result == EAI_AGAIN));
          REQUIRE(::getaddrinfo("localhost", "80", nullptr, &found) == 0);
          ::freeaddrinfo(found);
          other.join();
        },
        short_of);
}

TEST_CASE("no address space: a new thread's hub and fibers are made, or the spawn is refused") {
  sweep(
      "stacks",
      [](const act_function& act) {
        std::thread([&] {
          int runs = 0, spawned = 0;
          act([&] {
            for (std::size_t size : {64, 1024, 65536}) {
              ringlet::spawn({.stack_size_bytes = size * 1024}, [&] { ++runs; });
              ++spawned;
            }
            return true;
          });
          if (spawned) ringlet::hub::join();
          CHECK(runs == spawned);
        }).join();
      },
      resource::address_space);
}

TEST_CASE("no threads: what helpers would do is done, or refused with EAGAIN, and later there are some") {
  sweep(
      "thread_pool",
      [](const act_function& act) {
        int got = 0;
        ringlet::thread_pool pool(2);
        act([&] {
          got = pool.apply([] { return 7; });
          return true;
        });
        CHECK((got == 7 || got == 0));
        CHECK(pool.apply([] { return 8; }) == 8);
      },
      resource::threads);
  sweep(
      "fsync",
      [](const act_function& act) {
        support::temporary_directory folder;
        io_test::owned file(::open((folder.path() / "file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        act([&] { return is_done(ringlet::io::fsync(file)); });
        CHECK(ringlet::io::fsync(file) == 0);
      },
      resource::threads);
}
