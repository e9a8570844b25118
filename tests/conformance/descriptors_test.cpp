// What opens, closes and changes descriptors, and files at a position.

#include "conformance.hpp"

#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace {

using conformance::trace;
char buffer[64];

// A file of its own, gone with the case.
struct scratch {
  char path[64] = "/tmp/ringlet-conformance-XXXXXX";
  int fd;
  explicit scratch(trace& t) : fd(t.own(::mkstemp(path))) {}
  ~scratch() { ::unlink(path); }
};
struct fifo {
  char path[64];
  explicit fifo(trace& t) {
    std::snprintf(path, sizeof path, "/tmp/ringlet-fifo-%d-%d", int(::getpid()), t.hooked());
    ::unlink(path);
    t.did("mkfifo", ::mkfifo(path, 0600));
  }
  ~fifo() { ::unlink(path); }
};
void alive(trace& t, const char* what, int fd) {
  t.own(fd);
  t.saw(what, fd >= 0);
  t.saw("flags", ::fcntl(fd, F_GETFD));
}

}  // namespace

CONFORMANCE("socket and its sisters: flags and errors", "socket socketpair pipe pipe2 eventfd") {
  alive(t, "socket", ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  t.did("bad family", ::socket(999, SOCK_STREAM, 0));
  int both[2];
  t.did("bad pair", ::socketpair(AF_INET, SOCK_STREAM, 0, both));
  t.did("pipe", ::pipe(both));
  alive(t, "a", both[0]);
  alive(t, "b", both[1]);
  t.did("pipe2", ::pipe2(both, O_CLOEXEC | O_NONBLOCK));
  alive(t, "a", both[0]);
  alive(t, "b", both[1]);
  t.at_once([&] { t.did("nonblocking", ::read(both[0], buffer, 1)); });
  t.did("bad flags", ::pipe2(both, 12345));
  alive(t, "eventfd", ::eventfd(3, EFD_CLOEXEC));
  t.did("bad eventfd", ::eventfd(0, 12345));
}

CONFORMANCE("epoll_create and other makers: flags and errors", "epoll_create epoll_create1 timerfd_create signalfd inotify_init inotify_init1 memfd_create") {
  alive(t, "epoll_create", ::epoll_create(1));
  t.did("bad size", ::epoll_create(0));
  alive(t, "epoll_create1", ::epoll_create1(EPOLL_CLOEXEC));
  t.did("bad flags", ::epoll_create1(1));
  alive(t, "timerfd", ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
  t.did("bad clock", ::timerfd_create(99, 0));
  sigset_t none;
  ::sigemptyset(&none);
  const int s = ::signalfd(-1, &none, SFD_CLOEXEC);
  alive(t, "signalfd", s);
  t.saw("same", ::signalfd(s, &none, SFD_NONBLOCK) == s);
  t.did("bad signalfd", ::signalfd(0, &none, 12345));
  alive(t, "inotify_init", ::inotify_init());
  alive(t, "inotify_init1", ::inotify_init1(IN_NONBLOCK));
  alive(t, "memfd_create", ::memfd_create("m", MFD_CLOEXEC));
}

CONFORMANCE("signalfd: waits for a signal", "signalfd read") {
  sigset_t one, before;
  ::sigemptyset(&one);
  ::sigaddset(&one, SIGUSR2);
  ::pthread_sigmask(SIG_BLOCK, &one, &before);
  const int s = t.own(::signalfd(-1, &one, 0));
  const pthread_t me = ::pthread_self();
  t.meanwhile([&] { ::pthread_kill(me, SIGUSR2); });
  signalfd_siginfo info{};
  t.did("read", ::read(s, &info, sizeof info));
  t.saw("signal", info.ssi_signo);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  t.join();
}

CONFORMANCE("inotify: waits for news", "inotify_init1 read open") {
  scratch file(t);
  const int i = t.own(::inotify_init1(0));
  t.saw("watch", ::inotify_add_watch(i, file.path, IN_MODIFY) > 0);
  t.meanwhile([&] { ::write(file.fd, "x", 1); });
  t.did("read", ::read(i, buffer, sizeof buffer));
  t.join();
}

CONFORMANCE("dup: shares what it duplicates", "dup dup2 dup3 fcntl") {
  auto p = t.pipe();
  const int d = t.own(::dup(p.a));
  t.did("write", ::write(p.b, "abc", 3));
  t.did("from the copy", ::read(d, buffer, 1));
  t.did("from the first", ::read(p.a, buffer, 1));
  t.did("dup -1", ::dup(-1));
  const int e = t.own(::eventfd(0, 0));
  t.saw("dup2", ::dup2(p.a, e) == e);
  t.did("read", ::read(e, buffer, 8));
  t.saw("same", ::dup2(e, e) == e);
  t.did("dup2 of nothing", ::dup2(-1, e));
  t.did("dup2 to nowhere", ::dup2(e, -1));
  t.did("dup3 same", ::dup3(e, e, 0));
  t.saw("dup3", ::dup3(p.b, e, O_CLOEXEC) == e);
  t.saw("flags", ::fcntl(e, F_GETFD));
  t.did("dup3 flags", ::dup3(p.b, e, 1));
  const int f = t.own(::fcntl(p.a, F_DUPFD_CLOEXEC, 700));
  t.saw("F_DUPFD_CLOEXEC", f);
}

CONFORMANCE("dup2: waiting through the copy", "dup2 read") {
  auto p = t.pipe(), q = t.pipe();
  t.meanwhile([&] { ::write(p.b, "1", 1); });
  t.did("read", ::read(p.a, buffer, 1));
  t.join();
  t.saw("dup2", ::dup2(q.a, p.a) == p.a);
  t.meanwhile([&] { ::write(q.b, "22", 2); });
  t.did("read the other", ::read(p.a, buffer, 8));
  t.join();
}

CONFORMANCE("close: a number is used again at once, as another file", "close pipe read") {
  for (int i = 0; i < 5; ++i) {
    int both[2];
    ::pipe(both);
    t.meanwhile([&] { ::write(both[1], "xy", 2); });
    t.did("read", ::read(both[0], buffer, 8));
    t.join();
    t.did("close", ::close(both[0]));
    t.did("close", ::close(both[1]));
    t.did("again", ::close(both[1]));
  }
  t.did("close -1", ::close(-1));
  t.join();
}

CONFORMANCE("close: the peer gets its end at once", "close recv") {
  auto s = t.tcp();
  t.meanwhile([&] { ::send(s.b, "x", 1, 0); });
  t.did("wait once", ::recv(s.a, buffer, 1, 0));
  t.join();
  t.disown(s.a);
  t.did("close", ::close(s.a));
  t.did("end", ::recv(s.b, buffer, 1, 0));
  t.join();
}

CONFORMANCE("close_range: closes, and what it closed is EBADF", "close_range") {
  const int a = ::fcntl(0, F_DUPFD, 800), b = ::fcntl(0, F_DUPFD, 801);
  t.saw("both", a * 1000 + b);
  t.did("close_range", ::close_range(800, 900, 0));
  t.did("a", ::fcntl(a, F_GETFD));
  t.did("b", ::fcntl(b, F_GETFD));
  t.did("backwards", ::close_range(900, 800, 0));
  t.did("flags", ::close_range(800, 900, 64));
  const int c = t.own(::fcntl(0, F_DUPFD, 800));
  t.did("on exec", ::close_range(800, 900, CLOSE_RANGE_CLOEXEC));
  t.saw("flags", ::fcntl(c, F_GETFD));
}

CONFORMANCE("closefrom: closes all above", "closefrom") {
  const int a = ::fcntl(0, F_DUPFD, 900);
  t.saw("open", a);
  ::closefrom(899);
  t.did("closed", ::fcntl(a, F_GETFD));
}

CONFORMANCE("fcntl: commands of every kind", "fcntl") {
  auto p = t.pipe();
  t.saw("F_GETFD", ::fcntl(p.a, F_GETFD));
  t.did("F_SETFD", ::fcntl(p.a, F_SETFD, 0));
  t.saw("F_GETFD", ::fcntl(p.a, F_GETFD));
  t.did("F_SETFL", ::fcntl(p.a, F_SETFL, O_NONBLOCK));
  t.saw("F_GETFL", ::fcntl(p.a, F_GETFL));
  t.did("F_SETPIPE_SZ", ::fcntl(p.b, F_SETPIPE_SZ, 65536));
  t.did("F_GETPIPE_SZ", ::fcntl(p.b, F_GETPIPE_SZ));
  t.did("F_SETOWN", ::fcntl(p.a, F_SETOWN, 0));
  t.did("unknown", ::fcntl(p.a, 9999, 0));
  t.did("bad fd", ::fcntl(-1, F_GETFL));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  scratch file(t);
  t.did("F_SETLK", ::fcntl(file.fd, F_SETLK, &lock));
  t.did("F_OFD_SETLK bad pid", (lock.l_pid = 1, ::fcntl(file.fd, F_OFD_SETLK, &lock)));
}

CONFORMANCE("fcntl: F_OFD_SETLKW waits for another's lock", "fcntl") {
  scratch file(t);
  const int other = t.own(::open(file.path, O_RDWR));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  t.did("first", ::fcntl(file.fd, F_OFD_SETLK, &lock));
  t.did("no wait", ::fcntl(other, F_OFD_SETLK, &lock));
  t.meanwhile([&] {
    struct flock free {};
    free.l_type = F_UNLCK;
    ::fcntl(file.fd, F_OFD_SETLK, &free);
  });
  t.did("waits", ::fcntl(other, F_OFD_SETLKW, &lock));
  t.join();
}

CONFORMANCE("ioctl: commands of every kind", "ioctl") {
  auto p = t.pipe();
  ::write(p.b, "abc", 3);
  int n = 0;
  t.did("FIONREAD", ::ioctl(p.a, FIONREAD, &n));
  t.saw("bytes", n);
  int on = 1;
  t.did("FIONBIO", ::ioctl(p.a, FIONBIO, &on));
  t.saw("flags", ::fcntl(p.a, F_GETFL));
  t.did("FIOCLEX", ::ioctl(p.a, FIOCLEX));
  t.saw("F_GETFD", ::fcntl(p.a, F_GETFD));
  t.did("TCGETS", ::ioctl(p.a, 0x5401, buffer));
  t.did("bad fd", ::ioctl(-1, FIONREAD, &n));
}

CONFORMANCE("setsockopt: what is set is read", "setsockopt") {
  auto s = t.tcp();
  timeval wanted{1, 500000}, got{};
  socklen_t size = sizeof got;
  t.did("set", ::setsockopt(s.a, SOL_SOCKET, SO_RCVTIMEO, &wanted, sizeof wanted));
  t.did("get", ::getsockopt(s.a, SOL_SOCKET, SO_RCVTIMEO, &got, &size));
  t.saw("value", got.tv_sec * 1000000 + got.tv_usec);
  timeval bad{0, 2000000};
  t.did("bad", ::setsockopt(s.a, SOL_SOCKET, SO_RCVTIMEO, &bad, sizeof bad));
  t.did("short", ::setsockopt(s.a, SOL_SOCKET, SO_RCVTIMEO, &wanted, 2));
  t.did("unknown", ::setsockopt(s.a, SOL_SOCKET, 9999, &wanted, sizeof wanted));
}

CONFORMANCE("open: files, modes and errors", "open openat creat") {
  scratch file(t);
  ::unlink(file.path);
  const mode_t before = ::umask(022);
  const int a = t.own(::open(file.path, O_CREAT | O_EXCL | O_RDWR, 0666));
  struct stat about {};
  ::fstat(a, &about);
  t.saw("mode", about.st_mode & 0777);
  t.did("exists", ::open(file.path, O_CREAT | O_EXCL | O_RDWR, 0666));
  ::unlink(file.path);
  const int b = t.own(::openat(AT_FDCWD, file.path, O_CREAT | O_RDWR, 0640));
  ::fstat(b, &about);
  t.saw("mode", about.st_mode & 0777);
  ::unlink(file.path);
  const int c = t.own(::creat(file.path, 0600));
  ::fstat(c, &about);
  t.saw("mode", about.st_mode & 0777);
  t.saw("flags", ::fcntl(c, F_GETFL) & O_ACCMODE);
  ::umask(before);
  t.did("missing", ::open("/nonexistent/x", O_RDONLY));
  t.did("nowhere", ::open(static_cast<const char*>(conformance::nowhere()), O_RDONLY));
  t.did("no directory", ::openat(c, "x", O_RDONLY));
  const int d = t.own(::open("/tmp", O_TMPFILE | O_RDWR, 0600));
  ::fstat(d, &about);
  t.saw("O_TMPFILE mode", d < 0 ? -1 : long(about.st_mode & 0777));
}

CONFORMANCE("open: a FIFO waits for its other end", "open openat read write") {
  fifo f(t);
  t.meanwhile([&] {
    const int w = ::open(f.path, O_WRONLY);
    ::write(w, "through", 7);
    ::close(w);
  });
  const int r = t.own(::open(f.path, O_RDONLY));
  t.saw("opened", r >= 0);
  t.did("read", ::read(r, buffer, sizeof buffer));
  t.did("end", ::read(r, buffer, sizeof buffer));
  t.join();
}

CONFORMANCE("openat: a FIFO without its other end, without waiting", "openat") {
  fifo f(t);
  t.did("writer", ::openat(AT_FDCWD, f.path, O_WRONLY | O_NONBLOCK));
  const int r = t.own(::openat(AT_FDCWD, f.path, O_RDONLY | O_NONBLOCK));
  t.saw("reader", r >= 0);
  t.did("read", ::read(r, buffer, 1));
  t.meanwhile([&] {
    const int other = ::openat(AT_FDCWD, f.path, O_WRONLY);
    ::close(other);
  });
  const int both = t.own(::openat(AT_FDCWD, f.path, O_RDWR));
  t.saw("both ways", both >= 0);
  t.join();
}

CONFORMANCE("fclose and freopen: the descriptor goes, and the number comes again", "fclose freopen read") {
  auto p = t.pipe();
  t.meanwhile([&] { ::write(p.b, "x", 1); });
  t.did("read", ::read(p.a, buffer, 1));
  t.join();
  FILE* f = ::fdopen(p.a, "r");
  t.disown(p.a);
  t.did("fclose", ::fclose(f));
  t.did("closed", ::fcntl(p.a, F_GETFD));
  FILE* g = ::fopen("/dev/null", "r");
  g = ::freopen("/dev/zero", "r", g);
  t.saw("freopen", g != nullptr);
  t.saw("zero", ::fgetc(g));
  // libc closes the file then, and its FILE is lost.
  if (conformance::is_instrumented()) ::fclose(g);
  else t.saw("fails", ::freopen("/nonexistent/x", "r", g) == nullptr);
  t.join();
}

CONFORMANCE("pread and pwrite: at a place, and refused on pipes", "pread pwrite") {
  scratch file(t);
  t.did("pwrite", ::pwrite(file.fd, "0123456789", 10, 5));
  t.did("pread", ::pread(file.fd, buffer, 4, 8));
  t.bytes("data", buffer, 4);
  t.did("beyond", ::pread(file.fd, buffer, 4, 100));
  t.did("hole", ::pread(file.fd, buffer, 5, 0));
  t.bytes("data", buffer, 5);
  t.saw("position", ::lseek(file.fd, 0, SEEK_CUR));
  t.did("negative", ::pread(file.fd, buffer, 1, -1));
  auto p = t.pipe();
  t.did("pipe", ::pread(p.a, buffer, 1, 0));
  t.did("pipe", ::pwrite(p.b, buffer, 1, 0));
  t.did("bad fd", ::pread(-1, buffer, 1, 0));
  t.did("bad buffer", ::pread(file.fd, conformance::nowhere(), 1, 0));
}

CONFORMANCE("read and write: a file's own position", "read write readv writev") {
  scratch file(t);
  t.did("write", ::write(file.fd, "0123456789", 10));
  ::lseek(file.fd, 3, SEEK_SET);
  t.did("read", ::read(file.fd, buffer, 4));
  t.bytes("data", buffer, 4);
  t.saw("position", ::lseek(file.fd, 0, SEEK_CUR));
  t.did("rest", ::read(file.fd, buffer, 40));
  t.did("end", ::read(file.fd, buffer, 40));
  std::vector<char> much(3000000, 'm');
  t.did("much", ::write(file.fd, much.data(), much.size()));
  ::lseek(file.fd, 0, SEEK_SET);
  t.did("all", ::read(file.fd, much.data(), much.size()));
}

CONFORMANCE("fsync and fdatasync: files, and what has nothing to sync", "fsync fdatasync") {
  scratch file(t);
  ::write(file.fd, "x", 1);
  t.did("fsync", ::fsync(file.fd));
  t.did("fdatasync", ::fdatasync(file.fd));
  auto p = t.pipe();
  t.did("pipe", ::fsync(p.a));
  t.did("pipe", ::fdatasync(p.a));
  t.did("bad fd", ::fsync(-1));
}

CONFORMANCE("flock: waits for another's lock", "flock") {
  scratch file(t);
  const int other = t.own(::open(file.path, O_RDWR));
  t.did("first", ::flock(file.fd, LOCK_EX));
  t.did("no wait", ::flock(other, LOCK_EX | LOCK_NB));
  t.meanwhile([&] { ::flock(file.fd, LOCK_UN); });
  t.did("waits", ::flock(other, LOCK_EX));
  t.did("bad", ::flock(other, 99));
  t.join();
}

CONFORMANCE("lockf: locks, tests, frees", "lockf") {
  scratch file(t);
  t.did("F_TLOCK", ::lockf(file.fd, F_TLOCK, 10));
  t.did("F_LOCK again", ::lockf(file.fd, F_LOCK, 10));
  t.did("F_TEST", ::lockf(file.fd, F_TEST, 10));
  t.did("F_ULOCK", ::lockf(file.fd, F_ULOCK, 0));
  t.did("bad", ::lockf(file.fd, 99, 0));
}
