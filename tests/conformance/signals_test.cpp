// Handlers and the waits they end, and what sigaction and its kin answer while ours is the handler that the kernel knows.

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <string_view>
#include <thread>
#include <vector>

#include "conformance.hpp"
#include "one_signal.hpp"

using namespace conformance;

extern "C" int __sigaction(int, const struct sigaction*, struct sigaction*) noexcept;
extern "C" sighandler_t bsd_signal(int, sighandler_t) noexcept;

namespace {

volatile sig_atomic_t last_code;
void count_info(int, siginfo_t* info, void*) {
  handled = handled + 1;
  last_code = info->si_code;
}

void receive_timeout(int fd, int seconds) {
  timeval v{seconds, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &v, sizeof v);
}

struct waiting_call {
  const char* name;
  std::function<ssize_t(int fd)> call;
};
const std::vector<waiting_call>& waiting_calls() {
  static char c[8];
  static const std::vector<waiting_call> all = {
      {"read", [](int fd) { return ::read(fd, c, 1); }},
      {"recv", [](int fd) { return ::recv(fd, c, 1, 0); }},
      {"recv, MSG_WAITALL", [](int fd) { return ::recv(fd, c, 5, MSG_WAITALL); }},
      {"recvmsg",
       [](int fd) {
         iovec part{c, 1};
         msghdr m{};
         m.msg_iov = &part;
         m.msg_iovlen = 1;
         return ::recvmsg(fd, &m, 0);
       }},
      {"poll",
       [](int fd) -> ssize_t {
         pollfd p{fd, POLLIN, 0};
         return ::poll(&p, 1, 100000);
       }},
      {"select",
       [](int fd) -> ssize_t {
         fd_set in;
         FD_ZERO(&in);
         FD_SET(fd, &in);
         return ::select(fd + 1, &in, nullptr, nullptr, nullptr);
       }},
      {"epoll_wait",
       [](int fd) -> ssize_t {
         const int ep = ::epoll_create1(EPOLL_CLOEXEC);
         epoll_event e{};
         e.events = EPOLLIN;
         ::epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
         const int answer = ::epoll_wait(ep, &e, 1, 100000), error = errno;
         ::close(ep);
         errno = error;
         return answer;
       }},
      {"nanosleep",
       [](int) -> ssize_t {
         const timespec wanted{100, 0};
         return ::nanosleep(&wanted, nullptr);
       }},
      {"usleep", [](int) -> ssize_t { return ::usleep(100000000); }},
  };
  return all;
}

void answers(trace& t, const char* what, const struct sigaction& a) {
  t.saw(what, 0);
  t.saw("default", a.sa_handler == SIG_DFL);
  t.saw("ignored", a.sa_handler == SIG_IGN);
  t.saw("count", a.sa_handler == count);
  t.saw("count_info", a.sa_sigaction == count_info);
  t.saw("flags", long(unsigned(a.sa_flags) & ~0x04000000u));  // SA_RESTORER is libc's
  t.saw("SIGHUP in the mask", ::sigismember(&a.sa_mask, SIGHUP));
}

}  // namespace

CONFORMANCE_ON_MAIN("signals: one that another flow sends once ends the wait with EINTR", "read recv recvmsg poll select epoll_wait nanosleep usleep sigaction") {
  for (const waiting_call& each : waiting_calls()) {
    auto s = t.stream();
    handler on(0);
    signal_me_meanwhile(t);
    t.did(each.name, each.call(s.a));
    t.saw("handled", handled);
    t.join();
  }
}

CONFORMANCE_ON_MAIN("signals: SA_RESTART lets calls go on that may, and no others", "read recv recvmsg poll select epoll_wait nanosleep usleep sigaction") {
  for (const waiting_call& each : waiting_calls()) {
    auto s = t.stream();
    handler on(SA_RESTART);
    handler another(0, SIGUSR1);  // whose flags are its own
    // Those that end all the same get no data: which of the two the kernel sees first would be a race.
    const bool goes_on = std::string_view(each.name).substr(0, 2) == "re";
    signal_me_meanwhile(t, [b = s.b, goes_on] {
      if (goes_on) ::send(b, "hello", 5, 0);
    });
    t.did(each.name, each.call(s.a));
    t.join();
    t.saw("handled", handled);
  }
}

CONFORMANCE_ON_MAIN("signals: a receive with SO_RCVTIMEO is not restarted", "recv setsockopt sigaction") {
  auto s = t.stream();
  receive_timeout(s.a, 100);
  handler on(SA_RESTART);
  signal_me_meanwhile(t);
  char c;
  t.did("recv", ::recv(s.a, &c, 1, 0));
  t.join();
}

CONFORMANCE_ON_MAIN("signals: accept ends with EINTR, or goes on", "accept sigaction") {
  unsigned short port;
  const int listener = t.listening(&port);
  {
    handler on(0);
    signal_me_meanwhile(t);
    t.did("accept", ::accept(listener, nullptr, nullptr));
    t.join();
  }
  handler on(SA_RESTART);
  signal_me_meanwhile(t, [&] {
    const int fd = t.own(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to);
  });
  const int got = ::accept(listener, nullptr, nullptr);
  t.saw("accepted", got >= 0);
  t.own(got);
  t.join();
  t.saw("handled", handled);
}

CONFORMANCE_ON_MAIN("signals: one before the call ends nothing", "read") {
  auto s = t.stream();
  handler on(0);
  ::raise(SIGUSR2);
  t.saw("handled", handled);
  t.meanwhile([b = s.b] { ::send(b, "x", 1, 0); });
  char c;
  t.did("read", ::read(s.a, &c, 1));
  t.join();
}

CONFORMANCE_ON_MAIN("signals: an ignored one ends nothing", "read signal") {
  auto s = t.stream();
  const auto before = ::signal(SIGUSR2, SIG_IGN);
  signal_me_meanwhile(t, [b = s.b] { ::send(b, "x", 1, 0); });
  char c;
  t.did("read", ::read(s.a, &c, 1));
  t.join();
  ::signal(SIGUSR2, before);
}

CONFORMANCE("sigaction: answers what the program installed, not what we did", "sigaction") {
  struct sigaction first {}, second {}, was {};
  struct sigaction original {};
  ::sigaction(SIGUSR1, nullptr, &original);
  first.sa_handler = count;
  first.sa_flags = SA_NODEFER;
  ::sigemptyset(&first.sa_mask);
  ::sigaddset(&first.sa_mask, SIGHUP);
  second.sa_sigaction = count_info;
  second.sa_flags = SA_SIGINFO | SA_RESTART;
  t.did("install", ::sigaction(SIGUSR1, &first, &was));
  t.did("ask", ::sigaction(SIGUSR1, nullptr, &was));
  answers(t, "asked", was);
  t.did("another", ::sigaction(SIGUSR1, &second, &was));
  answers(t, "before it", was);
  handled = 0;
  last_code = 0;
  ::pthread_kill(::pthread_self(), SIGUSR1);
  t.saw("handled", handled);
  t.saw("by tgkill", last_code == SI_TKILL);
  was = second;
  struct sigaction* const both = &was;
  t.did("the same place for both", ::sigaction(SIGUSR1, both, static_cast<struct sigaction*>(nowhere()) ? nullptr : both));
  answers(t, "itself", was);
  second.sa_handler = SIG_IGN;
  second.sa_flags = 0;
  t.did("ignore", ::sigaction(SIGUSR1, &second, &was));
  answers(t, "before that", was);
  t.did("ask again", ::sigaction(SIGUSR1, nullptr, &was));
  answers(t, "ignored", was);
  ::sigaction(SIGUSR1, &original, nullptr);
}

CONFORMANCE("sigaction: SA_RESETHAND handles once", "sigaction") {
  struct sigaction once {}, was {}, original {};
  once.sa_handler = count;
  once.sa_flags = int(SA_RESETHAND);
  ::sigaction(SIGUSR1, &once, &original);
  handled = 0;
  ::pthread_kill(::pthread_self(), SIGUSR1);
  t.saw("handled", handled);
  ::sigaction(SIGUSR1, nullptr, &was);
  answers(t, "afterwards", was);
  ::sigaction(SIGUSR1, &original, nullptr);
}

CONFORMANCE("sigaction: what the kernel refuses", "sigaction signal") {
  struct sigaction a {};
  a.sa_handler = count;
  for (int number : {0, -1, 65, 1000, SIGKILL, SIGSTOP, 32, 33}) {
    t.did("sigaction", ::sigaction(number, &a, nullptr));
    t.saw("signal", ::signal(number, count) == SIG_ERR);
  }
  t.did("ask for SIGKILL's", ::sigaction(SIGKILL, nullptr, &a));
}

CONFORMANCE("signal: answers the handler before; sysv_signal's handles once", "signal sysv_signal") {
  struct sigaction original {}, was {};
  ::sigaction(SIGUSR1, nullptr, &original);
  t.saw("first", ::signal(SIGUSR1, count) == original.sa_handler);
  t.saw("again", ::signal(SIGUSR1, SIG_IGN) == count);
  t.saw("then", ::signal(SIGUSR1, count) == SIG_IGN);
  ::sigaction(SIGUSR1, nullptr, &was);
  answers(t, "signal", was);
  t.saw("sysv", ::sysv_signal(SIGUSR1, count) == count);
  ::sigaction(SIGUSR1, nullptr, &was);
  answers(t, "sysv_signal", was);
  handled = 0;
  ::pthread_kill(::pthread_self(), SIGUSR1);
  t.saw("handled", handled);
  t.saw("reset", ::signal(SIGUSR1, SIG_IGN) == SIG_DFL);
  ::sigaction(SIGUSR1, &original, nullptr);
}

CONFORMANCE("signal: its other names do the same", "__sigaction bsd_signal ssignal __sysv_signal") {
  struct sigaction original {}, was {}, wanted {};
  ::sigaction(SIGUSR1, nullptr, &original);
  ::signal(SIGUSR1, SIG_DFL);
  t.saw("bsd_signal", ::bsd_signal(SIGUSR1, count) == SIG_DFL);
  t.saw("ssignal", ::ssignal(SIGUSR1, count) == count);
  t.saw("__sysv_signal", ::__sysv_signal(SIGUSR1, count) == count);
  t.did("__sigaction", ::__sigaction(SIGUSR1, nullptr, &was));
  answers(t, "after __sysv_signal", was);
  wanted.sa_handler = count;
  t.did("__sigaction", ::__sigaction(SIGUSR1, &wanted, &was));
  answers(t, "before it", was);
  ::sigaction(SIGUSR1, &original, nullptr);
}

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
CONFORMANCE("sigset: holds, and answers that it did", "sigset") {
  struct sigaction original {};
  ::sigaction(SIGUSR1, nullptr, &original);
  ::signal(SIGUSR1, SIG_DFL);
  t.saw("first", ::sigset(SIGUSR1, count) == SIG_DFL);
  t.saw("again", ::sigset(SIGUSR1, count) == count);
  handled = 0;
  t.saw("hold", ::sigset(SIGUSR1, SIG_HOLD) == count);
  ::pthread_kill(::pthread_self(), SIGUSR1);
  t.saw("held", handled);
  t.saw("let in", ::sigset(SIGUSR1, count) == SIG_HOLD);
  t.saw("handled", handled);
  ::sigaction(SIGUSR1, &original, nullptr);
}

CONFORMANCE_ON_MAIN("siginterrupt: changes whether calls go on", "siginterrupt signal read") {
  auto s = t.stream();
  char c;
  const auto before = ::signal(SIGUSR2, count);
  t.did("interrupts", ::siginterrupt(SIGUSR2, 1));
  signal_me_meanwhile(t);
  t.did("read", ::read(s.a, &c, 1));
  t.join();
  t.did("restarts", ::siginterrupt(SIGUSR2, 0));
  signal_me_meanwhile(t, [b = s.b] { ::send(b, "x", 1, 0); });
  t.did("read", ::read(s.a, &c, 1));
  t.join();
  ::signal(SIGUSR2, before);
}
