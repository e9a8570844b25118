// The flags and the time limits of receives and sends, on each kind of socket.

#include "kinds.hpp"

#include <poll.h>
#include <sys/ioctl.h>

namespace {

using namespace conformance;

char buffer[64];

struct flag {
  const char* name;
  int bits;
};
constexpr flag receive_flags[] = {
    {"MSG_DONTWAIT", MSG_DONTWAIT}, {"MSG_PEEK", MSG_PEEK},
    {"MSG_TRUNC", MSG_TRUNC},       {"MSG_WAITALL", MSG_WAITALL},
    {"MSG_OOB", MSG_OOB},           {"MSG_ERRQUEUE", MSG_ERRQUEUE},
};
constexpr flag send_flags[] = {
    {"MSG_DONTWAIT", MSG_DONTWAIT}, {"MSG_MORE", MSG_MORE}, {"MSG_EOR", MSG_EOR}, {"MSG_OOB", MSG_OOB}, {"a flag that is none", 1 << 27},
};

void limit_both(int fd, int ms) {
  set_time_limit(fd, SO_RCVTIMEO, ms);
  set_time_limit(fd, SO_SNDTIMEO, ms);
}

void receive_message(trace& t, const char* what, int fd, int flags, std::size_t size) {
  address from;
  char control[128];
  one_message m(buffer, size);
  msghdr& header = m.many.msg_hdr;
  header.msg_name = from.plain();
  header.msg_namelen = from.size;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t n = t.did(what, ::recvmsg(fd, &header, flags));
  if (n < 0) return;
  t.saw("flags", header.msg_flags);
  t.saw("length of the name", header.msg_namelen);
  t.saw("length of the control data", long(header.msg_controllen));
}

}  // namespace

// First with too little, then with too much room, then with nothing there: each once more while it waits.
CONFORMANCE_EACH("receiving: with {0} from {1}", "recv recvfrom recvmsg", receive_flags, sockets)(trace& t, const flag& f, const kind& of) {
  auto s = of.make(t);
  limit_both(s.a, 30);
  const auto look = [&](const char* what, std::size_t size) {
    ::send(s.b, "0123456789", 10, 0);
    std::memset(buffer, '.', sizeof buffer);
    t.did(what, ::recv(s.a, buffer, size, f.bits));
    t.bytes("data", buffer, 12);
    ::send(s.b, "0123456789", 10, 0);
    receive_message(t, what, s.a, f.bits, size);
    ssize_t left = 0;
    for (ssize_t n; (n = ::recv(s.a, buffer, sizeof buffer, MSG_DONTWAIT)) > 0;) left = left * 100 + n;
    t.saw("left", left);
  };
  look("little room", 4);
  look("much room", 20);
  t.did("nothing there", ::recv(s.a, buffer, 4, f.bits));
  receive_message(t, "nothing there", s.a, f.bits, 4);
  t.meanwhile([&] { ::send(s.b, "late", 4, 0); });
  t.did("late", ::recv(s.a, buffer, 4, f.bits & ~MSG_DONTWAIT));
  t.join();
};

CONFORMANCE_EACH("sending: with {0} to {1}", "send sendmsg", send_flags, sockets)(trace& t, const flag& f, const kind& of) {
  auto s = of.make(t);
  limit_both(s.a, 300);
  limit_both(s.b, 30);
  t.did("send", ::send(s.b, "01234", 5, f.bits));
  one_message m("56789", 5);
  t.did("sendmsg", ::sendmsg(s.b, &m.many.msg_hdr, f.bits));
  t.did("last", ::send(s.b, "!", 1, 0));
  ssize_t arrived = 0;
  pollfd there{s.a, POLLIN, 0};
  while (arrived < 11 && ::poll(&there, 1, 300) > 0) {
    const ssize_t n = ::recv(s.a, buffer + arrived, sizeof buffer - std::size_t(arrived), MSG_DONTWAIT);
    if (n <= 0) break;
    arrived += n;
    if (f.bits == MSG_OOB) break;  // where the urgent byte cuts is its own case
  }
  t.saw("something arrived", arrived > 0);
};

CONFORMANCE_EACH("SO_RCVTIMEO: {0} gives EAGAIN in time, on each kind of socket", "{0} setsockopt", readings)(trace& t, const reading& call) {
  for (const kind& of : sockets) {
    auto s = of.make(t);
    set_time_limit(s.a, SO_RCVTIMEO, 30);
    t.waits(25ms, [&] { t.did(of.name, call.call(s.a, buffer, 8)); });
    ::send(s.b, "x", 1, 0);
    t.did("with data", call.call(s.a, buffer, 8));
  }
};

CONFORMANCE_EACH("SO_SNDTIMEO: {0} gives EAGAIN in time, where there is no room", "{0} setsockopt", writings)(trace& t, const writing& call) {
  for (const kind& of : {sockets[0], sockets[1], sockets[2]}) {
    auto s = of.make(t);
    set_nonblocking(s.b);
    while (::write(s.b, buffer, sizeof buffer) > 0) {
    }
    set_blocking(s.b);
    set_time_limit(s.b, SO_SNDTIMEO, 30);
    t.waits(25ms, [&] { t.did(of.name, call.call(s.b, buffer, 64)); });
  }
};

CONFORMANCE("SO_RCVTIMEO: set while one waits, it is the next call's", "recv setsockopt") {
  auto s = t.stream();
  t.meanwhile([&] {
    set_time_limit(s.a, SO_RCVTIMEO, 1);
    ::usleep(20'000);  // that the new limit passes meanwhile is the case
    ::send(s.b, "x", 1, 0);
  });
  t.waits(15ms, [&] { t.did("recv", ::recv(s.a, buffer, 1, 0)); });
  t.join();
  t.did("next", ::recv(s.a, buffer, 1, 0));
}

CONFORMANCE("SO_RCVTIMEO: set through a duplicate, and by a child, counts", "recv setsockopt dup") {
  auto s = t.stream();
  const int twin = t.own(::dup(s.a));
  t.meanwhile([&] { ::send(s.b, "x", 1, 0); });
  t.did("recv", ::recv(s.a, buffer, 1, 0));
  t.join();
  set_time_limit(twin, SO_RCVTIMEO, 30);
  t.waits(25ms, [&] { t.did("recv", ::recv(s.a, buffer, 1, 0)); });
  timeval read_back{};
  socklen_t size = sizeof read_back;
  ::getsockopt(s.a, SOL_SOCKET, SO_RCVTIMEO, &read_back, &size);
  t.saw("read back", read_back.tv_usec / 1000 / 10);
}

CONFORMANCE("SO_RCVTIMEO: what the kernel refuses, and the least", "setsockopt recv") {
  auto s = t.stream();
  const timeval wrong{0, 1'000'000}, least{0, 1};
  t.did("wrong", ::setsockopt(s.a, SOL_SOCKET, SO_RCVTIMEO, &wrong, sizeof wrong));
  t.did("short", ::setsockopt(s.a, SOL_SOCKET, SO_RCVTIMEO, &least, 3));
  t.did("least", ::setsockopt(s.a, SOL_SOCKET, SO_RCVTIMEO, &least, sizeof least));
  t.did("then", ::recv(s.a, buffer, 1, 0));
  t.did("all", ::recv(s.a, buffer, 9, MSG_WAITALL));
}

CONFORMANCE_EACH("SO_RCVLOWAT: {0} waits for as much, on TCP", "{0} setsockopt poll", readings)(trace& t, const reading& call) {
  auto s = t.tcp();
  const int least = 5;
  t.did("setsockopt", ::setsockopt(s.a, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof least));
  ::send(s.b, "abc", 3, 0);
  int there = 0;
  until([&] { return ::ioctl(s.a, FIONREAD, &there) == 0 && there == 3; });
  pollfd p{s.a, POLLIN, 0};
  t.saw("ready", ::poll(&p, 1, 0));
  t.did("without waiting", ::recv(s.a, buffer, 2, MSG_DONTWAIT | MSG_PEEK));
  t.meanwhile([&] { ::send(s.b, "defghi", 6, 0); });
  t.did(call.name, call.call(s.a, buffer, sizeof buffer));
  t.join();
};

CONFORMANCE("SO_RCVLOWAT: on a unix stream", "recv setsockopt poll") {
  auto s = t.stream();
  const int least = 5;
  t.did("setsockopt", ::setsockopt(s.a, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof least));
  ::send(s.b, "abc", 3, 0);
  pollfd p{s.a, POLLIN, 0};
  t.saw("ready", ::poll(&p, 1, 0));
  t.meanwhile([&] { ::send(s.b, "defg", 4, 0); });
  const ssize_t n = ::recv(s.a, buffer, sizeof buffer, 0);
  t.join();
  t.did("recv", n);
  t.did("again", ::recv(s.a, buffer, sizeof buffer, MSG_DONTWAIT));
}
