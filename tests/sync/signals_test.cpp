// Event, condition, semaphores: what they promise to fibers of this and of other hubs and to plain threads. The facts are
// those that Python's own tests of them ask for.

#include <mutex>

#include "crew.hpp"

using namespace sync_test;

// --- event -----------------------------------------------------------------------------------------------------------

TEST_CASE("event: wakes all who wait; who comes later does not wait") {
  with_each_kind([](kind k) {
    event e;
    std::atomic<int> first{0}, second{0};
    crew all(k, 8, [&](int) {
      first += e.wait() ? 1 : 100;
      second += e.wait() ? 1 : 100;
    });
    CHECK(all.all_started(8));
    let_others_run();
    CHECK(first == 0);
    e.set();
    all.join();
    CHECK(first == 8);
    CHECK(second == 8);
    CHECK(e.is_set());
    e.clear();
    CHECK_FALSE(e.is_set());
  });
}

TEST_CASE("event: a wait to a deadline is false after it, true when set") {
  with_each_kind([](kind k) {
    event e;
    std::atomic<int> late{0}, woken{0};
    crew all(k, 6, [&](int) {
      const auto begun = std::chrono::steady_clock::now();
      if (!e.wait(3ms) && std::chrono::steady_clock::now() - begun >= 3ms) ++late;
      if (e.wait(1h)) ++woken;
      if (e.wait(deadline::passed())) ++woken;
    });
    CHECK(comes_true([&] { return late == 6; }));
    CHECK(woken == 0);
    e.set();
    all.join();
    CHECK(woken == 12);
  });
}

TEST_CASE("event: set and cleared at once still wakes all who waited, of every kind") {
  with_each_kind([](kind k) {
    event e;
    std::atomic<int> woken{0};
    std::atomic<bool> again{false};
    crew all(k, 8, [&](int) {
      if (e.wait(30s)) ++woken;
    });
    CHECK(all.all_started(8));
    // Who has started may still be a step before its wait; then it is set for it again.
    while (!again && woken < 8) {
      let_others_run();
      e.set();
      e.clear();
    }
    all.join();
    CHECK(woken == 8);
  });
}

HUB_CASE("event: waits twice for a set one without waiting") {
  event e;
  e.set();
  CHECK(e.wait());
  CHECK(e.wait());
  CHECK(wait({e, e}) == std::vector<std::size_t>{0, 1});
}

// --- condition -------------------------------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("condition: notify(n) wakes n, in turns, until nobody waits", L, mutex, recursive_mutex) {
  with_each_kind([](kind k) {
    constexpr int n = 7;
    L m;
    condition c;
    int waiting = 0, woken = 0;  // the lock guards them
    auto now_woken = [&] {
      std::lock_guard hold(m);
      return woken;
    };
    crew all(k, n, [&](int) {
      std::unique_lock hold(m);
      ++waiting;
      c.wait(hold);
      ++woken;
    });
    // Who has counted itself is in the queue before the lock is free again.
    CHECK(comes_true([&] {
      std::lock_guard hold(m);
      return waiting == n;
    }));
    int expected = 0;
    for (int some : {0, 1, 3, 2}) {
      c.notify(std::size_t(some));
      expected += some;
      CHECK(comes_true([&] { return now_woken() == expected; }));
      let_others_run();
      CHECK(now_woken() == expected);
    }
    c.notify_all();
    all.join();
    CHECK(woken == n);
    c.notify_one();
  });
}

TEST_CASE_TEMPLATE("condition: a wait ends at its deadline with the lock held", L, mutex, recursive_mutex) {
  with_each_kind([](kind k) {
    L m;
    condition c;
    std::atomic<int> late{0};
    crew all(k, 5, [&](int) {
      std::unique_lock hold(m);
      const auto begun = std::chrono::steady_clock::now();
      if (!c.wait(m, 3ms) && std::chrono::steady_clock::now() - begun >= 3ms) ++late;
      CHECK_FALSE(spawn([&] { return m.try_lock(); }).get());
    });
    all.join();
    CHECK(late == 5);
  });
}

TEST_CASE_TEMPLATE("condition: waits for a predicate, with what is left of its time", L, mutex, recursive_mutex) {
  with_each_kind([](kind k) {
    L m;
    condition c;
    int state = 0;
    std::atomic<int> good{0}, late{0};
    crew all(k, 4, [&](int i) {
      std::unique_lock hold(m);
      if (i % 2 == 0) {
        if (c.wait(hold, never, [&] { return state == 4; })) ++good;
      } else {
        const auto begun = std::chrono::steady_clock::now();
        if (!c.wait(m, 5ms, [&] { return state == 100; }) && std::chrono::steady_clock::now() - begun >= 5ms) ++late;
      }
    });
    for (int i = 0; i < 4; ++i) {
      let_others_run();
      std::lock_guard hold(m);
      ++state;
      c.notify_all();
    }
    all.join();
    CHECK(good == 2);
    CHECK(late == 2);
  });
}

HUB_CASE("condition: a recursive mutex is given up wholly and had back as deep as before") {
  recursive_mutex m;
  condition c;
  bool others_had_it = false;
  std::size_t depth_after = 0, depth_late = 0, depth_killed = 0;
  auto waiter = spawn([&] {
    std::lock_guard one(m), two(m), three(m);
    c.wait(m);
    depth_after = m.depth();
    c.wait(m, 1ms);
    depth_late = m.depth();
    try {
      c.wait(m);
    } catch (const greenlet_exit&) {
      depth_killed = m.depth();
      throw;
    }
  });
  yield();
  others_had_it = m.try_lock();
  REQUIRE(others_had_it);
  c.notify_one();
  yield();
  CHECK(depth_after == 0);  // it is ours yet
  m.unlock();
  CHECK(comes_true([&] { return depth_late == 3; }));
  CHECK(depth_after == 3);
  yield();
  waiter.kill();
  CHECK(depth_killed == 3);
  CHECK(m.try_lock());
  m.unlock();
}

HUB_CASE("condition: to wait without the lock is an error and leaves no waiter") {
  mutex m;
  recursive_mutex r;
  condition c;
  CHECK_THROWS_AS(c.wait(m), std::logic_error);
  CHECK_THROWS_AS(c.wait(r), std::logic_error);
  std::unique_lock hold(m, std::defer_lock);
  CHECK(contains(error_of([&] { c.wait(hold); }), "not held"));
  std::lock_guard other(r);
  CHECK_THROWS_AS(spawn([&] { c.wait(r); }).get(), std::logic_error);
  c.notify_all();
}

// --- semaphores ------------------------------------------------------------------------------------------------------

TEST_CASE("semaphore: lets in as many as it has, and each release one more") {
  with_each_kind([](kind k) {
    semaphore s(7);
    s.acquire();
    std::atomic<int> in{0};
    semaphore leave(0);
    crew all(k, 10, [&](int) {
      s.acquire();
      s.acquire();
      ++in;
      leave.acquire();
    });
    CHECK(comes_true([&] { return in == 3 || s.count() == 0; }));
    // Six units: at most three have two, and those with one wait.
    let_others_run();
    CHECK(in <= 3);
    CHECK(s.count() == 0);
    s.release(14);
    CHECK(comes_true([&] { return in == 10; }));
    CHECK(s.count() == 0);
    leave.release(10);
    all.join();
  });
}

TEST_CASE("semaphore: false after the deadline, and nothing is taken") {
  with_each_kind([](kind k) {
    semaphore s(0);
    std::atomic<int> late{0};
    crew all(k, 4, [&](int) {
      const auto begun = std::chrono::steady_clock::now();
      if (!s.acquire(2ms) && std::chrono::steady_clock::now() - begun >= 2ms) ++late;
      if (!s.acquire(deadline::passed())) ++late;
      if (!s.try_acquire()) ++late;
    });
    all.join();
    CHECK(late == 12);
    s.release(3);
    CHECK(s.count() == 3);
  });
}

TEST_CASE("bounded_semaphore: to release more than was acquired is an error and releases nothing") {
  with_each_kind([](kind k) {
    bounded_semaphore s(2);
    CHECK(contains(error_of([&] { s.release(); }), "more often than it was acquired"));
    CHECK(s.acquire());
    CHECK_THROWS_AS(s.release(2), std::logic_error);
    CHECK(s.count() == 1);
    s.release();
    std::atomic<int> wrong{0};
    crew all(k, 6, [&](int) {
      for (int i = 0; i < 100; ++i) {
        s.acquire();
        if (i % 16 == 0) yield();
        try {
          s.release();
        } catch (const std::logic_error&) {
          ++wrong;
        }
      }
    });
    all.join();
    CHECK(wrong == 0);
    CHECK(s.count() == 2);
    CHECK(s.try_acquire());
    CHECK(s.acquire(deadline::passed()));
    CHECK_FALSE(s.acquire(deadline::passed()));
  });
}
