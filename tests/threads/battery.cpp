// Plain threaded programs, one a case: `battery NAME` runs one and prints what it saw; `battery` lists the names. Nothing in
// here knows of ringlet. battery_test.py runs each bare and under `ringlet run --threads=fibers` and compares.
//
// Rules: the output of a case is the same in every run; a case waits for facts, with a limit that only failure meets.

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <locale.h>
#include <malloc.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <threads.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <latch>
#include <map>
#include <mutex>
#include <semaphore>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

#define CHECK(condition)                                                                    \
  do {                                                                                      \
    if (!(condition)) std::printf("line %d: not so: %s (errno %d)\n", __LINE__, #condition, errno); \
  } while (false)

namespace {

struct test {
  const char* name;
  void (*run)();
};
std::vector<test>& all() {
  static std::vector<test> tests;
  return tests;
}
struct add {
  add(const char* name, void (*run)()) { all().push_back({name, run}); }
};
#define CASE(name)            \
  void name();                \
  add adds_##name(#name, name); \
  void name()

template <class Fact>
bool soon(Fact fact) {
  const auto end = std::chrono::steady_clock::now() + 20s;
  while (!fact()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

void* in_thread(void* (*f)(void*), void* with = nullptr) {
  pthread_t t;
  void* result = nullptr;
  CHECK(pthread_create(&t, nullptr, f, with) == 0);
  CHECK(pthread_join(t, &result) == 0);
  return result;
}

// --- what belongs to a thread -----------------------------------------------------------------------------------------

__thread int plain_tls = 41;
std::atomic<int> destroyed{0};
struct counted {
  int value = 0;
  ~counted() { destroyed += value; }
};
thread_local counted with_destructor;

CASE(tls_and_its_destructors) {
  std::vector<std::thread> threads;
  for (int i = 1; i <= 20; ++i)
    threads.emplace_back([i] {
      CHECK(plain_tls == 41);
      plain_tls = i;
      with_destructor.value = i;
      errno = i;
      for (int k = 0; k < 50; ++k) {
        std::this_thread::yield();
        CHECK(plain_tls == i && with_destructor.value == i);
      }
      usleep(1000);
      CHECK(plain_tls == i);
    });
  for (auto& t : threads) t.join();
  std::printf("destroyed %d, mine %d\n", destroyed.load(), plain_tls);
}

CASE(errno_is_each_threads_own) {
  std::vector<std::thread> threads;
  std::barrier together(8);
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([i, &together] {
      for (int k = 0; k < 20; ++k) {
        errno = 100 + i;
        sched_yield();
        CHECK(errno == 100 + i);
        char c;
        CHECK(read(-1, &c, 1) == -1 && errno == EBADF);
        errno = 100 + i;
        together.arrive_and_wait();
      }
    });
  for (auto& t : threads) t.join();
  std::puts("ok");
}

pthread_key_t key;
int key_rounds = 0;
CASE(keys_and_their_destructors) {
  pthread_key_create(&key, [](void* p) {
    ++key_rounds;
    if (p == &key) pthread_setspecific(key, &key_rounds);  // comes again
  });
  in_thread([](void*) -> void* {
    CHECK(pthread_getspecific(key) == nullptr);
    pthread_setspecific(key, &key);
    return nullptr;
  });
  std::printf("rounds %d\n", key_rounds);
}

CASE(exceptions_in_flight_across_switches) {
  std::atomic<int> caught{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 10; ++i)
    threads.emplace_back([i, &caught] {
      for (int k = 0; k < 20; ++k) try {
          struct yields {
            ~yields() { std::this_thread::yield(); usleep(10); }
          } in_unwinding;
          throw std::runtime_error(std::to_string(i));
        } catch (const std::exception& e) {
          std::this_thread::yield();
          try {
            throw 7;
          } catch (int) {
            usleep(10);
          }
          CHECK(std::uncaught_exceptions() == 0);
          if (e.what() == std::to_string(i)) ++caught;
        }
    });
  for (auto& t : threads) t.join();
  std::printf("caught %d\n", caught.load());
}

CASE(stack_attributes) {
  pthread_attr_t how;
  pthread_attr_init(&how);
  pthread_attr_setstacksize(&how, 256 * 1024);
  pthread_t t;
  CHECK(pthread_create(&t, &how, [](void*) -> void* {
    pthread_attr_t mine;
    CHECK(pthread_getattr_np(pthread_self(), &mine) == 0);
    void* low;
    size_t size, guard;
    pthread_attr_getstack(&mine, &low, &size);
    pthread_attr_getguardsize(&mine, &guard);
    char here;
    CHECK(&here >= low && &here < static_cast<char*>(low) + size);
    std::printf("stack %zu guard %zu\n", size, guard);
    pthread_attr_destroy(&mine);
    return nullptr;
  }, nullptr) == 0);
  pthread_join(t, nullptr);
  void* memory = mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  pthread_attr_setstack(&how, memory, 1 << 20);
  CHECK(pthread_create(&t, &how, [](void* m) -> void* {
    char here;
    return reinterpret_cast<void*>(long(&here > m && &here < static_cast<char*>(m) + (1 << 20)));
  }, memory) == 0);
  void* inside;
  pthread_join(t, &inside);
  std::printf("on my own stack %ld\n", long(inside));
}

CASE(detached_threads_end) {
  static std::atomic<int> ended{0};
  for (int i = 0; i < 200; ++i) std::thread([] { usleep(100); ++ended; }).detach();
  CHECK(soon([] { return ended == 200; }));
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
    for (long i = 0; i < 100; ++i) CHECK(pthread_create(&t[i], nullptr, [](void* p) { return p; }, reinterpret_cast<void*>(i)) == 0);
    for (auto& each : t) {
      void* r;
      pthread_join(each, &r);
      sum += long(r);
    }
  }
  std::printf("sum %ld\n", sum);
}

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
    if (const int failed = pthread_create(&t, nullptr, [](void* mine) -> void* {
          plain_tls = int(std::intptr_t(mine));
          sem_post(&arrived);
          while (sem_wait(&go) != 0) {
          }
          if (plain_tls == int(std::intptr_t(mine))) ++right;
          return nullptr;
        }, reinterpret_cast<void*>(&t - threads.data()))) {
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

CASE(ids) {
  const pid_t me = gettid();
  CHECK(me == getpid());
  static std::map<pid_t, int> seen;
  static std::mutex lock;
  std::vector<std::thread> threads;
  for (int i = 0; i < 10; ++i)
    threads.emplace_back([] {
      std::lock_guard hold(lock);
      ++seen[gettid()];
      CHECK(syscall(SYS_gettid) == gettid());
      CHECK(pthread_equal(pthread_self(), pthread_self()));
    });
  CHECK(soon([] { std::lock_guard hold(lock); return !seen.empty(); }));
  for (auto& t : threads) t.join();
  CHECK(seen.count(me) == 0);
  std::puts("ok");
}

CASE(locale_and_strerror) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 5; ++i)
    threads.emplace_back([] {
      locale_t c = newlocale(LC_ALL_MASK, "C", nullptr);
      locale_t old = uselocale(c);
      sched_yield();
      CHECK(uselocale(nullptr) == c);
      CHECK(std::string(strerror(ENOENT)) == "No such file or directory");
      uselocale(old);
      freelocale(c);
    });
  for (auto& t : threads) t.join();
  std::puts("ok");
}

CASE(setjmp_and_longjmp) {
  in_thread([](void*) -> void* {
    jmp_buf back;
    volatile int rounds = 0;
    if (setjmp(back) < 5) {
      sched_yield();
      rounds = rounds + 1;
      longjmp(back, rounds);
    }
    std::printf("rounds %d\n", rounds);
    return nullptr;
  });
}

// --- waiting for each other -------------------------------------------------------------------------------------------

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
    timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 20'000'000;
    if (until.tv_nsec >= 1'000'000'000) until.tv_nsec -= 1'000'000'000, ++until.tv_sec;
    CHECK(pthread_mutex_timedlock(&held, &until) == ETIMEDOUT);
    sem_t none;
    sem_init(&none, 0, 0);
    CHECK(sem_timedwait(&none, &until) == -1 && errno == ETIMEDOUT);
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
    static std::atomic<bool> waits;
    waits = false;
    std::thread owner([] {
      pthread_mutex_lock(&m);
      CHECK(soon([] { return waits.load(); }));
      usleep(20000);
    });
    CHECK(soon([] { return pthread_mutex_trylock(&m) == EBUSY || (pthread_mutex_unlock(&m), false); }));
    std::thread next([] {
      waits = true;
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
  std::atomic<int> first{0}, word{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([&] {
        std::call_once(once, [&] { usleep(2000); ++first; });
        begun.arrive_and_wait();
        word.wait(0);
      });
    begun.wait();
    word = 1;
    word.notify_all();
  }
  auto sum = std::async(std::launch::async, [] { usleep(1000); return 40; });
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
  CHECK(thrd_create(&t, [](void*) {
    mtx_lock(&m);
    ready = 1;
    cnd_signal(&c);
    mtx_unlock(&m);
    const timespec moment{0, 1000000};
    thrd_sleep(&moment, nullptr);
    thrd_yield();
    return 17;
  }, nullptr) == thrd_success);
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
  pthread_create(&t, nullptr, [](void*) -> void* { sem_wait(&go); return nullptr; }, nullptr);
  CHECK(pthread_tryjoin_np(t, nullptr) == EBUSY);
  timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  CHECK(pthread_timedjoin_np(t, nullptr, &until) == ETIMEDOUT);
  sem_post(&go);
  CHECK(pthread_join(t, nullptr) == 0);
  std::puts("ok");
}

// futex(2) by number: what libc itself uses of it and what it does not.
long futex(std::uint32_t* word, int operation, std::uint32_t value, const void* timeout_or_count = nullptr, std::uint32_t* word2 = nullptr, std::uint32_t value3 = 0) {
  const long result = syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, timeout_or_count, word2, value3);
  return result < 0 ? -errno : result;
}
const void* count_of(std::uintptr_t n) { return reinterpret_cast<const void*>(n); }
CASE(futexes_by_number) {
  static std::uint32_t a, b;
  a = b = 0;
  static std::atomic<int> woken{0};
  const timespec soon_enough{0, 2'000'000}, wrong{0, 2'000'000'000};
  std::printf("changed %ld, timed out %ld, wrong time %ld, no bits %ld, odd address %ld\n", futex(&a, FUTEX_WAIT, 1), futex(&a, FUTEX_WAIT, 0, &soon_enough),
              futex(&a, FUTEX_WAIT, 0, &wrong), futex(&a, FUTEX_WAIT_BITSET, 0, nullptr, nullptr, 0),
              futex(reinterpret_cast<std::uint32_t*>(reinterpret_cast<char*>(&a) + 1), FUTEX_WAIT, 0));
  for (int clock : {CLOCK_MONOTONIC, CLOCK_REALTIME}) {
    timespec until;
    clock_gettime(clock, &until);
    const int flag = clock == CLOCK_REALTIME ? FUTEX_CLOCK_REALTIME : 0;
    std::printf("moment passed %ld\n", futex(&a, FUTEX_WAIT_BITSET | flag, 0, &until, nullptr, ~0u));
    until.tv_sec -= 5;
    std::printf("long passed %ld\n", futex(&a, FUTEX_WAIT_BITSET | flag, 0, &until, nullptr, ~0u));
  }
  // Three wait with bit 0, one with bit 1. A bit that nobody waits with wakes nobody, so waking by it tells nothing; who
  // waits is known by requeueing, which counts them.
  std::vector<std::thread> all;
  for (int i = 0; i < 4; ++i)
    all.emplace_back([i] {
      while (futex(&a, FUTEX_WAIT_BITSET, 0, nullptr, nullptr, i < 3 ? 1 : 2) == -EINTR) {
      }
      ++woken;
    });
  long there = 0;
  CHECK(soon([&] { return (there += futex(&a, FUTEX_CMP_REQUEUE, 0, count_of(1000), &b, 0)) == 4; }));
  std::printf("requeued %ld, other value %ld\n", there, futex(&b, FUTEX_CMP_REQUEUE, 0, count_of(1), &a, 7));
  std::printf("bit 2 wakes %ld, bit 1 wakes %ld\n", futex(&b, FUTEX_WAKE_BITSET, 9, nullptr, nullptr, 4), futex(&b, FUTEX_WAKE_BITSET, 9, nullptr, nullptr, 2));
  CHECK(soon([] { return woken == 1; }));
  std::printf("none %ld, one %ld\n", futex(&a, FUTEX_WAKE, 9), futex(&b, FUTEX_WAKE, 1));
  CHECK(soon([] { return woken == 2; }));
  // b + 5, and those of b too if it was below 1.
  a = 0;
  std::printf("op wakes %ld", futex(&a, FUTEX_WAKE_OP, 1, count_of(1), &b, FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_LT, 1)));
  std::printf(", now %u", b);
  std::printf(", op wakes %ld, now %u\n", futex(&a, FUTEX_WAKE_OP, 1, count_of(1), &b, FUTEX_OP(FUTEX_OP_ANDN, 4, FUTEX_OP_CMP_GE, 6)), b);
  std::printf("rest %ld\n", futex(&b, FUTEX_REQUEUE, 1, count_of(9), &a));
  for (auto& t : all) t.join();
  const auto self = std::uint32_t(syscall(SYS_gettid));
  a = 0;
  std::printf("pi %ld", futex(&a, FUTEX_LOCK_PI, 0));
  std::printf(" mine %d again %ld try %ld", (a & FUTEX_TID_MASK) == self, futex(&a, FUTEX_LOCK_PI, 0), futex(&a, FUTEX_TRYLOCK_PI, 0));
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

// --- the world outside ------------------------------------------------------------------------------------------------

CASE(sockets_and_pipes) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  CHECK(bind(listener, reinterpret_cast<sockaddr*>(&at), size) == 0 && listen(listener, 100) == 0);
  getsockname(listener, reinterpret_cast<sockaddr*>(&at), &size);
  std::thread server([&] {
    std::vector<std::thread> workers;
    for (int i = 0; i < 20; ++i) {
      const int fd = accept(listener, nullptr, nullptr);
      workers.emplace_back([fd] {
        char buffer[4096];
        for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) CHECK(write(fd, buffer, size_t(n)) == n);
        close(fd);
      });
    }
    for (auto& w : workers) w.join();
  });
  std::atomic<long> bytes{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 20; ++i)
    clients.emplace_back([&, i] {
      const int fd = socket(AF_INET, SOCK_STREAM, 0);
      CHECK(connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0);
      const std::string text(1000 * size_t(i + 1), char('a' + i));
      std::thread writer([&] {
        CHECK(write(fd, text.data(), text.size()) == ssize_t(text.size()));
        shutdown(fd, SHUT_WR);
      });
      std::string back;
      char buffer[700];
      for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) > 0;) back.append(buffer, size_t(n));
      writer.join();
      CHECK(back == text);
      bytes += long(back.size());
      close(fd);
    });
  for (auto& c : clients) c.join();
  server.join();
  close(listener);
  std::printf("bytes %ld\n", bytes.load());
}

CASE(sendfile_to_slow_readers) {
  constexpr std::size_t size = 3 << 20;
  const int file = memfd_create("file", 0);
  std::vector<char> all(size);
  for (std::size_t i = 0; i < size; ++i) all[i] = char(i * 7 + i / 1000);
  CHECK(write(file, all.data(), size) == ssize_t(size));
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 10; ++i)
    threads.emplace_back([&, i] {
      int ends[2];
      CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
      std::thread reader([&] {
        std::vector<char> got(size);
        std::size_t have = 0;
        for (ssize_t n; (n = read(ends[0], got.data() + have, std::min<std::size_t>(size - have, 100000))) > 0; have += std::size_t(n)) std::this_thread::yield();
        right += have == size && got == all;
      });
      off_t at = 0;
      if (i == 0) fcntl(ends[1], F_SETFL, O_NONBLOCK);
      std::size_t sent = 0;
      while (sent < size) {
        const ssize_t n = sendfile(ends[1], file, &at, size);
        if (i > 0) CHECK(n == ssize_t(size));  // who may wait sends all
        if (n > 0) sent += std::size_t(n);
        if (n < 0 && errno == EAGAIN) {
          pollfd room{ends[1], POLLOUT, 0};
          poll(&room, 1, -1);
        } else if (n <= 0) {
          break;
        }
      }
      CHECK(at == off_t(size) && (fcntl(ends[1], F_GETFL) & O_NONBLOCK) == (i == 0 ? O_NONBLOCK : 0));
      CHECK(sendfile(ends[1], file, &at, 10) == 0);
      close(ends[1]);
      reader.join();
      close(ends[0]);
    });
  for (auto& t : threads) t.join();
  close(file);
  std::printf("right %d\n", right.load());
}

CASE(stdio_on_a_pipe) {
  int ends[2];
  CHECK(pipe(ends) == 0);
  FILE* in = fdopen(ends[0], "r");
  FILE* out = fdopen(ends[1], "w");
  std::thread reader([&] {
    char line[100];
    int lines = 0;
    while (fgets(line, sizeof line, in)) ++lines;
    std::printf("lines %d\n", lines);
  });
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; ++i)
    writers.emplace_back([&, i] {
      for (int k = 0; k < 500; ++k) std::fprintf(out, "writer %d line %d\n", i, k);
      fflush(out);
    });
  for (auto& w : writers) w.join();
  fclose(out);
  reader.join();
  fclose(in);
}

CASE(poll_select_epoll) {
  int a[2];
  CHECK(pipe(a) == 0);
  static std::atomic<int> woken{0};
  std::thread p([&] { pollfd f{a[0], POLLIN, 0}; CHECK(poll(&f, 1, 20000) == 1 && f.revents == POLLIN); ++woken; });
  std::thread s([&] {
    fd_set in;
    FD_ZERO(&in);
    FD_SET(a[0], &in);
    timeval t{20, 0};
    CHECK(select(a[0] + 1, &in, nullptr, nullptr, &t) == 1 && FD_ISSET(a[0], &in));
    ++woken;
  });
  std::thread e([&] {
    const int ep = epoll_create1(0);
    epoll_event want{};
    want.events = EPOLLIN;
    epoll_ctl(ep, EPOLL_CTL_ADD, a[0], &want);
    epoll_event got;
    CHECK(epoll_wait(ep, &got, 1, 20000) == 1);
    close(ep);
    ++woken;
  });
  std::thread none([&] { CHECK(poll(nullptr, 0, 10) == 0); ++woken; });
  none.join();
  CHECK(write(a[1], "x", 1) == 1);
  p.join();
  s.join();
  e.join();
  std::printf("woken %d\n", woken.load());
}

CASE(names_of_hosts) {
  std::atomic<int> found{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 5; ++i)
    threads.emplace_back([&] {
      addrinfo hints{}, *list = nullptr;
      hints.ai_family = AF_INET;
      hints.ai_socktype = SOCK_STREAM;
      if (getaddrinfo("localhost", "80", &hints, &list) == 0) ++found, freeaddrinfo(list);
    });
  for (auto& t : threads) t.join();
  std::printf("found %d\n", found.load());
}

CASE(dlopen_while_threads_run) {
  static std::atomic<bool> go{false};
  static double (*cosine)(double) = nullptr;
  std::vector<std::thread> threads;
  for (int i = 0; i < 5; ++i)
    threads.emplace_back([] {
      CHECK(soon([] { return go.load(); }));
      CHECK(cosine(0.0) == 1.0);
    });
  void* library = dlopen("libm.so.6", RTLD_NOW);
  cosine = reinterpret_cast<double (*)(double)>(dlsym(library, "cos"));
  go = true;
  for (auto& t : threads) t.join();
  std::puts("ok");
}

CASE(names_of_threads) {
  static std::atomic<int> step{0};
  pthread_setname_np(pthread_self(), "chief");
  std::thread t([] {
    pthread_setname_np(pthread_self(), "first");
    char name[16];
    prctl(PR_GET_NAME, name);
    std::printf("own %s\n", name);
    step = 1;
    CHECK(soon([] { return step == 2; }));
    pthread_getname_np(pthread_self(), name, sizeof name);
    std::printf("given %s\n", name);
  });
  CHECK(soon([] { return step == 1; }));
  char name[16];
  CHECK(pthread_getname_np(t.native_handle(), name, sizeof name) == 0);
  std::printf("seen %s\n", name);
  CHECK(pthread_setname_np(t.native_handle(), "second") == 0);
  step = 2;
  t.join();
  pthread_getname_np(pthread_self(), name, sizeof name);
  std::printf("mine %s\n", name);
}

CASE(scheduling) {
  std::thread t([] {
    cpu_set_t cpus;
    CHECK(sched_getaffinity(0, sizeof cpus, &cpus) == 0);
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    CHECK(pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus) == 0);
    CPU_ZERO(&cpus);
    CHECK(pthread_getaffinity_np(pthread_self(), sizeof cpus, &cpus) == 0);
    std::printf("cpus %d\n", CPU_COUNT(&cpus));
    int policy;
    sched_param parameters{};
    CHECK(pthread_getschedparam(pthread_self(), &policy, &parameters) == 0);
    CHECK(pthread_setschedparam(pthread_self(), policy, &parameters) == 0);
    CHECK(sched_getcpu() >= 0);
  });
  t.join();
  cpu_set_t mine;
  sched_getaffinity(0, sizeof mine, &mine);
  std::printf("mine are all %d\n", CPU_COUNT(&mine) == sysconf(_SC_NPROCESSORS_ONLN));
}

// --- processes --------------------------------------------------------------------------------------------------------

CASE(fork_from_a_thread) {
  std::thread keeps([] { usleep(100000); });
  std::thread forks([] {
    const pid_t child = fork();
    if (child == 0) {
      CHECK(gettid() == getpid());
      int sum = 0;
      std::thread inside([&] { usleep(1000); sum += 20; });
      inside.join();
      std::thread again([&] { sum += 3; });
      again.join();
      _exit(sum);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    std::printf("child's status %d\n", WEXITSTATUS(status));
  });
  forks.join();
  keeps.join();
}

CASE(children_of_all_kinds) {
  std::vector<std::thread> threads;
  static std::atomic<int> good{0};
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([i] {
      FILE* p = popen(("echo popen " + std::to_string(i)).c_str(), "r");
      char line[100] = "";
      if (fgets(line, sizeof line, p) && std::string(line) == "popen " + std::to_string(i) + "\n") ++good;
      pclose(p);
      if (WEXITSTATUS(system("exit 3")) == 3) ++good;
      pid_t child;
      char* const arguments[] = {const_cast<char*>("sh"), const_cast<char*>("-c"), const_cast<char*>("sleep 0.05; exit 4"), nullptr};
      int status = 0;
      if (posix_spawnp(&child, "sh", nullptr, nullptr, arguments, environ) == 0 && waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 4) ++good;
      const pid_t borrowed = vfork();
      if (borrowed == 0) _exit(6);
      if (waitpid(borrowed, &status, 0) == borrowed && WEXITSTATUS(status) == 6) ++good;
    });
  for (auto& t : threads) t.join();
  std::printf("good %d\n", good.load());
}

CASE(exit_from_a_thread) {
  std::atexit([] { std::puts("at exit"); });
  std::thread t([] {
    usleep(1000);
    std::exit(5);
  });
  pause();
}

CASE(main_leaves_by_pthread_exit) {
  static pthread_t chief = pthread_self();
  pthread_t t;
  pthread_create(&t, nullptr, [](void*) -> void* {
    void* result;
    CHECK(pthread_join(chief, &result) == 0);
    std::printf("main gave %ld\n", long(result));
    std::fflush(stdout);
    return nullptr;
  }, nullptr);
  pthread_exit(reinterpret_cast<void*>(9));
}

// --- signals ----------------------------------------------------------------------------------------------------------

thread_local int tls_in_handler = 0;
std::atomic<int> handled{0};
void count_signal(int) {
  ++tls_in_handler;
  ++handled;
}
void install(int signal, void (*handler)(int), int flags = 0) {
  struct sigaction how {};
  how.sa_handler = handler;
  how.sa_flags = flags;
  sigaction(signal, &how, nullptr);
}

CASE(pthread_kill_runs_on_its_thread) {
  install(SIGUSR1, count_signal);
  static std::atomic<bool> waits{false};
  std::thread t([] {
    int ends[2];
    CHECK(pipe(ends) == 0);
    char c;
    waits = true;
    const ssize_t n = read(ends[0], &c, 1);
    std::printf("read %zd, EINTR %d, handled here %d\n", n, errno == EINTR, tls_in_handler);
  });
  CHECK(soon([] { return waits.load(); }));
  usleep(20000);
  CHECK(pthread_kill(t.native_handle(), 0) == 0);
  CHECK(pthread_kill(t.native_handle(), SIGUSR1) == 0);
  t.join();
  raise(SIGUSR1);
  std::printf("mine %d all %d\n", tls_in_handler, handled.load());
}

CASE(sigpipe_belongs_to_who_writes) {
  // The default is to end the process: but a thread that blocks it only has it pending.
  std::thread writes([] {
    sigset_t set, waiting;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    int ends[2];
    CHECK(pipe(ends) == 0);
    close(ends[0]);
    CHECK(write(ends[1], "x", 1) == -1 && errno == EPIPE);
    close(ends[1]);
    usleep(10000);
    sigpending(&waiting);
    std::printf("pending %d\n", sigismember(&waiting, SIGPIPE));
    const timespec at_once{};
    CHECK(sigtimedwait(&set, nullptr, &at_once) == SIGPIPE);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    close(ends[0]);
    CHECK(send(ends[1], "x", 1, 0) == -1 && errno == EPIPE);
    close(ends[1]);
    usleep(10000);
    sigpending(&waiting);
    std::printf("pending %d\n", sigismember(&waiting, SIGPIPE));
  });
  writes.join();
  static __thread int by;
  static std::atomic<int> seen{0};
  by = 0;
  signal(SIGPIPE, [](int) { seen = by; });
  std::thread handles([] {
    by = 7;
    int ends[2];
    CHECK(pipe(ends) == 0);
    close(ends[0]);
    CHECK(write(ends[1], "x", 1) == -1 && errno == EPIPE);
    std::printf("handled by %d\n", seen.load());
    close(ends[1]);
  });
  handles.join();
}

CASE(restarted_calls) {
  install(SIGUSR1, count_signal, SA_RESTART);
  static int ends[2];
  CHECK(pipe(ends) == 0);
  static std::atomic<bool> waits{false};
  std::thread t([] {
    char c = 0;
    waits = true;
    const ssize_t n = read(ends[0], &c, 1);
    std::printf("read %zd '%c' handled %d\n", n, c, tls_in_handler);
  });
  CHECK(soon([] { return waits.load(); }));
  usleep(20000);
  pthread_kill(t.native_handle(), SIGUSR1);
  CHECK(soon([] { return handled == 1; }));
  CHECK(write(ends[1], "y", 1) == 1);
  t.join();
}

CASE(masks_are_each_threads_own) {
  install(SIGUSR1, count_signal);
  sigset_t usr1;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &usr1, nullptr);
  static std::atomic<int> step{0};
  std::thread open_to_it([&] {
    pthread_sigmask(SIG_UNBLOCK, &usr1, nullptr);
    step = 1;
    CHECK(soon([] { return handled == 1; }));
    std::printf("the open one handled %d\n", tls_in_handler);
  });
  CHECK(soon([] { return step == 1; }));
  kill(getpid(), SIGUSR1);
  open_to_it.join();
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, nullptr, &now);
  std::printf("mine %d, still blocked %d\n", tls_in_handler, sigismember(&now, SIGUSR1));
  std::thread blocked([] {
    raise(SIGUSR1);
    sigset_t waiting;
    sigpending(&waiting);
    std::printf("pending %d handled %d\n", sigismember(&waiting, SIGUSR1), tls_in_handler);
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, nullptr);
    std::printf("then handled %d\n", tls_in_handler);
  });
  blocked.join();
}

CASE(sigwait_in_a_thread) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGUSR2);
  sigaddset(&set, SIGRTMIN);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  static std::atomic<int> seen{0};
  std::thread waits([&] {
    for (int i = 0; i < 3; ++i) {
      int signal = 0;
      CHECK(sigwait(&set, &signal) == 0);
      std::printf("got %s\n", signal == SIGUSR1 ? "usr1" : signal == SIGUSR2 ? "usr2" : "rtmin");
      ++seen;
    }
    timespec moment{0, 10'000'000};
    CHECK(sigtimedwait(&set, nullptr, &moment) == -1 && errno == EAGAIN);
    siginfo_t info;
    ++seen;
    CHECK(sigwaitinfo(&set, &info) == SIGRTMIN);
    std::printf("value %d\n", info.si_value.sival_int);
  });
  kill(getpid(), SIGUSR1);
  CHECK(soon([] { return seen == 1; }));
  pthread_kill(waits.native_handle(), SIGUSR2);
  CHECK(soon([] { return seen == 2; }));
  kill(getpid(), SIGRTMIN);
  CHECK(soon([] { return seen == 4; }));
  sigval value;
  value.sival_int = 77;
  CHECK(pthread_sigqueue(waits.native_handle(), SIGRTMIN, value) == 0);
  waits.join();
}

CASE(sigsuspend_and_ppoll) {
  install(SIGUSR1, count_signal);
  sigset_t usr1;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &usr1, nullptr);
  static std::atomic<int> step{0};
  std::thread t([] {
    sigset_t none;
    sigemptyset(&none);
    step = 1;
    CHECK(sigsuspend(&none) == -1 && errno == EINTR);
    std::printf("suspended, handled %d\n", tls_in_handler);
    step = 2;
    timespec long_time{20, 0};
    CHECK(ppoll(nullptr, 0, &long_time, &none) == -1 && errno == EINTR);
    std::printf("polled, handled %d\n", tls_in_handler);
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    std::printf("blocked again %d\n", sigismember(&now, SIGUSR1));
  });
  CHECK(soon([] { return step == 1; }));
  pthread_kill(t.native_handle(), SIGUSR1);
  CHECK(soon([] { return step == 2; }));
  kill(getpid(), SIGUSR1);
  t.join();
}

CASE(process_signal_while_all_wait) {
  install(SIGALRM, count_signal);
  std::thread t([] { usleep(150000); });
  alarm(0);
  itimerval soon_once{{0, 0}, {0, 30000}};
  setitimer(ITIMER_REAL, &soon_once, nullptr);
  const int slept = usleep(10'000'000);
  std::printf("slept %d EINTR %d handled in main %d\n", slept, errno == EINTR, tls_in_handler);
  t.join();
}

sigjmp_buf out_of_it;
// The kernel says that this thread of ours sleeps; true, too, of one that the kernel does not know.
bool sleeps(int tid) {
  char path[64], text[200] = {};
  std::snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return true;
  const ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  const char* name_end = n > 0 ? std::strrchr(text, ')') : nullptr;
  return name_end && name_end[2] == 'S';
}

// B waits for a byte that D takes as soon as it is there, and D signals B then: B is neither asleep nor done. Who gets the
// byte is open, but B ends in any case.
CASE(signal_in_the_midst_of_a_call) {
  static int contested[2], start[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, contested) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, start) == 0);
  install(SIGUSR1, count_signal);
  int lost = 0, ended = 0;
  for (int round = 0; round < 100 && lost == 0; ++round) {
    std::atomic<bool> done{false};
    std::atomic<int> tid{0};
    std::thread b([&] {
      char byte;
      tid = int(syscall(SYS_gettid));
      ended += recv(contested[0], &byte, 1, 0) == 1 || errno == EINTR;
      done = true;
    });
    std::thread d([&] {
      char byte;
      CHECK(recv(start[0], &byte, 1, 0) == 1);
      if (recv(contested[0], &byte, 1, MSG_DONTWAIT) == 1) CHECK(pthread_kill(b.native_handle(), SIGUSR1) == 0);
    });
    CHECK(soon([&] { return tid != 0; }));
    usleep(1000);  // both of ours wait by now
    CHECK(soon([&] { return sleeps(tid); }));
    CHECK(write(start[1], "s", 1) == 1);
    CHECK(write(contested[1], "b", 1) == 1);
    d.join();
    if (!soon([&] { return done.load(); })) {
      ++lost;
      CHECK(write(contested[1], "b", 1) == 1);
    }
    b.join();
  }
  std::printf("lost %d, ended %d\n", lost, ended);
}

std::atomic<void*> place_seen{nullptr};
CASE(place_that_a_handler_sees) {
  struct sigaction action {};
  action.sa_sigaction = [](int, siginfo_t*, void* context) {
    place_seen = reinterpret_cast<void*>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
  };
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGUSR1, &action, nullptr);
  std::atomic<bool> done{false};
  std::thread t([&] {
    int ends[2];
    CHECK(pipe(ends) == 0);
    char byte;
    CHECK(read(ends[0], &byte, 1) == -1 && errno == EINTR);
    Dl_info where{}, libc{};
    CHECK(dladdr(place_seen, &where) && dladdr(reinterpret_cast<void*>(&getpid), &libc));
    std::printf("in libc: %d\n", where.dli_fbase == libc.dli_fbase);
    done = true;
  });
  while (!done) {
    pthread_kill(t.native_handle(), SIGUSR1);
    usleep(5000);
  }
  t.join();
}

CASE(siglongjmp_out_of_a_wait) {
  install(SIGALRM, [](int) { siglongjmp(out_of_it, 1); });
  // Only main may take it: the place to jump to is on main's stack.
  sigset_t alarms;
  sigemptyset(&alarms);
  sigaddset(&alarms, SIGALRM);
  CHECK(pthread_sigmask(SIG_BLOCK, &alarms, nullptr) == 0);
  std::thread t([] { usleep(100000); });
  CHECK(pthread_sigmask(SIG_UNBLOCK, &alarms, nullptr) == 0);
  int ends[2];
  CHECK(pipe(ends) == 0);
  for (volatile int round = 0; round < 3; round = round + 1) {
    if (sigsetjmp(out_of_it, 1) == 0) {
      itimerval once{{0, 0}, {0, 10000}};
      setitimer(ITIMER_REAL, &once, nullptr);
      char c;
      (void)!read(ends[0], &c, 1);
      std::puts("not reached");
    }
    std::printf("out %d\n", round);
  }
  t.join();
}

CASE(fault_and_siglongjmp) {
  install(SIGSEGV, [](int) { siglongjmp(out_of_it, 1); });
  std::thread t([] {
    for (volatile int i = 0; i < 3; i = i + 1) {
      if (sigsetjmp(out_of_it, 1) == 0) {
        *static_cast<volatile int*>(nullptr) = 1;
        std::puts("not reached");
      }
      usleep(1000);
    }
    std::puts("survived");
  });
  t.join();
}

CASE(alternate_stacks) {
  static thread_local char* low = nullptr;
  struct sigaction how {};
  how.sa_handler = [](int) {
    char here;
    std::printf("on it %d\n", low && &here >= low && &here < low + 65536);
  };
  how.sa_flags = SA_ONSTACK;
  sigaction(SIGUSR1, &how, nullptr);
  std::thread with([] {
    low = static_cast<char*>(std::malloc(65536));
    stack_t mine{};
    mine.ss_sp = low;
    mine.ss_size = 65536;
    CHECK(sigaltstack(&mine, nullptr) == 0);
    usleep(1000);
    raise(SIGUSR1);
    stack_t now{};
    CHECK(sigaltstack(nullptr, &now) == 0 && now.ss_sp == low);
    mine.ss_flags = SS_DISABLE;
    sigaltstack(&mine, nullptr);
    std::free(low);
  });
  with.join();
  std::thread without([] { raise(SIGUSR1); });
  without.join();
}

CASE(timer_with_a_thread) {
  static sem_t done;
  sem_init(&done, 0, 0);
  sigevent how{};
  how.sigev_notify = SIGEV_THREAD;
  how.sigev_value.sival_int = 12;
  how.sigev_notify_function = [](sigval v) {
    if (v.sival_int == 12) sem_post(&done);
  };
  timer_t timer;
  CHECK(timer_create(CLOCK_MONOTONIC, &how, &timer) == 0);
  itimerspec often{{0, 5'000'000}, {0, 5'000'000}};
  CHECK(timer_settime(timer, 0, &often, nullptr) == 0);
  for (int i = 0; i < 3; ++i) {
    timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    CHECK(sem_timedwait(&done, &until) == 0);
  }
  timer_delete(timer);
  std::puts("three times");
}

CASE(setuid_reaches_all_threads) {
  static std::atomic<bool> go{false};
  std::vector<std::thread> threads;
  static std::atomic<int> same{0};
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([] {
      CHECK(soon([] { return go.load(); }));
      if (getuid() == geteuid()) ++same;
    });
  CHECK(setuid(getuid()) == 0);
  CHECK(setgid(getgid()) == 0);
  go = true;
  for (auto& t : threads) t.join();
  std::printf("same %d\n", same.load());
}

// --- cancellation -----------------------------------------------------------------------------------------------------

struct says {
  const char* what;
  ~says() { std::printf("%s\n", what); }
};
CASE(cancellation) {
  static std::atomic<int> step{0};
  pthread_t t;
  pthread_create(&t, nullptr, [](void*) -> void* {
    says at_end{"destructor"};
    pthread_cleanup_push([](void*) { std::puts("cleanup"); }, nullptr);
    step = 1;
    int ends[2];
    CHECK(pipe(ends) == 0);
    char c;
    (void)!read(ends[0], &c, 1);
    pthread_cleanup_pop(0);
    return nullptr;
  }, nullptr);
  CHECK(soon([] { return step == 1; }));
  usleep(10000);
  CHECK(pthread_cancel(t) == 0);
  void* result;
  pthread_join(t, &result);
  std::printf("cancelled %d\n", result == PTHREAD_CANCELED);
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
  pthread_create(&t, nullptr, [](void*) -> void* {
    pthread_mutex_lock(&lock);
    pthread_cleanup_push([](void*) { pthread_mutex_unlock(&lock); }, nullptr);
    step = 2;
    while (true) pthread_cond_wait(&never, &lock);
    pthread_cleanup_pop(1);
    return nullptr;
  }, nullptr);
  CHECK(soon([] { return step == 2; }));
  pthread_mutex_lock(&lock);
  pthread_mutex_unlock(&lock);
  pthread_cancel(t);
  pthread_join(t, &result);
  std::printf("cancelled %d, lock free %d\n", result == PTHREAD_CANCELED, pthread_mutex_trylock(&lock) == 0);
  pthread_mutex_unlock(&lock);
  pthread_create(&t, nullptr, [](void*) -> void* {
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
    step = 3;
    usleep(20000);
    std::puts("not yet");
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, nullptr);
    pthread_testcancel();
    std::puts("not reached");
    return nullptr;
  }, nullptr);
  CHECK(soon([] { return step == 3; }));
  pthread_cancel(t);
  pthread_join(t, &result);
  std::printf("cancelled %d\n", result == PTHREAD_CANCELED);
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
          case 0: std::thread([&] { ++done; }).join(); break;
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
            std::thread other([&] { char c; CHECK(read(ends[1], &c, 1) == 1); });
            CHECK(write(ends[0], "z", 1) == 1);
            other.join();
            close(ends[0]);
            close(ends[1]);
            ++done;
            break;
          }
          case 4: usleep(rand_r(&seed) % 300); ++done; break;
          default: std::async(std::launch::async, [&] { ++done; }).get();
        }
      }
    });
  for (auto& t : threads) t.join();
  std::printf("done %ld\n", done.load());
}

// --- who computes -----------------------------------------------------------------------------------------------------

// Not one of these spins gives the processor up by itself.

CASE(spinners_see_what_a_sleeper_does) {
  static std::atomic<int> go{0}, seen{0};
  std::vector<std::thread> spinning;
  for (int i = 0; i < 4; ++i)
    spinning.emplace_back([] {
      while (go.load(std::memory_order_relaxed) == 0) {
      }
      ++seen;
    });
  usleep(10000);
  go = 1;
  for (auto& t : spinning) t.join();
  std::printf("seen %d\n", seen.load());
}

CASE(spin_lock_held_by_a_sleeper) {
  static pthread_spinlock_t lock;
  static int counted = 0;
  CHECK(pthread_spin_init(&lock, PTHREAD_PROCESS_PRIVATE) == 0);
  CHECK(pthread_spin_lock(&lock) == 0);
  std::vector<std::thread> all;
  for (int i = 0; i < 3; ++i)
    all.emplace_back([] {
      for (int n = 0; n < 1000; ++n) {
        pthread_spin_lock(&lock);
        ++counted;
        pthread_spin_unlock(&lock);
      }
    });
  usleep(10000);
  pthread_spin_unlock(&lock);
  for (auto& t : all) t.join();
  std::printf("counted %d\n", counted);
}

CASE(asynchronous_cancel_of_a_spinner) {
  static std::atomic<bool> spins{false};
  // Called by a pointer: the compiler must not find out that it does not throw.
  static void (*volatile spin)() = [] {
    spins = true;
    for (volatile long n = 0;; n = n + 1) {
    }
  };
  pthread_t t;
  CHECK(pthread_create(&t, nullptr, [](void*) -> void* {
          pthread_cleanup_push([](void*) { std::puts("cleaned up"); }, nullptr);
          int before;
          pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &before);
          spin();
          pthread_cleanup_pop(0);
          return nullptr;
        }, nullptr) == 0);
  while (!spins) usleep(1000);
  CHECK(pthread_cancel(t) == 0);
  void* result = nullptr;
  CHECK(pthread_join(t, &result) == 0);
  std::printf("cancelled %d\n", result == PTHREAD_CANCELED);
}

CASE(spinner_that_blocks_all_signals) {
  static std::atomic<bool> spins{false}, stop{false};
  std::thread t([] {
    sigset_t all, now;
    sigfillset(&all);
    CHECK(pthread_sigmask(SIG_BLOCK, &all, nullptr) == 0);
    spins = true;
    while (!stop.load(std::memory_order_relaxed)) {
    }
    CHECK(pthread_sigmask(SIG_SETMASK, nullptr, &now) == 0);
    std::printf("blocked %d %d\n", sigismember(&now, SIGUSR1), sigismember(&now, SIGRTMAX));
  });
  while (!spins) usleep(1000);
  usleep(5000);
  stop = true;
  t.join();
}

std::atomic<bool> told_to_stop{false};
thread_local bool is_spinner = false;

CASE(signal_to_a_spinner) {
  static std::atomic<bool> spins{false};
  install(SIGUSR1, [](int) { told_to_stop = is_spinner; });
  std::thread t([] {
    is_spinner = true;
    spins = true;
    while (!told_to_stop.load(std::memory_order_relaxed)) {
    }
    std::puts("told");
  });
  while (!spins) usleep(1000);
  pthread_kill(t.native_handle(), SIGUSR1);
  t.join();
}

CASE(spin_in_a_signal_handler) {
  static std::atomic<bool> in_it{false};
  install(SIGUSR1, [](int) {
    in_it = true;
    while (!told_to_stop.load(std::memory_order_relaxed)) {
    }
  });
  std::thread t([] {
    while (!in_it) usleep(1000);
    usleep(5000);
    told_to_stop = true;
  });
  raise(SIGUSR1);
  t.join();
  std::puts("out");
}

CASE(spin_on_an_alternate_stack) {
  static std::atomic<bool> in_it{false};
  static char stack[65536];
  stack_t mine{};
  mine.ss_sp = stack;
  mine.ss_size = sizeof stack;
  CHECK(sigaltstack(&mine, nullptr) == 0);
  struct sigaction how {};
  how.sa_flags = SA_ONSTACK;
  how.sa_handler = [](int) {
    const auto begun = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begun < std::chrono::milliseconds(20)) {
    }
    in_it = true;
  };
  sigaction(SIGUSR1, &how, nullptr);
  std::thread t([] {
    while (!in_it) usleep(1000);
    std::puts("seen");
  });
  for (int i = 0; i < 3; ++i) raise(SIGUSR1);
  t.join();
}

CASE(greatest_signal_is_the_programs_own) {
  static volatile sig_atomic_t came = 0;
  static std::atomic<bool> stop{false};
  install(SIGRTMAX, [](int) { came = came + 1; });
  std::thread t([] {
    while (!stop.load(std::memory_order_relaxed)) {
    }
  });
  raise(SIGRTMAX);
  CHECK(kill(getpid(), SIGRTMAX) == 0);
  while (came < 2) usleep(1000);
  sigset_t it;
  sigemptyset(&it);
  sigaddset(&it, SIGRTMAX);
  CHECK(pthread_sigmask(SIG_BLOCK, &it, nullptr) == 0);
  raise(SIGRTMAX);
  usleep(5000);
  const int blocked = came;
  CHECK(pthread_sigmask(SIG_UNBLOCK, &it, nullptr) == 0);
  stop = true;
  t.join();
  std::printf("came %d then %d\n", blocked, int(came));
}

CASE(sigwait_for_the_greatest_signal) {
  sigset_t it;
  sigemptyset(&it);
  sigaddset(&it, SIGRTMAX);
  CHECK(pthread_sigmask(SIG_BLOCK, &it, nullptr) == 0);
  static std::atomic<bool> stop{false};
  std::thread spinner([] {
    while (!stop.load(std::memory_order_relaxed)) {
    }
  });
  CHECK(kill(getpid(), SIGRTMAX) == 0);  // before anybody waits for it
  usleep(5000);
  sigset_t waiting;
  CHECK(sigpending(&waiting) == 0);
  std::printf("pending %d\n", sigismember(&waiting, SIGRTMAX));
  static std::atomic<int> got{0};
  std::thread waiter([] {
    sigset_t mine;
    sigemptyset(&mine);
    sigaddset(&mine, SIGRTMAX);
    for (int i = 0; i < 2; ++i) {
      int which = 0;
      CHECK(sigwait(&mine, &which) == 0 && which == SIGRTMAX);
      ++got;
    }
  });
  CHECK(soon([] { return got == 1; }));
  usleep(5000);
  CHECK(kill(getpid(), SIGRTMAX) == 0);  // while one does
  waiter.join();
  stop = true;
  spinner.join();
  std::printf("got %d\n", got.load());
}

CASE(exceptions_and_malloc_of_those_who_compute) {
  static std::atomic<bool> stop{false};
  static std::atomic<int> wrong{0};
  std::vector<std::thread> all;
  for (int i = 0; i < 4; ++i)
    all.emplace_back([i] {
      for (long n = 0; !stop.load(std::memory_order_relaxed); ++n) {
        try {
          std::vector<std::string> some(std::size_t(n % 7 + 1), std::string(std::size_t(40 + n % 200), char('a' + i)));
          if (some.back().front() != 'a' + i) ++wrong;
          throw std::runtime_error(some.back());
        } catch (const std::runtime_error& e) {
          if (e.what()[39] != 'a' + i) ++wrong;
        }
        errno = i;
        for (volatile int spin = 0; spin < 500; spin = spin + 1) {
        }
        if (errno != i) ++wrong;
      }
    });
  for (int i = 0; i < 50; ++i) {
    usleep(2000);
    std::string mine(std::size_t(i) * 100, 'm');
    if (mine.size() != std::size_t(i) * 100) ++wrong;
  }
  stop = true;
  for (auto& t : all) t.join();
  std::printf("wrong %d\n", wrong.load());
}

// The watcher's signal must not reach the new program: many rounds, each with arguments that take the kernel long to copy.
CASE(exec_beside_spinners) {
  const char* const before = getenv("ROUND");
  const int round = before ? std::atoi(before) : 0;
  if (round == 12) {
    std::puts("twelve rounds");
    return;
  }
  setenv("ROUND", std::to_string(round + 1).c_str(), 1);
  for (int i = 0; i < 2; ++i)
    std::thread([] {
      for (volatile bool ever = true; ever;) {
      }
    }).detach();
  std::vector<std::string> words(16, std::string(100'000, 'x'));
  char name[] = "battery", itself[] = "exec_beside_spinners";
  std::vector<char*> arguments{name, itself};
  for (std::string& w : words) arguments.push_back(w.data());
  arguments.push_back(nullptr);
  execv("/proc/self/exe", arguments.data());
  std::printf("exec: %s\n", strerror(errno));
}

CASE(privileges_given_up_beside_spinners) {
  static std::atomic<bool> stop{false};
  std::thread spinner([] {
    while (!stop.load(std::memory_order_relaxed)) {
    }
  });
  usleep(5000);
  constexpr unsigned nobody = 65534;
  const unsigned wanted = geteuid() == 0 ? nobody : geteuid();
  CHECK(setresuid(wanted, wanted, wanted) == 0);
  int other = 0;
  DIR* tasks = opendir("/proc/self/task");
  CHECK(tasks);
  while (const dirent* task = tasks ? readdir(tasks) : nullptr) {
    if (task->d_name[0] == '.') continue;
    char path[300], line[200];
    std::snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
    FILE* f = fopen(path, "r");
    CHECK(f);
    unsigned real, effective, saved, files;
    while (f && fgets(line, sizeof line, f))
      if (std::sscanf(line, "Uid: %u %u %u %u", &real, &effective, &saved, &files) == 4)
        other += real != wanted || effective != wanted || saved != wanted || files != wanted;
    if (f) fclose(f);
  }
  if (tasks) closedir(tasks);
  stop = true;
  spinner.join();
  std::printf("tasks of another user: %d\n", other);
}

CASE(fork_beside_spinners) {
  static std::atomic<bool> stop{false};
  auto spin = [] {
    while (!stop.load(std::memory_order_relaxed)) {
    }
  };
  std::thread a(spin), b(spin);
  for (int i = 0; i < 5; ++i) {
    usleep(3000);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      std::thread again(spin);
      usleep(3000);
      stop = true;
      again.join();
      _exit(7);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    std::printf("child %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  }
  stop = true;
  a.join();
  b.join();
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (argc < 2) {
    for (const test& t : all()) std::puts(t.name);
    return 0;
  }
  for (const test& t : all())
    if (std::strcmp(t.name, argv[1]) == 0) {
      t.run();
      return 0;
    }
  std::fprintf(stderr, "no case '%s'\n", argv[1]);
  return 2;
}
