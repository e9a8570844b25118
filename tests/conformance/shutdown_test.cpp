// shutdown by either side, while somebody waits and before; close and its lingering; O_NONBLOCK by every way it can be set.

#include "kinds.hpp"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "support/fd_message.hpp"

namespace {

using namespace conformance;

char buffer[64];

struct ending {
  const char* name;
  bool of_peer;
  int how;
};
constexpr ending endings[] = {
    {"one's own SHUT_RD", false, SHUT_RD}, {"one's own SHUT_WR", false, SHUT_WR}, {"one's own SHUT_RDWR", false, SHUT_RDWR},
    {"the peer's SHUT_WR", true, SHUT_WR}, {"the peer's SHUT_RDWR", true, SHUT_RDWR},
};

constexpr ending ends_of_sending[] = {endings[1], endings[2], endings[4], {"the peer's SHUT_RD", true, SHUT_RD}};

// A pipe end made nonblocking, each way once; the other end is not touched.
struct way {
  const char* name;
  const char* rows;
  void (*set)(trace&, int fd);
};
void in_a_child(int fd, void (*run)(int)) {
  const pid_t child = ::fork();
  if (child == 0) {
    run(fd);
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
}
constexpr way ways[] = {
    {"fcntl", "fcntl", [](trace&, int fd) { set_nonblocking(fd); }},
    {"ioctl", "ioctl",
     [](trace&, int fd) {
       int on = 1;
       ::ioctl(fd, FIONBIO, &on);
     }},
    {"fcntl on a duplicate", "dup", [](trace& t, int fd) { set_nonblocking(t.own(::dup(fd))); }},
    {"fcntl on a copy by dup3", "dup3",
     [](trace& t, int fd) {
       const int other = t.own(::dup(0));
       ::dup3(fd, other, O_CLOEXEC);
       set_nonblocking(other);
     }},
    {"fcntl on one of F_DUPFD", "fcntl", [](trace& t, int fd) { set_nonblocking(t.own(::fcntl(fd, F_DUPFD_CLOEXEC, 40))); }},
    {"a forked child", "waitpid", [](trace&, int fd) { in_a_child(fd, set_nonblocking); }},
    {"who got it by SCM_RIGHTS", "recvmsg sendmsg",
     [](trace& t, int fd) {
       auto s = t.stream();
       char one = 'x';
       support::fd_message sent(&one, 1), received(&one, 1);
       sent.put(fd);
       ::sendmsg(s.b, &sent.header, 0);
       ::recvmsg(s.a, &received.header, 0);
       set_nonblocking(t.own(received.taken()));
     }},
};
struct first_wait {
  const char* name;
  bool waited;
};
constexpr first_wait before[] = {{"before the first read", false}, {"after a wait", true}};

}  // namespace

CONFORMANCE_EACH("shutdown: {0} meets who receives from {1}", "recv read recvmsg shutdown", endings, sockets)
(trace& t, const ending& e, const kind& of) {
  for (int call = 0; call < 3; ++call) {
    auto s = of.make(t);
    set_time_limit(s.a, SO_RCVTIMEO, 40);
    t.meanwhile([&] { ::shutdown(e.of_peer ? s.b : s.a, e.how); });
    t.did("meanwhile", readings[call == 2 ? 4 : call * 2].call(s.a, buffer, 8));
    t.join();
    pollfd p{s.a, POLLIN | POLLOUT | POLLRDHUP, 0};
    if (!e.of_peer) t.saw("poll", ::poll(&p, 1, 0) * 10000 + p.revents);
    t.did("then", ::recv(s.a, buffer, 8, 0));
    t.did("the other way", ::send(s.a, "x", 1, MSG_NOSIGNAL));
    t.did("to it", ::send(s.b, "x", 1, MSG_NOSIGNAL));
    t.did("at last", ::recv(s.a, buffer, 8, MSG_DONTWAIT));
  }
};

CONFORMANCE_EACH("shutdown: {0} meets who waits for room in {1}", "send shutdown", ends_of_sending, together({sockets[0], sockets[1], sockets[2]}))
(trace& t, const ending& e, const kind& of) {
  ignored_sigpipe ignored;
  auto s = of.make(t);
  set_nonblocking(s.a);
  while (::send(s.a, buffer, sizeof buffer, 0) > 0) {
  }
  set_blocking(s.a);
  set_time_limit(s.a, SO_SNDTIMEO, 200);
  t.meanwhile([&] { ::shutdown(e.of_peer ? s.b : s.a, e.how); });
  t.did("send", ::send(s.a, buffer, sizeof buffer, 0));
  t.join();
  t.did("again", ::send(s.a, buffer, sizeof buffer, 0));
};

CONFORMANCE_EACH("shutdown: of one half, {0}: what it tells of bad sockets and ways", "shutdown", sockets)(trace& t, const kind& of) {
  auto s = of.make(t);
  t.did("no way", ::shutdown(s.a, 7));
  t.did("once", ::shutdown(s.a, SHUT_WR));
  t.did("twice", ::shutdown(s.a, SHUT_WR));
  t.did("rest", ::shutdown(s.a, SHUT_RD));
  t.did("all", ::shutdown(s.a, SHUT_RDWR));
  const int unconnected = t.own(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  t.did("unconnected", ::shutdown(unconnected, SHUT_RDWR));
  t.did("no socket", ::shutdown(t.pipe().a, SHUT_RDWR));
};

CONFORMANCE_EACH("O_NONBLOCK: set by {0}, {1}, counts on {2}", "read", ways, before, together({pipes[0], pipes[1], sockets[0], sockets[3], terminals[0]}))
(trace& t, const way& w, const first_wait& b, const kind& of) {
  auto f = of.make(t);
  if (of.is_socket) set_time_limit(f.a, SO_RCVTIMEO, 300);
  if (b.waited) {
    t.meanwhile([&] { ::write(f.b, "x", 1); });
    t.did("waits", ::read(f.a, buffer, 8));
    t.join();
  }
  w.set(t, f.a);
  t.saw("flags", ::fcntl(f.a, F_GETFL) & O_NONBLOCK);
  ::write(f.b, "y", 1);
  pollfd there{f.a, POLLIN, 0};
  ::poll(&there, 1, 1000);
  t.did("with data", ::read(f.a, buffer, 8));
  t.at_once([&] { t.did("without", ::read(f.a, buffer, 8)); });
  set_blocking(f.a);
  t.meanwhile([&] { ::write(f.b, "z", 1); });
  t.did("waits again", ::read(f.a, buffer, 8));
  t.join();
};

CONFORMANCE("O_NONBLOCK: set while one waits, it is the next call's", "read fcntl") {
  auto p = t.pipe();
  t.meanwhile([&] {
    set_nonblocking(p.a);
    ::usleep(10'000);  // that nothing comes meanwhile is the case
    ::write(p.b, "x", 1);
  });
  t.waits(8ms, [&] { t.did("read", ::read(p.a, buffer, 8)); });
  t.join();
  t.did("next", ::read(p.a, buffer, 8));
}

CONFORMANCE("O_NONBLOCK: a descriptor opened again by /proc has its own", "read open") {
  auto p = t.pipe();
  const std::string path = "/proc/self/fd/" + std::to_string(p.a);
  const int again = t.own(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  t.did("again", ::read(again, buffer, 8));
  t.saw("flags", ::fcntl(p.a, F_GETFL) & O_NONBLOCK);
  t.meanwhile([&] { ::write(p.b, "x", 1); });
  t.did("first", ::read(p.a, buffer, 8));
  t.join();
}

CONFORMANCE("SO_LINGER: close waits until the peer has taken it, or resets at once", "close setsockopt recv") {
  auto s = t.tcp();
  const linger off{1, 0};
  ::setsockopt(s.b, SOL_SOCKET, SO_LINGER, &off, sizeof off);
  ::send(s.b, "lost", 4, 0);
  t.disown(s.b);
  t.at_once([&] { t.did("close", ::close(s.b)); });
  pollfd p{s.a, POLLIN, 0};
  ::poll(&p, 1, 1000);
  t.did("recv", ::recv(s.a, buffer, sizeof buffer, 0));
  auto other = t.tcp();
  const linger on{1, 1};
  ::setsockopt(other.b, SOL_SOCKET, SO_LINGER, &on, sizeof on);
  ::send(other.b, "kept", 4, 0);
  t.disown(other.b);
  t.did("close", ::close(other.b));
  t.did("recv", ::recv(other.a, buffer, sizeof buffer, 0));
  t.did("end", ::recv(other.a, buffer, sizeof buffer, 0));
}
