// connect and accept: what is refused, what waits, what is told of addresses; who is served first.

#include "kinds.hpp"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/un.h>

namespace {

using namespace conformance;

char buffer[64];

struct family {
  const char* name;
  int domain;
};
constexpr family families[] = {{"IPv4", AF_INET}, {"IPv6", AF_INET6}, {"unix sockets", AF_UNIX}};

// A listener and where it is; a unix one by an abstract name that the kernel chooses.
struct door {
  int fd;
  address at;
};
door listener(trace& t, int domain, int backlog = 8) {
  door d{};
  if (domain == AF_UNIX) {
    d.fd = t.own(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sa_family_t only = AF_UNIX;
    ::bind(d.fd, reinterpret_cast<const sockaddr*>(&only), sizeof only);
  } else {
    d.fd = bound(t, domain, SOCK_STREAM);
  }
  ::listen(d.fd, backlog);
  d.at = name_of(d.fd);
  return d;
}
int client(trace& t, int domain) { return t.own(::socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

struct accepting {
  const char* name;
  int (*call)(int fd, sockaddr*, socklen_t*);
};
constexpr accepting acceptings[] = {
    {"accept", [](int fd, sockaddr* a, socklen_t* n) { return ::accept(fd, a, n); }},
    {"accept4", [](int fd, sockaddr* a, socklen_t* n) { return ::accept4(fd, a, n, SOCK_CLOEXEC); }},
};

// No descriptor beyond those that there are.
struct no_more_descriptors {
  rlimit before{};
  no_more_descriptors() {
    const int next = ::dup(0);
    ::close(next);
    ::getrlimit(RLIMIT_NOFILE, &before);
    rlimit now = before;
    now.rlim_cur = rlim_t(next);
    ::setrlimit(RLIMIT_NOFILE, &now);
  }
  ~no_more_descriptors() { ::setrlimit(RLIMIT_NOFILE, &before); }
};

}  // namespace

CONFORMANCE_EACH("{0}: waits for a peer of {1}, and tells its address", "{0} connect", acceptings, families)
(trace& t, const accepting& call, const family& f) {
  const door d = listener(t, f.domain);
  const int c = client(t, f.domain);
  t.meanwhile([&] { ::connect(c, reinterpret_cast<const sockaddr*>(&d.at.of), d.at.size); });
  address from;
  const int fd = t.own(call.call(d.fd, from.plain(), &from.size));
  t.join();
  t.saw("accepted", fd >= 0);
  t.saw("size", from.size);
  t.saw("family", from.of.ss_family);
  address own = name_of(c);
  t.saw("its own", own.size == from.size && std::memcmp(&own.of, &from.of, own.size) == 0);
  t.saw("flags", ::fcntl(fd, F_GETFL) & O_NONBLOCK);
};

CONFORMANCE_EACH("{0}: addresses cut, left out, and bad", "{0}", acceptings)(trace& t, const accepting& call) {
  const door d = listener(t, AF_INET);
  const auto served = [&](const char* what, sockaddr* to, socklen_t* size) {
    const int c = client(t, AF_INET);
    t.meanwhile([&] { ::connect(c, reinterpret_cast<const sockaddr*>(&d.at.of), d.at.size); });
    const int fd = call.call(d.fd, to, size);
    const int error = errno;
    t.join();
    t.saw(what, fd >= 0 ? 0 : error);
    if (fd >= 0) ::close(fd);
    set_nonblocking(d.fd);
    const int left = ::accept(d.fd, nullptr, nullptr);
    t.saw("left", left >= 0);
    if (left >= 0) ::close(left);
    set_blocking(d.fd);
  };
  sockaddr_in from{};
  socklen_t size = 5;
  served("cut", reinterpret_cast<sockaddr*>(&from), &size);
  t.saw("true size", size);
  t.saw("family", from.sin_family);
  size = 0;
  served("no room", reinterpret_cast<sockaddr*>(&from), &size);
  t.saw("true size", size);
  size = 99;
  served("no address, but a size", nullptr, &size);
  t.saw("size", size);
  size = socklen_t(-1);
  served("less than no room", reinterpret_cast<sockaddr*>(&from), &size);
  if (is_instrumented()) return;
  served("an address, but no size", reinterpret_cast<sockaddr*>(&from), nullptr);
  size = sizeof from;
  served("a bad address", static_cast<sockaddr*>(nowhere()), &size);
};

CONFORMANCE("accept4: flags that are none are EINVAL at once", "accept4") {
  const door d = listener(t, AF_INET);
  t.at_once([&] { t.did("accept4", ::accept4(d.fd, nullptr, nullptr, 1)); });
}

CONFORMANCE_EACH("{0}: without a free descriptor is EMFILE at once, and the peer is kept", "{0}", acceptings)(trace& t, const accepting& call) {
  const door d = listener(t, AF_INET);
  const int c = client(t, AF_INET);
  t.meanwhile([&] { ::connect(c, reinterpret_cast<const sockaddr*>(&d.at.of), d.at.size); });
  t.own(call.call(d.fd, nullptr, nullptr));  // so that the listener is known
  t.join();
  const int late = client(t, AF_INET);
  {
    no_more_descriptors limit;
    t.at_once([&] { t.did("nobody there", call.call(d.fd, nullptr, nullptr)); });
    ::connect(late, reinterpret_cast<const sockaddr*>(&d.at.of), d.at.size);
    t.at_once([&] { t.did("somebody there", call.call(d.fd, nullptr, nullptr)); });
  }
  t.saw("afterwards", t.own(call.call(d.fd, nullptr, nullptr)) >= 0);
};

CONFORMANCE("recvmsg: descriptors that find no free number are dropped, and it is told", "recvmsg sendmsg") {
  auto s = t.stream();
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
  one_message out("x", 1);
  msghdr& m = out.many.msg_hdr;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(2 * sizeof(int));
  const int both[] = {s.a, s.b};
  std::memcpy(CMSG_DATA(c), both, sizeof both);
  t.did("sendmsg", ::sendmsg(s.b, &m, 0));
  no_more_descriptors limit;
  one_message in(buffer, 8);
  in.many.msg_hdr.msg_control = control;
  in.many.msg_hdr.msg_controllen = sizeof control;
  t.did("recvmsg", ::recvmsg(s.a, &in.many.msg_hdr, 0));
  t.saw("cut", in.many.msg_hdr.msg_flags & MSG_CTRUNC);
  t.saw("control", long(in.many.msg_hdr.msg_controllen));
}

CONFORMANCE("accept: a peer that has reset its connection is still accepted", "accept connect") {
  const door d = listener(t, AF_INET);
  const int c = client(t, AF_INET);
  t.did("connect", ::connect(c, reinterpret_cast<const sockaddr*>(&d.at.of), d.at.size));
  const linger reset{1, 0};
  ::setsockopt(c, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  t.disown(c);
  ::close(c);
  const int fd = t.own(::accept(d.fd, nullptr, nullptr));
  t.saw("accepted", fd >= 0);
  t.did("recv", ::recv(fd, buffer, 8, 0));
}

CONFORMANCE("accept: of what cannot: datagrams, connected ones, a listener that is not yet one", "accept accept4") {
  t.did("datagrams", ::accept(bound(t, AF_INET, SOCK_DGRAM), nullptr, nullptr));
  t.did("connected", ::accept(t.tcp().a, nullptr, nullptr));
  t.did("unix datagrams", ::accept(t.datagrams().a, nullptr, nullptr));
  t.did("unix connected", ::accept4(t.stream().a, nullptr, nullptr, 0));
  t.did("a pipe", ::accept4(t.pipe().a, nullptr, nullptr, 0));
}

CONFORMANCE("accept: shutdown of a unix listener while it is waited for", "accept shutdown") {
  const door d = listener(t, AF_UNIX);
  t.meanwhile([&] { ::shutdown(d.fd, SHUT_RD); });
  t.did("accept", ::accept(d.fd, nullptr, nullptr));
  t.join();
  t.did("again", ::accept(d.fd, nullptr, nullptr));
  t.did("connect", ::connect(client(t, AF_UNIX), reinterpret_cast<const sockaddr*>(&d.at.of), d.at.size));
}

CONFORMANCE("accept: TCP_DEFER_ACCEPT waits for the first bytes", "accept connect") {
  const door d = listener(t, AF_INET);
  const int seconds = 1;
  ::setsockopt(d.fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds);
  const int c = client(t, AF_INET);
  t.did("connect", ::connect(c, reinterpret_cast<const sockaddr*>(&d.at.of), d.at.size));
  pollfd p{d.fd, POLLIN, 0};
  t.saw("ready", ::poll(&p, 1, 20));
  t.meanwhile([&] { ::send(c, "x", 1, 0); });
  const int fd = t.own(::accept(d.fd, nullptr, nullptr));
  t.join();
  t.did("recv", ::recv(fd, buffer, 8, MSG_DONTWAIT));
}

CONFORMANCE_EACH("connect: nobody there, over {0}; then somebody", "connect", families)(trace& t, const family& f) {
  address gone;
  {
    trace inner(t.hooked());
    gone = listener(inner, f.domain).at;
  }
  const int c = client(t, f.domain);
  t.did("refused", ::connect(c, gone.plain(), gone.size));
  int error = -1;
  socklen_t size = sizeof error;
  ::getsockopt(c, SOL_SOCKET, SO_ERROR, &error, &size);
  t.saw("SO_ERROR", error);
  const door d = listener(t, f.domain);
  t.did("then", ::connect(c, reinterpret_cast<const sockaddr*>(&d.at.of), d.at.size));
  t.did("twice", ::connect(c, reinterpret_cast<const sockaddr*>(&d.at.of), d.at.size));
  t.did("send", ::send(c, "x", 1, MSG_NOSIGNAL));
};

CONFORMANCE_EACH("connect: bad addresses of {0}", "connect", families)(trace& t, const family& f) {
  const door d = listener(t, f.domain);
  const auto* at = reinterpret_cast<const sockaddr*>(&d.at.of);
  const int c = client(t, f.domain);
  t.did("too short", ::connect(c, at, 1));
  t.did("no size", ::connect(c, at, 0));
  t.did("less than none", ::connect(c, at, socklen_t(-1)));
  t.did("too long", ::connect(c, at, 4096));
  if (!is_instrumented()) t.did("nowhere", ::connect(c, static_cast<const sockaddr*>(nowhere()), d.at.size));
  sockaddr_storage wrong = d.at.of;
  wrong.ss_family = 77;
  t.did("wrong family", ::connect(c, reinterpret_cast<const sockaddr*>(&wrong), d.at.size));
  wrong.ss_family = AF_UNSPEC;
  t.did("no family", ::connect(c, reinterpret_cast<const sockaddr*>(&wrong), d.at.size));
  t.did("right", ::connect(c, at, d.at.size));
  t.did("to a listener from itself", ::connect(d.fd, at, d.at.size));
};

CONFORMANCE("connect: in progress: asked twice, waited for by poll, and by a blocking connect", "connect poll") {
  const door d = listener(t, AF_INET);
  const int c = client(t, AF_INET);
  set_nonblocking(c);
  const auto* at = reinterpret_cast<const sockaddr*>(&d.at.of);
  t.did("first", ::connect(c, at, d.at.size));
  pollfd p{c, POLLOUT, 0};
  t.saw("poll", ::poll(&p, 1, 1000));
  t.saw("revents", p.revents);
  t.did("second", ::connect(c, at, d.at.size));
  t.did("third", ::connect(c, at, d.at.size));
  set_blocking(c);
  t.did("fourth", ::connect(c, at, d.at.size));
}

CONFORMANCE("connect: a full backlog of TCP: SO_SNDTIMEO gives EINPROGRESS, then EALREADY", "connect setsockopt") {
  const door d = listener(t, AF_INET, 0);
  const auto* at = reinterpret_cast<const sockaddr*>(&d.at.of);
  const int first = client(t, AF_INET);
  t.did("fills it", ::connect(first, at, d.at.size));
  const int c = client(t, AF_INET);
  set_time_limit(c, SO_SNDTIMEO, 40);
  t.waits(35ms, [&] { t.did("waits", ::connect(c, at, d.at.size)); });
  t.waits(35ms, [&] { t.did("again", ::connect(c, at, d.at.size)); });
  set_nonblocking(c);
  t.at_once([&] { t.did("without waiting", ::connect(c, at, d.at.size)); });
  t.did("send", ::send(c, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL));
  t.did("recv", ::recv(c, buffer, 1, MSG_DONTWAIT));
}

CONFORMANCE("connect: a full backlog of a unix listener: time limits and nonblocking ones", "connect setsockopt") {
  const door d = listener(t, AF_UNIX, 0);
  const auto* at = reinterpret_cast<const sockaddr*>(&d.at.of);
  t.did("fills it", ::connect(client(t, AF_UNIX), at, d.at.size));
  const int c = client(t, AF_UNIX);
  set_nonblocking(c);
  t.did("nonblocking", ::connect(c, at, d.at.size));
  set_blocking(c);
  set_time_limit(c, SO_SNDTIMEO, 40);
  t.waits(35ms, [&] { t.did("with a limit", ::connect(c, at, d.at.size)); });
  set_time_limit(c, SO_SNDTIMEO, 0);
  t.disown(d.fd);
  t.meanwhile([&] { ::close(d.fd); });
  t.did("the listener goes", ::connect(c, at, d.at.size));
  t.join();
}

CONFORMANCE("connect: datagram sockets: connected, to another, and not at all", "connect send recv") {
  auto u = connected_udp(t, AF_INET);
  const int third = bound(t, AF_INET, SOCK_DGRAM);
  address of_a = name_of(u.a), of_third = name_of(third);
  t.did("stranger", ::sendto(third, "stranger", 8, 0, of_a.plain(), of_a.size));
  t.did("not heard", ::recv(u.a, buffer, 16, MSG_DONTWAIT));
  t.did("to another", ::connect(u.a, of_third.plain(), of_third.size));
  t.did("stranger", ::sendto(third, "stranger", 8, 0, of_a.plain(), of_a.size));
  t.did("heard", ::recv(u.a, buffer, 16, 0));
  const sockaddr none{};
  t.did("not at all", ::connect(u.a, &none, sizeof none));
  t.did("send", ::send(u.a, "x", 1, 0));
  set_time_limit(u.a, SO_RCVTIMEO, 30);
  t.did("recv", ::recv(u.a, buffer, 16, 0));
}

CONFORMANCE("sendto: MSG_FASTOPEN connects, and sends with it", "sendto accept recv") {
  const door d = listener(t, AF_INET);
  const int c = client(t, AF_INET);
  t.did("sendto", ::sendto(c, "early", 5, MSG_FASTOPEN, reinterpret_cast<const sockaddr*>(&d.at.of), d.at.size));
  const int fd = t.own(::accept(d.fd, nullptr, nullptr));
  t.did("recv", ::recv(fd, buffer, 5, MSG_WAITALL));
  t.did("connect", ::connect(c, reinterpret_cast<const sockaddr*>(&d.at.of), d.at.size));
}

CONFORMANCE("accept: who waits first is served first", "accept connect") {
  const door d = listener(t, AF_INET);
  int got[2] = {-1, -1};
  std::atomic<pid_t> second{0};
  std::atomic<int> done{0};
  const int c[2] = {client(t, AF_INET), client(t, AF_INET)};
  t.meanwhile([&] {
    second = pid_t(::syscall(SYS_gettid));
    got[1] = ::accept(d.fd, nullptr, nullptr);
    ++done;
  });
  t.meanwhile([&] {
    until([&] { return second != 0 && waits(second); });
    ::connect(c[0], reinterpret_cast<const sockaddr*>(&d.at.of), d.at.size);
    until([&] { return done == 1; });
    ::connect(c[1], reinterpret_cast<const sockaddr*>(&d.at.of), d.at.size);
  });
  got[0] = ::accept(d.fd, nullptr, nullptr);
  ++done;
  t.join();
  for (int i = 0; i < 2; ++i) {
    address peer, own = name_of(c[i]);
    ::getpeername(t.own(got[i]), peer.plain(), &peer.size);
    t.saw("is that client's", std::memcmp(&peer.of, &own.of, own.size) == 0);
  }
}
