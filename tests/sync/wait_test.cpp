// Waiting for several things of any kind: in which order they are reported, and that nothing is left behind.

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "hub/on_hub.hpp"

using namespace hub_test;

using indices = std::vector<std::size_t>;

HUB_CASE("wait: reports in the order of completion, whatever the things are") {
  event late;
  semaphore soon(0);
  auto fiber = spawn([] { sleep(2ms); });
  auto setter = spawn([&] {
    sleep(1ms);
    soon.release();
    sleep(2ms);
    late.set();
  });
  CHECK(wait({late, fiber, soon}) == indices{2, 1, 0});
  CHECK(soon.try_acquire());  // nothing was taken
  setter.join();
}

HUB_CASE("wait: what is ready already comes first, in the order of the list") {
  event pending, set;
  set.set();
  semaphore free(1), taken(0);
  auto done = spawn([] {});
  auto failed = spawn([] { throw 1; });
  auto slow = spawn([&] {
    sleep(1ms);
    pending.set();
    sleep(1ms);
  });
  joinall({done, failed});
  CHECK(wait({pending, set, free, slow, done, failed}) == indices{1, 2, 4, 5, 0, 3});
  CHECK_FALSE(wait_any({taken}, deadline::passed()));
  CHECK(failed.exception());
}

HUB_CASE("wait: a thing that is named twice is reported twice, each place for itself") {
  event e;
  auto f = spawn([&] { e.set(); });
  CHECK(wait({e, f, e, f}) == indices{0, 2, 1, 3});
  CHECK(wait({f, f, e, e}, {.count = 3}) == indices{0, 1, 2});
}

HUB_CASE("wait: count stops early, the deadline ends it with those that are ready") {
  event never_set;
  std::vector<any_fiber> all;
  event last;
  all.push_back(spawn([&] { last.wait(); }));
  for (int ms : {1, 2}) all.push_back(spawn([ms] { sleep(ms * 1ms); }));
  CHECK(wait(all, {.count = 0}).empty());
  CHECK(wait(all, {.count = 2}) == indices{1, 2});
  const auto start = now();
  auto setter = spawn([&] { last.set(); });
  CHECK(wait({all[0], never_set, all[1]}, {.until = 50ms}) == indices{2, 0});
  setter.join();
  CHECK(took(start, 50ms));
  CHECK(wait({never_set}, {.until = deadline::passed()}).empty());
  CHECK(wait({never_set}, {.until = 0s}).empty());
  CHECK(wait({all[0], never_set}, {.until = deadline::passed()}) == indices{0});
  CHECK(wait(std::vector<any_fiber>()).empty());
  CHECK_FALSE(wait_any({}));
}

HUB_CASE("wait: lists of any kind that holds waitables") {
  std::array<event, 3> events;
  std::vector<fiber<int>> fibers{spawn([] { return 1; }), spawn([] { return 2; })};
  std::vector<event*> pointers{&events[2], &events[0]};
  auto setter = spawn([&] {
    for (auto& e : events) e.set();
  });
  CHECK(wait(events) == indices{0, 1, 2});
  CHECK(wait(pointers) == indices{0, 1});
  CHECK(wait(fibers).size() == 2);
  setter.join();
}

HUB_CASE("iwait: leaving it early leaves no listener behind") {
  event first, second;
  semaphore third(0);
  auto endless = spawn([] { sleep(1h); });
  first.set();
  for (std::size_t i : iwait({first, second, third, endless})) {
    CHECK(i == 0);
    break;
  }
  // Were one left, ending these would write into a wait that is gone (and destroying them is refused).
  second.set();
  third.release();
  endless.kill();
}

HUB_CASE("iwait: a thing that was reported may be gone before the iteration ends") {
  auto short_lived = std::make_unique<event>();
  event other;
  auto setter = spawn([&] {
    short_lived->set();
    sleep(1ms);
    other.set();
  });
  indices seen;
  for (std::size_t i : iwait({*short_lived, other})) {
    seen.push_back(i);
    short_lived.reset();
  }
  CHECK(seen == indices{0, 1});
  setter.join();
}

HUB_CASE("iwait: done, pending and failing ones while the body sleeps: no deadlock is reported, and none is lost") {
  auto done = spawn([] {});
  done.join();
  auto pending = spawn([] { sleep(2ms); });
  auto failing = spawn([] {
    sleep(1ms);
    throw 1;
  });
  auto last = spawn([] { sleep(9ms); });
  std::size_t count = 0;
  for (std::size_t i : iwait({done, pending, failing, last})) {
    (void)i;
    ++count;
    sleep(5ms);
  }
  CHECK(count == 4);
  CHECK(failing.exception());
}

HUB_CASE("wait: an event that is cleared right after it was set is reported") {
  event e;
  auto waiter = spawn([&] { return wait({e}).size(); });
  yield();
  e.set();
  e.clear();
  CHECK(waiter.get() == 1);
}

HUB_CASE("wait: a semaphore's release goes to who acquires; who only waits hears of what is left") {
  semaphore s(0);
  auto watcher = spawn([&] { return wait({s}, {.until = 20ms}).size(); });
  auto taker = spawn([&] { s.acquire(); });
  yield();
  s.release();
  taker.join();
  CHECK(watcher.get() == 0);
  auto second = spawn([&] { return wait({s}).size(); });
  auto second_taker = spawn([&] { s.acquire(); });
  yield();
  s.release(2);
  CHECK(second.get() == 1);
  second_taker.join();
  CHECK(s.count() == 1);
}

HUB_CASE("wait: a kill and a timeout end it, and leave no listener behind") {
  event e;
  auto killed = spawn([&] { wait({e}); });
  auto endless = spawn([] { sleep(1h); });
  yield();
  killed.kill();
  CHECK_FALSE(with_timeout(1ms, [&] { wait({e, endless}); }));
  e.set();
  endless.kill();
}

HUB_CASE("wait: for oneself, for nothing or from a wrong thread is an error, and leaves no listener behind") {
  event e;
  auto self = spawn([&] { return error_of([&] { wait({e, current()}); }); });
  CHECK(contains(self.get(), "waits for its own end"));
  CHECK(contains(error_of([&] { wait({e, any_fiber()}); }), "empty fiber handle"));
  e.set();
  auto f = spawn([] { sleep(1ms); });
  std::thread([&] { CHECK_THROWS_AS(wait({f}), wrong_thread); }).join();
  f.join();
}

TEST_CASE("wait: that nobody can end is a deadlock, told at the wait") {
  if (has_background_thread()) RINGLET_SKIP("ThreadSanitizer has a thread of its own");
  event e;
  semaphore s(0);
  const std::string error = error_of([&] { wait({e, s}); });
  CHECK(contains(error, "deadlock"));
  CHECK(contains(error, "main fiber: parked in wait"));
}

TEST_CASE("wait: several hubs wait for the same events and semaphores while others set and release them") {
  constexpr int rounds = 200, waiters = 3;
  std::vector<std::unique_ptr<event>> events;
  for (int i = 0; i < rounds; ++i) events.push_back(std::make_unique<event>());
  std::atomic<int> seen{0};
  std::vector<std::thread> threads;
  for (int w = 0; w < waiters; ++w)
    threads.emplace_back([&] {
      std::vector<bool> reported(rounds);
      for (std::size_t i : iwait([&] {
             std::vector<waitable> all;
             for (auto& e : events) all.push_back(*e);
             return all;
           }())) {
        if (reported[i]) ++seen;  // twice: the sum is wrong then
        reported[i] = true;
        ++seen;
      }
    });
  for (int part = 0; part < 2; ++part)
    threads.emplace_back([&, part] {
      for (int i = part; i < rounds; i += 2) events[i]->set();
    });
  for (auto& t : threads) t.join();
  CHECK(seen == rounds * waiters);
}

TEST_CASE("wait: deadlines race with sets from another thread, and what was set is reported once at most") {
  constexpr int rounds = 300;
  int in_time = 0, late = 0;
  for (int i = 0; i < rounds; ++i) {
    event a, b;
    std::thread setter([&] {
      a.set();
      b.set();
    });
    const auto first = wait({a, b}, {.until = std::chrono::microseconds(i % 50 * 5)});
    CHECK(first.size() <= 2);
    (first.size() == 2 ? in_time : late)++;
    setter.join();
    CHECK(wait({a, b}) == indices{0, 1});
  }
  CHECK(in_time + late == rounds);
}
