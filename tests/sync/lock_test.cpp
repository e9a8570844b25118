// What locks promise to whoever uses them: mutex, recursive_mutex, shared_mutex and a semaphore of one, with fibers of this
// and of other hubs and with plain threads. The facts are those that Python's own tests of its locks ask for.

#include <memory>
#include <mutex>
#include <shared_mutex>

#include "crew.hpp"

using namespace sync_test;

namespace {

// A semaphore of one as a lock: anybody may release it.
struct semaphore_lock : detail::timed_lockable<semaphore_lock> {
  semaphore one{1};
  void lock() { one.acquire(); }
  bool try_lock() { return one.try_acquire(); }
  bool lock_until(deadline until) { return one.acquire(until); }
  void unlock() { one.release(); }
};
// To write, by the names of a plain lock.
struct writer_lock : shared_mutex {};

const int many = support::is_instrumented() ? 50 : 300;

template <class Lock>
bool free_for_others(Lock& l) {
  return spawn([&] {
           const bool got = l.try_lock();
           if (got) l.unlock();
           return got;
         })
      .get();
}

}  // namespace

#define LOCKS mutex, recursive_mutex, writer_lock, semaphore_lock

TEST_CASE_TEMPLATE("lock: taken and given back; others find it held meanwhile", L, LOCKS) {
  L l;
  CHECK(free_for_others(l));
  l.lock();
  CHECK_FALSE(free_for_others(l));
  CHECK_FALSE(spawn([&] { return l.lock_until(deadline::passed()); }).get());
  CHECK_FALSE(spawn([&] { return l.try_lock_for(1ms); }).get());
  CHECK_FALSE(spawn([&] { return l.try_lock_until(std::chrono::system_clock::now() + 1ms); }).get());
  l.unlock();
  CHECK(free_for_others(l));
  CHECK(l.try_lock());
  l.unlock();
  CHECK(l.try_lock_for(1h));
  l.unlock();
  {
    std::unique_lock hold(l, 1h);
    CHECK(hold.owns_lock());
  }
  CHECK(free_for_others(l));
}

TEST_CASE_TEMPLATE("lock: excludes, whoever the workers are", L, LOCKS) {
  with_each_kind([](kind k) {
    L l;
    long guarded = 0;
    crew all(k, 8, [&](int who) {
      for (int i = 0; i < many; ++i) {
        std::lock_guard hold(l);
        const long before = guarded;
        if ((i + who) % 16 == 0) yield();
        guarded = before + 1;
      }
    });
    all.join();
    CHECK(guarded == 8L * many);
  });
}

TEST_CASE_TEMPLATE("lock: all who wait for a held one get it, one at a time, once it is free", L, LOCKS) {
  with_each_kind([](kind k) {
    L l;
    std::atomic<int> inside{0}, worst{0};
    l.lock();
    crew all(k, 6, [&](int) {
      std::lock_guard hold(l);
      if (++inside > 1) worst = 2;
      yield();
      --inside;
    });
    CHECK(all.all_started(6));
    let_others_run();
    CHECK(all.finished() == 0);
    l.unlock();
    all.join();
    CHECK(all.finished() == 6);
    CHECK(worst == 0);
    CHECK(free_for_others(l));
  });
}

TEST_CASE_TEMPLATE("lock: who gives up in time takes nothing and keeps nobody waiting", L, LOCKS) {
  with_each_kind([](kind k) {
    L l;
    l.lock();
    std::atomic<int> got{0}, late{0};
    crew all(k, 8, [&](int i) {
      const auto begun = std::chrono::steady_clock::now();
      if (i % 2 == 0) {
        l.try_lock_for(2ms) ? ++got : ++late;
        CHECK(std::chrono::steady_clock::now() - begun >= 2ms);
      } else {
        l.lock();
        ++got;
        l.unlock();
      }
    });
    CHECK(comes_true([&] { return late == 4; }));
    CHECK(got == 0);
    l.unlock();
    all.join();
    CHECK(got == 4);
  });
}

TEST_CASE_TEMPLATE("lock: an exception that leaves the section gives it back", L, LOCKS) {
  L l;
  CHECK_THROWS_AS(([&] {
                    std::lock_guard hold(l);
                    throw 1;
                  }()),
                  int);
  CHECK(free_for_others(l));
}

TEST_CASE_TEMPLATE("lock: a thousand of them come and go", L, LOCKS) {
  for (int i = 0; i < 1000; ++i) {
    auto l = std::make_unique<L>();
    std::lock_guard hold(*l);
  }
}

TEST_CASE_TEMPLATE("lock: one that is killed while it waits takes nothing", L, LOCKS) {
  L l;
  l.lock();
  auto victim = spawn([&] { l.lock(); });
  auto patient = spawn([&] {
    l.lock();
    l.unlock();
  });
  yield();
  victim.kill();
  l.unlock();
  CHECK(patient.join(10s));
  CHECK(free_for_others(l));
}

TEST_CASE("semaphore: as a lock, may be released by somebody else") {
  with_each_kind([](kind k) {
    semaphore_lock l;
    l.lock();
    {
      crew other(k, 1, [&](int) { l.unlock(); });
    }
    CHECK(l.try_lock());
  });
}

TEST_CASE_TEMPLATE("lock: only its owner may unlock it", L, mutex, recursive_mutex, writer_lock) {
  L l;
  CHECK_THROWS_AS(l.unlock(), std::logic_error);
  with_each_kind([&](kind k) {
    std::lock_guard hold(l);
    crew others(k, 4, [&](int) { CHECK_THROWS_AS(l.unlock(), std::logic_error); });
  });
  CHECK(free_for_others(l));
}

// --- recursive_mutex -------------------------------------------------------------------------------------------------

HUB_CASE("recursive_mutex: is free when it has been unlocked as often as locked") {
  recursive_mutex m;
  CHECK(m.depth() == 0);
  m.lock();
  CHECK(m.try_lock());
  CHECK(m.lock_until(deadline::passed()));
  CHECK(m.depth() == 3);
  CHECK(spawn([&] { return m.depth(); }).get() == 0);
  m.unlock();
  m.unlock();
  CHECK_FALSE(free_for_others(m));
  m.unlock();
  CHECK(free_for_others(m));
  CHECK(contains(error_of([&] { m.unlock(); }), "does not hold it"));
}

TEST_CASE("recursive_mutex: its owner is the fiber, not the thread") {
  with_each_kind([](kind k) {
    recursive_mutex m;
    long guarded = 0;
    crew all(k, 6, [&](int) {
      for (int i = 0; i < many; ++i) {
        std::lock_guard outer(m);
        const long before = guarded;
        std::lock_guard inner(m);
        if (i % 16 == 0) yield();
        guarded = before + 1;
      }
    });
    all.join();
    CHECK(guarded == 6L * many);
    CHECK(m.depth() == 0);
  });
}

HUB_CASE("recursive_mutex: who waited for it has it once") {
  recursive_mutex m;
  m.lock();
  m.lock();
  auto f = spawn([&] {
    m.lock();
    const auto depth = m.depth();
    m.unlock();
    return depth;
  });
  yield();
  m.unlock();
  m.unlock();
  CHECK(f.get() == 1);
}

// --- shared_mutex ----------------------------------------------------------------------------------------------------

HUB_CASE("shared_mutex: many read together, one writes alone") {
  shared_mutex m;
  std::shared_lock a(m), b(m);
  CHECK_FALSE(m.try_lock());
  CHECK(m.try_lock_shared());
  m.unlock_shared();
  a.unlock();
  CHECK_FALSE(m.try_lock());
  b.unlock();
  CHECK(m.try_lock());
  CHECK_FALSE(m.try_lock_shared());
  CHECK_FALSE(spawn([&] { return m.try_lock_shared_for(1ms); }).get());
  CHECK_FALSE(spawn([&] { return m.try_lock_shared_until(std::chrono::steady_clock::now() + 1ms); }).get());
  m.unlock();
  std::shared_lock timed(m, 1ms);
  CHECK(timed.owns_lock());
}

HUB_CASE("shared_mutex: serves in the order of asking, neighbouring readers together") {
  shared_mutex m;
  std::string log;
  m.lock();
  std::vector<any_fiber> all;
  auto reader = [&](char name) {
    all.push_back(spawn([&, name] {
      std::shared_lock hold(m);
      log += name;
      yield();
      log += name;
    }));
  };
  auto writer = [&](char name) {
    all.push_back(spawn([&, name] {
      std::lock_guard hold(m);
      log += name;
      yield();
      log += name;
    }));
  };
  reader('a'), reader('b'), writer('W'), reader('c'), writer('X'), writer('Y'), reader('d'), reader('e');
  yield();
  CHECK_FALSE(m.try_lock_shared());
  m.unlock();
  CHECK_FALSE(m.try_lock());
  joinall(all);
  CHECK(log == "ababWWccXXYYdede");
}

HUB_CASE("shared_mutex: a writer that gives up lets the readers behind it in") {
  shared_mutex m;
  m.lock_shared();
  auto late = spawn([&] { return m.lock_until(1ms); });
  auto killed = spawn([&] { m.lock(); });
  yield();
  auto reader = spawn([&] {
    m.lock_shared();
    m.unlock_shared();
  });
  yield();
  CHECK_FALSE(reader.ready());
  CHECK_FALSE(late.get());
  yield();
  CHECK_FALSE(reader.ready());
  killed.kill();
  CHECK(reader.join(10s));
  m.unlock_shared();
  CHECK(m.try_lock());
  m.unlock();
}

HUB_CASE("shared_mutex: misuse is an error") {
  shared_mutex m;
  CHECK_THROWS_AS(m.unlock_shared(), std::logic_error);
  m.lock();
  CHECK(contains(error_of([&] { m.lock(); }), "locked twice"));
  CHECK(contains(error_of([&] { m.lock_shared(); }), "holds it to write"));
  m.unlock();
}

TEST_CASE("shared_mutex: readers and writers of all kinds see whole values only") {
  with_each_kind([](kind k) {
    shared_mutex m;
    long first = 0, second = 0;
    std::atomic<int> torn{0};
    crew all(k, 8, [&](int who) {
      for (int i = 0; i < many; ++i) {
        if (who % 4 == 0) {
          std::lock_guard hold(m);
          ++first;
          if (i % 8 == 0) yield();
          ++second;
        } else {
          std::shared_lock hold(m);
          if (first != second) ++torn;
          if (i % 8 == 0) yield();
          if (first != second) ++torn;
        }
      }
    });
    all.join();
    CHECK(torn == 0);
    CHECK(first == 2L * many);
  });
}
