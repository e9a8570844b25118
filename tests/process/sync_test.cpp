// Locks and their kin between processes, and shared memory.

#include <algorithm>
#include <mutex>

#include <ringlet/ipc/shared.hpp>
#include <ringlet/ipc/sync.hpp>

#include "on_processes.hpp"

using namespace process_test;

namespace {
void finish(std::vector<process>& all) {
  for (auto& p : all) {
    CHECK(p.join(30s));
    CHECK(p.exit_code() == 0);
  }
}
// So many processes of so many fibers each, when all have counted themselves; next each calls `wait`.
template <class Wait>
std::vector<process> waiting(int processes, int fibers, ipc::value<int>& come, Wait wait) {
  std::vector<process> all;
  for (int i = 0; i < processes; ++i) {
    all.emplace_back([&come, fibers, wait] {
      std::vector<any_fiber> each;
      for (int f = 0; f < fibers; ++f)
        each.push_back(spawn([&] {
          come.update([](int& v) { ++v; });
          wait();
        }));
      joinall(each);
    });
    all.back().start();
  }
  REQUIRE(soon([&] { return come.get() == processes * fibers; }));
  return all;
}
}  // namespace

PROCESS_CASE("ipc mutex: no two have it at once, among processes and their fibers") {
  ipc::mutex lock;
  ipc::value<long> count(0);
  std::vector<process> all;
  for (int i = 0; i < 3; ++i) {
    all.emplace_back([&] {
      std::vector<any_fiber> fibers;
      for (int f = 0; f < 3; ++f)
        fibers.push_back(spawn([&] {
          for (int n = 0; n < 200; ++n) {
            std::lock_guard hold(lock);
            const long before = count.get();
            if (n % 50 == 0) yield();
            count.set(before + 1);
          }
        }));
      joinall(fibers, {.raise_error = true});
    });
    all.back().start();
  }
  finish(all);
  CHECK(count.get() == 1800);
}

PROCESS_CASE("ipc mutex: its owner is a fiber of a process") {
  ipc::mutex lock;
  CHECK_THROWS_AS(lock.unlock(), std::logic_error);
  lock.lock();
  CHECK(lock.is_locked());
  CHECK_THROWS_AS(lock.lock(), std::logic_error);
  CHECK_FALSE(lock.try_lock());
  spawn([&] { CHECK_THROWS_AS(lock.unlock(), std::logic_error); }).join();
  process p([&] {
    try {
      lock.unlock();
      return 1;
    } catch (const std::logic_error&) {
    }
    return lock.try_lock() || lock.try_lock_for(5ms) ? 2 : 0;
  });
  p.start();
  CHECK(p.join(20s));
  CHECK(p.exit_code() == 0);
  lock.unlock();
  CHECK(lock.try_lock());
  lock.unlock();
}

PROCESS_CASE("ipc recursive mutex: is free when it has been unlocked as often") {
  ipc::recursive_mutex lock;
  lock.lock();
  lock.lock();
  lock.unlock();
  process p([&] { return lock.try_lock() ? 1 : 0; });
  p.start();
  CHECK(p.join(20s));
  CHECK(p.exit_code() == 0);
  lock.unlock();
  process q([&] { return lock.try_lock() ? 0 : 1; });
  q.start();
  CHECK(q.join(20s));
  CHECK(q.exit_code() == 0);
}

PROCESS_CASE("ipc mutex: whose owner is killed goes to the next, who is told") {
  ipc::mutex lock;
  ipc::value<int> held(0);
  process p([&] {
    lock.lock();
    held.set(1);
    sleep(1h);
  });
  p.start();
  REQUIRE(soon([&] { return held.get() == 1; }));
  CHECK_FALSE(lock.try_lock());
  const auto parked = hub::count().fd_waits;
  auto waits = spawn([&] {
    try {
      lock.lock();
      return false;
    } catch (const ipc::owner_died&) {
      lock.unlock();
      return true;
    }
  });
  CHECK(soon([&] { return hub::count().fd_waits > parked; }));
  p.kill();
  CHECK(p.join(20s));
  CHECK(waits.get(20s));
  lock.lock();  // and is as good as new
  lock.unlock();
  process again([&] { lock.lock(); });
  again.start();
  CHECK(again.join(20s));
  CHECK_THROWS_AS(lock.try_lock(), ipc::owner_died);  // a try looks, too
  lock.unlock();
}

PROCESS_CASE("ipc mutex: a killed waiter and a late one do not matter") {
  ipc::mutex lock;
  lock.lock();
  process p([&] { lock.lock(); });
  p.start();
  auto f = spawn([&] { lock.lock(); });
  auto late = spawn([&] { return lock.lock_until(10ms); });
  CHECK_FALSE(late.get());
  f.kill();
  p.kill();
  CHECK(p.join(20s));
  process next([&] { lock.lock(); lock.unlock(); });
  next.start();
  sleep(5ms);  // most often it waits by then; it gets the lock in any case
  lock.unlock();
  CHECK(next.join(20s));
  CHECK(next.exit_code() == 0);
}

PROCESS_CASE("ipc semaphore: lets so many in") {
  ipc::semaphore places(2);
  ipc::value<int> inside(0), most(0);
  std::vector<process> all;
  for (int i = 0; i < 5; ++i) {
    all.emplace_back([&] {
      for (int n = 0; n < 5; ++n) {
        places.acquire();
        const int now = inside.update([](int& v) { return ++v; });
        most.update([now](int& v) { v = std::max(v, now); });
        for (int wait = 0; wait < 20000 && most.get() < 2; ++wait) sleep(1ms);  // until two have been inside
        inside.update([](int& v) { --v; });
        places.release();
      }
    });
    all.back().start();
  }
  finish(all);
  CHECK(most.get() == 2);
  CHECK(places.count() == 2);
  CHECK(places.try_acquire());
  CHECK(places.try_acquire());
  CHECK_FALSE(places.try_acquire());
  CHECK_FALSE(places.acquire(2ms));
}

PROCESS_CASE("ipc semaphore: a release of many wakes many, at once") {
  ipc::semaphore gate(0);
  ipc::value<int> come(0);
  auto all = waiting(4, 5, come, [&] { gate.acquire(); });
  gate.release(20);
  finish(all);
  CHECK(gate.count() == 0);
}

PROCESS_CASE("ipc event: wakes all who wait, in all processes, even if it is cleared at once") {
  ipc::event go;
  ipc::value<int> come(0);
  auto all = waiting(3, 4, come, [&] { go.wait(); });
  sleep(20ms);  // the last to count itself has yet to wait; the test is right without, and sharper with it
  CHECK_FALSE(go.wait(2ms));
  go.set();
  CHECK(go.is_set());
  CHECK(go.wait());
  finish(all);
  go.clear();
  CHECK_FALSE(go.is_set());
  CHECK_FALSE(go.wait(deadline::passed()));
}

PROCESS_CASE("ipc condition: a predicate guarded by a lock") {
  ipc::mutex lock;
  ipc::condition changed;
  ipc::value<int> turn(0);
  std::vector<process> all;
  for (int i = 0; i < 3; ++i) {
    all.emplace_back([&, i] {
      for (int n = 0; n < 20; ++n) {
        std::unique_lock hold(lock);
        if (!changed.wait(*hold.mutex(), [&] { return turn.get() % 3 == i; }, 30s)) return 1;
        turn.set(turn.get() + 1);
        hold.unlock();
        changed.notify_all();
      }
      return 0;
    });
    all.back().start();
  }
  finish(all);
  CHECK(turn.get() == 60);
}

PROCESS_CASE("ipc condition: wait gives the lock up, all of it, and has it again as deep") {
  ipc::recursive_mutex lock;
  ipc::condition changed;
  CHECK_THROWS_AS(changed.wait(lock, 1ms), std::logic_error);
  lock.lock();
  lock.lock();
  process p([&] {
    std::lock_guard hold(lock);
    changed.notify_one();
  });
  p.start();
  CHECK(changed.wait(lock, 20s));
  CHECK_FALSE(changed.wait(lock, 2ms));
  lock.unlock();
  CHECK(lock.is_locked());
  lock.unlock();
  CHECK_FALSE(lock.is_locked());
  CHECK(p.join(20s));
}

PROCESS_CASE("ipc condition: who waits and is killed has the lock on the way out") {
  ipc::mutex lock;
  ipc::condition changed;
  bool had = false;
  auto f = spawn([&] {
    lock.lock();
    try {
      changed.wait(lock);
    } catch (const greenlet_exit&) {
      had = lock.is_locked();
      lock.unlock();
      throw;
    }
  });
  yield();
  f.kill();
  CHECK(had);
  CHECK_FALSE(lock.is_locked());
}

PROCESS_CASE("ipc array: what one process writes, the others see") {
  ipc::array<double> row(1000, 1.5);
  ipc::array<int> few{1, 2, 3};
  CHECK(few.size() == 3);
  CHECK(row[999] == 1.5);
  std::vector<process> all;
  for (std::size_t i = 0; i < 4; ++i) {
    all.emplace_back([&row, i] {
      for (std::size_t n = i; n < row.size(); n += 4) row[n] = double(n);
    });
    all.back().start();
  }
  finish(all);
  for (std::size_t n = 0; n < row.size(); ++n) CHECK(row[n] == double(n));
  CHECK_THROWS_AS(row.at(1000), std::out_of_range);
}

PROCESS_CASE("ipc value: updates of many processes are all counted") {
  ipc::value<long> sum(0);
  std::vector<process> all;
  for (int i = 0; i < 4; ++i) {
    all.emplace_back([&] {
      for (int n = 0; n < 300; ++n) sum.update([](long& v) { ++v; });
    });
    all.back().start();
  }
  finish(all);
  CHECK(sum.get() == 1200);
}
