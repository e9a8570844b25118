// The other names of the rows: 64-bit ones, libc's own, and what the compiler calls under _FORTIFY_SOURCE. That they are
// the same function as their row's is shown by a wait that parks.

#include "conformance.hpp"

#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
ssize_t __read(int, void*, size_t);
ssize_t __write(int, const void*, size_t);
ssize_t __recv(int, void*, size_t, int);
ssize_t __send(int, const void*, size_t, int);
int __connect(int, const sockaddr*, socklen_t);
int __sendmmsg(int, mmsghdr*, unsigned, int);
ssize_t __pread64(int, void*, size_t, off_t);
ssize_t __pwrite64(int, const void*, size_t, off_t);
int __nanosleep(const timespec*, timespec*);
int __poll(pollfd*, nfds_t, int);
int __select(int, fd_set*, fd_set*, fd_set*, timeval*);
int __open(const char*, int, ...);
int __open64(const char*, int, ...);
int __socket(int, int, int);
int __pipe(int*);
int __dup2(int, int);
int __close(int);
int __fcntl(int, int, ...);
pid_t __waitpid(pid_t, int*, int);
pid_t __wait(int*);
pid_t __vfork();
int __pthread_mutex_lock(pthread_mutex_t*);
int __pthread_mutex_trylock(pthread_mutex_t*);
int __pthread_mutex_unlock(pthread_mutex_t*);
int __pthread_rwlock_rdlock(pthread_rwlock_t*);
int __pthread_rwlock_wrlock(pthread_rwlock_t*);
int __pthread_rwlock_trywrlock(pthread_rwlock_t*);
int __pthread_rwlock_unlock(pthread_rwlock_t*);
ssize_t __read_chk(int, void*, size_t, size_t);
ssize_t __recv_chk(int, void*, size_t, size_t, int);
ssize_t __recvfrom_chk(int, void*, size_t, size_t, int, sockaddr*, socklen_t*);
ssize_t __pread_chk(int, void*, size_t, off_t, size_t);
ssize_t __pread64_chk(int, void*, size_t, off_t, size_t);
int __poll_chk(pollfd*, nfds_t, int, size_t);
int __ppoll_chk(pollfd*, nfds_t, const timespec*, const sigset_t*, size_t);
int __open_2(const char*, int);
int __open64_2(const char*, int);
int __openat_2(int, const char*, int);
int __openat64_2(int, const char*, int);
}

namespace {
using conformance::trace;
char buffer[64];
}  // namespace

CONFORMANCE("names: streams", "__read __write __recv __send") {
  auto s = t.stream();
  t.meanwhile([&] { t.did("__write", ::__write(s.b, "one", 3)); });
  ssize_t n = ::__read(s.a, buffer, sizeof buffer);
  t.join();
  t.did("__read", n);
  t.meanwhile([&] { t.did("__send", ::__send(s.b, "four", 4, 0)); });
  n = ::__recv(s.a, buffer, sizeof buffer, 0);
  t.join();
  t.did("__recv", n);
  t.join();
}

CONFORMANCE("names: sockets", "__socket __connect __sendmmsg") {
  const int s = t.own(::__socket(AF_INET, SOCK_DGRAM, 0));
  sockaddr none{};
  none.sa_family = AF_UNSPEC;
  t.did("__connect", ::__connect(s, &none, sizeof none));
  mmsghdr m{};
  t.did("__sendmmsg", ::__sendmmsg(s, &m, 1, 0));
}

CONFORMANCE("names: files", "pread64 pwrite64 __pread64 __pwrite64 lockf64 creat64 open64 openat64 __open __open64 sendfile64 fcntl64 __fcntl") {
  char path[] = "/tmp/ringlet-names-XXXXXX";
  t.own(::mkstemp(path));
  const int fd = t.own(::open64(path, O_RDWR));
  t.did("pwrite64", ::pwrite64(fd, "0123456789", 10, 0));
  t.did("__pwrite64", ::__pwrite64(fd, "ab", 2, 3));
  t.did("pread64", ::pread64(fd, buffer, 4, 2));
  t.bytes("data", buffer, 4);
  t.did("__pread64", ::__pread64(fd, buffer, 4, 8));
  t.did("lockf64", ::lockf64(fd, F_TEST, 0));
  t.saw("__open", t.own(::__open(path, O_RDONLY)) >= 0);
  t.saw("__open64", t.own(::__open64(path, O_RDONLY)) >= 0);
  t.saw("openat64", t.own(::openat64(AT_FDCWD, path, O_RDONLY)) >= 0);
  auto s = t.stream();
  off64_t from = 0;
  t.did("sendfile64", ::sendfile64(s.b, fd, &from, 10));
  t.saw("creat64", t.own(::creat64(path, 0600)) >= 0);
  t.saw("fcntl64", ::fcntl64(fd, F_GETFD));
  t.saw("__fcntl", ::__fcntl(fd, F_GETFL) & O_ACCMODE);
  ::unlink(path);
}

CONFORMANCE("names: descriptors", "__pipe __dup2 __close freopen64") {
  int both[2];
  t.did("__pipe", ::__pipe(both));
  t.saw("__dup2", ::__dup2(both[0], both[1]) == both[1]);
  t.did("__close", ::__close(both[0]));
  t.did("__close", ::__close(both[1]));
  t.did("again", ::__close(both[1]));
  FILE* f = ::fopen("/dev/null", "r");
  f = ::freopen64("/dev/zero", "r", f);
  t.saw("zero", ::fgetc(f));
  ::fclose(f);
}

CONFORMANCE("names: waits", "__nanosleep __poll __select") {
  const timespec soon{0, 60000000};
  t.waits(55ms, [&] { t.did("__nanosleep", ::__nanosleep(&soon, nullptr)); });
  t.waits(55ms, [&] { t.did("__poll", ::__poll(nullptr, 0, 60)); });
  timeval time{0, 60000};
  t.waits(55ms, [&] { t.did("__select", ::__select(0, nullptr, nullptr, nullptr, &time)); });
}

CONFORMANCE("names: children", "__waitpid __wait __vfork") {
  t.did("__wait", ::__wait(nullptr));
  const pid_t child = ::__vfork();
  if (child == 0) ::_exit(9);
  int status = 0;
  t.saw("__waitpid", ::__waitpid(child, &status, 0) == child);
  t.saw("status", WEXITSTATUS(status));
}

#ifndef CONFORMANCE_PLAIN  // libc has these names for what was linked long ago, not for a new program
CONFORMANCE("names: locks", "__pthread_mutex_lock __pthread_mutex_trylock __pthread_mutex_unlock __pthread_rwlock_rdlock "
                            "__pthread_rwlock_wrlock __pthread_rwlock_trywrlock __pthread_rwlock_unlock") {
  pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
  t.said("lock", ::__pthread_mutex_lock(&m));
  t.said("try", ::__pthread_mutex_trylock(&m));
  t.said("unlock", ::__pthread_mutex_unlock(&m));
  pthread_rwlock_t l = PTHREAD_RWLOCK_INITIALIZER;
  t.said("read", ::__pthread_rwlock_rdlock(&l));
  t.said("try", ::__pthread_rwlock_trywrlock(&l));
  t.said("unlock", ::__pthread_rwlock_unlock(&l));
  t.said("write", ::__pthread_rwlock_wrlock(&l));
  t.said("unlock", ::__pthread_rwlock_unlock(&l));
}
#endif

CONFORMANCE("fortified names: wait like their rows", "__read_chk __recv_chk __recvfrom_chk __pread_chk __pread64_chk __poll_chk __ppoll_chk") {
  auto s = t.stream();
  t.meanwhile([&] { ::write(s.b, "1", 1); });
  t.did("__read_chk", ::__read_chk(s.a, buffer, 8, 64));
  t.join();
  t.meanwhile([&] { ::write(s.b, "22", 2); });
  t.did("__recv_chk", ::__recv_chk(s.a, buffer, 8, 64, 0));
  t.join();
  t.meanwhile([&] { ::write(s.b, "333", 3); });
  t.did("__recvfrom_chk", ::__recvfrom_chk(s.a, buffer, 8, 64, 0, nullptr, nullptr));
  t.join();
  const int file = t.own(::memfd_create("x", 0));
  ::write(file, "0123", 4);
  t.did("__pread_chk", ::__pread_chk(file, buffer, 8, 1, 64));
  t.did("__pread64_chk", ::__pread64_chk(file, buffer, 8, 2, 64));
  pollfd fd{s.a, POLLIN, 0};
  t.waits(55ms, [&] { t.did("__poll_chk", ::__poll_chk(&fd, 1, 60, sizeof fd)); });
  const timespec soon{0, 60000000};
  t.waits(55ms, [&] { t.did("__ppoll_chk", ::__ppoll_chk(&fd, 1, &soon, nullptr, sizeof fd)); });
  t.join();
}

CONFORMANCE("fortified names: opening", "__open_2 __openat_2 __open64_2 __openat64_2") {
  t.saw("__open_2", t.own(::__open_2("/dev/null", O_RDONLY)) >= 0);
  t.saw("__open64_2", t.own(::__open64_2("/dev/null", O_RDONLY)) >= 0);
  t.saw("__openat_2", t.own(::__openat_2(AT_FDCWD, "/dev/null", O_RDONLY)) >= 0);
  t.saw("__openat64_2", t.own(::__openat64_2(AT_FDCWD, "/dev/null", O_RDONLY)) >= 0);
  t.did("missing", ::__open_2("/nonexistent", O_RDONLY));
}

CONFORMANCE("fortified names: too small a buffer ends the program", "__read_chk __recv_chk __poll_chk __open_2") {
  for (int which = 0; which < 4; ++which) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(2);
      const int nowhere = ::open("/dev/null", O_WRONLY);
      ::dup2(nowhere, 2);
      ::signal(SIGABRT, SIG_DFL);
      if (which == 0) ::__read_chk(0, buffer, 65, 64);
      if (which == 1) ::__recv_chk(0, buffer, 65, 64, 0);
      if (which == 2) ::__poll_chk(nullptr, 3, 0, 2 * sizeof(pollfd));
      if (which == 3) ::__open_2("/tmp/x", O_CREAT);
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    t.saw("ended by", WIFSIGNALED(status) ? WTERMSIG(status) : -1);
  }
}
