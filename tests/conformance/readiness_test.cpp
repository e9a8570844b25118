// poll, select and epoll in all their clothes.

#include "conformance.hpp"

#include <csignal>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

using conformance::trace;
char buffer[64];

int epoll_with(trace& t, int fd, unsigned events, std::uint64_t data) {
  const int e = t.own(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  t.did("epoll_ctl", ::epoll_ctl(e, EPOLL_CTL_ADD, fd, &event));
  return e;
}
void describe(trace& t, const char* what, const fd_set& set, std::initializer_list<int> fds) {
  long bits = 0;
  for (int fd : fds) bits = bits * 2 + (FD_ISSET(fd, &set) ? 1 : 0);
  t.saw(what, bits);
}
fd_set set_of(std::initializer_list<int> fds) {
  fd_set set;
  FD_ZERO(&set);
  for (int fd : fds) FD_SET(fd, &set);
  return set;
}
int above(std::initializer_list<int> fds) { return std::max(fds) + 1; }

// A handler for SIGUSR1 that counts, and the signal blocked in this thread meanwhile.
std::atomic<int> signals{0};
struct blocked_signal {
  struct sigaction before {};
  sigset_t mask_before{}, open{};
  blocked_signal() {
    signals = 0;
    struct sigaction now {};
    now.sa_handler = [](int) { ++signals; };
    ::sigaction(SIGUSR1, &now, &before);
    sigset_t one;
    ::sigemptyset(&one);
    ::sigaddset(&one, SIGUSR1);
    ::pthread_sigmask(SIG_BLOCK, &one, &mask_before);
    open = mask_before;
    ::sigdelset(&open, SIGUSR1);
  }
  ~blocked_signal() {
    ::pthread_sigmask(SIG_SETMASK, &mask_before, nullptr);
    ::sigaction(SIGUSR1, &before, nullptr);
  }
};
void signal_thread(pid_t thread) { ::syscall(SYS_tgkill, ::getpid(), thread, SIGUSR1); }
pid_t this_thread() { return pid_t(::syscall(SYS_gettid)); }

}  // namespace

CONFORMANCE("poll: what is ready at once", "poll") {
  auto p = t.pipe();
  ::write(p.b, "x", 1);
  pollfd fds[3] = {{p.a, POLLIN, 0}, {p.b, POLLOUT | POLLIN, 0}, {p.a, POLLOUT, 0}};
  t.at_once([&] { t.did("poll", ::poll(fds, 3, -1)); });
  for (auto& f : fds) t.saw("revents", f.revents);
}

CONFORMANCE("poll: waits for one of many", "poll") {
  auto p = t.pipe(), q = t.pipe();
  auto s = t.stream();
  pollfd fds[3] = {{p.a, POLLIN, 0}, {q.a, POLLIN, 0}, {s.a, POLLIN | POLLPRI, 0}};
  t.meanwhile([&] { ::write(q.b, "x", 1); });
  t.did("poll", ::poll(fds, 3, 5000));
  for (auto& f : fds) t.saw("revents", f.revents);
  t.join();
}

CONFORMANCE("poll: a timeout is 0, and clears revents", "poll") {
  auto p = t.pipe();
  pollfd fds[1] = {{p.a, POLLIN, 99}};
  t.waits(60ms, [&] { t.did("poll", ::poll(fds, 1, 60)); });
  t.saw("revents", fds[0].revents);
}

CONFORMANCE("poll: a timeout of 0 comes back at once", "poll") {
  auto p = t.pipe();
  pollfd fds[1] = {{p.a, POLLIN, 0}};
  t.at_once([&] { t.did("poll", ::poll(fds, 1, 0)); });
}

CONFORMANCE("poll: no fds is a sleep", "poll") {
  t.waits(60ms, [&] { t.did("poll", ::poll(nullptr, 0, 60)); });
}

CONFORMANCE("poll: negative fds are skipped, dead ones are POLLNVAL at once", "poll") {
  auto p = t.pipe();
  pollfd fds[3] = {{-1, POLLIN, 77}, {p.a, POLLIN, 0}, {9999, POLLIN, 0}};
  t.at_once([&] { t.did("poll", ::poll(fds, 3, -1)); });
  for (auto& f : fds) t.saw("revents", f.revents);
  pollfd negative{-5, POLLIN, 77};
  t.waits(60ms, [&] { t.did("only negative", ::poll(&negative, 1, 60)); });
  t.saw("revents", negative.revents);
}

CONFORMANCE("poll: a hang-up is told even if nothing was asked", "poll close") {
  auto p = t.pipe();
  t.disown(p.b);
  pollfd fd{p.a, 0, 0};
  t.meanwhile([&] { ::close(p.b); });
  t.did("poll", ::poll(&fd, 1, 5000));
  t.saw("revents", fd.revents);
  auto q = t.pipe();
  t.disown(q.a);
  ::close(q.a);
  pollfd out{q.b, POLLOUT, 0};
  t.did("writer", ::poll(&out, 1, 5000));
  t.saw("revents", out.revents);
  t.join();
}

CONFORMANCE("poll: POLLRDHUP and half-closed sockets", "poll shutdown") {
  auto s = t.tcp();
  pollfd fd{s.a, POLLIN | POLLRDHUP, 0};
  t.meanwhile([&] { ::shutdown(s.b, SHUT_WR); });
  t.did("poll", ::poll(&fd, 1, 5000));
  t.saw("revents", fd.revents);
  t.join();
}

CONFORMANCE("poll: POLLPRI for urgent data", "poll") {
  auto s = t.tcp();
  pollfd fd{s.a, POLLPRI, 0};
  t.meanwhile([&] { ::send(s.b, "!", 1, MSG_OOB); });
  t.did("poll", ::poll(&fd, 1, 5000));
  t.saw("revents", fd.revents);
  t.join();
}

CONFORMANCE("poll: regular files are always ready", "poll") {
  const int f = t.own(::open("/proc/self/exe", O_RDONLY));
  pollfd fd{f, POLLIN | POLLOUT, 0};
  t.at_once([&] { t.did("poll", ::poll(&fd, 1, -1)); });
  t.saw("revents", fd.revents);
}

CONFORMANCE("poll: bad pointers and counts", "poll") {
  t.did("null", ::poll(nullptr, 1, 0));
  rlimit most{};
  ::getrlimit(RLIMIT_NOFILE, &most);
  pollfd one{-1, 0, 0};
  // AddressSanitizer looks at the array before the kernel refuses it.
  if (!conformance::is_instrumented()) t.did("too many", ::poll(&one, most.rlim_cur + 1, 0));
}

CONFORMANCE("poll: the same fd twice", "poll") {
  auto s = t.stream();
  pollfd fds[2] = {{s.a, POLLIN, 0}, {s.a, POLLIN, 0}};
  t.meanwhile([&] { ::write(s.b, "x", 1); });
  t.did("poll", ::poll(fds, 2, 5000));
  t.saw("revents", fds[0].revents * 100 + fds[1].revents);
  t.join();
}

CONFORMANCE("poll: a nonblocking descriptor is waited for all the same", "poll fcntl") {
  auto s = t.stream();
  ::fcntl(s.a, F_SETFL, O_NONBLOCK);
  pollfd fd{s.a, POLLIN, 0};
  t.meanwhile([&] { ::write(s.b, "x", 1); });
  t.did("poll", ::poll(&fd, 1, 5000));
  t.did("recv", ::recv(s.a, buffer, 8, 0));
  t.did("recv", ::recv(s.a, buffer, 8, 0));
  t.join();
}

CONFORMANCE("ppoll: timeouts, null and bad ones", "ppoll") {
  auto p = t.pipe();
  pollfd fd{p.a, POLLIN, 0};
  const timespec soon{0, 60000000}, none{0, 0}, bad{0, 1000000000}, negative{-1, 0};
  t.waits(55ms, [&] { t.did("soon", ::ppoll(&fd, 1, &soon, nullptr)); });
  t.at_once([&] { t.did("none", ::ppoll(&fd, 1, &none, nullptr)); });
  t.did("bad", ::ppoll(&fd, 1, &bad, nullptr));
  t.did("negative", ::ppoll(&fd, 1, &negative, nullptr));
  t.meanwhile([&] { ::write(p.b, "x", 1); });
  t.did("null", ::ppoll(&fd, 1, nullptr, nullptr));
  t.join();
}

CONFORMANCE("ppoll: a mask lets a pending signal in: EINTR", "ppoll") {
  blocked_signal usr1;
  auto p = t.pipe();
  pollfd fd{p.a, POLLIN, 0};
  signal_thread(this_thread());
  t.saw("before", signals);
  t.did("ppoll", ::ppoll(&fd, 1, nullptr, &usr1.open));
  t.saw("after", signals);
}

CONFORMANCE("ppoll: a mask lets a later signal in: EINTR", "ppoll") {
  blocked_signal usr1;
  auto p = t.pipe();
  pollfd fd{p.a, POLLIN, 0};
  const pid_t me = this_thread();
  t.meanwhile([&] { signal_thread(me); });
  t.did("ppoll", ::ppoll(&fd, 1, nullptr, &usr1.open));
  t.saw("after", signals);
  sigset_t now;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &now);
  t.saw("blocked again", ::sigismember(&now, SIGUSR1));
  t.join();
}

CONFORMANCE("ppoll: with another mask, readiness still comes", "ppoll") {
  blocked_signal usr1;
  auto p = t.pipe();
  pollfd fd{p.a, POLLIN, 0};
  t.meanwhile([&] { ::write(p.b, "x", 1); });
  t.did("ppoll", ::ppoll(&fd, 1, nullptr, &usr1.open));
  t.saw("revents", fd.revents);
  const timespec soon{0, 60000000};
  pollfd other{p.b, POLLIN, 0};
  t.waits(55ms, [&] { t.did("timeout", ::ppoll(&other, 1, &soon, &usr1.open)); });
  t.join();
}

CONFORMANCE("select: waits, counts, and clears the rest", "select") {
  auto p = t.pipe(), q = t.pipe();
  fd_set in = set_of({p.a, q.a}), out = set_of({p.a}), odd = set_of({p.a, q.a});
  FD_CLR(p.a, &out);
  t.meanwhile([&] { ::write(q.b, "x", 1); });
  t.did("select", ::select(above({p.a, q.a, p.b}), &in, &out, &odd, nullptr));
  describe(t, "in", in, {p.a, q.a});
  describe(t, "odd", odd, {p.a, q.a});
  t.join();
}

CONFORMANCE("select: readable and writable count twice", "select") {
  auto s = t.stream();
  ::write(s.b, "x", 1);
  fd_set in = set_of({s.a}), out = set_of({s.a, s.b});
  t.at_once([&] { t.did("select", ::select(above({s.a, s.b}), &in, &out, nullptr, nullptr)); });
  describe(t, "in", in, {s.a});
  describe(t, "out", out, {s.a, s.b});
}

CONFORMANCE("select: a timeout clears the sets and the time", "select") {
  auto p = t.pipe();
  fd_set in = set_of({p.a});
  timeval soon{0, 60000};
  t.waits(60ms, [&] { t.did("select", ::select(p.a + 1, &in, nullptr, nullptr, &soon)); });
  describe(t, "in", in, {p.a});
  t.saw("left", soon.tv_sec * 1000000 + soon.tv_usec);
}

CONFORMANCE("select: what is left of the time is written back", "select") {
  auto p = t.pipe();
  ::write(p.b, "x", 1);
  fd_set in = set_of({p.a});
  timeval much{100, 0};
  t.did("select", ::select(p.a + 1, &in, nullptr, nullptr, &much));
  t.saw("most of it is left", much.tv_sec == 99 || much.tv_sec == 100);
  timeval odd{0, 1500000};  // more than a million
  t.did("many microseconds", ::select(p.a + 1, &in, nullptr, nullptr, &odd));
}

CONFORMANCE("select: no fds is a sleep, a zero timeout a look", "select") {
  timeval soon{0, 60000}, none{0, 0};
  t.waits(60ms, [&] { t.did("sleep", ::select(0, nullptr, nullptr, nullptr, &soon)); });
  auto p = t.pipe();
  fd_set in = set_of({p.a});
  t.at_once([&] { t.did("look", ::select(p.a + 1, &in, nullptr, nullptr, &none)); });
}

CONFORMANCE("select: bad fds, counts and times", "select") {
  auto p = t.pipe();
  const int dead = ::dup(p.a);
  ::close(dead);
  fd_set in = set_of({p.a, dead});
  t.did("dead", ::select(above({p.a, dead}), &in, nullptr, nullptr, nullptr));
  describe(t, "untouched", in, {p.a, dead});
  in = set_of({p.a});
  t.did("negative", ::select(-1, &in, nullptr, nullptr, nullptr));
  timeval bad{-1, 0};
  t.did("bad time", ::select(p.a + 1, &in, nullptr, nullptr, &bad));
  describe(t, "untouched", in, {p.a});
}

CONFORMANCE("select: a hang-up is readable; urgent data is odd", "select close") {
  auto s = t.tcp();
  fd_set odd = set_of({s.a});
  t.meanwhile([&] { ::send(s.b, "!", 1, MSG_OOB); });
  t.did("urgent", ::select(s.a + 1, nullptr, nullptr, &odd, nullptr));
  auto p = t.pipe();
  t.disown(p.b);
  fd_set in = set_of({p.a});
  t.meanwhile([&] { ::close(p.b); });
  t.did("hang-up", ::select(p.a + 1, &in, nullptr, nullptr, nullptr));
  t.join();
}

CONFORMANCE("select: a hang-up does not end a wait for exceptions", "select close") {
  auto p = t.pipe();
  t.disown(p.b);
  ::close(p.b);
  fd_set odd = set_of({p.a});
  timeval soon{0, 60000};
  t.waits(60ms, [&] { t.did("select", ::select(p.a + 1, nullptr, nullptr, &odd, &soon)); });
}

CONFORMANCE("select: beyond FD_SETSIZE, with room enough", "select dup2") {
  rlimit most{};
  ::getrlimit(RLIMIT_NOFILE, &most);
  const rlimit before = most;
  most.rlim_cur = most.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &most);
  auto p = t.pipe();
  const int high = t.own(::dup2(p.a, 2500));
  t.saw("high", high);
  long words[64]{};
  words[2500 / 64] |= 1l << (2500 % 64);
  t.meanwhile([&] { ::write(p.b, "x", 1); });
  t.did("select", ::select(2501, reinterpret_cast<fd_set*>(words), nullptr, nullptr, nullptr));
  t.saw("set", words[2500 / 64] >> (2500 % 64) & 1);
  ::setrlimit(RLIMIT_NOFILE, &before);
  t.join();
}

CONFORMANCE("pselect: leaves the time alone", "pselect") {
  auto p = t.pipe();
  fd_set in = set_of({p.a});
  const timespec soon{0, 60000000}, bad{0, -1};
  t.waits(55ms, [&] { t.did("pselect", ::pselect(p.a + 1, &in, nullptr, nullptr, &soon, nullptr)); });
  t.saw("time", soon.tv_nsec);
  in = set_of({p.a});
  t.did("bad", ::pselect(p.a + 1, &in, nullptr, nullptr, &bad, nullptr));
  t.meanwhile([&] { ::write(p.b, "x", 1); });
  t.did("null", ::pselect(p.a + 1, &in, nullptr, nullptr, nullptr, nullptr));
  t.join();
}

CONFORMANCE("pselect: a mask lets a later signal in: EINTR", "pselect") {
  blocked_signal usr1;
  auto p = t.pipe();
  fd_set in = set_of({p.a});
  const pid_t me = this_thread();
  t.meanwhile([&] { signal_thread(me); });
  t.did("pselect", ::pselect(p.a + 1, &in, nullptr, nullptr, nullptr, &usr1.open));
  t.saw("signals", signals);
  describe(t, "untouched", in, {p.a});
  t.join();
}

CONFORMANCE("epoll_wait: waits, and gives its data back", "epoll_wait epoll_create1") {
  auto p = t.pipe();
  const int e = epoll_with(t, p.a, EPOLLIN, 0x1234567890abcdef);
  epoll_event events[4]{};
  t.meanwhile([&] { ::write(p.b, "x", 1); });
  t.did("epoll_wait", ::epoll_wait(e, events, 4, 5000));
  t.saw("events", events[0].events);
  t.saw("data", long(events[0].data.u64));
  t.at_once([&] { t.did("level triggered", ::epoll_wait(e, events, 4, 5000)); });
  t.join();
}

CONFORMANCE("epoll_wait: timeouts", "epoll_wait epoll_create") {
  const int e = t.own(::epoll_create(1));
  epoll_event events[1]{};
  t.waits(60ms, [&] { t.did("60 ms", ::epoll_wait(e, events, 1, 60)); });
  t.at_once([&] { t.did("0", ::epoll_wait(e, events, 1, 0)); });
}

CONFORMANCE("epoll_wait: edge-triggered tells news only", "epoll_wait") {
  auto p = t.pipe();
  const int e = epoll_with(t, p.a, EPOLLIN | EPOLLET, 1);
  epoll_event events[4]{};
  t.meanwhile([&] { ::write(p.b, "x", 1); });
  t.did("news", ::epoll_wait(e, events, 4, 5000));
  t.waits(60ms, [&] { t.did("no news", ::epoll_wait(e, events, 4, 60)); });
  t.meanwhile([&] { ::write(p.b, "y", 1); });
  t.did("more", ::epoll_wait(e, events, 4, 5000));
  t.join();
}

CONFORMANCE("epoll_wait: one-shot is silent until it is armed again", "epoll_wait") {
  auto p = t.pipe();
  const int e = epoll_with(t, p.a, EPOLLIN | EPOLLONESHOT, 1);
  epoll_event events[4]{};
  ::write(p.b, "x", 1);
  t.did("once", ::epoll_wait(e, events, 4, 5000));
  t.waits(60ms, [&] { t.did("silent", ::epoll_wait(e, events, 4, 60)); });
  epoll_event again{};
  again.events = EPOLLIN | EPOLLONESHOT;
  t.meanwhile([&] { ::epoll_ctl(e, EPOLL_CTL_MOD, p.a, &again); });
  t.did("again", ::epoll_wait(e, events, 4, 5000));
  t.join();
}

CONFORMANCE("epoll_wait: an fd that is added meanwhile", "epoll_wait") {
  auto p = t.pipe();
  ::write(p.b, "x", 1);
  const int e = t.own(::epoll_create1(0));
  epoll_event events[4]{}, event{};
  event.events = EPOLLIN;
  t.meanwhile([&] { ::epoll_ctl(e, EPOLL_CTL_ADD, p.a, &event); });
  t.did("epoll_wait", ::epoll_wait(e, events, 4, 5000));
  t.join();
}

CONFORMANCE("epoll_wait: nested, and polled", "epoll_wait poll") {
  auto p = t.pipe();
  const int inner = epoll_with(t, p.a, EPOLLIN, 7);
  const int outer = epoll_with(t, inner, EPOLLIN, 8);
  epoll_event events[4]{};
  t.meanwhile([&] { ::write(p.b, "x", 1); });
  t.did("outer", ::epoll_wait(outer, events, 4, 5000));
  t.saw("data", long(events[0].data.u64));
  t.did("inner", ::epoll_wait(inner, events, 4, 0));
  t.saw("data", long(events[0].data.u64));
  pollfd fd{outer, POLLIN, 0};
  t.did("polled", ::poll(&fd, 1, 5000));
  t.join();
}

CONFORMANCE("epoll_wait: as many as there is room for", "epoll_wait") {
  auto p = t.pipe(), q = t.pipe();
  const int e = epoll_with(t, p.a, EPOLLIN, 1);
  epoll_event event{}, events[4]{};
  event.events = EPOLLIN;
  ::epoll_ctl(e, EPOLL_CTL_ADD, q.a, &event);
  ::write(p.b, "x", 1);
  ::write(q.b, "x", 1);
  t.did("one", ::epoll_wait(e, events, 1, 5000));
  t.did("both", ::epoll_wait(e, events, 4, 5000));
}

CONFORMANCE("epoll_wait: bad arguments", "epoll_wait epoll_pwait") {
  auto p = t.pipe();
  const int e = epoll_with(t, p.a, EPOLLIN, 1);
  epoll_event events[1];
  t.did("no room", ::epoll_wait(e, events, 0, 0));
  t.did("negative room", ::epoll_wait(e, events, -1, 0));
  t.did("no epoll", ::epoll_wait(p.a, events, 1, 0));
  t.did("no fd", ::epoll_wait(-1, events, 1, 0));
  ::write(p.b, "x", 1);
  t.did("no pointer", ::epoll_wait(e, nullptr, 1, 0));
  t.did("pwait no room", ::epoll_pwait(e, events, 0, 0, nullptr));
}

CONFORMANCE("epoll_pwait: a mask lets a later signal in: EINTR", "epoll_pwait") {
  blocked_signal usr1;
  auto p = t.pipe();
  const int e = epoll_with(t, p.a, EPOLLIN, 1);
  epoll_event events[1];
  const pid_t me = this_thread();
  t.meanwhile([&] { signal_thread(me); });
  t.did("epoll_pwait", ::epoll_pwait(e, events, 1, -1, &usr1.open));
  t.saw("signals", signals);
  t.meanwhile([&] { ::write(p.b, "x", 1); });
  t.did("ready", ::epoll_pwait(e, events, 1, -1, &usr1.open));
  t.join();
  ::read(p.a, buffer, 1);
  t.waits(60ms, [&] { t.did("timeout", ::epoll_pwait(e, events, 1, 60, &usr1.open)); });
  t.join();
}

CONFORMANCE("epoll_pwait2: its timeout has nanoseconds", "epoll_pwait2") {
  auto p = t.pipe();
  const int e = epoll_with(t, p.a, EPOLLIN, 1);
  epoll_event events[1];
  const timespec soon{0, 60000000}, bad{0, 1000000000};
  t.waits(55ms, [&] { t.did("soon", ::epoll_pwait2(e, events, 1, &soon, nullptr)); });
  t.did("bad", ::epoll_pwait2(e, events, 1, &bad, nullptr));
  t.meanwhile([&] { ::write(p.b, "x", 1); });
  t.did("null", ::epoll_pwait2(e, events, 1, nullptr, nullptr));
  t.join();
}

CONFORMANCE("epoll_wait: a closed fd leaves the set", "epoll_wait close") {
  auto p = t.pipe();
  const int e = epoll_with(t, p.a, EPOLLIN, 1);
  ::write(p.b, "x", 1);
  t.disown(p.a);
  t.did("close", ::close(p.a));
  epoll_event events[1];
  t.waits(60ms, [&] { t.did("epoll_wait", ::epoll_wait(e, events, 1, 60)); });
}

CONFORMANCE("epoll_wait: an fd that fibers have waited on works in a set of its own", "epoll_wait read") {
  auto p = t.pipe();
  t.meanwhile([&] { ::write(p.b, "x", 1); });
  t.did("read", ::read(p.a, buffer, 1));
  t.join();
  const int e = epoll_with(t, p.a, EPOLLIN | EPOLLET, 1);
  epoll_event events[1];
  t.did("nothing", ::epoll_wait(e, events, 1, 0));
  t.meanwhile([&] { ::write(p.b, "y", 1); });
  t.did("something", ::epoll_wait(e, events, 1, 5000));
  t.did("read", ::read(p.a, buffer, 1));
  t.join();
}
