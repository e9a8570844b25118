// Parking on an address: in which order wakes come, from where they may come, and that none is lost.

#include "sync/address_wait.hpp"

#include <atomic>
#include <csignal>
#include <string>
#include <sys/time.h>
#include <thread>
#include <vector>

#include "hub/on_hub.hpp"
#include "support/thread_state.hpp"

using namespace hub_test;
using sync::address_result;
using sync::wait_on_address;
using sync::wake_address;
using sync::wake_address_from_anywhere;

namespace {

// A lock as the hooks write theirs: try, wait, try again.
struct address_lock {
  std::atomic<int> held{0};
  bool try_lock() {
    int free = 0;
    return held.compare_exchange_strong(free, 1);
  }
  void lock() {
    while (!try_lock())
      wait_on_address(&held, never, "address_lock", false,
                      [](const void* a) { return static_cast<const std::atomic<int>*>(a)->load() != 0; });
  }
  void unlock() {
    held = 0;
    wake_address(&held, 1);
  }
};

}  // namespace

HUB_CASE("address: wakes in the order of waiting, so many as asked, only of that address") {
  int here = 0, there = 0;
  std::string log;
  std::vector<any_fiber> all;
  for (char c : {'a', 'b', 'c', 'd'})
    all.push_back(spawn([&, c] {
      CHECK(wait_on_address(&here, never, "test", true) == address_result::woken);
      log += c;
    }));
  auto other = spawn([&] { wait_on_address(&there, never, "other", true); });
  yield();
  CHECK(wake_address(&log, 10) == 0);
  CHECK(wake_address(&here, 1) == 1);
  yield();
  CHECK(log == "a");
  CHECK(wake_address(&here, 2) == 2);
  yield();
  CHECK(log == "abc");
  CHECK(wake_address(&here, 100) == 1);
  joinall(all);
  CHECK(log == "abcd");
  CHECK_FALSE(other.ready());
  CHECK(wake_address(&there, 1) == 1);
  other.join();
  CHECK(wake_address(&there, 1) == 0);
}

HUB_CASE("address: ends by deadline, and by a kill only if it may be interrupted") {
  int here = 0;
  const auto start = now();
  CHECK(wait_on_address(&here, 2ms, "test", true) == address_result::timed_out);
  CHECK(took(start, 2ms));
  auto f = spawn([&] { return wait_on_address(&here, never, "test", true); });
  auto g = spawn([&] { return wait_on_address(&here, never, "test", false); });
  yield();
  f.kill(deadline::passed());
  g.kill(deadline::passed());
  CHECK(f.get() == address_result::interrupted);
  yield();
  CHECK_FALSE(g.ready());
  CHECK(wake_address(&here, 1) == 1);
  CHECK(g.get() == address_result::woken);
}

HUB_CASE("address: is not waited for when the caller's question says it is free") {
  static int here;
  CHECK(wait_on_address(&here, never, "test", true, [](const void*) { return false; }) == address_result::woken);
  CHECK(wake_address(&here, 1) == 0);
  CHECK(wait_on_address(&here, 1ms, "test", true, [](const void*) { return true; }) == address_result::timed_out);
}

TEST_CASE("address: a wake from another thread ends the first wait") {
  int here = 0;
  auto f = spawn([&] { return wait_on_address(&here, 30s, "test", true); });
  yield();
  std::thread([&] { CHECK(wake_address(&here, 1) == 1); }).join();
  CHECK(f.get() == address_result::woken);
}

TEST_CASE("address: wakes from a signal handler") {
  static int here;
  static std::atomic<bool> signalled;
  signalled = false;
  struct sigaction action {}, before {};
  action.sa_handler = [](int) {
    signalled = true;
    wake_address_from_anywhere(&here);
  };
  ::sigaction(SIGUSR1, &action, &before);
  auto f = spawn([&] {
    while (!signalled)
      if (wait_on_address(&here, 30s, "test", true, [](const void*) { return !signalled; }) == address_result::timed_out) return false;
    return true;
  });
  yield();
  const pid_t main_thread = ::gettid();
  std::thread sender([&] {
    const auto give_up = std::chrono::steady_clock::now() + 20s;
    while (support::state_of(main_thread) != 'S' && std::chrono::steady_clock::now() < give_up)
      std::this_thread::sleep_for(1ms);
    ::tgkill(::getpid(), main_thread, SIGUSR1);
  });
  CHECK(f.get());
  sender.join();
  // while the hub's own table is in use, too: signals at any moment
  signalled = true;
  std::atomic<bool> stop{false};
  std::thread storm([&] {
    for (int i = 0; i < 2000 && !stop; ++i) {
      ::tgkill(::getpid(), main_thread, SIGUSR1);
      std::this_thread::yield();
    }
    stop = true;
  });
  std::vector<any_fiber> all;
  for (int i = 0; i < 4; ++i)
    all.push_back(spawn([&] {
      while (!stop) wait_on_address(&here, 1ms, "test", true);
    }));
  joinall(all);
  storm.join();
  ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_CASE("address: a lock of it excludes across hubs and threads, and loses no wake") {
  address_lock lock;
  long guarded = 0;
  const int rounds = support::is_instrumented() ? 300 : 3000;
  std::vector<std::thread> all;
  for (int t = 0; t < 3; ++t)
    all.emplace_back([&, t] {
      auto work = [&] {
        for (int i = 0; i < rounds; ++i) {
          lock.lock();
          ++guarded;
          if (i % 64 == 0) yield();
          lock.unlock();
        }
      };
      if (t == 0) return work();
      joinall({spawn(work), spawn(work)});
    });
  for (auto& t : all) t.join();
  CHECK(guarded == rounds * 5L);
}

TEST_CASE("address: the question is asked when a wake can no longer be missed") {
  // A thread sets the word and wakes; the fiber asks and parks. Were the question asked too early, one round would hang.
  const int rounds = support::is_instrumented() ? 300 : 3000;
  std::atomic<int> turn{0};
  std::thread other([&] {
    for (int i = 0; i < rounds; ++i) {
      while (turn.load() != i * 2 + 1) std::this_thread::yield();
      turn.store(i * 2 + 2);
      if (i % 2)
        wake_address(&turn, 1);
      else
        wake_address_from_anywhere(&turn);
    }
  });
  static std::atomic<int> wanted;
  int late = 0;
  for (int i = 0; i < rounds; ++i) {
    wanted = i * 2 + 2;
    turn.store(i * 2 + 1);
    while (turn.load() != wanted)
      if (wait_on_address(&turn, 20s, "test", true,
                          [](const void* a) { return static_cast<const std::atomic<int>*>(a)->load() != wanted; }) == address_result::timed_out)
        ++late;
  }
  other.join();
  CHECK(late == 0);
}

TEST_CASE("address: hubs come and go while others wake") {
  std::atomic<bool> stop{false};
  static int here;
  std::thread waker([&] {
    while (!stop) {
      wake_address(&here, 1);
      wake_address_from_anywhere(&here);
    }
  });
  const int rounds = support::is_instrumented() ? 30 : 200;
  for (int i = 0; i < rounds; ++i)
    std::thread([] {
      for (int n = 0; n < 3; ++n) wait_on_address(&here, 100us, "test", true);
    }).join();
  stop = true;
  waker.join();
}
