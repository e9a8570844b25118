// barrier: rounds, the action, and every way it breaks; with fibers of this and of other hubs and with plain threads.

#include <numeric>

#include "crew.hpp"

using namespace sync_test;

TEST_CASE("barrier: nobody passes before all have come, round after round, and each has a number of its own") {
  with_each_kind([](kind k) {
    constexpr int n = 5, rounds = 20;
    barrier b(n);
    CHECK(b.parties() == n);
    std::atomic<int> before[rounds]{}, numbers[rounds]{}, wrong{0};
    crew all(k, n, [&](int) {
      for (int r = 0; r < rounds; ++r) {
        ++before[r];
        numbers[r] += 1 << b.wait();
        if (before[r] != n) ++wrong;
      }
    });
    all.join();
    CHECK(wrong == 0);
    for (auto& each : numbers) CHECK(each == (1 << n) - 1);
    CHECK(b.waiting() == 0);
    CHECK_FALSE(b.broken());
  });
}

TEST_CASE("barrier: the action is run once a round, by the last to come, before anybody passes") {
  with_each_kind([](kind k) {
    constexpr int n = 4, rounds = 10;
    int runs = 0;  // the barrier orders it
    std::atomic<int> wrong{0};
    barrier b(n, [&] {
      yield();  // it may wait
      ++runs;
    });
    crew all(k, n, [&](int) {
      for (int r = 0; r < rounds; ++r) {
        b.wait();
        if (runs != r + 1) ++wrong;  // nobody runs ahead: the next round wants us, too
      }
    });
    all.join();
    CHECK(wrong == 0);
    CHECK(runs == rounds);
  });
}

HUB_CASE("barrier: numbers are given in the order of coming; who waits is counted") {
  barrier b(3);
  std::string log;
  std::vector<any_fiber> all;
  for (int i = 0; i < 2; ++i) all.push_back(spawn([&] { log += std::to_string(b.wait()); }));
  yield();
  CHECK(b.waiting() == 2);
  CHECK(b.wait() == 2);
  CHECK(b.waiting() == 0);
  joinall(all);
  CHECK(log == "01");
  barrier alone(1);
  CHECK(alone.wait() == 0);
  CHECK(alone.wait(deadline::passed()) == 0);
  CHECK_THROWS_AS(barrier(0), std::invalid_argument);
}

TEST_CASE("barrier: one that is aborted fails all who wait and all who come") {
  with_each_kind([](kind k) {
    constexpr int n = 5;
    barrier b(n);
    std::atomic<int> broken{0}, passed{0};
    crew all(k, n, [&](int i) {
      try {
        if (i == n / 2) {
          comes_true([&] { return b.waiting() == n - 1; });
          b.abort();
          b.wait();
        } else {
          b.wait();
        }
        ++passed;
      } catch (const broken_barrier&) {
        ++broken;
      }
    });
    all.join();
    CHECK(passed == 0);
    CHECK(broken == n);
    CHECK(b.broken());
  });
}

TEST_CASE("barrier: reset fails those who wait and begins anew") {
  with_each_kind([](kind k) {
    constexpr int n = 4;
    barrier b(n);
    std::atomic<int> passed{0};
    {
      crew some(k, n - 1, [&](int) { CHECK_THROWS_AS(b.wait(), broken_barrier); });
      CHECK(comes_true([&] { return b.waiting() == n - 1; }));
      b.reset();
    }
    CHECK_FALSE(b.broken());
    b.abort();
    CHECK_THROWS_AS(b.wait(), broken_barrier);
    b.reset();
    crew all(k, n, [&](int) {
      b.wait();
      ++passed;
    });
    all.join();
    CHECK(passed == n);
  });
}

TEST_CASE("barrier: one whose time is up breaks it for all") {
  with_each_kind([](kind k) {
    constexpr int n = 4;
    barrier b(n);
    std::atomic<int> broken{0};
    crew all(k, n - 1, [&](int i) {
      try {
        i == 0 ? b.wait(5ms) : b.wait();
      } catch (const broken_barrier& e) {
        if (contains(e.what(), "is broken")) ++broken;
      }
    });
    all.join();
    CHECK(broken == n - 1);
    CHECK(b.broken());
  });
}

HUB_CASE("barrier: one that is killed breaks it; itself it dies of the kill") {
  barrier b(3);
  auto victim = spawn([&] { b.wait(); });
  auto other = spawn([&] { return error_of([&] { b.wait(); }); });
  yield();
  CHECK(victim.kill());
  CHECK(victim.successful());
  CHECK(contains(other.get(), "is broken"));
  CHECK(b.broken());
  CHECK(b.waiting() == 0);
}

HUB_CASE("barrier: when one is late in the very moment the last one comes, all pass or none") {
  for (int i = 0; i < 20; ++i) {
    barrier b(2);
    const deadline moment(1ms);
    auto meet = [&](deadline patience) {
      try {
        return int(b.wait(patience));
      } catch (const broken_barrier&) {
        return -1;
      }
    };
    auto last = spawn([&] {
      sleep(moment);
      return meet(never);
    });
    yield();
    auto late = spawn([&] { return meet(moment); });
    const int a = last.get(), z = late.get();
    if (b.broken())
      CHECK((a == -1 && z == -1));
    else
      CHECK((a >= 0 && z >= 0 && a + z == 1));
  }
}

HUB_CASE("barrier: an action that throws fails everybody, the one that ran it with its own error") {
  barrier b(3, [] { throw std::runtime_error("no"); });
  std::vector<fiber<std::string>> others;
  for (int i = 0; i < 2; ++i) others.push_back(spawn([&] { return error_of([&] { b.wait(); }); }));
  yield();
  CHECK(error_of([&] { b.wait(); }) == "no");
  for (auto& f : others) CHECK(contains(f.get(), "is broken"));
  CHECK(b.broken());
}

HUB_CASE("barrier: while the action runs deadlines do not count, and who comes is early for the next round") {
  event go_on;
  int actions = 0;
  barrier b(2, [&] {
    if (++actions == 1) go_on.wait();
  });
  auto first = spawn([&] { return b.wait(2ms); });
  yield();
  auto last = spawn([&] { return b.wait(); });
  yield();
  auto early = spawn([&] { return b.wait(); });
  sleep(5ms);
  CHECK_FALSE(first.ready());
  CHECK_FALSE(early.ready());
  CHECK(b.waiting() == 0);
  go_on.set();
  CHECK(first.get() == 0);
  CHECK(last.get() == 1);
  CHECK(b.wait() == 1);
  CHECK(early.get() == 0);
  CHECK(actions == 2);
}

HUB_CASE("barrier: aborted or reset while the action runs") {
  for (const bool resets : {false, true}) {
    event go_on;
    barrier b(3, [&] { go_on.wait(); });
    auto waiter = spawn([&] { return error_of([&] { b.wait(); }); });
    auto killed = spawn([&] { b.wait(); });
    yield();
    auto last = spawn([&] { return error_of([&] { b.wait(); }); });
    yield();
    CHECK(killed.kill());
    CHECK_FALSE(b.broken());  // the round was complete
    resets ? b.reset() : b.abort();
    go_on.set();
    CHECK(contains(waiter.get(), "is broken"));
    CHECK(contains(last.get(), "is broken"));
    CHECK(b.broken() != resets);
  }
}
