// Waiting for each other: locks, conditions, barriers, semaphores, joins.

#include <sched.h>
#include <semaphore.h>
#include <threads.h>
#include <time.h>

#include <barrier>
#include <condition_variable>
#include <future>
#include <latch>
#include <mutex>
#include <semaphore>
#include <shared_mutex>
#include <stdexcept>
#include <vector>

#include "battery.hpp"

namespace battery {
namespace {

CASE(mutex_and_condition) {
  std::mutex lock;
  std::condition_variable turn_changed;
  int turn = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 10; ++i)
    threads.emplace_back([&, i] {
      for (int k = 0; k < 200; ++k) {
        std::unique_lock hold(lock);
        turn_changed.wait(hold, [&] { return turn % 10 == i; });
        ++turn;
        turn_changed.notify_all();
      }
    });
  for (auto& t : threads) t.join();
  std::printf("turn %d\n", turn);
}

CASE(timed_waits) {
  std::mutex lock;
  std::condition_variable never;
  std::thread t([&] {
    std::unique_lock hold(lock);
    const auto begin = std::chrono::steady_clock::now();
    CHECK(never.wait_for(hold, 30ms) == std::cv_status::timeout);
    CHECK(never.wait_until(hold, std::chrono::system_clock::now() + 30ms) == std::cv_status::timeout);
    CHECK(std::chrono::steady_clock::now() - begin >= 60ms);
  });
  t.join();
  pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&held);
  std::thread late([&] {
    timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_nsec += 20'000'000;
    if (limit.tv_nsec >= 1'000'000'000) limit.tv_nsec -= 1'000'000'000, ++limit.tv_sec;
    CHECK(pthread_mutex_timedlock(&held, &limit) == ETIMEDOUT);
    sem_t none;
    sem_init(&none, 0, 0);
    CHECK(sem_timedwait(&none, &limit) == -1 && errno == ETIMEDOUT);
  });
  late.join();
  pthread_mutex_unlock(&held);
  std::puts("ok");
}

CASE(kinds_of_mutexes) {
  for (int type : {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ERRORCHECK}) {
    for (int protocol : {PTHREAD_PRIO_NONE, PTHREAD_PRIO_INHERIT}) {
      pthread_mutexattr_t how;
      pthread_mutexattr_init(&how);
      pthread_mutexattr_settype(&how, type);
      pthread_mutexattr_setprotocol(&how, protocol);
      static pthread_mutex_t m;
      pthread_mutex_init(&m, &how);
      static long count;
      count = 0;
      std::vector<std::thread> threads;
      for (int i = 0; i < 8; ++i)
        threads.emplace_back([] {
          // Few: on a busy machine each sched_yield costs a bare thread somebody else's whole slice.
          for (int k = 0; k < 15; ++k) {
            pthread_mutex_lock(&m);
            const long before = count;
            sched_yield();
            count = before + 1;
            pthread_mutex_unlock(&m);
          }
        });
      for (auto& t : threads) t.join();
      pthread_mutex_lock(&m);
      int second = -1;
      if (type != PTHREAD_MUTEX_NORMAL) second = pthread_mutex_lock(&m);
      if (second == 0) pthread_mutex_unlock(&m);
      pthread_mutex_unlock(&m);
      std::printf("type %d protocol %d count %ld second %d unlock of a free one %d\n", type, protocol, count, second,
                  type == PTHREAD_MUTEX_ERRORCHECK ? pthread_mutex_unlock(&m) : 0);
      pthread_mutex_destroy(&m);
    }
  }
}

CASE(robust_mutex) {
  for (int shared : {PTHREAD_PROCESS_PRIVATE, PTHREAD_PROCESS_SHARED}) {
    static pthread_mutex_t m;
    pthread_mutexattr_t how;
    pthread_mutexattr_init(&how);
    pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&how, shared);
    pthread_mutex_init(&m, &how);
    static std::atomic<pid_t> waits;
    waits = 0;
    std::thread owner([] {
      pthread_mutex_lock(&m);
      CHECK(until([] { return waits && asleep(waits); }));
    });
    CHECK(until([] { return pthread_mutex_trylock(&m) == EBUSY || (pthread_mutex_unlock(&m), false); }));
    std::thread next([] {
      waits = gettid();
      const int got = pthread_mutex_lock(&m);
      std::printf("the next one gets %s\n", got == EOWNERDEAD ? "EOWNERDEAD" : "something else");
      pthread_mutex_consistent(&m);
      pthread_mutex_unlock(&m);
    });
    owner.join();
    next.join();
    std::printf("then %d\n", pthread_mutex_lock(&m));
    pthread_mutex_unlock(&m);
  }
}

CASE(rwlocks_barriers_semaphores) {
  std::shared_mutex lock;
  std::barrier round(6);
  std::counting_semaphore<10> tickets(3);
  pthread_barrier_t old_style;
  pthread_barrier_init(&old_style, nullptr, 6);
  static std::atomic<int> inside{0}, most{0}, serial{0};
  long value = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i)
    threads.emplace_back([&, i] {
      for (int k = 0; k < 30; ++k) {
        if (k % 6 == i) {
          std::unique_lock hold(lock);
          ++value;
        } else {
          std::shared_lock hold(lock);
          (void)value;
        }
        tickets.acquire();
        const int now = ++inside;
        for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
        }
        sched_yield();
        --inside;
        tickets.release();
        round.arrive_and_wait();
        if (pthread_barrier_wait(&old_style) == PTHREAD_BARRIER_SERIAL_THREAD) ++serial;
      }
    });
  for (auto& t : threads) t.join();
  CHECK(most <= 3);
  std::printf("value %ld serial %d\n", value, serial.load());
}

CASE(cpp_threads) {
  std::latch begun(4);
  std::promise<int> promise;
  auto future = promise.get_future();
  std::once_flag once;
  std::atomic<int> came{0}, first{0}, word{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([&] {
        ++came;
        std::call_once(once, [&] {
          CHECK(until([&] { return came == 4; }));  // the others wait for us, or are about to
          ++first;
        });
        begun.arrive_and_wait();
        word.wait(0);
      });
    begun.wait();
    word = 1;
    word.notify_all();
  }
  auto sum = std::async(std::launch::async, [] {
    usleep(1000);  // at its end somebody may wait or not
    return 40;
  });
  std::thread([&] { promise.set_value(2); }).join();
  auto failing = std::async(std::launch::async, []() -> int { throw std::logic_error("told"); });
  try {
    failing.get();
  } catch (const std::logic_error& e) {
    std::printf("%s\n", e.what());
  }
  std::printf("once %d sum %d\n", first.load(), sum.get() + future.get());
}

CASE(c11_threads) {
  static mtx_t m;
  static cnd_t c;
  static int ready = 0;
  mtx_init(&m, mtx_plain);
  cnd_init(&c);
  thrd_t t;
  CHECK(thrd_create(
            &t,
            [](void*) {
              mtx_lock(&m);
              ready = 1;
              cnd_signal(&c);
              mtx_unlock(&m);
              const timespec moment{0, 1000000};
              thrd_sleep(&moment, nullptr);
              thrd_yield();
              return 17;
            },
            nullptr) == thrd_success);
  mtx_lock(&m);
  while (!ready) cnd_wait(&c, &m);
  mtx_unlock(&m);
  int result;
  thrd_join(t, &result);
  std::printf("result %d\n", result);
}

CASE(join_with_a_limit) {
  static sem_t go;
  sem_init(&go, 0, 0);
  pthread_t t;
  pthread_create(
      &t, nullptr,
      [](void*) -> void* {
        sem_wait(&go);
        return nullptr;
      },
      nullptr);
  CHECK(pthread_tryjoin_np(t, nullptr) == EBUSY);
  timespec limit;
  clock_gettime(CLOCK_REALTIME, &limit);
  CHECK(pthread_timedjoin_np(t, nullptr, &limit) == ETIMEDOUT);
  sem_post(&go);
  CHECK(pthread_join(t, nullptr) == 0);
  std::puts("ok");
}

}  // namespace
}  // namespace battery
