// pthread locks: the same results as between threads. What only fibers can get wrong: locks_of_fibers_test.cpp.

#include "conformance.hpp"

#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <threads.h>
#include <unistd.h>

namespace {

using conformance::trace;
using conformance::until;

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

}  // namespace

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
    until([&] { return wanted.load(); });
    held = false;
    ::pthread_mutex_unlock(&m);
  });
  t.saw("taken", until([&] {
          const bool taken = ::pthread_mutex_trylock(&m) != 0;
          if (!taken) ::pthread_mutex_unlock(&m);
          return taken;
        }));
  t.saw("held", held);
  t.meanwhile([&] { wanted = true; });  // it begins when we wait
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
  int waiting = 0, woken = 0;
  go = false;
  for (int i = 0; i < 3; ++i)
    t.meanwhile([&] {
      ::pthread_mutex_lock(&m);
      ++waiting;
      while (!go) ::pthread_cond_wait(&c, &m);
      ++woken;
      ::pthread_mutex_unlock(&m);
    });
  t.saw("all wait", until([&] {
          ::pthread_mutex_lock(&m);
          const bool all = waiting == 3;
          ::pthread_mutex_unlock(&m);
          return all;
        }));
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
  std::atomic<pid_t> reader{0}, writer{0};
  ::pthread_rwlock_wrlock(&l);
  t.meanwhile([&] {
    reader = pid_t(::syscall(SYS_gettid));
    ::pthread_rwlock_rdlock(&l);
    t.saw("reader after", order);
    ::pthread_rwlock_unlock(&l);
  });
  t.saw("reader waits", until([&] { return conformance::waits(reader); }));
  order = 1;
  ::pthread_rwlock_unlock(&l);
  t.join();
  ::pthread_rwlock_rdlock(&l);
  t.meanwhile([&] {
    writer = pid_t(::syscall(SYS_gettid));
    ::pthread_rwlock_wrlock(&l);
    t.saw("writer after", order);
    ::pthread_rwlock_unlock(&l);
  });
  t.saw("writer waits", until([&] { return conformance::waits(writer); }));
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
  if (!conformance::is_instrumented()) t.said("oneself", ::pthread_join(::pthread_self(), nullptr));
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
  if (!conformance::is_instrumented()) {
    thrd_t child;
    ::thrd_create(&child, [](void*) { return -5; }, nullptr);
    int result = 0;
    t.saw("join", ::thrd_join(child, &result));
    t.saw("result", result);
  }
  t.join();
}
