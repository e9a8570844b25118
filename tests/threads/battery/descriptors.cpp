// The world outside: sockets, pipes, files, readiness.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>
#include <vector>

#include "battery.hpp"

namespace battery {
namespace {

CASE(sockets_and_pipes) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  CHECK(bind(listener, reinterpret_cast<sockaddr*>(&at), size) == 0 && listen(listener, 100) == 0);
  getsockname(listener, reinterpret_cast<sockaddr*>(&at), &size);
  std::thread server([&] {
    std::vector<std::thread> workers;
    for (int i = 0; i < 20; ++i) {
      const int fd = accept(listener, nullptr, nullptr);
      workers.emplace_back([fd] {
        char buffer[4096];
        for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) CHECK(write(fd, buffer, size_t(n)) == n);
        close(fd);
      });
    }
    for (auto& w : workers) w.join();
  });
  std::atomic<long> bytes{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 20; ++i)
    clients.emplace_back([&, i] {
      const int fd = socket(AF_INET, SOCK_STREAM, 0);
      CHECK(connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0);
      const std::string text(1000 * size_t(i + 1), char('a' + i));
      std::thread writer([&] {
        CHECK(write(fd, text.data(), text.size()) == ssize_t(text.size()));
        shutdown(fd, SHUT_WR);
      });
      std::string back;
      char buffer[700];
      for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) > 0;) back.append(buffer, size_t(n));
      writer.join();
      CHECK(back == text);
      bytes += long(back.size());
      close(fd);
    });
  for (auto& c : clients) c.join();
  server.join();
  close(listener);
  std::printf("bytes %ld\n", bytes.load());
}

CASE(sendfile_to_slow_readers) {
  constexpr std::size_t size = 3 << 20;
  const int file = memfd_create("file", 0);
  std::vector<char> all(size);
  for (std::size_t i = 0; i < size; ++i) all[i] = char(i * 7 + i / 1000);
  CHECK(write(file, all.data(), size) == ssize_t(size));
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 10; ++i)
    threads.emplace_back([&, i] {
      int ends[2];
      CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
      std::thread reader([&] {
        std::vector<char> got(size);
        std::size_t have = 0;
        for (ssize_t n; (n = read(ends[0], got.data() + have, std::min<std::size_t>(size - have, 100000))) > 0;
             have += std::size_t(n))
          std::this_thread::yield();
        right += have == size && got == all;
      });
      off_t at = 0;
      if (i == 0) fcntl(ends[1], F_SETFL, O_NONBLOCK);
      std::size_t sent = 0;
      while (sent < size) {
        const ssize_t n = sendfile(ends[1], file, &at, size);
        if (i > 0) CHECK(n == ssize_t(size));  // who may wait sends all
        if (n > 0) sent += std::size_t(n);
        if (n < 0 && errno == EAGAIN) {
          pollfd room{ends[1], POLLOUT, 0};
          poll(&room, 1, -1);
        } else if (n <= 0) {
          break;
        }
      }
      CHECK(at == off_t(size) && (fcntl(ends[1], F_GETFL) & O_NONBLOCK) == (i == 0 ? O_NONBLOCK : 0));
      CHECK(sendfile(ends[1], file, &at, 10) == 0);
      close(ends[1]);
      reader.join();
      close(ends[0]);
    });
  for (auto& t : threads) t.join();
  close(file);
  std::printf("right %d\n", right.load());
}

CASE(stdio_on_a_pipe) {
  int ends[2];
  CHECK(pipe(ends) == 0);
  FILE* in = fdopen(ends[0], "r");
  FILE* out = fdopen(ends[1], "w");
  std::thread reader([&] {
    char line[100];
    int lines = 0;
    while (fgets(line, sizeof line, in)) ++lines;
    std::printf("lines %d\n", lines);
  });
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; ++i)
    writers.emplace_back([&, i] {
      for (int k = 0; k < 500; ++k) std::fprintf(out, "writer %d line %d\n", i, k);
      fflush(out);
    });
  for (auto& w : writers) w.join();
  fclose(out);
  reader.join();
  fclose(in);
}

CASE(poll_select_epoll) {
  int a[2];
  CHECK(pipe(a) == 0);
  static std::atomic<int> woken{0};
  std::thread p([&] {
    pollfd f{a[0], POLLIN, 0};
    CHECK(poll(&f, 1, 20000) == 1 && f.revents == POLLIN);
    ++woken;
  });
  std::thread s([&] {
    fd_set in;
    FD_ZERO(&in);
    FD_SET(a[0], &in);
    timeval t{20, 0};
    CHECK(select(a[0] + 1, &in, nullptr, nullptr, &t) == 1 && FD_ISSET(a[0], &in));
    ++woken;
  });
  std::thread e([&] {
    const int ep = epoll_create1(0);
    epoll_event want{};
    want.events = EPOLLIN;
    epoll_ctl(ep, EPOLL_CTL_ADD, a[0], &want);
    epoll_event got;
    CHECK(epoll_wait(ep, &got, 1, 20000) == 1);
    close(ep);
    ++woken;
  });
  std::thread none([&] {
    CHECK(poll(nullptr, 0, 10) == 0);
    ++woken;
  });
  none.join();
  CHECK(write(a[1], "x", 1) == 1);
  p.join();
  s.join();
  e.join();
  std::printf("woken %d\n", woken.load());
}

}  // namespace
}  // namespace battery
