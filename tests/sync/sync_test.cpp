// event, semaphore, mutex, condition: who is woken, in which order, and that a wait which ends otherwise takes nothing.

#include <mutex>
#include <string>
#include <vector>

#include "hub/on_hub.hpp"

using namespace hub_test;

// --- event -----------------------------------------------------------------------------------------------------------

HUB_CASE("event: set wakes all who wait now, even if it is cleared before they run") {
  for (const int count : {1, 100, 1000}) {
    CAPTURE(count);
    event e;
    int woken = 0;
    std::vector<any_fiber> waiters;
    for (int i = 0; i < count; ++i)
      waiters.push_back(spawn([&] { woken += e.wait() ? 1 : 1'000'000; }));
    yield();
    e.set();
    e.clear();
    CHECK(woken == 0);
    joinall(waiters);
    CHECK(woken == count);
    CHECK_FALSE(e.is_set());
  }
}

HUB_CASE("event: waiters run in the order they came; who comes to a set event returns at once") {
  std::string log;
  event e;
  std::vector<any_fiber> waiters;
  for (char c : {'1', '2', '3'})
    waiters.push_back(spawn([&, c] {
      e.wait();
      log += c;
      if (c == '1') waiters.push_back(spawn([&] {
          e.wait();
          log += '4';
        }));
    }));
  yield();
  e.set();
  while (log.size() < 4) yield();
  CHECK(log == "1234");
  CHECK(e.wait());
  CHECK(e.wait(deadline::passed()));
}

HUB_CASE("event: false when the deadline passes, at once if it has passed") {
  event e;
  const auto start = now();
  CHECK_FALSE(e.wait(deadline::passed()));
  if (is_simulated()) CHECK(now() == start);
  CHECK_FALSE(e.wait(3ms));
  CHECK(took(start, 3ms));
  CHECK_FALSE(e.wait(0s));
}

HUB_CASE("event: a killed waiter leaves the others waiting") {
  event e;
  int woken = 0;
  std::vector<any_fiber> waiters;
  for (int i = 0; i < 3; ++i)
    waiters.push_back(spawn([&] {
      e.wait();
      ++woken;
    }));
  yield();
  waiters[1].kill();
  CHECK(woken == 0);
  e.set();
  joinall(waiters);
  CHECK(woken == 2);
}

HUB_CASE("event: may be destroyed by the one it has woken") {
  auto* e = new event;
  auto f = spawn([&] {
    e->wait();
    delete e;
  });
  yield();
  e->set();
  f.get();
}

// --- semaphore -------------------------------------------------------------------------------------------------------

HUB_CASE("semaphore: counts; try, deadline and over-release") {
  semaphore s(2);
  CHECK(s.acquire());
  CHECK(s.try_acquire());
  CHECK_FALSE(s.try_acquire());
  CHECK_FALSE(s.acquire(deadline::passed()));
  CHECK_FALSE(s.acquire(2ms));
  CHECK(s.count() == 0);
  s.release(5);
  CHECK(s.count() == 5);
  semaphore none(0);
  CHECK_FALSE(none.try_acquire());
}

HUB_CASE("semaphore: is served in the order of asking, and release(n) serves n") {
  std::string log;
  semaphore s(0);
  std::vector<any_fiber> waiters;
  for (char c = 'a'; c <= 'e'; ++c)
    waiters.push_back(spawn([&, c] {
      s.acquire();
      log += c;
    }));
  yield();
  s.release(2);
  yield();
  CHECK(log == "ab");
  CHECK_FALSE(s.try_acquire());
  s.release(3);
  joinall(waiters);
  CHECK(log == "abcde");
  CHECK(s.count() == 0);
}

HUB_CASE("semaphore: nobody overtakes one who waits") {
  semaphore s(0);
  auto waiter = spawn([&] { s.acquire(); });
  yield();
  s.release();
  CHECK_FALSE(s.try_acquire());  // it is the waiter's, although it has not run yet
  waiter.join();
}

HUB_CASE("semaphore: two that spin on it do not starve a third") {
  semaphore s(1);
  bool third_had_it = false;
  long rounds = 0;
  auto spin = [&] {
    while (!third_had_it && ++rounds < 100'000) {
      s.acquire();
      yield();
      s.release();
    }
  };
  auto a = spawn(spin), b = spawn(spin);
  yield();
  auto third = spawn([&] {
    s.acquire();
    third_had_it = true;
    s.release();
  });
  joinall({a, b, third});
  CHECK(third_had_it);
  CHECK(rounds < 100);
  CHECK(s.count() == 1);
}

HUB_CASE("semaphore: a killed or late waiter takes nothing with it") {
  semaphore s(0);
  auto killed = spawn([&] { s.acquire(); });
  auto late = spawn([&] { return s.acquire(1ms); });
  auto third = spawn([&] { return s.acquire(); });
  yield();
  killed.kill();
  CHECK_FALSE(late.get());
  s.release();
  CHECK(third.get());
  CHECK(s.count() == 0);
}

// --- mutex -----------------------------------------------------------------------------------------------------------

HUB_CASE("mutex: is handed over in the order of asking") {
  std::string log;
  mutex m;
  m.lock();
  std::vector<any_fiber> waiters;
  for (char c = 'a'; c <= 'd'; ++c)
    waiters.push_back(spawn([&, c] {
      std::unique_lock hold(m);
      log += c;
      yield();
    }));
  yield();
  m.unlock();
  CHECK_FALSE(m.try_lock());
  joinall(waiters);
  CHECK(log == "abcd");
  CHECK(m.try_lock());
  m.unlock();
}

HUB_CASE("mutex: misuse is an error") {
  mutex m;
  CHECK_THROWS_AS(m.unlock(), std::logic_error);
  m.lock();
  CHECK_THROWS_AS(m.lock(), std::logic_error);
  CHECK_FALSE(m.try_lock());
  auto other = spawn([&] { return error_of([&] { m.unlock(); }); });
  CHECK(contains(other.get(), "does not hold it"));
  m.unlock();
}

HUB_CASE("mutex: lock_until gives up at the deadline and leaves the queue") {
  mutex m;
  m.lock();
  auto late = spawn([&] { return m.lock_until(2ms); });
  auto never_waits = spawn([&] { return m.lock_until(deadline::passed()); });
  auto killed = spawn([&] { m.lock(); });
  CHECK_FALSE(late.get());
  CHECK_FALSE(never_waits.get());
  killed.kill();
  m.unlock();
  CHECK(m.try_lock());
  m.unlock();
}

// --- condition -------------------------------------------------------------------------------------------------------

HUB_CASE("condition: one, all, in the order of waiting, with the mutex held") {
  mutex m;
  condition c;
  std::string log;
  std::vector<any_fiber> waiters;
  for (char name = 'a'; name <= 'd'; ++name)
    waiters.push_back(spawn([&, name] {
      std::unique_lock hold(m);
      CHECK(c.wait(m));
      CHECK_FALSE(m.try_lock());  // ours
      log += name;
    }));
  yield();
  CHECK(m.try_lock());
  m.unlock();
  c.notify_one();
  yield();
  yield();
  CHECK(log == "a");
  c.notify_all();
  c.notify_all();
  joinall(waiters);
  CHECK(log == "abcd");
  c.notify_one();  // nobody: nothing
}

HUB_CASE("condition: the mutex is held again on every exit") {
  mutex m;
  condition c;
  auto holds = [&] { return error_of([&] { m.unlock(); }).empty(); };
  // a deadline
  m.lock();
  CHECK_FALSE(c.wait(m, 1ms));
  CHECK(holds());
  // a kill, while somebody else holds the mutex
  bool held_in_cleanup = false;
  auto victim = spawn([&] {
    m.lock();
    try {
      c.wait(m);
    } catch (const greenlet_exit&) {
      held_in_cleanup = holds();
      throw;
    }
  });
  yield();
  m.lock();
  CHECK_FALSE(victim.kill(2ms));  // it waits for the mutex, and not even a second kill hurries it
  CHECK_FALSE(victim.kill(2ms));
  m.unlock();
  CHECK(victim.join());
  CHECK(held_in_cleanup);
  // a timeout scope
  m.lock();
  {
    timeout limit(1ms);
    CHECK_THROWS_AS(c.wait(m), timeout_expired);
  }
  CHECK(holds());
  // without the mutex
  CHECK_THROWS_AS(c.wait(m), std::logic_error);
}

HUB_CASE("condition: with a predicate waits until it holds, or tells it at the deadline") {
  mutex m;
  condition c;
  int value = 0;
  auto waiter = spawn([&] {
    std::unique_lock hold(m);
    return c.wait(m, never, [&] { return value == 3; });
  });
  auto late = spawn([&] {
    std::unique_lock hold(m);
    return c.wait(m, 1ms, [&] { return value == 100; });
  });
  CHECK_FALSE(late.get());
  for (int i = 0; i < 3; ++i) {
    std::unique_lock hold(m);
    ++value;
    c.notify_all();
    hold.unlock();
    yield();
  }
  CHECK(waiter.get());
}

HUB_CASE("condition: a notification goes to one who still waits") {
  mutex m;
  condition c;
  int notified = 0;
  std::vector<any_fiber> waiters;
  for (int i = 0; i < 3; ++i)
    waiters.push_back(spawn([&] {
      std::unique_lock hold(m);
      notified += c.wait(m);
    }));
  yield();
  waiters[0].kill();
  c.notify_one();
  waiters[1].join();
  CHECK(notified == 1);
  c.notify_one();
  joinall(waiters);
  CHECK(notified == 2);
}
