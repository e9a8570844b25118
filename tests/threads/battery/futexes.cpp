// futex(2) by number, and between processes.

#include <linux/futex.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include <cstdint>
#include <vector>

#include "battery.hpp"

namespace battery {
namespace {

// futex(2) by number: what libc itself uses of it and what it does not.
long futex(std::uint32_t* word, int operation, std::uint32_t value, const void* timeout_or_count = nullptr,
           std::uint32_t* word2 = nullptr, std::uint32_t value3 = 0) {
  const long result = syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, timeout_or_count, word2, value3);
  return result < 0 ? -errno : result;
}
const void* count_of(std::uintptr_t n) { return reinterpret_cast<const void*>(n); }
CASE(futexes_by_number) {
  static std::uint32_t a, b;
  a = b = 0;
  static std::atomic<int> woken{0};
  const timespec soon_enough{0, 2'000'000}, wrong{0, 2'000'000'000};
  std::printf("changed %ld, timed out %ld, wrong time %ld, no bits %ld, odd address %ld\n", futex(&a, FUTEX_WAIT, 1),
              futex(&a, FUTEX_WAIT, 0, &soon_enough), futex(&a, FUTEX_WAIT, 0, &wrong),
              futex(&a, FUTEX_WAIT_BITSET, 0, nullptr, nullptr, 0),
              futex(reinterpret_cast<std::uint32_t*>(reinterpret_cast<char*>(&a) + 1), FUTEX_WAIT, 0));
  for (int clock : {CLOCK_MONOTONIC, CLOCK_REALTIME}) {
    timespec limit;
    clock_gettime(clock, &limit);
    const int flag = clock == CLOCK_REALTIME ? FUTEX_CLOCK_REALTIME : 0;
    std::printf("moment passed %ld\n", futex(&a, FUTEX_WAIT_BITSET | flag, 0, &limit, nullptr, ~0u));
    limit.tv_sec -= 5;
    std::printf("long passed %ld\n", futex(&a, FUTEX_WAIT_BITSET | flag, 0, &limit, nullptr, ~0u));
  }
  // Three wait with bit 0, one with bit 1. A bit that nobody waits with wakes nobody, so waking by it tells nothing;
  // who waits is known by requeueing, which counts them.
  std::vector<std::thread> all;
  for (int i = 0; i < 4; ++i)
    all.emplace_back([i] {
      while (futex(&a, FUTEX_WAIT_BITSET, 0, nullptr, nullptr, i < 3 ? 1 : 2) == -EINTR) {
      }
      ++woken;
    });
  long there = 0;
  CHECK(until([&] { return (there += futex(&a, FUTEX_CMP_REQUEUE, 0, count_of(1000), &b, 0)) == 4; }));
  std::printf("requeued %ld, other value %ld\n", there, futex(&b, FUTEX_CMP_REQUEUE, 0, count_of(1), &a, 7));
  std::printf("bit 2 wakes %ld, bit 1 wakes %ld\n", futex(&b, FUTEX_WAKE_BITSET, 9, nullptr, nullptr, 4),
              futex(&b, FUTEX_WAKE_BITSET, 9, nullptr, nullptr, 2));
  CHECK(until([] { return woken == 1; }));
  std::printf("none %ld, one %ld\n", futex(&a, FUTEX_WAKE, 9), futex(&b, FUTEX_WAKE, 1));
  CHECK(until([] { return woken == 2; }));
  // b + 5, and those of b too if it was below 1.
  a = 0;
  std::printf("op wakes %ld",
              futex(&a, FUTEX_WAKE_OP, 1, count_of(1), &b, FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_LT, 1)));
  std::printf(", now %u", b);
  std::printf(", op wakes %ld, now %u\n",
              futex(&a, FUTEX_WAKE_OP, 1, count_of(1), &b, FUTEX_OP(FUTEX_OP_ANDN, 4, FUTEX_OP_CMP_GE, 6)), b);
  std::printf("rest %ld\n", futex(&b, FUTEX_REQUEUE, 1, count_of(9), &a));
  for (auto& t : all) t.join();
  const auto self = std::uint32_t(syscall(SYS_gettid));
  a = 0;
  std::printf("pi %ld", futex(&a, FUTEX_LOCK_PI, 0));
  std::printf(" mine %d again %ld try %ld", (a & FUTEX_TID_MASK) == self, futex(&a, FUTEX_LOCK_PI, 0),
              futex(&a, FUTEX_TRYLOCK_PI, 0));
  std::printf(" unlock %ld", futex(&a, FUTEX_UNLOCK_PI, 0));
  std::printf(" free %u, not mine %ld\n", a, futex(&a, FUTEX_UNLOCK_PI, 0));
}

CASE(shared_futexes_between_processes) {
  struct shared {
    sem_t to, from;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int value;
  };
  auto* s = static_cast<shared*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  sem_init(&s->to, 1, 0);
  sem_init(&s->from, 1, 0);
  pthread_mutexattr_t mutex_how;
  pthread_mutexattr_init(&mutex_how);
  pthread_mutexattr_setpshared(&mutex_how, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(&s->lock, &mutex_how);
  pthread_condattr_t how;
  pthread_condattr_init(&how);
  pthread_condattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
  pthread_cond_init(&s->changed, &how);
  const pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < 20; ++i) {
      sem_wait(&s->to);
      sem_post(&s->from);
    }
    pthread_mutex_lock(&s->lock);
    s->value = 5;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    _exit(0);
  }
  std::thread other([&] {
    pthread_mutex_lock(&s->lock);
    while (s->value != 5) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
  });
  std::thread t([&] {
    for (int i = 0; i < 20; ++i) {
      sem_post(&s->to);
      sem_wait(&s->from);
    }
  });
  t.join();
  other.join();
  int status;
  waitpid(child, &status, 0);
  std::printf("value %d status %d\n", s->value, status);
}

}  // namespace
}  // namespace battery
