// Threads in great numbers, and all that they do at once.

#include <fcntl.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/socket.h>

#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <future>
#include <mutex>
#include <string>
#include <vector>

#include "battery.hpp"

namespace battery {
namespace {

CASE(detached_threads_end) {
  static std::atomic<int> ended{0};
  for (int i = 0; i < 200; ++i)
    std::thread([] {
      usleep(100);  // some end before others begin, or not
      ++ended;
    }).detach();
  CHECK(until([] { return ended == 200; }));
  std::printf("ended %d\n", ended.load());
}

CASE(malloc_in_many_threads) {
  std::vector<std::thread> threads;
  std::atomic<long> sum{0};
  for (int i = 0; i < 30; ++i)
    threads.emplace_back([i, &sum] {
      std::vector<std::string> kept;
      unsigned seed = unsigned(i);
      for (int k = 0; k < 2000; ++k) {
        kept.emplace_back(rand_r(&seed) % 3000, char('a' + i));
        if (kept.size() > 50) kept.erase(kept.begin() + rand_r(&seed) % 50);
        if (k % 100 == 0) sched_yield();
      }
      for (auto& s : kept) CHECK(s.find_first_not_of(char('a' + i)) == s.npos);
      sum += long(kept.size());
    });
  for (auto& t : threads) t.join();
  std::printf("kept %ld\n", sum.load());
}

CASE(ten_thousand_threads) {
  long sum = 0;
  for (int round = 0; round < 100; ++round) {
    pthread_t t[100];
    for (long i = 0; i < 100; ++i)
      CHECK(pthread_create(
                &t[i], nullptr, [](void* p) { return p; }, reinterpret_cast<void*>(i)) == 0);
    for (auto& each : t) {
      void* r;
      pthread_join(each, &r);
      sum += long(r);
    }
  }
  std::printf("sum %ld\n", sum);
}

__thread int number = 0;

// BATTERY_THREADS: more than the kernel has ids for, or mappings for stacks; the output is the same.
CASE(many_threads_at_once) {
  const char* wanted = std::getenv("BATTERY_THREADS");
  const int count = wanted ? std::atoi(wanted) : 2000;
  static std::atomic<int> right;
  static sem_t go, arrived;
  right = 0;
  sem_init(&go, 0, 0);
  sem_init(&arrived, 0, 0);
  std::vector<pthread_t> threads(std::size_t(count), pthread_t{});
  for (pthread_t& t : threads)
    if (const int failed = pthread_create(
            &t, nullptr,
            [](void* mine) -> void* {
              number = int(std::intptr_t(mine));
              sem_post(&arrived);
              while (sem_wait(&go) != 0) {
              }
              if (number == int(std::intptr_t(mine))) ++right;
              return nullptr;
            },
            reinterpret_cast<void*>(&t - threads.data()))) {
      std::printf("not so: thread %d could not be made: %s\n", int(&t - threads.data()), std::strerror(failed));
      std::_Exit(1);
    }
  for (int i = 0; i < count; ++i) sem_wait(&arrived);
  int ends[2];
  CHECK(pipe(ends) == 0);
  for (const int i : {0, count / 2, count - 1}) {  // its stack is its own, down to the guard
    pthread_attr_t about;
    void* lowest;
    std::size_t size, guard;
    CHECK(pthread_getattr_np(threads[std::size_t(i)], &about) == 0);
    pthread_attr_getstack(&about, &lowest, &size);
    pthread_attr_getguardsize(&about, &guard);
    pthread_attr_destroy(&about);
    CHECK(size >= (8u << 20) - 65536 && guard > 0);
    CHECK(write(ends[1], lowest, 1) == 1);
    CHECK(write(ends[1], static_cast<char*>(lowest) - 1, 1) == -1 && errno == EFAULT);
  }
  for (int i = 0; i < count; ++i) sem_post(&go);
  for (const pthread_t t : threads) pthread_join(t, nullptr);
  std::printf("all %d\n", right == count);
}

CASE(many_things_at_once) {
  std::atomic<long> done{0};
  std::vector<std::thread> threads;
  std::mutex lock;
  std::condition_variable changed;
  long tokens = 0;
  for (int i = 0; i < 24; ++i)
    threads.emplace_back([&, i] {
      unsigned seed = unsigned(i) * 7919 + 1;
      for (int k = 0; k < 120; ++k) {
        switch (rand_r(&seed) % 6) {
          case 0:
            std::thread([&] { ++done; }).join();
            break;
          case 1: {
            std::lock_guard hold(lock);
            ++tokens;
            changed.notify_one();
            ++done;
            break;
          }
          case 2: {
            std::unique_lock hold(lock);
            changed.wait_for(hold, 1ms, [&] { return tokens > 0; });
            if (tokens > 0) --tokens;
            ++done;
            break;
          }
          case 3: {
            int ends[2];
            CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
            std::thread other([&] {
              char c;
              CHECK(read(ends[1], &c, 1) == 1);
            });
            CHECK(write(ends[0], "z", 1) == 1);
            other.join();
            close(ends[0]);
            close(ends[1]);
            ++done;
            break;
          }
          case 4:
            usleep(rand_r(&seed) % 300);  // one more way to wait
            ++done;
            break;
          default:
            std::async(std::launch::async, [&] { ++done; }).get();
        }
      }
    });
  for (auto& t : threads) t.join();
  std::printf("done %ld\n", done.load());
}

}  // namespace
}  // namespace battery
