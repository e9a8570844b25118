// Cancellation in a wait, in a lock, and when it is not allowed.

#include "battery.hpp"

namespace battery {
namespace {

struct says {
  const char* what;
  ~says() { std::printf("%s\n", what); }
};
CASE(cancellation) {
  static std::atomic<int> step{0};
  static std::atomic<pid_t> waits{0};
  static std::atomic<bool> asked{false};
  pthread_t t;
  pthread_create(
      &t, nullptr,
      [](void*) -> void* {
        says at_end{"destructor"};
        pthread_cleanup_push([](void*) { std::puts("cleanup"); }, nullptr);
        int ends[2];
        CHECK(pipe(ends) == 0);
        char c;
        waits = gettid();
        (void)!read(ends[0], &c, 1);
        pthread_cleanup_pop(0);
        return nullptr;
      },
      nullptr);
  CHECK(until([] { return waits && asleep(waits); }));
  CHECK(pthread_cancel(t) == 0);
  void* result;
  pthread_join(t, &result);
  std::printf("cancelled %d\n", result == PTHREAD_CANCELED);
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
  pthread_create(
      &t, nullptr,
      [](void*) -> void* {
        pthread_mutex_lock(&lock);
        pthread_cleanup_push([](void*) { pthread_mutex_unlock(&lock); }, nullptr);
        step = 2;
        while (true) pthread_cond_wait(&never, &lock);
        pthread_cleanup_pop(1);
        return nullptr;
      },
      nullptr);
  CHECK(until([] { return step == 2; }));
  pthread_mutex_lock(&lock);
  pthread_mutex_unlock(&lock);
  pthread_cancel(t);
  pthread_join(t, &result);
  std::printf("cancelled %d, lock free %d\n", result == PTHREAD_CANCELED, pthread_mutex_trylock(&lock) == 0);
  pthread_mutex_unlock(&lock);
  pthread_create(
      &t, nullptr,
      [](void*) -> void* {
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
        step = 3;
        CHECK(until([] { return asked.load(); }));
        usleep(1000);  // a place to be cancelled at, were it allowed
        std::puts("not yet");
        pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, nullptr);
        pthread_testcancel();
        std::puts("not reached");
        return nullptr;
      },
      nullptr);
  CHECK(until([] { return step == 3; }));
  pthread_cancel(t);
  asked = true;
  pthread_join(t, &result);
  std::printf("cancelled %d\n", result == PTHREAD_CANCELED);
}

}  // namespace
}  // namespace battery
