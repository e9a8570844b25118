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

load::load(std::string peer, const listener& at, std::size_t connections, std::size_t bytes, std::size_t depth)
    : peer_(std::move(peer)),
      address_(at.address),
      size_(at.size),
      bytes_(bytes),
      depth_(depth),
      request_(bytes * depth),
      answer_(bytes * depth),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  for (std::size_t i = 0; i < request_.size(); ++i) request_[i] = char('!' + i % bytes % 89);
  all_.reserve(connections);
  for (std::size_t i = 0; i < connections; ++i) {
    all_.push_back(connected());
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

load::connection load::connected() {
  const auto* to = reinterpret_cast<const sockaddr*>(&address_);
  const int fd = ::socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval ten_seconds{10, 0};
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &ten_seconds, sizeof ten_seconds);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &ten_seconds, sizeof ten_seconds);
  if (to->sa_family == AF_INET) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (fd < 0 || ::connect(fd, to, size_)) fail("connect");
  const std::uint64_t first = ++connections_ << 40;
  return {fd, first, first};
}

void load::send(connection& c, std::size_t requests) {
  for (std::size_t i = 0; i < requests; ++i) {
    ++c.sent;
    std::memcpy(request_.data() + i * bytes_, &c.sent, sizeof c.sent);
  }
  c.sent_at = wall_ns();
  const std::size_t size = requests * bytes_;
  if (::send(c.fd, request_.data(), size, MSG_NOSIGNAL) != ssize_t(size)) fail("send");
}

std::size_t load::receive(connection& c) {
  const std::size_t most = std::size_t(c.sent - c.answered) * bytes_ - c.got;
  const ssize_t got = ::recv(c.fd, answer_.data(), most, 0);
  if (got <= 0) fail(got ? "recv" : "it closed the connection");
  // What has come is compared at once: the buffer is everybody's.
  std::size_t whole = 0;
  for (std::size_t at = 0; at < std::size_t(got);) {
    const std::uint64_t number = c.answered + 1;
    std::memcpy(request_.data(), &number, sizeof number);
    const std::size_t part = std::min(bytes_ - c.got, std::size_t(got) - at);
    if (std::memcmp(answer_.data() + at, request_.data() + c.got, part)) fail("the answer is not what was sent");
    at += part;
    c.got += part;
    if (c.got < bytes_) break;
    c.got = 0;
    c.answered = number;
    ++whole;
  }
  return whole;
}

void load::run(std::size_t requests) {
  std::size_t begun = 0, done = 0;
  const auto begin_more = [&](connection& c, std::size_t most) {
    const std::size_t more = std::min(most, requests - begun);
    if (more > 0) send(c, more);
    begun += more;
  };
  for (auto& c : all_) begin_more(c, depth_);
  epoll_event events[256];
  while (done < requests) {
    const int count = ::epoll_wait(epoll_, events, 256, 10'000);
    if (count <= 0) fail("no answer for ten seconds");
    for (int i = 0; i < count; ++i) {
      connection& c = all_[events[i].data.u64];
      const std::size_t whole = receive(c);
      if (whole > 0 && depth_ == 1) latencies_ns.push_back(float(wall_ns() - c.sent_at));
      done += whole;
      begin_more(c, whole);
    }
  }
}

void load::connect_each(std::size_t times) {
  for (std::size_t i = 0; i < times; ++i) {
    connection c = connected();
    send(c, 1);
    while (receive(c) == 0) {
    }
    const linger at_once{1, 0};
    ::setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    ::close(c.fd);
  }
}

}  // namespace bench
