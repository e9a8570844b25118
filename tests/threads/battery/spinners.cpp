// Threads that compute: none of these spins gives the processor up by itself, and all others run.

#include <semaphore.h>

#include <vector>

#include "battery.hpp"

namespace battery {
namespace {

CASE(spinners_see_what_a_sleeper_does) {
  static std::atomic<int> spin{0}, go{0}, seen{0};
  std::vector<std::thread> spinning;
  for (int i = 0; i < 4; ++i)
    spinning.emplace_back([] {
      ++spin;
      while (go.load(std::memory_order_relaxed) == 0) {
      }
      ++seen;
    });
  CHECK(until([] { return spin == 4; }));
  go = 1;
  for (auto& t : spinning) t.join();
  std::printf("seen %d\n", seen.load());
}

CASE(spin_lock_held_by_a_sleeper) {
  static pthread_spinlock_t lock;
  static int counted = 0;
  static std::atomic<int> came{0};
  CHECK(pthread_spin_init(&lock, PTHREAD_PROCESS_PRIVATE) == 0);
  CHECK(pthread_spin_lock(&lock) == 0);
  std::vector<std::thread> all;
  for (int i = 0; i < 3; ++i)
    all.emplace_back([] {
      ++came;
      for (int n = 0; n < 1000; ++n) {
        pthread_spin_lock(&lock);
        ++counted;
        pthread_spin_unlock(&lock);
      }
    });
  CHECK(until([] { return came == 3; }));
  usleep(10000);  // that the holder sleeps while they spin is the case
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
  CHECK(pthread_create(
            &t, nullptr,
            [](void*) -> void* {
              pthread_cleanup_push([](void*) { std::puts("cleaned up"); }, nullptr);
              int before;
              pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &before);
              spin();
              pthread_cleanup_pop(0);
              return nullptr;
            },
            nullptr) == 0);
  CHECK(until([] { return spins.load(); }));
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
  CHECK(until([] { return spins.load(); }));
  usleep(5000);  // that a sleep beside it ends is the case
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
  CHECK(until([] { return spins.load(); }));
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
    CHECK(until([] { return in_it.load(); }));
    usleep(5000);  // that a sleep beside it ends is the case
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
    CHECK(until([] { return in_it.load(); }));
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
  CHECK(until([] { return came >= 2; }));
  sigset_t it;
  sigemptyset(&it);
  sigaddset(&it, SIGRTMAX);
  CHECK(pthread_sigmask(SIG_BLOCK, &it, nullptr) == 0);
  raise(SIGRTMAX);
  usleep(5000);  // it stays blocked over a wait beside a spinner
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
  static std::atomic<bool> stop{false}, rest{false}, spins{false};
  static sem_t go_on;
  sem_init(&go_on, 0, 0);
  std::thread spinner([] {
    while (!stop.load(std::memory_order_relaxed)) {
      spins.store(true, std::memory_order_relaxed);
      if (rest.exchange(false, std::memory_order_relaxed))
        while (sem_wait(&go_on) != 0) {
        }
    }
  });
  CHECK(until([] { return spins.load(); }));
  CHECK(kill(getpid(), SIGRTMAX) == 0);  // before anybody waits for it
  usleep(5000);                          // it stays pending over a wait beside a spinner
  sigset_t waiting;
  CHECK(sigpending(&waiting) == 0);
  std::printf("pending %d\n", sigismember(&waiting, SIGRTMAX));
  static std::atomic<int> got{0};
  static std::atomic<pid_t> waits{0};
  std::thread waiter([] {
    sigset_t mine;
    sigemptyset(&mine);
    sigaddset(&mine, SIGRTMAX);
    waits = gettid();
    for (int i = 0; i < 2; ++i) {
      int which = 0;
      CHECK(sigwait(&mine, &which) == 0 && which == SIGRTMAX);
      ++got;
    }
  });
  rest = true;  // beside one who computes nobody can tell who is asleep
  CHECK(until([] { return got == 1 && asleep(waits); }));
  spins = false;
  sem_post(&go_on);
  CHECK(until([] { return spins.load(); }));
  CHECK(kill(getpid(), SIGRTMAX) == 0);  // while one does
  waiter.join();
  stop = true;
  spinner.join();
  std::printf("got %d\n", got.load());
}

}  // namespace
}  // namespace battery
