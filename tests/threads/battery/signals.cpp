// Who gets a signal, and what it ends.

#include <poll.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#include <initializer_list>

#include "battery.hpp"

namespace battery {
namespace {

// For this thread and those that it makes.
sigset_t block(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) sigaddset(&set, signal);
  CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  return set;
}

CASE(pthread_kill_runs_on_its_thread) {
  install(SIGUSR1, count_signal);
  static std::atomic<pid_t> waits{0};
  std::thread t([] {
    int ends[2];
    CHECK(pipe(ends) == 0);
    char c;
    waits = gettid();
    const ssize_t n = read(ends[0], &c, 1);
    std::printf("read %zd, EINTR %d, handled here %d\n", n, errno == EINTR, handled_here);
  });
  CHECK(until([] { return waits && asleep(waits); }));
  CHECK(pthread_kill(t.native_handle(), 0) == 0);
  CHECK(pthread_kill(t.native_handle(), SIGUSR1) == 0);
  t.join();
  raise(SIGUSR1);
  std::printf("mine %d all %d\n", handled_here, handled.load());
}

CASE(sigpipe_belongs_to_who_writes) {
  // The default is to end the process: but a thread that blocks it only has it pending.
  std::thread writes([] {
    const sigset_t set = block({SIGPIPE});
    sigset_t waiting;
    int ends[2];
    CHECK(pipe(ends) == 0);
    close(ends[0]);
    CHECK(write(ends[1], "x", 1) == -1 && errno == EPIPE);
    close(ends[1]);
    usleep(10000);  // it stays so over a wait
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
  static std::atomic<pid_t> waits{0};
  std::thread t([] {
    char c = 0;
    waits = gettid();
    const ssize_t n = read(ends[0], &c, 1);
    std::printf("read %zd '%c' handled %d\n", n, c, handled_here);
  });
  CHECK(until([] { return waits && asleep(waits); }));
  pthread_kill(t.native_handle(), SIGUSR1);
  CHECK(until([] { return handled == 1; }));
  CHECK(write(ends[1], "y", 1) == 1);
  t.join();
}

CASE(masks_are_each_threads_own) {
  install(SIGUSR1, count_signal);
  const sigset_t usr1 = block({SIGUSR1});
  static std::atomic<int> step{0};
  std::thread open_to_it([&] {
    pthread_sigmask(SIG_UNBLOCK, &usr1, nullptr);
    step = 1;
    CHECK(until([] { return handled == 1; }));
    std::printf("the open one handled %d\n", handled_here);
  });
  CHECK(until([] { return step == 1; }));
  kill(getpid(), SIGUSR1);
  open_to_it.join();
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, nullptr, &now);
  std::printf("mine %d, still blocked %d\n", handled_here, sigismember(&now, SIGUSR1));
  std::thread blocked([] {
    raise(SIGUSR1);
    sigset_t waiting;
    sigpending(&waiting);
    std::printf("pending %d handled %d\n", sigismember(&waiting, SIGUSR1), handled_here);
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, nullptr);
    std::printf("then handled %d\n", handled_here);
  });
  blocked.join();
}

CASE(sigwait_in_a_thread) {
  const sigset_t set = block({SIGUSR1, SIGUSR2, SIGRTMIN});
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
  CHECK(until([] { return seen == 1; }));
  pthread_kill(waits.native_handle(), SIGUSR2);
  CHECK(until([] { return seen == 2; }));
  kill(getpid(), SIGRTMIN);
  CHECK(until([] { return seen == 4; }));
  sigval value;
  value.sival_int = 77;
  CHECK(pthread_sigqueue(waits.native_handle(), SIGRTMIN, value) == 0);
  waits.join();
}

CASE(sigsuspend_and_ppoll) {
  install(SIGUSR1, count_signal);
  block({SIGUSR1});
  static std::atomic<int> step{0};
  std::thread t([] {
    sigset_t none;
    sigemptyset(&none);
    step = 1;
    CHECK(sigsuspend(&none) == -1 && errno == EINTR);
    std::printf("suspended, handled %d\n", handled_here);
    step = 2;
    timespec long_time{20, 0};
    CHECK(ppoll(nullptr, 0, &long_time, &none) == -1 && errno == EINTR);
    std::printf("polled, handled %d\n", handled_here);
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    std::printf("blocked again %d\n", sigismember(&now, SIGUSR1));
  });
  CHECK(until([] { return step == 1; }));
  pthread_kill(t.native_handle(), SIGUSR1);
  CHECK(until([] { return step == 2; }));
  kill(getpid(), SIGUSR1);
  t.join();
}

CASE(process_signal_while_all_wait) {
  install(SIGALRM, count_signal);
  static const pid_t chief = gettid();
  static sem_t over;
  sem_init(&over, 0, 0);
  std::thread t([] {
    CHECK(until([] { return asleep(chief); }));
    const itimerval soon_once{{0, 0}, {0, 30000}};  // by then this one waits, too
    setitimer(ITIMER_REAL, &soon_once, nullptr);
    while (sem_wait(&over) != 0) {
    }
  });
  const int slept = usleep(10'000'000);
  std::printf("slept %d EINTR %d handled in main %d\n", slept, errno == EINTR, handled_here);
  sem_post(&over);
  t.join();
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
    timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 20;
    CHECK(sem_timedwait(&done, &limit) == 0);
  }
  timer_delete(timer);
  std::puts("three times");
}

}  // namespace
}  // namespace battery
