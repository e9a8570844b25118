// What random calls found (tests/random): each once more, by name.

#include "conformance.hpp"

#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdint>

using conformance::nowhere;
using conformance::trace;

CONFORMANCE("recv: a datagram socket that is shut down while it waits is at its end", "recv read recvmsg readv") {
  for (int way = 0; way < 4; ++way) {
    auto d = t.datagrams();
    char c;
    iovec part{&c, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const auto receive = [&] {
      return way == 0 ? ::recv(d.a, &c, 1, 0) : way == 1 ? ::read(d.a, &c, 1) : way == 2 ? ::recvmsg(d.a, &message, 0) : ::readv(d.a, &part, 1);
    };
    t.meanwhile([&] { ::shutdown(d.a, SHUT_RDWR); });
    t.did("while it waits", receive());
    t.join();
    t.did("again", receive());
    t.did("without waiting", ::recv(d.a, &c, 1, MSG_DONTWAIT));
  }
}

CONFORMANCE("recv: a datagram socket's queue of errors is not its end", "recv read recvmsg poll setsockopt") {
  const int nobody = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in there{};
  there.sin_family = AF_INET;
  there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof there;
  t.saw("bound", ::bind(nobody, reinterpret_cast<sockaddr*>(&there), length));
  ::getsockname(nobody, reinterpret_cast<sockaddr*>(&there), &length);
  const int s = t.own(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  t.did("connect", ::connect(s, reinterpret_cast<sockaddr*>(&there), sizeof there));
  ::close(nobody);
  const int on = 1;
  const timeval soon{0, 60000};
  t.did("IP_RECVERR", ::setsockopt(s, IPPROTO_IP, IP_RECVERR, &on, sizeof on));
  t.did("SO_RCVTIMEO", ::setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon));
  t.did("send", ::send(s, "x", 1, 0));
  pollfd refused{s, 0, 0};
  t.saw("refused", ::poll(&refused, 1, 5000));
  char text[8];
  iovec part{text, sizeof text};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  t.did("the error", ::recv(s, text, sizeof text, 0));
  for (int twice = 0; twice < 2; ++twice) {
    t.waits(50ms, [&] { t.did("recv", ::recv(s, text, sizeof text, 0)); });
    t.waits(50ms, [&] { t.did("read", ::read(s, text, sizeof text)); });
    t.waits(50ms, [&] { t.did("recvmsg", ::recvmsg(s, &message, 0)); });
  }
  t.saw("still there", ::poll(&refused, 1, 0));
}

CONFORMANCE("write: an eventfd with room for one, not for what is added, waits", "write read") {
  const int fd = t.own(::eventfd(0, EFD_CLOEXEC));
  const std::uint64_t nearly = UINT64_MAX - 2, two = 2, none = 0, never = UINT64_MAX;
  std::uint64_t got = 0;
  t.did("fill", ::write(fd, &nearly, 8));
  long taken = 0;
  t.meanwhile([&] { taken = ::read(fd, &got, 8); });
  t.did("two more", ::write(fd, &two, 8));
  t.join();
  t.saw("taken", taken);
  t.did("take", ::read(fd, &got, 8));
  t.saw("got", long(got));
  t.did("fill", ::write(fd, &nearly, 8));
  t.did("one", ::write(fd, &two, 4));
  t.did("too much", ::write(fd, &never, 8));
  t.did("nothing", ::write(fd, &none, 8));
  t.did("nowhere", ::write(fd, nowhere(), 8));
}

CONFORMANCE("write: of nothing is a message on sockets that keep them apart", "write read writev") {
  int both[2];
  t.saw("made", ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, both));
  t.own(both[0]);
  t.own(both[1]);
  char text[8] = "";
  iovec none{text, 0};
  t.did("writev", ::writev(both[1], &none, 1));
  t.did("write", ::write(both[1], "", 0));
  t.did("write", ::write(both[1], "x", 1));
  t.did("read", ::read(both[0], text, sizeof text));
  t.did("read", ::read(both[0], text, sizeof text));
  auto p = t.pipe();
  t.did("on a pipe", ::write(p.b, "", 0));
}

CONFORMANCE("recv: MSG_PEEK with MSG_WAITALL is one look on a unix stream", "recv") {
  auto s = t.stream();
  char text[8];
  ::send(s.b, "abc", 3, 0);
  t.did("peek", ::recv(s.a, text, 8, MSG_PEEK | MSG_WAITALL));
  t.did("read", ::recv(s.a, text, 8, 0));
}

CONFORMANCE("readv, recvmsg: a bad vector is refused at once, also where there is nothing to read", "readv recvmsg writev sendmsg recv") {
  auto s = t.stream();
  char text[8];
  t.meanwhile([&] { ::send(s.b, "abc", 3, 0); });
  t.did("read", ::recv(s.a, text, 8, 0));  // known to be empty now
  t.join();
  t.at_once([&] {
    t.did("readv", ::readv(s.a, static_cast<iovec*>(nowhere()), 1));
    t.did("count", ::readv(s.a, static_cast<iovec*>(nowhere()), -1));
    t.did("recvmsg", ::recvmsg(s.a, static_cast<msghdr*>(nowhere()), 0));
    t.did("writev", ::writev(s.a, static_cast<iovec*>(nowhere()), 1));
    t.did("sendmsg", ::sendmsg(s.a, static_cast<msghdr*>(nowhere()), 0));
  });
}

CONFORMANCE("recv: of nothing from an empty TCP socket waits once, and gives nothing", "recv recvmsg recvmmsg") {
  auto s = t.tcp();
  const timeval limit{0, 60'000};
  ::setsockopt(s.a, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  char c;
  msghdr message{};
  t.waits(55ms, [&] { t.did("recv", ::recv(s.a, &c, 0, 0)); });
  t.waits(55ms, [&] { t.did("recvmsg", ::recvmsg(s.a, &message, 0)); });
  t.waits(55ms, [&] { t.did("recvmsg of all", ::recvmsg(s.a, &message, MSG_WAITALL)); });
  mmsghdr one{};
  t.waits(55ms, [&] { t.did("recvmmsg of all", ::recvmmsg(s.a, &one, 1, MSG_WAITALL, nullptr)); });
  t.did("without waiting", ::recv(s.a, &c, 0, MSG_DONTWAIT));
  t.did("read", ::read(s.a, &c, 0));
}

CONFORMANCE("recvmmsg: gives a pending error where a receive of one is at the end", "recvmmsg recv") {
  auto s = t.tcp();
  char text[8];
  ::shutdown(s.b, SHUT_RDWR);
  t.did("send", ::send(s.a, "x", 1, MSG_NOSIGNAL));  // answered by a reset
  pollfd reset{s.a, 0, 0};
  t.saw("reset", ::poll(&reset, 1, 5000));
  iovec part{text, sizeof text};
  mmsghdr messages[2]{};
  for (auto& each : messages) {
    each.msg_hdr.msg_iov = &part;
    each.msg_hdr.msg_iovlen = 1;
  }
  t.did("recvmmsg", ::recvmmsg(s.a, messages, 2, 0, nullptr));
  t.did("recvmmsg", ::recvmmsg(s.a, messages, 2, MSG_WAITFORONE, nullptr));
  t.did("recv", ::recv(s.a, text, sizeof text, 0));
}

CONFORMANCE("read: a pipe with the number of a socket that had a time limit waits without one", "read write") {
  auto s = t.stream();
  const timeval limit{0, 30'000};
  ::setsockopt(s.a, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  char c;
  t.waits(25ms, [&] { t.did("socket", ::read(s.a, &c, 1)); });
  ::close(s.a);
  auto p = t.pipe();
  t.saw("same number", p.a == s.a || ::dup2(p.a, s.a) == s.a);
  t.meanwhile([&] {
    ::usleep(120'000);  // that the old limit passes meanwhile, four times, is the case
    (void)!::write(p.b, "x", 1);
  });
  t.waits(50ms, [&] { t.did("pipe", ::read(s.a, &c, 1)); });
  t.join();
}
