// Everything that waits for each other, across hubs on several threads and with threads that have no fibers.

#include <atomic>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "hub/on_hub.hpp"

using namespace hub_test;

namespace {
const int many = support::is_instrumented() ? 1000 : 10'000;
}

TEST_CASE("event across threads: waiters of several hubs all wake, with and without a deadline") {
  constexpr int threads = 4, fibers = 25;
  for (const bool timed : {false, true}) {
    event e;
    std::atomic<int> waiting{0}, woken{0};
    std::vector<std::thread> all;
    for (int t = 0; t < threads; ++t)
      all.emplace_back([&] {
        std::vector<any_fiber> waiters;
        for (int i = 0; i < fibers; ++i)
          waiters.push_back(spawn([&] {
            ++waiting;
            if (timed ? e.wait(1h) : e.wait()) ++woken;
          }));
        joinall(waiters);
      });
    all.emplace_back([&] {  // a thread without fibers
      ++waiting;
      if (e.wait()) ++woken;
    });
    while (waiting < threads * fibers + 1) std::this_thread::yield();
    e.set();
    for (auto& t : all) t.join();
    CHECK(woken == threads * fibers + 1);
  }
}

TEST_CASE("semaphore across threads: acquired here, released there") {
  semaphore s(0);
  std::thread other([&] {
    for (int i = 0; i < 100; ++i) s.release();
  });
  for (int i = 0; i < 100; ++i) CHECK(s.acquire(10s));
  other.join();
  CHECK(s.count() == 0);
}

TEST_CASE("semaphore across threads: duelling threads take turns ten thousand times") {
  // Two hubs hand a turn to and fro; no wake-up may be lost, or the case hangs.
  semaphore ping(0), pong(0);
  std::thread other([&] {
    for (int i = 0; i < many; ++i) {
      ping.acquire();
      pong.release();
    }
  });
  auto f = spawn([&] {
    int turns = 0;
    for (; turns < many; ++turns) {
      ping.release();
      pong.acquire();
    }
    return turns;
  });
  CHECK(f.get() == many);
  other.join();
}

TEST_CASE("semaphore across threads: many threads on one") {
  semaphore s(1);
  int guarded = 0;  // without atomics: the semaphore orders it
  std::vector<std::thread> all;
  const int rounds = many / 10;
  for (int t = 0; t < 4; ++t)
    all.emplace_back([&, t] {
      auto work = [&] {
        for (int i = 0; i < rounds; ++i) {
          s.acquire();
          ++guarded;
          s.release();
        }
      };
      if (t % 2 == 0) return work();
      auto a = spawn(work), b = spawn(work);
      joinall({a, b});
    });
  for (auto& t : all) t.join();
  CHECK(guarded == rounds * 6);
  CHECK(s.count() == 1);
}

TEST_CASE("mutex across threads: excludes, and its owner is the fiber") {
  mutex m;
  int guarded = 0;
  const int rounds = many / 10;
  std::vector<std::thread> all;
  for (int t = 0; t < 3; ++t)
    all.emplace_back([&] {
      std::vector<any_fiber> fibers;
      for (int f = 0; f < 3; ++f)
        fibers.push_back(spawn([&] {
          for (int i = 0; i < rounds; ++i) {
            std::unique_lock hold(m);
            const int before = guarded;
            if (i % 16 == 0) yield();
            guarded = before + 1;
          }
        }));
      joinall(fibers);
    });
  for (auto& t : all) t.join();
  CHECK(guarded == rounds * 9);
  m.lock();
  std::thread([&] {
    CHECK_THROWS_AS(m.unlock(), std::logic_error);
    CHECK_FALSE(m.try_lock());
    CHECK_FALSE(m.lock_until(1ms));
  }).join();
  m.unlock();
}

TEST_CASE("condition across threads: a bounded buffer") {
  mutex m;
  condition not_empty, not_full;
  std::vector<int> buffer;
  long sum = 0;
  const int rounds = many / 5;
  std::thread producer([&] {
    for (int i = 0; i < rounds; ++i) {
      std::unique_lock hold(m);
      not_full.wait(m, never, [&] { return buffer.size() < 4; });
      buffer.push_back(i);
      not_empty.notify_one();
    }
  });
  auto consumer = spawn([&] {
    for (int i = 0; i < rounds; ++i) {
      std::unique_lock hold(m);
      not_empty.wait(m, never, [&] { return !buffer.empty(); });
      sum += buffer.back();
      buffer.pop_back();
      not_full.notify_one();
    }
  });
  consumer.get();
  producer.join();
  CHECK(sum == long(rounds) * (rounds - 1) / 2);
}

TEST_CASE("queue across threads: through one slot, both ways, in order") {
  queue<int> there(1), back(1);
  std::thread other([&] {
    while (auto n = there.get())
      if (!back.put(*n * 2) || *n < 0) break;
  });
  auto sender = spawn([&] {
    for (int i = 0; i < many; ++i) there.put(i);
    there.put(-1);
  });
  bool in_order = true;
  for (int i = 0; i < many; ++i) in_order = in_order && back.get() == i * 2;
  CHECK(in_order);
  CHECK(back.get() == -2);
  sender.join();
  other.join();
}

TEST_CASE("queue across threads: waiters that give up or are killed lose nothing") {
  // Getters with tiny deadlines and killed ones, against putters on another thread: each item arrives exactly once.
  queue<int> q(2);
  const int count = many / 2;
  std::vector<std::atomic<int>> seen(std::size_t(count) + 1);
  std::atomic<int> taken{0};
  std::thread putter([&] {
    std::vector<any_fiber> all;
    for (int p = 0; p < 2; ++p)
      all.push_back(spawn([&, p] {
        for (int i = p; i < count; i += 2)
          while (!q.put(int(i), std::chrono::microseconds(i % 5 * 10))) yield();
      }));
    joinall(all);
  });
  std::mt19937 random(42);
  auto get_some = [&](clock::duration patience) {
    while (taken < count) {
      if (auto n = q.get(patience)) {
        ++seen[std::size_t(*n)];
        ++taken;
      }
    }
  };
  auto patient = spawn([&] { get_some(1ms); });
  auto hasty = spawn([&] { get_some(10us); });
  while (taken < count) {
    auto victim = spawn([&] {
      std::optional<int> n;
      n = q.get();
      ++seen[std::size_t(*n)];
      ++taken;
    });
    for (unsigned i = random() % 3; i > 0; --i) yield();
    victim.kill();
  }
  joinall({patient, hasty});
  putter.join();
  int wrong = 0;
  for (int i = 0; i < count; ++i) wrong += seen[std::size_t(i)] != 1;
  CHECK(wrong == 0);
  CHECK(q.empty());
}

TEST_CASE("event across threads: deadlines race with the wake") {
  const int rounds = many / 10;
  int woken = 0, late = 0;
  for (int i = 0; i < rounds; ++i) {
    event e;
    std::atomic<bool> go{false};
    std::thread setter([&] {
      while (!go) {
      }
      e.set();
    });
    auto f = spawn([&] {
      go = true;
      return e.wait(std::chrono::microseconds(i % 50));
    });
    (f.get() ? woken : late) += 1;
    setter.join();
  }
  CHECK(woken + late == rounds);
}

TEST_CASE("event across threads: kills race with the wake") {
  const int rounds = many / 10;
  for (int i = 0; i < rounds; ++i) {
    semaphore s(0);
    std::atomic<bool> go{false};
    std::thread releaser([&] {
      while (!go) {
      }
      s.release();
    });
    bool got = false;
    auto f = spawn([&] { got = s.acquire(); });
    yield();
    go = true;
    for (int n = 0; n < i % 4; ++n) yield();
    f.kill();
    releaser.join();
    if (s.count() != (got ? 0u : 1u)) FAIL("the unit was lost");
  }
}

TEST_CASE("event across threads: made, waited for and destroyed at once, again and again") {
  const int rounds = many / 5;
  queue<event*> to_set(1);
  std::thread setter([&] {
    while (event* e = *to_set.get()) e->set();
  });
  for (int i = 0; i < rounds; ++i) {
    event e;
    to_set.put(&e);
    if (i % 3 == 0) {
      while (!e.is_set()) std::this_thread::yield();
    } else {
      e.wait();
    }
  }
  to_set.put(nullptr);
  setter.join();
}
