// A signal handler that runs while a call waits: which calls end with EINTR, which go on under SA_RESTART (signal(7)).

#include "interrupted.hpp"
#include "kinds.hpp"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/timerfd.h>
#include <threads.h>

#include <string_view>

namespace {

using namespace conformance;

char buffer[64];

template <class Call>
void with_pipe(trace& t, meanwhile_function meanwhile, const char* what, Call call) {
  auto p = t.pipe();
  meanwhile(t, [b = p.b] { (void)!::write(b, "x", 1); });
  t.did(what, call(p.a));
}
template <class Call>
void with_full(trace& t, meanwhile_function meanwhile, const char* what, Call call) {
  auto s = t.stream();
  set_nonblocking(s.b);
  while (::send(s.b, buffer, sizeof buffer, 0) > 0) {
  }
  set_blocking(s.b);
  meanwhile(t, [a = s.a] {
    set_nonblocking(a);
    while (::read(a, buffer, sizeof buffer) > 0) {
    }
  });
  t.did(what, call(s.b));
}
constexpr interrupted parked_calls[] = {
    {"readv", "readv", [](trace& t, auto m) { with_pipe(t, m, "readv", [](int fd) { return readings[1].call(fd, buffer, 8); }); }},
    {"write to a full socket", "write", [](trace& t, auto m) { with_full(t, m, "write", [](int fd) { return ::write(fd, "xy", 2); }); }},
    {"writev to a full socket", "writev", [](trace& t, auto m) { with_full(t, m, "writev", [](int fd) { return writings[1].call(fd, "xy", 2); }); }},
    {"send to a full socket", "send", [](trace& t, auto m) { with_full(t, m, "send", [](int fd) { return ::send(fd, "xy", 2, 0); }); }},
    {"sendmsg to a full socket", "sendmsg", [](trace& t, auto m) { with_full(t, m, "sendmsg", [](int fd) { return writings[4].call(fd, "xy", 2); }); }},
    {"sendmmsg to a full socket", "sendmmsg", [](trace& t, auto m) { with_full(t, m, "sendmmsg", [](int fd) { return writings[5].call(fd, "xy", 2); }); }},
    {"send with SO_SNDTIMEO", "send setsockopt",
     [](trace& t, auto m) {
       with_full(t, m, "send", [](int fd) {
         set_time_limit(fd, SO_SNDTIMEO, 5000);
         return ::send(fd, "xy", 2, 0);
       });
     }},
    {"recvfrom", "recvfrom",
     [](trace& t, auto m) {
       auto s = t.stream();
       m(t, [b = s.b] { ::send(b, "x", 1, 0); });
       t.did("recvfrom", readings[3].call(s.a, buffer, 8));
     }},
    {"recvmmsg", "recvmmsg",
     [](trace& t, auto m) {
       auto s = t.stream();
       m(t, [b = s.b] { ::send(b, "x", 1, 0); });
       t.did("recvmmsg", readings[5].call(s.a, buffer, 8));
     }},
    {"accept4", "accept4",
     [](trace& t, auto m) {
       unsigned short port;
       const int door = t.listening(&port);
       const int c = t.own(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
       address at = name_of(door);
       m(t, [c, at]() mutable { ::connect(c, at.plain(), at.size); });
       const int fd = ::accept4(door, nullptr, nullptr, SOCK_CLOEXEC), error = errno;
       t.saw("accept4", fd < 0 ? -error : 0);
       t.own(fd);
     }},
    {"connect to a full unix listener", "connect",
     [](trace& t, auto m) {
       const int door = t.own(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
       const sa_family_t only = AF_UNIX;
       ::bind(door, reinterpret_cast<const sockaddr*>(&only), sizeof only);
       ::listen(door, 0);
       address at = name_of(door);
       const int first = t.own(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), c = t.own(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
       ::connect(first, at.plain(), at.size);
       m(t, [door] { ::close(::accept(door, nullptr, nullptr)); });
       t.did("connect", ::connect(c, at.plain(), at.size));
     }},
    {"open of a FIFO", "open",
     [](trace& t, auto m) {
       fifo_path at;
       int other = -1;
       m(t, [&] { other = ::open(at, O_WRONLY | O_CLOEXEC); });
       const int fd = ::open(at, O_RDONLY | O_CLOEXEC), error = errno;
       t.join();
       t.saw("open", fd < 0 ? -error : 0);
       t.own(fd);
       t.own(other);
     }},
    {"read of an eventfd", "read",
     [](trace& t, auto m) {
       const int e = t.own(::eventfd(0, EFD_CLOEXEC));
       m(t, [e] { ::eventfd_write(e, 3); });
       t.did("read", ::read(e, buffer, 8));
     }},
    {"read of a timerfd", "read",
     [](trace& t, auto m) {
       const int f = t.own(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
       m(t, [f] {
         itimerspec soon{};
         soon.it_value.tv_nsec = 1;
         ::timerfd_settime(f, 0, &soon, nullptr);
       });
       t.did("read", ::read(f, buffer, 8));
     }},
    {"read of a terminal", "read",
     [](trace& t, auto m) {
       auto f = terminal(t);
       m(t, [b = f.b] { (void)!::write(b, "x", 1); });
       t.did("read", ::read(f.a, buffer, 8));
     }},
    {"ppoll", "ppoll",
     [](trace& t, auto m) {
       with_pipe(t, m, "ppoll", [](int fd) {
         pollfd p{fd, POLLIN, 0};
         return ::ppoll(&p, 1, nullptr, nullptr);
       });
     }},
    {"pselect", "pselect",
     [](trace& t, auto m) {
       with_pipe(t, m, "pselect", [](int fd) {
         fd_set in;
         FD_ZERO(&in);
         FD_SET(fd, &in);
         return ::pselect(fd + 1, &in, nullptr, nullptr, nullptr, nullptr);
       });
     }},
    {"epoll_pwait", "epoll_pwait",
     [](trace& t, auto m) {
       with_pipe(t, m, "epoll_pwait", [](int fd) {
         const int e = ::epoll_create1(EPOLL_CLOEXEC);
         epoll_event event{};
         event.events = EPOLLIN;
         ::epoll_ctl(e, EPOLL_CTL_ADD, fd, &event);
         const int n = ::epoll_pwait(e, &event, 1, 100000, nullptr), error = errno;
         ::close(e);
         errno = error;
         return n;
       });
     }},
    {"clock_nanosleep to a moment", "clock_nanosleep",
     [](trace& t, auto m) {
       m(t, {});
       const timespec later = far_away(CLOCK_REALTIME);
       t.said("clock_nanosleep", ::clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &later, nullptr));
     }},
    {"thrd_sleep", "thrd_sleep",
     [](trace& t, auto m) {
       m(t, {});
       const timespec wanted{100, 0};
       timespec left{};
       t.saw("thrd_sleep", ::thrd_sleep(&wanted, &left));
       t.saw("left", left.tv_sec >= 98);
     }},
    {"pthread_cond_timedwait", "pthread_cond_timedwait pthread_cond_signal",
     [](trace& t, auto m) {
       pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
       pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
       bool told = false;
       const timespec later = far_away(CLOCK_REALTIME);
       m(t, [&] {
         ::pthread_mutex_lock(&mutex);
         told = true;
         ::pthread_cond_signal(&cond);
         ::pthread_mutex_unlock(&mutex);
       });
       ::pthread_mutex_lock(&mutex);
       int said = 0;
       while (!told && said == 0) said = ::pthread_cond_timedwait(&cond, &mutex, &later);
       t.said("pthread_cond_timedwait", said);
       ::pthread_mutex_unlock(&mutex);
       t.join();
     }},
};

void signal_and_go_on(trace& t, std::function<void()> then) { signal_me_meanwhile(t, std::move(then)); }
// Nothing but the signal: whether the call ends by it.
void only_signal(trace& t, std::function<void()>) { signal_me_meanwhile(t); }

// Ends by the signal alone, without SA_RESTART; with it, it goes on, or ends all the same.
void by_a_signal(trace& t, const interrupted& call) {
  handler on(0);
  call.run(t, std::strncmp(call.name, "pthread", 7) == 0 ? signal_and_go_on : only_signal);
  t.join();
  t.saw("handled", handled);
}
// Those that signal(7) calls never restarted get the signal alone, so that they need not be hurried.
bool is_never_restarted(std::string_view name) {
  for (std::string_view one : {"ppoll", "pselect", "epoll_pwait", "clock_nanosleep to a moment", "thrd_sleep", "send with SO_SNDTIMEO"})
    if (name == one) return true;
  return false;
}
void by_a_restarting_signal(trace& t, const interrupted& call) {
  handler on(SA_RESTART);
  call.run(t, is_never_restarted(call.name) ? only_signal : signal_and_go_on);
  t.join();
  t.saw("handled", handled);
}

}  // namespace

CONFORMANCE_EACH_ON_MAIN("signals: {0}: one without SA_RESTART", "sigaction", parked_calls)(trace& t, const interrupted& call) { by_a_signal(t, call); };
CONFORMANCE_EACH_ON_MAIN("signals: {0}: one with SA_RESTART", "sigaction", parked_calls)(trace& t, const interrupted& call) { by_a_restarting_signal(t, call); };

namespace {
int written_by_handler = -1;
void write_a_byte(int) {
  (void)!::write(written_by_handler, "x", 1);
  handled = handled + 1;
}

struct reader_of_pipe {
  const char* name;
  int (*call)(int fd);
};
constexpr reader_of_pipe readers_of_pipe[] = {
    {"read", [](int fd) { return int(::read(fd, buffer, 8)); }},
    {"poll",
     [](int fd) {
       pollfd p{fd, POLLIN, 0};
       return ::poll(&p, 1, -1);
     }},
    {"select",
     [](int fd) {
       fd_set in;
       FD_ZERO(&in);
       FD_SET(fd, &in);
       return ::select(fd + 1, &in, nullptr, nullptr, nullptr);
     }},
    {"epoll_wait",
     [](int fd) {
       const int e = ::epoll_create1(EPOLL_CLOEXEC);
       epoll_event wanted{EPOLLIN, {}}, found;
       ::epoll_ctl(e, EPOLL_CTL_ADD, fd, &wanted);
       const int result = ::epoll_wait(e, &found, 1, -1);
       const int error = errno;
       ::close(e);
       errno = error;
       return result;
     }},
};
}  // namespace

// A thread's handler runs when the call has ended already; what it does to the file, only the next call sees.
CONFORMANCE_EACH_ON_MAIN("signals: {0}: the handler makes it ready, and it ends with EINTR all the same", "{0} sigaction", readers_of_pipe)
(trace& t, const reader_of_pipe& reader) {
  auto p = t.pipe();
  written_by_handler = p.b;
  handler on(0, SIGUSR2, write_a_byte);
  signal_me_meanwhile(t);
  t.did(reader.name, reader.call(p.a));
  t.join();
  t.saw("handled", handled);
  t.did("then", reader.call(p.a));
};
