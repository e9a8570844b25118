// A signal handler that runs while a call waits for a lock, a child or a message, which some doors wait for in ways of
// their own.

#include "interrupted.hpp"
#include "kinds.hpp"

#include <fcntl.h>
#include <mqueue.h>
#include <semaphore.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

namespace {

using namespace conformance;

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

template <class Wait>
void with_semaphore(trace& t, meanwhile_function meanwhile, const char* what, Wait wait) {
  sem_t s;
  ::sem_init(&s, 0, 0);
  meanwhile(t, [&] { ::sem_post(&s); });
  t.did(what, wait(&s));
  t.join();
  ::sem_destroy(&s);
}
template <int command>
int lock_all(int fd) {
  struct flock all {};
  all.l_type = F_WRLCK;
  return ::fcntl(fd, command, &all);
}
template <class Lock>
void with_locked_file(trace& t, meanwhile_function meanwhile, const char* what, Lock lock) {
  temporary_file file;
  child_holding child([&] { lock(::open(file.path, O_RDWR | O_CLOEXEC)); });
  meanwhile(t, [&] { child.let_go(); });
  t.did(what, lock(file.fd));
  t.join();
}
template <class Wait>
void with_child(trace& t, meanwhile_function meanwhile, const char* what, Wait wait) {
  child_holding child([] {});
  meanwhile(t, [&] { child.let_go(); });
  const pid_t got = wait(child.pid);
  const int error = errno;
  t.saw(what, got < 0 ? -error : got == child.pid);
  t.join();
}

char some[1 << 16];
void fill(int pipe) {
  set_nonblocking(pipe);
  while (::write(pipe, some, sizeof some) > 0) {
  }
  set_blocking(pipe);
}

constexpr struct {
  long kind = 1;
  char text[8] = "word";
} a_message;
ssize_t send_message(int q) { return ::msgsnd(q, &a_message, 4, 0); }
ssize_t receive_message(int q) {
  auto got = a_message;
  return ::msgrcv(q, &got, sizeof got.text, 0, 0);
}
void with_message_queue(trace& t, meanwhile_function meanwhile, const char* what, ssize_t (*other)(int), ssize_t (*call)(int)) {
  const int q = ::msgget(IPC_PRIVATE, 0600);
  meanwhile(t, [q, other] { other(q); });
  t.did(what, call(q));
  t.join();
  ::msgctl(q, IPC_RMID, nullptr);
}
template <class Down>
void with_set(trace& t, meanwhile_function meanwhile, const char* what, Down down) {
  const int s = ::semget(IPC_PRIVATE, 1, 0600);
  meanwhile(t, [s] {
    sembuf up{0, 1, 0};
    ::semop(s, &up, 1);
  });
  sembuf one{0, -1, 0};
  t.did(what, down(s, &one));
  t.join();
  ::semctl(s, 0, IPC_RMID);
}
// Full with two messages.
void with_posix_queue(trace& t, meanwhile_function meanwhile, const char* what, int messages, ssize_t (*call)(mqd_t)) {
  const std::string name = "/ringlet-" + std::to_string(::getpid());
  mq_attr how{};
  how.mq_maxmsg = 2;
  how.mq_msgsize = 16;
  const mqd_t q = ::mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600, &how);
  ::mq_unlink(name.c_str());
  for (int i = 0; i < messages; ++i) ::mq_send(q, "word", 4, 0);
  meanwhile(t, [q, messages] {
    char text[16];
    if (messages == 0)
      ::mq_send(q, "word", 4, 0);
    else
      ::mq_receive(q, text, sizeof text, nullptr);
  });
  t.did(what, call(q));
  t.join();
  ::mq_close(q);
}

constexpr interrupted calls[] = {
    {"sem_wait", "sem_wait sem_post", [](trace& t, auto m) { with_semaphore(t, m, "sem_wait", [](sem_t* s) { return ::sem_wait(s); }); }},
    {"sem_timedwait", "sem_timedwait sem_post",
     [](trace& t, auto m) {
       with_semaphore(t, m, "sem_timedwait", [](sem_t* s) {
         const timespec later = far_away(CLOCK_REALTIME);
         return ::sem_timedwait(s, &later);
       });
     }},
    {"sem_clockwait", "sem_clockwait sem_post",
     [](trace& t, auto m) {
       with_semaphore(t, m, "sem_clockwait", [](sem_t* s) {
         const timespec later = far_away(CLOCK_MONOTONIC);
         return ::sem_clockwait(s, CLOCK_MONOTONIC, &later);
       });
     }},
    {"flock", "flock", [](trace& t, auto m) { with_locked_file(t, m, "flock", [](int fd) { return ::flock(fd, LOCK_EX); }); }},
    {"fcntl, F_SETLKW", "fcntl", [](trace& t, auto m) { with_locked_file(t, m, "fcntl", lock_all<F_SETLKW>); }},
    {"fcntl, F_OFD_SETLKW", "fcntl", [](trace& t, auto m) { with_locked_file(t, m, "fcntl", lock_all<F_OFD_SETLKW>); }},
    {"lockf", "lockf", [](trace& t, auto m) { with_locked_file(t, m, "lockf", [](int fd) { return ::lockf(fd, F_LOCK, 0); }); }},
    {"waitpid for one child", "waitpid",
     [](trace& t, auto m) { with_child(t, m, "waitpid", [](pid_t child) { return ::waitpid(child, nullptr, 0); }); }},
    {"waitpid for any child", "waitpid", [](trace& t, auto m) { with_child(t, m, "waitpid", [](pid_t) { return ::waitpid(-1, nullptr, 0); }); }},
    {"waitpid for stops", "waitpid",
     [](trace& t, auto m) { with_child(t, m, "waitpid", [](pid_t child) { return ::waitpid(child, nullptr, WUNTRACED); }); }},
    {"waitid for any child", "waitid",
     [](trace& t, auto m) {
       with_child(t, m, "waitid", [](pid_t) {
         siginfo_t found{};
         return ::waitid(P_ALL, 0, &found, WEXITED | WNOWAIT) == 0 ? found.si_pid : -1;
       });
     }},
    {"waitid for one child", "waitid",
     [](trace& t, auto m) {
       with_child(t, m, "waitid", [](pid_t child) {
         siginfo_t found{};
         return ::waitid(P_PID, id_t(child), &found, WEXITED | WNOWAIT) == 0 ? found.si_pid : -1;
       });
     }},
    {"splice from a pipe", "splice",
     [](trace& t, auto m) {
       auto p = t.pipe(), q = t.pipe();
       m(t, [b = p.b] { (void)!::write(b, "x", 1); });
       t.did("splice", ::splice(p.a, nullptr, q.b, nullptr, 10, 0));
     }},
    {"splice to a full pipe", "splice",
     [](trace& t, auto m) {
       auto p = t.pipe(), q = t.pipe();
       (void)!::write(p.b, "x", 1);
       fill(q.b);
       m(t, [a = q.a] { (void)!::read(a, some, sizeof some); });
       t.did("splice", ::splice(p.a, nullptr, q.b, nullptr, 10, 0));
     }},
    {"sendfile to a full pipe", "sendfile",
     [](trace& t, auto m) {
       auto q = t.pipe();
       temporary_file file;
       (void)!::write(file.fd, "x", 1);
       fill(q.b);
       off_t from = 0;
       m(t, [a = q.a] { (void)!::read(a, some, sizeof some); });
       t.did("sendfile", ::sendfile(q.b, file.fd, &from, 1));
     }},
    {"msgrcv", "msgrcv msgsnd",
     [](trace& t, auto m) {
       with_message_queue(t, m, "msgrcv", send_message, receive_message);
     }},
    {"msgsnd to a full queue", "msgsnd msgrcv",
     [](trace& t, auto m) {
       with_message_queue(t, m, "msgsnd", receive_message, [](int q) {
         while (::msgsnd(q, &a_message, sizeof a_message.text, IPC_NOWAIT) == 0) {
         }
         return send_message(q);
       });
     }},
    {"semop", "semop",
     [](trace& t, auto m) {
       with_set(t, m, "semop", [](int s, sembuf* down) { return ::semop(s, down, 1); });
     }},
    {"semtimedop", "semtimedop semop",
     [](trace& t, auto m) {
       with_set(t, m, "semtimedop", [](int s, sembuf* down) {
         const timespec later{100, 0};
         return ::semtimedop(s, down, 1, &later);
       });
     }},
    {"mq_receive", "mq_receive mq_send",
     [](trace& t, auto m) {
       with_posix_queue(t, m, "mq_receive", 0, [](mqd_t q) { return ::mq_receive(q, some, sizeof some, nullptr); });
     }},
    {"mq_timedreceive", "mq_timedreceive mq_send",
     [](trace& t, auto m) {
       with_posix_queue(t, m, "mq_timedreceive", 0, [](mqd_t q) {
         const timespec later = far_away(CLOCK_REALTIME);
         return ::mq_timedreceive(q, some, sizeof some, nullptr, &later);
       });
     }},
    {"mq_send to a full queue", "mq_send mq_receive",
     [](trace& t, auto m) {
       with_posix_queue(t, m, "mq_send", 2, [](mqd_t q) { return ssize_t(::mq_send(q, "word", 4, 0)); });
     }},
    {"mq_timedsend to a full queue", "mq_timedsend mq_receive",
     [](trace& t, auto m) {
       with_posix_queue(t, m, "mq_timedsend", 2, [](mqd_t q) {
         const timespec later = far_away(CLOCK_REALTIME);
         return ssize_t(::mq_timedsend(q, "word", 4, 0, &later));
       });
     }},
};

}  // namespace

CONFORMANCE_EACH_ON_MAIN("signals: {0}: one without SA_RESTART", "sigaction", calls)(trace& t, const interrupted& call) {
  by_a_signal_first(t, 0, call.run);
};
CONFORMANCE_EACH_ON_MAIN("signals: {0}: one with SA_RESTART", "sigaction", calls)(trace& t, const interrupted& call) {
  by_a_signal_first(t, SA_RESTART, call.run);
};
