// Where a handler runs, and where it goes from there.

#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>

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

#ifdef __x86_64__
// Some sandboxes answer calls by SIGSYS. A thread's recv sets no MSG_DONTWAIT, so bare nothing is trapped; what makes threads
// may ask so first, and is in the middle of something while the handler runs.
volatile unsigned long others_work = 0;
volatile bool others_ran = false;

long real_call(long number, long a, long b, long c) {
  long result;
  asm volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}
void answer_recv(int, siginfo_t*, void* machine) {
  auto& registers = static_cast<ucontext_t*>(machine)->uc_mcontext.gregs;
  const unsigned long before = others_work;
  const auto end = std::chrono::steady_clock::now() + 60ms;  // so long that another would have its turn
  while (std::chrono::steady_clock::now() < end) {
  }
  if (others_work != before) others_ran = true;
  iovec part{reinterpret_cast<void*>(registers[REG_RSI]), std::size_t(registers[REG_RDX])};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  registers[REG_RAX] = real_call(SYS_recvmsg, registers[REG_RDI], long(&message), registers[REG_R10]);
}

CASE(calls_answered_by_sigsys) {
  constexpr unsigned flags_argument = offsetof(seccomp_data, args) + 3 * sizeof(std::uint64_t);
  sock_filter lines[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_recvfrom, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, flags_argument),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MSG_DONTWAIT, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{std::size(lines), lines};
  struct sigaction how {};
  how.sa_sigaction = &answer_recv;
  how.sa_flags = SA_SIGINFO;
  CHECK(sigaction(SIGSYS, &how, nullptr) == 0);
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  CHECK(write(ends[1], "abcde", 5) == 5);
  std::atomic<bool> over{false};
  std::thread works([&] {
    while (!over) others_work = others_work + 1;
  });
  CHECK(until([] { return others_work > 0; }));
  for (int i = 0; i < 5; ++i) {
    char c = 0;
    const ssize_t got = recv(ends[0], &c, 1, 0);
    std::printf("%zd %c\n", got, c);
  }
  over = true;
  works.join();
  std::printf("others had a turn within the call: %d\n", others_ran);
  close(ends[0]);
  close(ends[1]);
}
#endif

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
