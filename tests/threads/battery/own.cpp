// What belongs to a thread: its variables, errno, keys, exceptions in flight, stack, id, locale, jumps.

#include <locale.h>
#include <sched.h>
#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <barrier>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "battery.hpp"

namespace battery {
namespace {

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
      usleep(1000);  // a wait, too, leaves it mine
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
            ~yields() {
              std::this_thread::yield();
              usleep(10);  // over such waits the exceptions are in flight
            }
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
  CHECK(pthread_create(
            &t, &how,
            [](void*) -> void* {
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
            },
            nullptr) == 0);
  pthread_join(t, nullptr);
  void* memory = mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  pthread_attr_setstack(&how, memory, 1 << 20);
  CHECK(pthread_create(
            &t, &how,
            [](void* m) -> void* {
              char here;
              return reinterpret_cast<void*>(long(&here > m && &here < static_cast<char*>(m) + (1 << 20)));
            },
            memory) == 0);
  void* inside;
  pthread_join(t, &inside);
  std::printf("on my own stack %ld\n", long(inside));
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
  CHECK(until([] {
    std::lock_guard hold(lock);
    return !seen.empty();
  }));
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

}  // namespace
}  // namespace battery
