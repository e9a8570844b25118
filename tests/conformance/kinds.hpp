#pragma once
// The tables that cases are crossed with: kinds of files with two ends, and the calls that read and write them.

#include <fcntl.h>
#include <netinet/in.h>
#include <pty.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>

#include "conformance.hpp"

namespace conformance {

inline void set_nonblocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK); }
inline void set_blocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK); }
inline void set_time_limit(int fd, int option, int ms) {
  const timeval limit{ms / 1000, ms % 1000 * 1000};
  ::setsockopt(fd, SOL_SOCKET, option, &limit, sizeof limit);
}

// A socket's own address, whatever its family.
struct address {
  sockaddr_storage of{};
  socklen_t size = sizeof of;
  sockaddr* plain() { return reinterpret_cast<sockaddr*>(&of); }
};
inline address name_of(int socket) {
  address a;
  ::getsockname(socket, a.plain(), &a.size);
  return a;
}
// A socket bound to a free port of the loopback.
inline int bound(trace& t, int family, int type) {
  const int fd = t.own(::socket(family, type | SOCK_CLOEXEC, 0));
  address a;
  a.of.ss_family = sa_family_t(family);
  if (family == AF_INET) {
    reinterpret_cast<sockaddr_in&>(a.of).sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.size = sizeof(sockaddr_in);
  } else {
    reinterpret_cast<sockaddr_in6&>(a.of).sin6_addr = in6addr_loopback;
    a.size = sizeof(sockaddr_in6);
  }
  if (fd < 0 || ::bind(fd, a.plain(), a.size) != 0) throw not_here{family == AF_INET6 ? "no IPv6" : "no IPv4"};
  return fd;
}

inline ends socket_pair(trace& t, int type) {
  int both[2];
  ::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, both);
  return {t.own(both[0]), t.own(both[1])};
}
inline ends connected_tcp(trace& t, int family) {
  const int door = bound(t, family, SOCK_STREAM);
  ::listen(door, 8);
  address a = name_of(door);
  const int b = t.own(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ::connect(b, a.plain(), a.size);
  return {t.own(::accept4(door, nullptr, nullptr, SOCK_CLOEXEC)), b};
}
inline ends connected_udp(trace& t, int family) {
  const int a = bound(t, family, SOCK_DGRAM), b = bound(t, family, SOCK_DGRAM);
  address of_a = name_of(a), of_b = name_of(b);
  ::connect(a, of_b.plain(), of_b.size);
  ::connect(b, of_a.plain(), of_a.size);
  return {a, b};
}
// A FIFO's path, gone after the case.
struct fifo_path {
  std::string folder = "/tmp/ringlet-fifo.XXXXXX", path;
  fifo_path() {
    if (!::mkdtemp(folder.data())) throw not_here{"no room in /tmp"};
    path = folder + "/fifo";
    ::mkfifo(path.c_str(), 0600);
  }
  ~fifo_path() {
    ::unlink(path.c_str());
    ::rmdir(folder.c_str());
  }
  fifo_path(const fifo_path&) = delete;
  operator const char*() const { return path.c_str(); }
};
inline ends fifo(trace& t) {
  fifo_path at;
  const int a = t.own(::open(at, O_RDONLY | O_NONBLOCK | O_CLOEXEC)), b = t.own(::open(at, O_WRONLY | O_CLOEXEC));
  set_blocking(a);
  return {a, b};
}
inline ends packet_pipe(trace& t) {
  int both[2];
  ::pipe2(both, O_DIRECT | O_CLOEXEC);
  return {t.own(both[0]), t.own(both[1])};
}
// A terminal that takes bytes as they come: a reads, b is who types.
inline ends terminal(trace& t) {
  int master, slave;
  termios how{};
  ::cfmakeraw(&how);
  how.c_cflag |= CREAD | CS8;
  if (::openpty(&master, &slave, nullptr, &how, nullptr) != 0) throw not_here{"no pseudo-terminals"};
  return {t.own(slave), t.own(master)};
}

struct kind {
  const char* name;
  ends (*make)(trace&);  // a reads what b writes
  bool is_socket;
};
inline constexpr kind pipes[] = {
    {"a pipe", [](trace& t) { return t.pipe(); }, false},
    {"a FIFO", fifo, false},
    {"a pipe of packets", packet_pipe, false},
};
inline constexpr kind sockets[] = {
    {"a unix stream", [](trace& t) { return socket_pair(t, SOCK_STREAM); }, true},
    {"unix datagrams", [](trace& t) { return socket_pair(t, SOCK_DGRAM); }, true},
    {"a unix seqpacket socket", [](trace& t) { return socket_pair(t, SOCK_SEQPACKET); }, true},
    {"TCP", [](trace& t) { return connected_tcp(t, AF_INET); }, true},
    {"TCP over IPv6", [](trace& t) { return connected_tcp(t, AF_INET6); }, true},
    {"UDP", [](trace& t) { return connected_udp(t, AF_INET); }, true},
};
inline constexpr kind terminals[] = {{"a terminal", terminal, false}};
// One table of several.
template <std::size_t... sizes>
constexpr auto together(const kind (&... parts)[sizes]) {
  std::array<kind, (sizes + ...)> all{};
  std::size_t at = 0;
  const auto take = [&](const auto& part) {
    for (const kind& each : part) all[at++] = each;
  };
  (take(parts), ...);
  return all;
}
inline constexpr auto kinds = together(pipes, sockets, terminals);
inline constexpr auto pipes_and_sockets = together(pipes, sockets);
// Those whose writer may have to wait; UDP drops.
inline constexpr auto fillable = together(pipes, {sockets[0], sockets[1], sockets[2], sockets[3], sockets[4]});

// Calls that read, and calls that write.
struct reading {
  const char* name;
  ssize_t (*call)(int fd, void* buffer, std::size_t size);
  bool only_sockets;
};
struct writing {
  const char* name;
  ssize_t (*call)(int fd, const void* data, std::size_t size);
  bool only_sockets;
};
// A message of one part; of many it is one.
struct one_message {
  iovec part;
  mmsghdr many{};
  one_message(const void* data, std::size_t size) : part{const_cast<void*>(data), size} {
    many.msg_hdr.msg_iov = &part;
    many.msg_hdr.msg_iovlen = 1;
  }
  one_message(const one_message&) = delete;
  ssize_t length(int answer) const { return answer < 0 ? answer : answer == 0 ? -7 : ssize_t(many.msg_len); }
};
inline constexpr reading readings[] = {
    {"read", [](int fd, void* p, std::size_t n) { return ::read(fd, p, n); }, false},
    {"readv",
     [](int fd, void* p, std::size_t n) {
       const iovec part{p, n};
       return ::readv(fd, &part, 1);
     },
     false},
    {"recv", [](int fd, void* p, std::size_t n) { return ::recv(fd, p, n, 0); }, true},
    {"recvfrom",
     [](int fd, void* p, std::size_t n) {
       address from;
       return ::recvfrom(fd, p, n, 0, from.plain(), &from.size);
     },
     true},
    {"recvmsg",
     [](int fd, void* p, std::size_t n) {
       one_message m(p, n);
       return ::recvmsg(fd, &m.many.msg_hdr, 0);
     },
     true},
    {"recvmmsg",
     [](int fd, void* p, std::size_t n) {
       one_message m(p, n);
       return m.length(::recvmmsg(fd, &m.many, 1, 0, nullptr));
     },
     true},
};
inline constexpr writing writings[] = {
    {"write", [](int fd, const void* p, std::size_t n) { return ::write(fd, p, n); }, false},
    {"writev",
     [](int fd, const void* p, std::size_t n) {
       const iovec part{const_cast<void*>(p), n};
       return ::writev(fd, &part, 1);
     },
     false},
    {"send", [](int fd, const void* p, std::size_t n) { return ::send(fd, p, n, 0); }, true},
    {"sendto", [](int fd, const void* p, std::size_t n) { return ::sendto(fd, p, n, 0, nullptr, 0); }, true},
    {"sendmsg",
     [](int fd, const void* p, std::size_t n) {
       one_message m(p, n);
       return ::sendmsg(fd, &m.many.msg_hdr, 0);
     },
     true},
    {"sendmmsg",
     [](int fd, const void* p, std::size_t n) {
       one_message m(p, n);
       return m.length(::sendmmsg(fd, &m.many, 1, 0));
     },
     true},
};
// Those that the kind knows.
template <class Calls, class Run>
void each_call(const Calls& calls, const kind& of, Run run) {
  for (const auto& each : calls)
    if (of.is_socket || !each.only_sockets) run(each);
}
inline constexpr const char* rows_of_readings = "read readv recv recvfrom recvmsg recvmmsg";
inline constexpr const char* rows_of_writings = "write writev send sendto sendmsg sendmmsg";

// No SIGPIPE ends the run.
struct ignored_sigpipe {
  struct sigaction before {};
  ignored_sigpipe() {
    struct sigaction now {};
    now.sa_handler = SIG_IGN;
    ::sigaction(SIGPIPE, &now, &before);
  }
  ~ignored_sigpipe() { ::sigaction(SIGPIPE, &before, nullptr); }
  ignored_sigpipe(const ignored_sigpipe&) = delete;
};

}  // namespace conformance
