// A signal handler that runs while a call waits: which calls end with EINTR, which go on under SA_RESTART (signal(7)).

#include "kinds.hpp"
#include "one_signal.hpp"

#include <mqueue.h>
#include <poll.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <threads.h>

#include <utility>

namespace {

using namespace conformance;

char buffer[64];

// Its call waits until the other flow, told by `go`, lets it: by what is returned then it is known whether it went on.
struct interrupted {
  const char* name;
  const char* rows;
  void (*run)(trace&, void (*meanwhile)(trace&, std::function<void()> then));
};
timespec far_away(clockid_t clock, long seconds = 100) {
  timespec now;
  ::clock_gettime(clock, &now);
  now.tv_sec += seconds;
  return now;
}
template <class Call>
void with_pipe(trace& t, void (*meanwhile)(trace&, std::function<void()>), const char* what, Call call) {
  auto p = t.pipe();
  meanwhile(t, [b = p.b] { (void)!::write(b, "x", 1); });
  t.did(what, call(p.a));
}
template <class Call>
void with_full(trace& t, void (*meanwhile)(trace&, std::function<void()>), const char* what, Call call) {
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
// A child that holds a lock, or lives, until it is told.
struct child_holding {
  int told[2];
  pid_t pid;
  template <class Take>
  explicit child_holding(Take take) {
    int ready[2];
    ::pipe(told);
    ::pipe(ready);
    pid = ::fork();
    if (pid == 0) {
      take();
      ::close(told[1]);
      (void)!::write(ready[1], "x", 1);
      char c;
      (void)!::read(told[0], &c, 1);
      ::_exit(3);
    }
    char c;
    (void)!::read(ready[0], &c, 1);
    for (int fd : {ready[0], ready[1], told[0]}) ::close(fd);
  }
  void let_go() { ::close(std::exchange(told[1], -1)); }
  ~child_holding() {
    if (told[1] >= 0) let_go();
    ::waitpid(pid, nullptr, 0);
  }
};
struct temporary_file {
  char path[32] = "/tmp/ringlet-lock.XXXXXX";
  int fd = ::mkstemp(path);
  ~temporary_file() {
    ::close(fd);
    ::unlink(path);
  }
};

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
    {"waitpid for one child", "waitpid",
     [](trace& t, auto m) {
       child_holding child([] {});
       m(t, [&] { child.let_go(); });
       int status = -1;
       const pid_t got = ::waitpid(child.pid, &status, 0);
       const int error = errno;
       t.saw("waitpid", got < 0 ? -error : got == child.pid);
       t.join();
     }},
    {"waitid for one child", "waitid",
     [](trace& t, auto m) {
       child_holding child([] {});
       m(t, [&] { child.let_go(); });
       siginfo_t found{};
       t.did("waitid", ::waitid(P_PID, id_t(child.pid), &found, WEXITED | WNOWAIT));
       t.join();
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

constexpr interrupted semaphores[] = {
    {"sem_wait", "sem_wait sem_post",
     [](trace& t, auto m) {
       sem_t s;
       ::sem_init(&s, 0, 0);
       m(t, [&] { ::sem_post(&s); });
       t.did("sem_wait", ::sem_wait(&s));
       t.join();
       ::sem_destroy(&s);
     }},
    {"sem_timedwait", "sem_timedwait sem_post",
     [](trace& t, auto m) {
       sem_t s;
       ::sem_init(&s, 0, 0);
       const timespec later = far_away(CLOCK_REALTIME);
       m(t, [&] { ::sem_post(&s); });
       t.did("sem_timedwait", ::sem_timedwait(&s, &later));
       t.join();
       ::sem_destroy(&s);
     }},
};

// The call's result, and that it is there.
std::atomic<bool> has_ended{false};
template <class Result>
Result ended(Result result) {
  const int error = errno;
  has_ended = true;
  errno = error;
  return result;
}

// What only a thread of the kernel's can wait for.
constexpr interrupted helped_calls[] = {
    {"flock", "flock",
     [](trace& t, auto m) {
       temporary_file file;
       child_holding child([&] { ::flock(::open(file.path, O_RDWR), LOCK_EX); });
       m(t, [&] { child.let_go(); });
       t.did("flock", ended(::flock(file.fd, LOCK_EX)));
       t.join();
     }},
    {"fcntl, F_SETLKW", "fcntl",
     [](trace& t, auto m) {
       temporary_file file;
       struct flock all {};
       all.l_type = F_WRLCK;
       child_holding child([&] { ::fcntl(file.fd, F_SETLK, &all); });
       m(t, [&] { child.let_go(); });
       t.did("fcntl", ended(::fcntl(file.fd, F_SETLKW, &all)));
       t.join();
     }},
    {"lockf", "lockf",
     [](trace& t, auto m) {
       temporary_file file;
       child_holding child([&] { ::lockf(file.fd, F_LOCK, 0); });
       m(t, [&] { child.let_go(); });
       t.did("lockf", ended(::lockf(file.fd, F_LOCK, 0)));
       t.join();
     }},
    {"waitpid for any child", "waitpid",
     [](trace& t, auto m) {
       child_holding child([] {});
       m(t, [&] { child.let_go(); });
       const pid_t got = ended(::waitpid(-1, nullptr, 0));
       const int error = errno;
       t.saw("waitpid", got < 0 ? -error : got == child.pid);
       t.join();
     }},
    {"waitpid for stops", "waitpid",
     [](trace& t, auto m) {
       child_holding child([] {});
       m(t, [&] { child.let_go(); });
       const pid_t got = ended(::waitpid(child.pid, nullptr, WUNTRACED));
       const int error = errno;
       t.saw("waitpid", got < 0 ? -error : got == child.pid);
       t.join();
     }},
    {"splice from a pipe", "splice",
     [](trace& t, auto m) {
       auto p = t.pipe(), q = t.pipe();
       m(t, [b = p.b] { (void)!::write(b, "x", 1); });
       t.did("splice", ended(::splice(p.a, nullptr, q.b, nullptr, 10, 0)));
     }},
    {"msgrcv", "msgrcv",
     [](trace& t, auto m) {
       struct {
         long kind = 1;
         char text[8] = "word";
       } message;
       const int q = ::msgget(IPC_PRIVATE, 0600);
       m(t, [&, q] { ::msgsnd(q, &message, 4, 0); });
       t.did("msgrcv", ended(::msgrcv(q, &message, 8, 0, 0)));
       t.join();
       ::msgctl(q, IPC_RMID, nullptr);
     }},
    {"semop", "semop",
     [](trace& t, auto m) {
       const int s = ::semget(IPC_PRIVATE, 1, 0600);
       m(t, [s] {
         sembuf up{0, 1, 0};
         ::semop(s, &up, 1);
       });
       sembuf down{0, -1, 0};
       t.did("semop", ended(::semop(s, &down, 1)));
       t.join();
       ::semctl(s, 0, IPC_RMID);
     }},
    {"mq_receive", "mq_receive",
     [](trace& t, auto m) {
       const std::string name = "/ringlet-" + std::to_string(::getpid());
       mq_attr how{};
       how.mq_maxmsg = 2;
       how.mq_msgsize = 16;
       const mqd_t q = ::mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600, &how);
       ::mq_unlink(name.c_str());
       m(t, [q] { ::mq_send(q, "word", 4, 0); });
       t.did("mq_receive", ended(::mq_receive(q, buffer, sizeof buffer, nullptr)));
       t.join();
       ::mq_close(q);
     }},
};

void plainly(trace& t, std::function<void()> then) { signal_me_meanwhile(t, std::move(then)); }
// Nothing but the signal: whether the call ends by it.
void only_signal(trace& t, std::function<void()>) { signal_me_meanwhile(t); }
// The signal first; a call that it does not end gets what it waits for a while later.
void signal_long_before(trace& t, std::function<void()> then) {
  has_ended = false;
  signal_me_meanwhile(t, [then] {
    for (int i = 0; i < 20 && !has_ended; ++i) ::usleep(5000);
    then();
  });
}
void by_a_signal_at_first(trace& t, const interrupted& call, int flags) {
  handler on(flags);
  call.run(t, signal_long_before);
  t.join();
  t.saw("handled", handled);
}

// Ends by the signal alone, without SA_RESTART; with it, it goes on, or ends all the same.
void by_a_signal(trace& t, const interrupted& call) {
  {
    handler on(0);
    call.run(t, std::strncmp(call.name, "pthread", 7) == 0 ? plainly : only_signal);
    t.join();
    t.saw("handled", handled);
  }
}
// Those that signal(7) calls never restarted get the signal alone, so that they need not be hurried.
bool is_never_restarted(std::string_view name) {
  for (std::string_view one : {"ppoll", "pselect", "epoll_pwait", "clock_nanosleep to a moment", "thrd_sleep", "send with SO_SNDTIMEO", "sem_timedwait"})
    if (name == one) return true;
  return false;
}
void by_a_restarting_signal(trace& t, const interrupted& call) {
  handler on(SA_RESTART);
  call.run(t, is_never_restarted(call.name) ? only_signal : plainly);
  t.join();
  t.saw("handled", handled);
}

constexpr const char* by_a_queue = "there a semaphore's waiters lie in a queue of ours, which no signal ends (hooks/README.md)";
constexpr const char* by_helpers = "made by a helper thread, whose signals are blocked (hooks/README.md)";

}  // namespace

CONFORMANCE_EACH_ON_MAIN("signals: {0}: one without SA_RESTART", "sigaction", parked_calls)(trace& t, const interrupted& call) { by_a_signal(t, call); };
CONFORMANCE_EACH_ON_MAIN("signals: {0}: one with SA_RESTART", "sigaction", parked_calls)(trace& t, const interrupted& call) { by_a_restarting_signal(t, call); };
CONFORMANCE_EACH_NOT_BY_SYMBOLS(by_a_queue, "signals: {0}: one without SA_RESTART", "sigaction", semaphores)(trace& t, const interrupted& call) {
  by_a_signal(t, call);
};
CONFORMANCE_EACH_NOT_BY_SYMBOLS(by_a_queue, "signals: {0}: one with SA_RESTART", "sigaction", semaphores)(trace& t, const interrupted& call) {
  by_a_restarting_signal(t, call);
};
CONFORMANCE_EACH_NOT_BY_SYMBOLS(by_helpers, "signals: {0}: one without SA_RESTART", "sigaction", helped_calls)(trace& t, const interrupted& call) {
  by_a_signal_at_first(t, call, 0);
};
CONFORMANCE_EACH_NOT_BY_SYMBOLS(by_helpers, "signals: {0}: one with SA_RESTART", "sigaction", helped_calls)(trace& t, const interrupted& call) {
  by_a_signal_at_first(t, call, SA_RESTART);
};
