// Datagrams, messages, connections: recvfrom, sendto, recvmsg, sendmsg, the many-message calls, accept and connect.

#include "conformance.hpp"
#include "support/fd_message.hpp"

#include <arpa/inet.h>
#include <cstring>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace {

using conformance::trace;
char buffer[64];

sockaddr_in loopback(unsigned short port) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = htons(port);
  return at;
}
sockaddr* plain(sockaddr_in& a) { return reinterpret_cast<sockaddr*>(&a); }

struct udp {
  int fd;
  sockaddr_in at{};
};
udp make_udp(trace& t) {
  udp u{t.own(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), loopback(0)};
  socklen_t size = sizeof u.at;
  ::bind(u.fd, plain(u.at), size);
  ::getsockname(u.fd, plain(u.at), &size);
  return u;
}

// Messages that each own one buffer.
struct batch {
  char data[4][8]{};
  iovec parts[4]{};
  mmsghdr all[4]{};
  explicit batch(const char* text = "") {
    for (int i = 0; i < 4; ++i) {
      std::snprintf(data[i], 8, "%s%d", text, i);
      parts[i] = {data[i], *text ? std::strlen(data[i]) : 8};
      all[i].msg_hdr.msg_iov = &parts[i];
      all[i].msg_hdr.msg_iovlen = 1;
    }
  }
};

}  // namespace

CONFORMANCE("recvfrom: waits, and tells the sender", "recvfrom sendto") {
  auto a = make_udp(t), b = make_udp(t);
  t.meanwhile([&] { ::sendto(b.fd, "who", 3, 0, plain(a.at), sizeof a.at); });
  sockaddr_in from{};
  socklen_t size = sizeof from;
  t.did("recvfrom", ::recvfrom(a.fd, buffer, sizeof buffer, 0, plain(from), &size));
  t.saw("size", size);
  t.saw("is the sender", from.sin_port == b.at.sin_port);
  t.join();
}

CONFORMANCE("recvfrom: a datagram that is too long is cut; MSG_TRUNC tells its size", "recvfrom recv") {
  auto s = t.datagrams();
  ::send(s.b, "0123456789", 10, 0);
  t.did("cut", ::recvfrom(s.a, buffer, 4, 0, nullptr, nullptr));
  ::send(s.b, "0123456789", 10, 0);
  t.did("true size", ::recv(s.a, buffer, 4, MSG_TRUNC));
  t.at_once([&] { t.did("rest is gone", ::recv(s.a, buffer, 4, MSG_DONTWAIT)); });
}

CONFORMANCE("recv: an empty datagram is 0, and is received", "recv send") {
  auto s = t.datagrams();
  t.meanwhile([&] {
    ::send(s.b, "", 0, 0);
    ::send(s.b, "x", 1, 0);
  });
  t.did("empty", ::recv(s.a, buffer, 8, 0));
  t.did("next", ::recv(s.a, buffer, 8, 0));
  t.join();
}

CONFORMANCE("recv: no bytes wanted from a datagram socket waits for one", "recv") {
  auto s = t.datagrams();
  t.meanwhile([&] { ::send(s.b, "x", 1, 0); });
  t.did("recv", ::recv(s.a, buffer, 0, 0));
  t.did("it is gone", ::recv(s.a, buffer, 1, MSG_DONTWAIT));
  t.join();
}

CONFORMANCE("recv: MSG_WAITALL on datagrams takes one", "recv") {
  auto s = t.datagrams();
  ::send(s.b, "abc", 3, 0);
  t.at_once([&] { t.did("recv", ::recv(s.a, buffer, 10, MSG_WAITALL)); });
}

CONFORMANCE("sendto: a full datagram socket waits for its reader", "sendto recv") {
  auto s = t.datagrams();
  int sent = 0;
  while (::send(s.b, "0123456789", 10, MSG_DONTWAIT) == 10) ++sent;
  t.saw("filled", sent);
  // The kernel lets a sender that waited for room go on when half is free.
  t.meanwhile([&] {
    for (int i = 0; i < sent; ++i) ::recv(s.a, buffer, sizeof buffer, 0);
  });
  t.did("sendto", ::sendto(s.b, "one more", 8, 0, nullptr, 0));
  t.join();
}

CONFORMANCE("sendto: too long a datagram is EMSGSIZE", "sendto") {
  auto a = make_udp(t);
  std::vector<char> much(70000);
  t.did("sendto", ::sendto(a.fd, much.data(), much.size(), 0, plain(a.at), sizeof a.at));
}

CONFORMANCE("sendto: without an address is EDESTADDRREQ", "sendto send") {
  auto a = make_udp(t);
  t.did("sendto", ::sendto(a.fd, "x", 1, 0, nullptr, 0));
}

CONFORMANCE("recv: a refused datagram is ECONNREFUSED", "recv send connect") {
  auto a = make_udp(t);
  auto gone = make_udp(t);
  t.did("connect", ::connect(a.fd, plain(gone.at), sizeof gone.at));
  t.disown(gone.fd);
  ::close(gone.fd);
  t.did("send", ::send(a.fd, "x", 1, 0));
  t.did("recv", ::recv(a.fd, buffer, 1, 0));
}

CONFORMANCE("recvmsg: waits, and fills parts and flags", "recvmsg sendmsg") {
  auto s = t.datagrams();
  char a[2]{}, b[3]{};
  iovec in[2] = {{a, 2}, {b, 3}};
  msghdr m{};
  m.msg_iov = in;
  m.msg_iovlen = 2;
  iovec out{const_cast<char*>("abcdefgh"), 8};
  msghdr w{};
  w.msg_iov = &out;
  w.msg_iovlen = 1;
  t.meanwhile([&] { t.did("sendmsg", ::sendmsg(s.b, &w, 0)); });
  const ssize_t n = ::recvmsg(s.a, &m, 0);
  t.join();
  t.did("recvmsg", n);
  t.saw("truncated", m.msg_flags & MSG_TRUNC);
  t.bytes("a", a, 2);
  t.bytes("b", b, 3);
  t.join();
}

CONFORMANCE("recvmsg: brings descriptors", "recvmsg sendmsg read") {
  auto s = t.stream();
  auto p = t.pipe();
  char one = 'x';
  support::fd_message sent(&one, 1), received(&one, 1);
  sent.put(p.a);
  t.did("sendmsg", ::sendmsg(s.b, &sent.header, 0));
  t.did("recvmsg", ::recvmsg(s.a, &received.header, 0));
  const int brought = received.taken();
  t.own(brought);
  t.meanwhile([&] { ::write(p.b, "through", 7); });
  t.did("read", ::read(brought, buffer, sizeof buffer));
  t.join();
}

CONFORMANCE("recvmmsg: takes what is there with MSG_WAITFORONE", "recvmmsg sendmmsg") {
  auto s = t.datagrams();
  batch out("m"), in;
  t.did("sendmmsg", ::sendmmsg(s.b, out.all, 3, 0));
  t.at_once([&] { t.did("recvmmsg", ::recvmmsg(s.a, in.all, 4, MSG_WAITFORONE, nullptr)); });
  for (int i = 0; i < 3; ++i) t.bytes("message", in.data[i], in.all[i].msg_len);
}

CONFORMANCE("recvmmsg: waits for the first with MSG_WAITFORONE", "recvmmsg") {
  auto s = t.datagrams();
  batch in;
  t.meanwhile([&] { ::send(s.b, "1", 1, 0); });
  t.did("recvmmsg", ::recvmmsg(s.a, in.all, 4, MSG_WAITFORONE, nullptr));
  t.join();
}

CONFORMANCE("recvmmsg: waits for all without a flag", "recvmmsg") {
  auto s = t.datagrams();
  batch in;
  ::send(s.b, "1", 1, 0);
  t.meanwhile([&] {
    ::send(s.b, "22", 2, 0);
    ::send(s.b, "333", 3, 0);
  });
  t.did("recvmmsg", ::recvmmsg(s.a, in.all, 3, 0, nullptr));
  t.saw("lengths", in.all[0].msg_len * 100 + in.all[1].msg_len * 10 + in.all[2].msg_len);
  t.join();
}

CONFORMANCE("recvmmsg: MSG_DONTWAIT, no messages, bad timeouts", "recvmmsg") {
  auto s = t.datagrams();
  batch in;
  t.at_once([&] { t.did("nothing there", ::recvmmsg(s.a, in.all, 2, MSG_DONTWAIT, nullptr)); });
  t.did("none wanted", ::recvmmsg(s.a, in.all, 0, 0, nullptr));
  timespec bad{0, 2000000000};
  t.did("bad timeout", ::recvmmsg(s.a, in.all, 2, 0, &bad));
  t.did("bad fd", ::recvmmsg(-1, in.all, 2, 0, nullptr));
}

CONFORMANCE("recvmmsg: its timeout is looked at after a message only", "recvmmsg") {
  auto s = t.datagrams();
  batch in;
  timespec soon{0, 1000000};
  t.meanwhile([&] {
    timespec later{0, 30000000};
    ::nanosleep(&later, nullptr);
    ::send(s.b, "1", 1, 0);
  });
  t.waits(25ms, [&] { t.did("recvmmsg", ::recvmmsg(s.a, in.all, 2, 0, &soon)); });
  t.saw("left", soon.tv_sec * 1000000000 + soon.tv_nsec);
  t.join();
}

CONFORMANCE("recvmmsg: a timeout of nothing gives one message, however many are there", "recvmmsg") {
  auto s = t.datagrams();
  for (const int flags : {0, int(MSG_DONTWAIT), int(MSG_WAITALL), int(MSG_WAITFORONE)}) {
    for (int i = 0; i < 3; ++i) ::send(s.b, "x", 1, 0);
    batch in;
    timespec nothing{0, 0};
    t.did("recvmmsg", ::recvmmsg(s.a, in.all, 4, flags, &nothing));
    t.saw("left", nothing.tv_sec * 1000000000 + nothing.tv_nsec);
    timespec second{1, 0};
    t.did("the others", ::recvmmsg(s.a, in.all, 2, flags, &second));
    t.saw("less is left", second.tv_sec == 0 && second.tv_nsec > 0);
  }
}

CONFORMANCE("recvmmsg: SO_RCVTIMEO gives EAGAIN", "recvmmsg setsockopt") {
  auto s = t.datagrams();
  const timeval soon{0, 60000};
  ::setsockopt(s.a, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
  batch in;
  t.waits(50ms, [&] { t.did("recvmmsg", ::recvmmsg(s.a, in.all, 2, 0, nullptr)); });
}

CONFORMANCE("sendmmsg: waits for room, and sends them all", "sendmmsg recv") {
  auto s = t.datagrams();
  int sent = 0;
  while (::send(s.b, "fill", 4, MSG_DONTWAIT) == 4) ++sent;
  batch out("q");
  t.meanwhile([&] {
    for (int i = 0; i < sent + 4; ++i) ::recv(s.a, buffer, sizeof buffer, 0);
  });
  t.did("sendmmsg", ::sendmmsg(s.b, out.all, 4, 0));
  t.saw("length", out.all[3].msg_len);
  t.join();
}

CONFORMANCE("sendmmsg: an error after some gives their count", "sendmmsg") {
  auto a = make_udp(t);
  batch out("m");
  for (auto& m : out.all) {
    m.msg_hdr.msg_name = &a.at;
    m.msg_hdr.msg_namelen = sizeof a.at;
  }
  std::vector<char> much(70000);
  out.parts[2] = {much.data(), much.size()};
  t.did("two of four", ::sendmmsg(a.fd, out.all, 4, 0));
  t.did("the third", ::sendmmsg(a.fd, out.all + 2, 1, 0));
  t.did("none", ::sendmmsg(a.fd, out.all, 0, 0));
}

CONFORMANCE("accept: waits for a connection, and tells the peer", "accept connect") {
  unsigned short port;
  const int door = t.listening(&port);
  auto at = loopback(port);
  const int c = t.own(::socket(AF_INET, SOCK_STREAM, 0));
  t.meanwhile([&] { ::connect(c, plain(at), sizeof at); });
  sockaddr_in from{};
  socklen_t size = sizeof from;
  const int got = t.own(::accept(door, plain(from), &size));
  t.saw("accepted", got >= 0);
  t.saw("size", size);
  t.saw("blocking", !(::fcntl(got, F_GETFL) & O_NONBLOCK));
  t.join();
}

CONFORMANCE("accept4: its flags are those of the connection", "accept4 recv") {
  unsigned short port;
  const int door = t.listening(&port);
  auto at = loopback(port);
  const int c = t.own(::socket(AF_INET, SOCK_STREAM, 0));
  t.did("connect", ::connect(c, plain(at), sizeof at));
  const int got = t.own(::accept4(door, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  t.saw("nonblocking", ::fcntl(got, F_GETFL) & O_NONBLOCK);
  t.saw("close on exec", ::fcntl(got, F_GETFD));
  t.at_once([&] { t.did("recv", ::recv(got, buffer, 1, 0)); });
  t.did("bad flags", ::accept4(door, nullptr, nullptr, 1));
}

CONFORMANCE("accept: a nonblocking listener is EAGAIN", "accept ioctl") {
  unsigned short port;
  const int door = t.listening(&port);
  int on = 1;
  ::ioctl(door, FIONBIO, &on);
  t.at_once([&] { t.did("accept", ::accept(door, nullptr, nullptr)); });
}

CONFORMANCE("accept: SO_RCVTIMEO gives EAGAIN", "accept setsockopt") {
  unsigned short port;
  const int door = t.listening(&port);
  const timeval soon{0, 60000};
  ::setsockopt(door, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
  t.waits(50ms, [&] { t.did("accept", ::accept(door, nullptr, nullptr)); });
}

CONFORMANCE("accept: what is no listener is EINVAL, ENOTSOCK, EBADF", "accept accept4") {
  const int s = t.own(::socket(AF_INET, SOCK_STREAM, 0));
  t.did("no listener", ::accept(s, nullptr, nullptr));
  auto p = t.pipe();
  t.did("no socket", ::accept(p.a, nullptr, nullptr));
  t.did("nothing", ::accept4(-1, nullptr, nullptr, 0));
}

CONFORMANCE("accept: shutdown of the listener ends the wait", "accept") {
  unsigned short port;
  const int door = t.listening(&port);
  t.meanwhile([&] { ::shutdown(door, SHUT_RDWR); });
  t.did("accept", ::accept(door, nullptr, nullptr));
  t.join();
}

CONFORMANCE("connect: refused is ECONNREFUSED", "connect") {
  unsigned short port;
  const int door = t.listening(&port);
  t.disown(door);
  ::close(door);
  auto at = loopback(port);
  const int c = t.own(::socket(AF_INET, SOCK_STREAM, 0));
  t.did("connect", ::connect(c, plain(at), sizeof at));
}

CONFORMANCE("connect: a nonblocking one is EINPROGRESS, then writable", "connect poll") {
  unsigned short port;
  t.listening(&port);
  auto at = loopback(port);
  const int c = t.own(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  t.did("connect", ::connect(c, plain(at), sizeof at));
  pollfd p{c, POLLOUT, 0};
  t.did("poll", ::poll(&p, 1, 2000));
  int error = -1;
  socklen_t size = sizeof error;
  ::getsockopt(c, SOL_SOCKET, SO_ERROR, &error, &size);
  t.saw("error", error);
  t.did("again", ::connect(c, plain(at), sizeof at));
  t.did("once more", ::connect(c, plain(at), sizeof at));
}

CONFORMANCE("connect: twice is EISCONN", "connect") {
  unsigned short port;
  t.listening(&port);
  auto at = loopback(port);
  const int c = t.own(::socket(AF_INET, SOCK_STREAM, 0));
  t.did("connect", ::connect(c, plain(at), sizeof at));
  t.did("again", ::connect(c, plain(at), sizeof at));
}

CONFORMANCE("connect: a local socket that is not there, and bad families", "connect") {
  sockaddr_un nowhere{};
  nowhere.sun_family = AF_UNIX;
  std::strcpy(nowhere.sun_path, "/nonexistent/ringlet");
  const int u = t.own(::socket(AF_UNIX, SOCK_STREAM, 0));
  t.did("unix", ::connect(u, reinterpret_cast<sockaddr*>(&nowhere), sizeof nowhere));
  const int c = t.own(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in wrong = loopback(1);
  wrong.sin_family = 99;
  t.did("family", ::connect(c, plain(wrong), sizeof wrong));
  t.did("too short", ::connect(c, plain(wrong), 3));
}

CONFORMANCE("connect: a full backlog of a local listener waits for accept", "connect accept") {
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  std::snprintf(at.sun_path + 1, 60, "ringlet-conformance-%d-%d", int(::getpid()), t.hooked());
  const auto size = socklen_t(sizeof(sa_family_t) + 1 + std::strlen(at.sun_path + 1));
  auto* address = reinterpret_cast<sockaddr*>(&at);
  const int door = t.own(::socket(AF_UNIX, SOCK_STREAM, 0));
  ::bind(door, address, size);
  ::listen(door, 0);
  const int first = t.own(::socket(AF_UNIX, SOCK_STREAM, 0));
  t.did("first", ::connect(first, address, size));
  const int second = t.own(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
  t.did("nonblocking", ::connect(second, address, size));
  const int third = t.own(::socket(AF_UNIX, SOCK_STREAM, 0));
  t.meanwhile([&] { t.own(::accept(door, nullptr, nullptr)); });
  t.did("waits", ::connect(third, address, size));
  t.join();
}

CONFORMANCE("sendfile: a file to a socket whose reader is slow", "sendfile") {
  const int file = t.own(::memfd_create("x", 0));
  std::vector<char> data(2000000, 'f');
  t.did("write", ::write(file, data.data(), data.size()));
  auto s = t.stream();
  std::size_t got = 0;
  t.meanwhile([&] {
    char some[4096];
    while (got < data.size()) {
      const ssize_t n = ::read(s.a, some, sizeof some);
      if (n <= 0) break;
      got += std::size_t(n);
    }
  });
  off_t from = 0;
  std::size_t sent = 0;
  while (sent < data.size()) {
    const ssize_t n = ::sendfile(s.b, file, &from, data.size() - sent);
    if (n <= 0) {
      t.did("sendfile", n);
      break;
    }
    sent += std::size_t(n);
  }
  t.join();
  t.saw("sent", long(sent));
  t.saw("got", long(got));
  t.saw("offset", from);
  t.did("no file", ::sendfile(s.b, -1, nullptr, 1));
  t.join();
}

CONFORMANCE("splice: waits for a pipe", "splice") {
  auto p = t.pipe(), q = t.pipe();
  t.meanwhile([&] { ::write(p.b, "spliced", 7); });
  t.did("splice", ::splice(p.a, nullptr, q.b, nullptr, 100, 0));
  t.did("read", ::read(q.a, buffer, sizeof buffer));
  t.did("nonblocking", ::splice(p.a, nullptr, q.b, nullptr, 100, SPLICE_F_NONBLOCK));
  t.join();
}
