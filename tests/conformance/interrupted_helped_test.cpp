// A signal handler that runs while a call waits for a lock, a child or a message, which some doors wait for in ways of their own.

#include "interrupted.hpp"

#include <fcntl.h>
#include <mqueue.h>
#include <semaphore.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
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
    {"fcntl, F_SETLKW", "fcntl",
     [](trace& t, auto m) {
       with_locked_file(t, m, "fcntl", [](int fd) {
         struct flock all {};
         all.l_type = F_WRLCK;
         return ::fcntl(fd, F_SETLKW, &all);
       });
     }},
    {"lockf", "lockf", [](trace& t, auto m) { with_locked_file(t, m, "lockf", [](int fd) { return ::lockf(fd, F_LOCK, 0); }); }},
    {"waitpid for one child", "waitpid",
     [](trace& t, auto m) { with_child(t, m, "waitpid", [](pid_t child) { return ::waitpid(child, nullptr, 0); }); }},
    {"waitpid for any child", "waitpid", [](trace& t, auto m) { with_child(t, m, "waitpid", [](pid_t) { return ::waitpid(-1, nullptr, 0); }); }},
    {"waitpid for stops", "waitpid",
     [](trace& t, auto m) { with_child(t, m, "waitpid", [](pid_t child) { return ::waitpid(child, nullptr, WUNTRACED); }); }},
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
    {"msgrcv", "msgrcv",
     [](trace& t, auto m) {
       struct {
         long kind = 1;
         char text[8] = "word";
       } message;
       const int q = ::msgget(IPC_PRIVATE, 0600);
       m(t, [&, q] { ::msgsnd(q, &message, 4, 0); });
       t.did("msgrcv", ::msgrcv(q, &message, 8, 0, 0));
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
       t.did("semop", ::semop(s, &down, 1));
       t.join();
       ::semctl(s, 0, IPC_RMID);
     }},
    {"mq_receive", "mq_receive",
     [](trace& t, auto m) {
       const std::string name = "/ringlet-" + std::to_string(::getpid());
       mq_attr how{};
       how.mq_maxmsg = 2;
       how.mq_msgsize = 16;
       char text[16];
       const mqd_t q = ::mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600, &how);
       ::mq_unlink(name.c_str());
       m(t, [q] { ::mq_send(q, "word", 4, 0); });
       t.did("mq_receive", ::mq_receive(q, text, sizeof text, nullptr));
       t.join();
       ::mq_close(q);
     }},
};

}  // namespace

CONFORMANCE_EACH_ON_MAIN("signals: {0}: one without SA_RESTART", "sigaction", calls)(trace& t, const interrupted& call) {
  by_a_signal_first(t, 0, call.run);
};
CONFORMANCE_EACH_ON_MAIN("signals: {0}: one with SA_RESTART", "sigaction", calls)(trace& t, const interrupted& call) {
  by_a_signal_first(t, SA_RESTART, call.run);
};
