#include "load.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "../harness.hpp"

namespace bench {

const char* text(transport over) noexcept { return over == transport::tcp ? "TCP" : "unix sockets"; }

listener::listener(transport over) {
  auto* any = reinterpret_cast<sockaddr*>(&address);
  any->sa_family = over == transport::tcp ? AF_INET : AF_UNIX;
  fd = ::socket(any->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  socklen_t given = sizeof(sa_family_t);  // of a unix socket: the kernel finds a name
  if (over == transport::tcp) {
    reinterpret_cast<sockaddr_in*>(any)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    given = sizeof(sockaddr_in);
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  if (fd < 0 || ::bind(fd, any, given) || ::listen(fd, 4096) || ::getsockname(fd, any, &size)) {
    std::perror("listen");
    std::exit(2);
  }
}
void listener::close() {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

load::load(std::string peer, const listener& at, std::size_t connections, std::size_t bytes)
    : peer_(std::move(peer)),
      address_(at.address),
      size_(at.size),
      request_(bytes),
      answer_(bytes),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  for (std::size_t i = 0; i < bytes; ++i) request_[i] = char('!' + i % 89);
  all_.reserve(connections);
  for (std::size_t i = 0; i < connections; ++i) {
    all_.push_back({connected()});
    epoll_event e{EPOLLIN, {}};
    e.data.u64 = i;
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, all_.back().fd, &e)) fail("epoll_ctl");
  }
}

load::~load() {
  for (auto& c : all_) ::close(c.fd);
  ::close(epoll_);
}

void load::fail(const char* what) const { throw std::runtime_error(peer_ + ": " + what + ": " + std::strerror(errno)); }

int load::connected() {
  const auto* to = reinterpret_cast<const sockaddr*>(&address_);
  const int fd = ::socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval ten_seconds{10, 0};
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &ten_seconds, sizeof ten_seconds);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &ten_seconds, sizeof ten_seconds);
  if (to->sa_family == AF_INET) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (fd < 0 || ::connect(fd, to, size_)) fail("connect");
  return fd;
}

void load::send(connection& c) {
  c.number = ++number_;
  c.got = 0;
  std::memcpy(request_.data(), &c.number, sizeof c.number);
  c.sent_at = wall_ns();
  if (::send(c.fd, request_.data(), request_.size(), MSG_NOSIGNAL) != ssize_t(request_.size())) fail("send");
}

bool load::receive(connection& c) {
  const ssize_t got = ::recv(c.fd, answer_.data() + c.got, answer_.size() - c.got, 0);
  if (got <= 0) fail(got ? "recv" : "it closed the connection");
  // What has come is compared at once: the buffer is everybody's. The number is that of this connection's request.
  std::memcpy(request_.data(), &c.number, sizeof c.number);
  if (std::memcmp(answer_.data() + c.got, request_.data() + c.got, std::size_t(got)))
    fail("the answer is not what was sent");
  c.got += std::size_t(got);
  return c.got == request_.size();
}

void load::run(std::size_t requests) {
  std::size_t begun = 0, done = 0;
  for (; begun < std::min(requests, all_.size()); ++begun) send(all_[begun]);
  epoll_event events[256];
  while (done < requests) {
    const int count = ::epoll_wait(epoll_, events, 256, 10'000);
    if (count <= 0) fail("no answer for ten seconds");
    for (int i = 0; i < count; ++i) {
      connection& c = all_[events[i].data.u64];
      if (!receive(c)) continue;
      latencies_ns.push_back(float(wall_ns() - c.sent_at));
      ++done;
      if (begun < requests) {
        send(c);
        ++begun;
      }
    }
  }
}

void load::connect_each(std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) {
    connection c{connected()};
    send(c);
    while (!receive(c)) {
    }
    const linger at_once{1, 0};
    ::setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    ::close(c.fd);
  }
}

}  // namespace bench
