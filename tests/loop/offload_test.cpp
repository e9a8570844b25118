// The helper threads: many jobs, as many threads as are needed, no more than allowed, none that stays.

#include "loop/offload.hpp"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <thread>

#include "engines.hpp"

using namespace loop_test;

namespace {

template <class Condition>
bool until(Condition holds) {
  const auto give_up = real_now() + 20s;
  while (!holds()) {
    if (real_now() > give_up) return false;
    std::this_thread::yield();
  }
  return true;
}

struct counting : job {
  std::atomic<int>* done = nullptr;
};

}  // namespace

TEST_CASE("offload: ten thousand jobs from four threads are each run once") {
  std::atomic<int> done{0};
  std::deque<counting> jobs(10'000);
  for (auto& j : jobs) {
    j.done = &done;
    j.run = [](job& base) { static_cast<counting&>(base).done->fetch_add(1); };
  }
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (unsigned i = t; i < jobs.size(); i += 4)
        if (offload(jobs[i]) != 0) std::abort();
    });
  for (auto& t : threads) t.join();
  CHECK(until([&] { return done == 10'000; }));
  CHECK(offload_threads() <= 64);
}

TEST_CASE("offload: jobs that block get a thread each up to the limit, and the rest wait their turn") {
  struct blocking : job {
    std::atomic<int>* started = nullptr;
    std::atomic<bool>* go = nullptr;
    std::atomic<int>* done = nullptr;
  };
  std::atomic<int> started{0}, done{0};
  std::atomic<bool> go{false};
  std::deque<blocking> jobs(100);
  for (auto& j : jobs) {
    j.started = &started, j.go = &go, j.done = &done;
    j.run = [](job& base) {
      auto& self = static_cast<blocking&>(base);
      self.started->fetch_add(1);
      while (!*self.go) ::usleep(1000);
      self.done->fetch_add(1);
    };
    REQUIRE(offload(j) == 0);
  }
  CHECK(until([&] { return started == 64; }));
  CHECK(offload_threads() == 64);
  go = true;
  CHECK(until([&] { return done == 100; }));
  CHECK(started == 100);
}

TEST_CASE("offload: one after the other uses idle threads again") {
  std::atomic<int> done{0};
  const auto before = offload_threads();
  for (int i = 1; i <= 200; ++i) {
    counting j;
    j.done = &done;
    j.run = [](job& base) { static_cast<counting&>(base).done->fetch_add(1); };
    REQUIRE(offload(j) == 0);
    REQUIRE(until([&] { return done == i; }));
  }
  // A job may come before the thread that did the last one is idle again: two, seldom three.
  CHECK(offload_threads() <= std::max<std::size_t>(before, 8));
}

TEST_CASE("offload: helpers block all signals that a program could handle") {
  struct asking : job {
    sigset_t blocked;
    std::atomic<bool> done{false};
  } j;
  j.run = [](job& base) {
    auto& self = static_cast<asking&>(base);
    ::sigemptyset(&self.blocked);
    ::pthread_sigmask(SIG_BLOCK, nullptr, &self.blocked);
    self.done = true;
  };
  sigset_t before, after;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &before);
  REQUIRE(offload(j) == 0);
  ::pthread_sigmask(SIG_BLOCK, nullptr, &after);
  for (int s = 1; s < SIGRTMIN; ++s) CHECK(::sigismember(&before, s) == ::sigismember(&after, s));
  REQUIRE(until([&] { return j.done.load(); }));
  for (int s : {SIGINT, SIGTERM, SIGCHLD, SIGUSR1, SIGALRM, SIGPROF, SIGRTMIN, SIGRTMAX})
    CHECK(::sigismember(&j.blocked, s) == 1);
}

TEST_CASE("offload: idle helpers leave") {
  CHECK(until([] { return offload_threads() == 0; }));
  // And the pool works again.
  std::atomic<int> done{0};
  counting j;
  j.done = &done;
  j.run = [](job& base) { static_cast<counting&>(base).done->fetch_add(1); };
  REQUIRE(offload(j) == 0);
  CHECK(until([&] { return done == 1; }));
}
