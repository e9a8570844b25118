#pragma once
// Echo servers without a runtime: epoll and a ring by hand, as the best of such programs do it. They are the limit that
// bench_echo and the peers are held against.
//
// One thread each. A server has the connections that it is given, or a listener, or both. libc's own functions are
// called, whatever hooks are linked in.

#include <liburing.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "harness.hpp"

namespace bench::raw {

constexpr std::size_t buffer_bytes = 32 * 1024;

// The client, and whoever is raw, must not meet the hooks.
#define LIBC(name) reinterpret_cast<decltype(&::name)>(bench::libc_function(#name))
inline auto* const libc_recv = LIBC(recv);
inline auto* const libc_send = LIBC(send);
inline auto* const libc_read = LIBC(read);
inline auto* const libc_write = LIBC(write);
inline auto* const libc_close = LIBC(close);
inline auto* const libc_accept4 = LIBC(accept4);
inline auto* const libc_epoll_wait = LIBC(epoll_wait);
#undef LIBC

[[noreturn]] inline void fail(const char* what) {
  std::perror(what);
  std::exit(2);
}

// serve() does so many requests and returns, earlier if there are neither clients nor a listener left.
struct server {
  virtual ~server() = default;
  virtual void serve(std::size_t requests) = 0;
};

// --- epoll -----------------------------------------------------------------------------------------------------------

// Edge-triggered, one try after each event. The listener, if there is one, is level-triggered and must be non-blocking.
template <auto& Receive, auto& Send>
struct epoll_server final : server {
  explicit epoll_server(const std::vector<int>& fds, int listener = -1)
      : epoll_(::epoll_create1(EPOLL_CLOEXEC)), listener_(listener) {
    for (int fd : fds) add(fd);
    if (listener >= 0) watch(listener, EPOLLIN);
  }
  ~epoll_server() override { libc_close(epoll_); }

  void serve(std::size_t requests) override {
    epoll_event events[256];
    while (requests > 0 && (open_ > 0 || listener_ >= 0)) {
      const int count = libc_epoll_wait(epoll_, events, 256, -1);
      for (int i = 0; i < count; ++i) {
        const int fd = events[i].data.fd;
        if (fd == listener_) {
          accept_all();
          continue;
        }
        while (true) {
          const ssize_t got = Receive(fd, buffer_, sizeof buffer_);
          if (got < 0 && errno == EAGAIN) break;
          if (got <= 0) {
            libc_close(fd);
            --open_;
            break;
          }
          Send(fd, buffer_, std::size_t(got));
          if (--requests == 0) return;
          if (std::size_t(got) < sizeof buffer_ && !(events[i].events & EPOLLRDHUP))
            break;  // a short read: it is empty
        }
      }
    }
  }

 private:
  void watch(int fd, std::uint32_t what) {
    epoll_event e{what, {}};
    e.data.fd = fd;
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e)) fail("epoll_ctl");
  }
  void add(int fd) {
    watch(fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
    ++open_;
  }
  void accept_all() {
    for (int fd; (fd = libc_accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;) add(fd);
  }
  int epoll_, listener_;
  std::size_t open_ = 0;
  char buffer_[buffer_bytes];
};

inline ssize_t recv_some(int fd, void* buffer, std::size_t size) { return libc_recv(fd, buffer, size, MSG_DONTWAIT); }
inline ssize_t send_some(int fd, const void* data, std::size_t size) {
  return libc_send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}
inline ssize_t read_some(int fd, void* buffer, std::size_t size) { return libc_read(fd, buffer, size); }
inline ssize_t write_some(int fd, const void* data, std::size_t size) { return libc_write(fd, data, size); }
using epoll_recv_send = epoll_server<recv_some, send_some>;
using epoll_read_write = epoll_server<read_some, write_some>;

// --- a ring ----------------------------------------------------------------------------------------------------------

// One receive or one send of each connection is always under way, one accept of the listener's.
struct ring_server final : server {
  explicit ring_server(const std::vector<int>& fds, int listener = -1) : listener_(listener) {
    for (unsigned flags : {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL, 0u}) {
      io_uring_params p{};
      p.flags = flags | IORING_SETUP_CQSIZE;
      p.cq_entries = 4096;
      works = io_uring_queue_init_params(256, &ring_, &p) == 0;
      if (works) break;
    }
    if (!works) return;
    io_uring_register_ring_fd(&ring_);
    for (int fd : fds) add(fd);
    if (listener_ >= 0) accept_next();
    io_uring_submit(&ring_);
  }
  ~ring_server() override {
    if (works) io_uring_queue_exit(&ring_);
  }

  void serve(std::size_t requests) override {
    if (!works) return;
    while (requests > 0 && (open_ > 0 || listener_ >= 0)) {
      io_uring_submit_and_wait(&ring_, 1);
      unsigned head, seen = 0;
      io_uring_cqe* cqe;
      io_uring_for_each_cqe(&ring_, head, cqe) {
        ++seen;
        auto* c = static_cast<connection*>(io_uring_cqe_get_data(cqe));
        if (!c) {  // the listener's
          if (cqe->res >= 0) add(cqe->res);
          accept_next();
        } else if (cqe->res <= 0) {
          libc_close(c->fd);
          delete c;
          --open_;
        } else if (c->sending) {
          c->sending = false;
          receive(*c);
          --requests;
        } else {
          c->sending = true;
          io_uring_sqe* sqe = next();
          io_uring_prep_send(sqe, c->fd, c->buffer.get(), std::size_t(cqe->res), MSG_NOSIGNAL);
          io_uring_sqe_set_data(sqe, c);
        }
      }
      io_uring_cq_advance(&ring_, seen);
    }
    io_uring_submit(&ring_);
  }
  bool works = false;

 private:
  struct connection {
    int fd;
    bool sending = false;
    std::unique_ptr<char[]> buffer{std::make_unique_for_overwrite<char[]>(buffer_bytes)};
  };
  io_uring_sqe* next() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (!sqe) {
      io_uring_submit(&ring_);
      sqe = io_uring_get_sqe(&ring_);
    }
    return sqe;
  }
  void add(int fd) {
    receive(*new connection{fd});  // its own until its socket ends, or the process
    ++open_;
  }
  void accept_next() {
    io_uring_sqe* sqe = next();
    io_uring_prep_accept(sqe, listener_, nullptr, nullptr, SOCK_CLOEXEC);
    io_uring_sqe_set_data(sqe, nullptr);
  }
  void receive(connection& c) {
    io_uring_sqe* sqe = next();
    io_uring_prep_recv(sqe, c.fd, c.buffer.get(), buffer_bytes, 0);
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;  // 0.86 of the cost without, when it must wait anyway
    io_uring_sqe_set_data(sqe, &c);
  }
  io_uring ring_{};
  int listener_;
  std::size_t open_ = 0;
};

}  // namespace bench::raw
