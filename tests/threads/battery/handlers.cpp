// Where a handler runs, and where it goes from there.

#include <dlfcn.h>
#include <setjmp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <ucontext.h>

#include <cstdlib>

#include "battery.hpp"

namespace battery {
namespace {

sigjmp_buf out_of_it;

// B waits for a byte that D takes as soon as it is there, and D signals B then: B is neither asleep nor done. Who gets
// the byte is open, but B ends in any case.
CASE(signal_in_the_midst_of_a_call) {
  static int contested[2], start[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, contested) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, start) == 0);
  install(SIGUSR1, count_signal);
  int lost = 0, ended = 0;
  for (int round = 0; round < 100 && lost == 0; ++round) {
    std::atomic<bool> done{false};
    std::atomic<pid_t> b_waits{0}, d_waits{0};
    std::thread b([&] {
      char byte;
      b_waits = gettid();
      ended += recv(contested[0], &byte, 1, 0) == 1 || errno == EINTR;
      done = true;
    });
    std::thread d([&] {
      char byte;
      d_waits = gettid();
      CHECK(recv(start[0], &byte, 1, 0) == 1);
      if (recv(contested[0], &byte, 1, MSG_DONTWAIT) == 1) CHECK(pthread_kill(b.native_handle(), SIGUSR1) == 0);
    });
    CHECK(until([&] { return b_waits && d_waits && asleep(b_waits) && asleep(d_waits); }));
    CHECK(write(start[1], "s", 1) == 1);
    CHECK(write(contested[1], "b", 1) == 1);
    d.join();
    if (!until([&] { return done.load(); })) {
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
  std::atomic<pid_t> waits{0};
  std::thread t([&] {
    int ends[2];
    CHECK(pipe(ends) == 0);
    char byte;
    waits = gettid();
    CHECK(read(ends[0], &byte, 1) == -1 && errno == EINTR);
    Dl_info where{}, libc{};
    CHECK(dladdr(place_seen, &where) && dladdr(reinterpret_cast<void*>(&getpid), &libc));
    std::printf("in libc: %d\n", where.dli_fbase == libc.dli_fbase);
  });
  CHECK(until([&] { return waits && asleep(waits); }));
  CHECK(pthread_kill(t.native_handle(), SIGUSR1) == 0);
  t.join();
}

CASE(siglongjmp_out_of_a_wait) {
  install(SIGALRM, [](int) { siglongjmp(out_of_it, 1); });
  // Only main may take it: the place to jump to is on main's stack.
  sigset_t alarms;
  sigemptyset(&alarms);
  sigaddset(&alarms, SIGALRM);
  CHECK(pthread_sigmask(SIG_BLOCK, &alarms, nullptr) == 0);
  static const pid_t chief = gettid();
  static std::atomic<int> waits{0};
  std::thread t([] {
    for (int round = 1; round <= 3; ++round) {
      CHECK(until([round] { return waits == round && asleep(chief); }));
      const itimerval once{{0, 0}, {0, 10000}};
      setitimer(ITIMER_REAL, &once, nullptr);
    }
  });
  CHECK(pthread_sigmask(SIG_UNBLOCK, &alarms, nullptr) == 0);
  int ends[2];
  CHECK(pipe(ends) == 0);
  for (volatile int round = 0; round < 3; round = round + 1) {
    if (sigsetjmp(out_of_it, 1) == 0) {
      char c;
      waits = round + 1;
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
      usleep(1000);  // it can wait afterwards
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
    usleep(1000);  // it stays this thread's over a wait
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

}  // namespace
}  // namespace battery
