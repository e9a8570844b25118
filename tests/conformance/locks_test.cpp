// pthread locks: the same results as between threads, and what only fibers can get wrong: a lock held over a switch, by
// one of two fibers of the same thread.

#include "conformance.hpp"
#include "support/support.hpp"

#include <condition_variable>
#include <csignal>
#include <mutex>
#include <pthread.h>
#include <semaphore.h>
#include <shared_mutex>
#include <threads.h>
#include <unistd.h>

#include <ringlet/fiber.hpp>
#include <ringlet/hooks.hpp>

namespace {

using conformance::trace;

timespec in_ms(clockid_t clock, long ms) {
  timespec now;
  ::clock_gettime(clock, &now);
  now.tv_nsec += ms * 1000000;
  now.tv_sec += now.tv_nsec / 1000000000;
  now.tv_nsec %= 1000000000;
  return now;
}
struct mutex_of {
  pthread_mutex_t m;
  explicit mutex_of(int kind) {
    pthread_mutexattr_t how;
    ::pthread_mutexattr_init(&how);
    ::pthread_mutexattr_settype(&how, kind);
    ::pthread_mutex_init(&m, &how);
  }
  ~mutex_of() { ::pthread_mutex_destroy(&m); }
};
const timespec past{1, 0}, bad{5, 1000000000};

// Hooks on for a test that is not a comparison.
struct hooked {
  hooked() { ringlet::hooks::enable(); }
  ~hooked() { ringlet::hooks::disable(); }
};

}  // namespace

// --- results, compared -----------------------------------------------------------------------------------------------

CONFORMANCE("mutex: taken, tried, given back", "pthread_mutex_lock pthread_mutex_trylock pthread_mutex_unlock") {
  pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
  t.said("lock", ::pthread_mutex_lock(&m));
  t.said("try", ::pthread_mutex_trylock(&m));
  t.said("unlock", ::pthread_mutex_unlock(&m));
  t.said("try", ::pthread_mutex_trylock(&m));
  t.said("unlock", ::pthread_mutex_unlock(&m));
}

CONFORMANCE("mutex: one held by another is waited for", "pthread_mutex_lock pthread_mutex_unlock") {
  pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_t ready = PTHREAD_MUTEX_INITIALIZER;
  bool held = false;
  ::pthread_mutex_lock(&ready);
  std::atomic<bool> wanted{false};
  t.meanwhile([&] {
    ::pthread_mutex_lock(&m);
    held = true;
    ::pthread_mutex_unlock(&ready);
    while (!wanted) {
      const timespec moment{0, 1000000};
      ::nanosleep(&moment, nullptr);
    }
    const timespec moment{0, 20000000};
    ::nanosleep(&moment, nullptr);
    held = false;
    ::pthread_mutex_unlock(&m);
  });
  const timespec moment{0, 5000000};
  while (::pthread_mutex_trylock(&m) == 0) {
    ::pthread_mutex_unlock(&m);
    ::nanosleep(&moment, nullptr);
  }
  t.saw("held", held);
  wanted = true;
  t.said("lock", ::pthread_mutex_lock(&m));
  t.saw("held", held);
  t.said("unlock", ::pthread_mutex_unlock(&m));
  t.join();
}

CONFORMANCE("recursive mutex: counts for its owner, waits for others", "pthread_mutex_lock pthread_mutex_trylock pthread_mutex_unlock") {
  mutex_of r(PTHREAD_MUTEX_RECURSIVE);
  t.said("lock", ::pthread_mutex_lock(&r.m));
  t.said("again", ::pthread_mutex_lock(&r.m));
  t.said("try", ::pthread_mutex_trylock(&r.m));
  t.meanwhile([&] {
    t.said("other tries", ::pthread_mutex_trylock(&r.m));
    t.said("other unlocks", ::pthread_mutex_unlock(&r.m));
  });
  t.join();
  t.said("unlock", ::pthread_mutex_unlock(&r.m));
  t.said("unlock", ::pthread_mutex_unlock(&r.m));
  t.meanwhile([&] { t.said("still held", ::pthread_mutex_trylock(&r.m)); });
  t.join();
  t.said("unlock", ::pthread_mutex_unlock(&r.m));
  t.meanwhile([&] {
    t.said("free", ::pthread_mutex_trylock(&r.m));
    t.said("given back", ::pthread_mutex_unlock(&r.m));
  });
  t.join();
  t.said("too often", ::pthread_mutex_unlock(&r.m));
  t.join();
}

CONFORMANCE("error-checking mutex: EDEADLK for its owner, EPERM for others", "pthread_mutex_lock pthread_mutex_unlock pthread_mutex_timedlock") {
  mutex_of e(PTHREAD_MUTEX_ERRORCHECK);
  t.said("lock", ::pthread_mutex_lock(&e.m));
  t.said("again", ::pthread_mutex_lock(&e.m));
  const timespec soon = in_ms(CLOCK_REALTIME, 5000);
  t.said("timed", ::pthread_mutex_timedlock(&e.m, &soon));
  t.said("try", ::pthread_mutex_trylock(&e.m));
  t.meanwhile([&] {
    t.said("other tries", ::pthread_mutex_trylock(&e.m));
    t.said("other unlocks", ::pthread_mutex_unlock(&e.m));
  });
  t.join();
  t.said("unlock", ::pthread_mutex_unlock(&e.m));
  t.said("too often", ::pthread_mutex_unlock(&e.m));
  t.join();
}

CONFORMANCE("mutex: timed forms", "pthread_mutex_timedlock pthread_mutex_clocklock") {
  pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
  t.said("free, long ago", ::pthread_mutex_timedlock(&m, &past));
  t.said("held, long ago", ::pthread_mutex_timedlock(&m, &past));
  t.said("held, bad", ::pthread_mutex_timedlock(&m, &bad));
  const timespec soon = in_ms(CLOCK_REALTIME, 60);
  t.waits(55ms, [&] { t.said("held", ::pthread_mutex_timedlock(&m, &soon)); });
  const timespec steady = in_ms(CLOCK_MONOTONIC, 60);
  t.waits(55ms, [&] { t.said("held", ::pthread_mutex_clocklock(&m, CLOCK_MONOTONIC, &steady)); });
  t.said("bad clock", ::pthread_mutex_clocklock(&m, CLOCK_TAI, &steady));
  t.said("unlock", ::pthread_mutex_unlock(&m));
  t.said("free, bad", ::pthread_mutex_timedlock(&m, &bad));
  ::pthread_mutex_unlock(&m);
}

CONFORMANCE("condition: signal and broadcast", "pthread_cond_wait pthread_cond_signal pthread_cond_broadcast") {
  pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t c = PTHREAD_COND_INITIALIZER;
  bool go = false;
  ::pthread_mutex_lock(&m);
  t.meanwhile([&] {
    ::pthread_mutex_lock(&m);
    go = true;
    ::pthread_cond_signal(&c);
    ::pthread_mutex_unlock(&m);
  });
  while (!go) t.said("wait", ::pthread_cond_wait(&c, &m));
  t.said("held", ::pthread_mutex_trylock(&m));
  ::pthread_mutex_unlock(&m);
  t.join();
  int woken = 0;
  go = false;
  for (int i = 0; i < 3; ++i)
    t.meanwhile([&] {
      ::pthread_mutex_lock(&m);
      while (!go) ::pthread_cond_wait(&c, &m);
      ++woken;
      ::pthread_mutex_unlock(&m);
    });
  const timespec moment{0, 30000000};
  ::nanosleep(&moment, nullptr);
  ::pthread_mutex_lock(&m);
  go = true;
  t.said("broadcast", ::pthread_cond_broadcast(&c));
  ::pthread_mutex_unlock(&m);
  t.join();
  t.saw("woken", woken);
  t.said("nobody", ::pthread_cond_signal(&c));
  t.join();
}

CONFORMANCE("condition: timed forms", "pthread_cond_timedwait pthread_cond_clockwait") {
  pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t c = PTHREAD_COND_INITIALIZER;
  pthread_condattr_t how;
  ::pthread_condattr_init(&how);
  ::pthread_condattr_setclock(&how, CLOCK_MONOTONIC);
  pthread_cond_t steady;
  ::pthread_cond_init(&steady, &how);
  ::pthread_mutex_lock(&m);
  timespec soon = in_ms(CLOCK_REALTIME, 60);
  t.waits(55ms, [&] { t.said("real", ::pthread_cond_timedwait(&c, &m, &soon)); });
  soon = in_ms(CLOCK_MONOTONIC, 60);
  t.waits(55ms, [&] { t.said("steady", ::pthread_cond_timedwait(&steady, &m, &soon)); });
  soon = in_ms(CLOCK_MONOTONIC, 60);
  t.waits(55ms, [&] { t.said("clock", ::pthread_cond_clockwait(&c, &m, CLOCK_MONOTONIC, &soon)); });
  t.said("past", ::pthread_cond_timedwait(&c, &m, &past));
  t.said("bad", ::pthread_cond_timedwait(&c, &m, &bad));
  t.said("bad clock", ::pthread_cond_clockwait(&c, &m, CLOCK_TAI, &soon));
  t.said("still held", ::pthread_mutex_trylock(&m));
  ::pthread_mutex_unlock(&m);
}

CONFORMANCE("rwlock: readers together, writers alone", "pthread_rwlock_rdlock pthread_rwlock_wrlock pthread_rwlock_unlock pthread_rwlock_trywrlock") {
  pthread_rwlock_t l = PTHREAD_RWLOCK_INITIALIZER;
  t.said("read", ::pthread_rwlock_rdlock(&l));
  t.said("read", ::pthread_rwlock_rdlock(&l));
  t.said("try to write", ::pthread_rwlock_trywrlock(&l));
  t.said("unlock", ::pthread_rwlock_unlock(&l));
  t.said("unlock", ::pthread_rwlock_unlock(&l));
  t.said("write", ::pthread_rwlock_wrlock(&l));
  t.said("read what I write", ::pthread_rwlock_rdlock(&l));
  t.said("write what I write", ::pthread_rwlock_wrlock(&l));
  t.meanwhile([&] {
    t.said("other tries", ::pthread_rwlock_tryrdlock(&l));
    t.said("other tries", ::pthread_rwlock_trywrlock(&l));
  });
  t.join();
  t.said("unlock", ::pthread_rwlock_unlock(&l));
  t.said("try to write", ::pthread_rwlock_trywrlock(&l));
  t.said("read", ::pthread_rwlock_rdlock(&l));
  t.said("unlock", ::pthread_rwlock_unlock(&l));
  t.join();
}

CONFORMANCE("rwlock: waits for a writer", "pthread_rwlock_rdlock pthread_rwlock_wrlock pthread_rwlock_unlock") {
  pthread_rwlock_t l = PTHREAD_RWLOCK_INITIALIZER;
  int order = 0;
  ::pthread_rwlock_wrlock(&l);
  t.meanwhile([&] {
    ::pthread_rwlock_rdlock(&l);
    t.saw("reader after", order);
    ::pthread_rwlock_unlock(&l);
  });
  const timespec moment{0, 30000000};
  ::nanosleep(&moment, nullptr);
  order = 1;
  ::pthread_rwlock_unlock(&l);
  t.join();
  ::pthread_rwlock_rdlock(&l);
  t.meanwhile([&] {
    ::pthread_rwlock_wrlock(&l);
    t.saw("writer after", order);
    ::pthread_rwlock_unlock(&l);
  });
  ::nanosleep(&moment, nullptr);
  order = 2;
  ::pthread_rwlock_unlock(&l);
  t.join();
}

CONFORMANCE("rwlock: timed forms", "pthread_rwlock_timedrdlock pthread_rwlock_timedwrlock pthread_rwlock_clockrdlock pthread_rwlock_clockwrlock") {
  pthread_rwlock_t l = PTHREAD_RWLOCK_INITIALIZER;
  t.said("bad", ::pthread_rwlock_timedrdlock(&l, &bad));
  t.said("long ago", ::pthread_rwlock_timedrdlock(&l, &past));
  timespec soon = in_ms(CLOCK_REALTIME, 60);
  t.waits(55ms, [&] { t.said("write", ::pthread_rwlock_timedwrlock(&l, &soon)); });
  soon = in_ms(CLOCK_MONOTONIC, 60);
  t.waits(55ms, [&] { t.said("write", ::pthread_rwlock_clockwrlock(&l, CLOCK_MONOTONIC, &soon)); });
  t.said("bad clock", ::pthread_rwlock_clockrdlock(&l, CLOCK_TAI, &soon));
  ::pthread_rwlock_unlock(&l);
  ::pthread_rwlock_wrlock(&l);
  t.meanwhile([&] {
    const timespec later = in_ms(CLOCK_MONOTONIC, 60);
    t.said("other reads", ::pthread_rwlock_clockrdlock(&l, CLOCK_MONOTONIC, &later));
  });
  t.join();
  soon = in_ms(CLOCK_REALTIME, 60);
  t.said("own", ::pthread_rwlock_timedrdlock(&l, &soon));
  t.said("own", ::pthread_rwlock_timedwrlock(&l, &soon));
  ::pthread_rwlock_unlock(&l);
  t.join();
}

CONFORMANCE("semaphore: waits for a post", "sem_wait sem_post") {
  sem_t s;
  ::sem_init(&s, 0, 1);
  t.did("there is one", ::sem_wait(&s));
  t.meanwhile([&] { t.did("post", ::sem_post(&s)); });
  const int r = ::sem_wait(&s);
  t.join();
  t.did("wait", r);
  int left = -1;
  ::sem_getvalue(&s, &left);
  t.saw("left", left);
  sem_t full;
  ::sem_init(&full, 0, 2147483647);
  t.did("overflow", ::sem_post(&full));
  t.join();
}

CONFORMANCE("semaphore: timed forms", "sem_timedwait sem_clockwait") {
  sem_t s;
  ::sem_init(&s, 0, 0);
  timespec soon = in_ms(CLOCK_REALTIME, 60);
  t.waits(55ms, [&] { t.did("timed", ::sem_timedwait(&s, &soon)); });
  soon = in_ms(CLOCK_MONOTONIC, 60);
  t.waits(55ms, [&] { t.did("clock", ::sem_clockwait(&s, CLOCK_MONOTONIC, &soon)); });
  t.did("past", ::sem_timedwait(&s, &past));
  t.did("bad", ::sem_timedwait(&s, &bad));
  t.did("bad clock", ::sem_clockwait(&s, CLOCK_TAI, &soon));
  ::sem_post(&s);
  t.did("there is one", ::sem_timedwait(&s, &past));
}

CONFORMANCE("pthread_join: waits, gives the result, refuses", "pthread_join") {
  pthread_t child;
  int wake[2];
  ::pipe(wake);
  t.own(wake[0]);
  t.own(wake[1]);
  ::pthread_create(
      &child, nullptr,
      [](void* fd) -> void* {
        char c;
        ::read(*static_cast<int*>(fd), &c, 1);
        return reinterpret_cast<void*>(42);
      },
      &wake[0]);
  t.meanwhile([&] { ::write(wake[1], "x", 1); });
  void* result = nullptr;
  t.said("join", ::pthread_join(child, &result));
  t.saw("result", reinterpret_cast<long>(result));
  // Newer AddressSanitizers end the program on this one.
  if (!support::is_instrumented()) t.said("oneself", ::pthread_join(::pthread_self(), nullptr));
  t.join();
}

CONFORMANCE("C11: mutexes, conditions, threads",
            "mtx_lock mtx_trylock mtx_timedlock mtx_unlock cnd_wait cnd_timedwait cnd_signal cnd_broadcast thrd_join") {
  mtx_t m;
  cnd_t c;
  t.saw("init", ::mtx_init(&m, mtx_timed) + ::cnd_init(&c));
  t.saw("lock", ::mtx_lock(&m));
  t.saw("try", ::mtx_trylock(&m));
  timespec soon = in_ms(CLOCK_REALTIME, 60);
  t.waits(55ms, [&] { t.saw("timed", ::mtx_timedlock(&m, &soon)); });
  soon = in_ms(CLOCK_REALTIME, 60);
  t.waits(55ms, [&] { t.saw("cnd", ::cnd_timedwait(&c, &m, &soon)); });
  bool go = false;
  t.meanwhile([&] {
    ::mtx_lock(&m);
    go = true;
    t.saw("signal", ::cnd_signal(&c));
    ::mtx_unlock(&m);
  });
  while (!go) ::cnd_wait(&c, &m);
  t.saw("broadcast", ::cnd_broadcast(&c));
  t.saw("unlock", ::mtx_unlock(&m));
  t.join();
  mtx_t r;
  ::mtx_init(&r, mtx_plain | mtx_recursive);
  t.saw("recursive", ::mtx_lock(&r) * 10 + ::mtx_lock(&r));
  t.meanwhile([&] { t.saw("other", ::mtx_trylock(&r)); });
  t.join();
  t.saw("recursive", ::mtx_unlock(&r) * 10 + ::mtx_unlock(&r));
  // AddressSanitizer (GCC 14) aborts on the join of a thread that C11's call has made: it knows only pthread_create's.
  if (!support::is_instrumented()) {
    thrd_t child;
    ::thrd_create(&child, [](void*) { return -5; }, nullptr);
    int result = 0;
    t.saw("join", ::thrd_join(child, &result));
    t.saw("result", result);
  }
  t.join();
}

// --- what only fibers can get wrong ----------------------------------------------------------------------------------

TEST_CASE("std::mutex: held over a switch, another fiber of the thread waits") {
  hooked on;
  std::mutex m;
  int inside = 0, most = 0, turns = 0;
  auto work = [&] {
    for (int i = 0; i < 20; ++i) {
      std::lock_guard hold(m);
      most = std::max(most, ++inside);
      ::usleep(100);
      --inside;
      ++turns;
    }
  };
  std::vector<ringlet::any_fiber> all;
  for (int i = 0; i < 5; ++i) all.push_back(ringlet::spawn(work));
  ringlet::joinall(all);
  CHECK(most == 1);
  CHECK(turns == 100);
}

TEST_CASE("std::recursive_mutex: belongs to a fiber, not to its thread") {
  hooked on;
  std::recursive_mutex m;
  std::string order;
  auto a = ringlet::spawn([&] {
    m.lock();
    m.lock();
    order += 'a';
    ::usleep(2000);
    m.unlock();
    ::usleep(2000);
    order += 'A';
    m.unlock();
  });
  auto b = ringlet::spawn([&] {
    CHECK_FALSE(m.try_lock());
    m.lock();
    order += 'b';
    m.unlock();
  });
  ringlet::joinall({a, b});
  CHECK(order == "aAb");
}

TEST_CASE("std::mutex: one that sleeps with it held again and again lets others in") {
  hooked on;
  std::mutex m;
  bool other_had_it = false;
  int rounds = 0;
  auto greedy = ringlet::spawn([&] {
    for (; rounds < 1000 && !other_had_it; ++rounds) {
      std::lock_guard hold(m);
      ::usleep(10);
    }
  });
  auto modest = ringlet::spawn([&] {
    std::lock_guard hold(m);
    other_had_it = true;
  });
  ringlet::joinall({greedy, modest});
  CHECK(rounds < 10);
}

TEST_CASE("std::condition_variable: between fibers") {
  hooked on;
  std::mutex m;
  std::condition_variable c;
  int turn = 0;
  auto player = [&](int mine) {
    for (int i = 0; i < 50; ++i) {
      std::unique_lock hold(m);
      c.wait(hold, [&] { return turn % 2 == mine; });
      ++turn;
      c.notify_all();
    }
  };
  ringlet::joinall({ringlet::any_fiber(ringlet::spawn(player, 0)), ringlet::any_fiber(ringlet::spawn(player, 1))});
  CHECK(turn == 100);
}

TEST_CASE("std::condition_variable: a fiber and a thread, both ways") {
  hooked on;
  std::mutex m;
  std::condition_variable c;
  int turn = 0;
  auto player = [&](int mine) {
    for (int i = 0; i < 300; ++i) {
      std::unique_lock hold(m);
      c.wait(hold, [&] { return turn % 2 == mine; });
      ++turn;
      c.notify_all();
    }
  };
  int ticks = 0;
  bool done = false;
  auto ticker = ringlet::spawn([&] {
    while (!done) ::usleep(500), ++ticks;
  });
  std::thread thread(player, 0);
  auto fiber = ringlet::spawn(player, 1);
  fiber.join();
  thread.join();
  done = true;
  ticker.join();
  CHECK(turn == 600);
}

TEST_CASE("std::mutex: threads and fibers of several hubs take turns") {
  hooked on;
  std::mutex m;
  long counter = 0;
  auto work = [&](int sleeps) {
    for (int i = 0; i < 200; ++i) {
      std::lock_guard hold(m);
      const long seen = counter;
      if (sleeps && i % 20 == 0) ::usleep(50);
      counter = seen + 1;
    }
  };
  std::thread plain(work, 0);
  std::thread with_hub([&] {
    std::vector<ringlet::any_fiber> all;
    for (int i = 0; i < 3; ++i) all.push_back(ringlet::spawn(work, 1));
    ringlet::joinall(all);
  });
  std::vector<ringlet::any_fiber> all;
  for (int i = 0; i < 3; ++i) all.push_back(ringlet::spawn(work, 1));
  ringlet::joinall(all);
  plain.join();
  with_hub.join();
  CHECK(counter == 1400);
}

TEST_CASE("std::shared_mutex: fibers read together and write alone") {
  hooked on;
  std::shared_mutex m;
  int readers = 0, most_readers = 0, writers = 0;
  bool mixed = false;
  std::vector<ringlet::any_fiber> all;
  for (int i = 0; i < 4; ++i)
    all.push_back(ringlet::spawn([&] {
      for (int n = 0; n < 10; ++n) {
        std::shared_lock hold(m);
        most_readers = std::max(most_readers, ++readers);
        mixed |= writers > 0;
        ::usleep(100);
        --readers;
      }
    }));
  for (int i = 0; i < 2; ++i)
    all.push_back(ringlet::spawn([&] {
      for (int n = 0; n < 10; ++n) {
        std::unique_lock hold(m);
        ++writers;
        mixed |= readers > 0 || writers > 1;
        ::usleep(100);
        --writers;
      }
    }));
  ringlet::joinall(all);
  CHECK_FALSE(mixed);
  CHECK(most_readers > 1);
}

TEST_CASE("sem_t: fibers and a thread pass tokens") {
  hooked on;
  sem_t to_thread, to_fiber;
  ::sem_init(&to_thread, 0, 0);
  ::sem_init(&to_fiber, 0, 0);
  int rounds = 0;
  std::thread thread([&] {
    for (int i = 0; i < 300; ++i) {
      ::sem_wait(&to_thread);
      ::sem_post(&to_fiber);
    }
  });
  auto fiber = ringlet::spawn([&] {
    for (int i = 0; i < 300; ++i) {
      ::sem_post(&to_thread);
      ::sem_wait(&to_fiber);
      ++rounds;
    }
  });
  fiber.join();
  thread.join();
  CHECK(rounds == 300);
}

TEST_CASE("sem_post: from a signal handler wakes a fiber") {
  hooked on;
  static sem_t s;
  ::sem_init(&s, 0, 0);
  struct sigaction before {}, now {};
  now.sa_handler = [](int) { ::sem_post(&s); };
  now.sa_flags = SA_RESTART;
  ::sigaction(SIGUSR1, &now, &before);
  int woken = 0;
  auto waiter = ringlet::spawn([&] {
    for (int i = 0; i < 50; ++i) {
      ::sem_wait(&s);
      ++woken;
    }
  });
  auto sender = ringlet::spawn([&] {
    for (int i = 0; i < 50; ++i) {
      ::raise(SIGUSR1);
      ::usleep(i % 3 == 0 ? 0 : 50);
    }
  });
  ringlet::joinall({waiter, sender});
  CHECK(woken == 50);
  ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_CASE("mutex: a thread that lets go of it inside pthread_cond_wait is noticed") {
  hooked on;
  std::mutex m;
  std::condition_variable c;
  bool in = false, done = false;
  std::thread thread([&] {
    std::unique_lock hold(m);
    in = true;
    c.wait(hold, [&] { return done; });
  });
  auto fiber = ringlet::spawn([&] {
    while (true) {
      std::unique_lock hold(m);
      if (in) {
        done = true;
        c.notify_one();
        return;
      }
      hold.unlock();
      ::usleep(100);
    }
  });
  fiber.join();
  thread.join();
  CHECK(done);
}

TEST_CASE("locks: a kill does not end the wait for a mutex, only the next call that can fail") {
  hooked on;
  std::mutex m;
  m.lock();
  bool had_it = false;
  int error = 0;
  auto victim = ringlet::spawn([&] {
    m.lock();
    had_it = true;
    m.unlock();
    if (::usleep(1000000) != 0) error = errno;
  });
  ringlet::yield();
  victim.kill(ringlet::deadline::passed());
  ringlet::yield();
  CHECK_FALSE(had_it);
  m.unlock();
  CHECK(victim.join(5s));
  CHECK(had_it);
  CHECK(error == ECANCELED);
}
