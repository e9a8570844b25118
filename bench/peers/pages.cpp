// The server of a crawl: small pages full of links, over HTTP/1.1 with connections that stay. `peer_pages COUNT`:
// descriptor 3 is its listening socket; it ends by a signal. Edge-triggered epoll, one thread, every answer in one send.
//
// Page N links to eight others, spread over all of them, so that the whole site is found from page 0: /0 to /COUNT-1.

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <vector>

#include "peer.hpp"

namespace {

std::string page(std::size_t number, std::size_t count) {
  std::string body = "<!doctype html><html><head><title>Page " + std::to_string(number) + "</title></head><body>\n";
  for (std::size_t i = 1; i <= 8; ++i) {
    body += "<p>Some words before the link, as pages have them, and <b>some</b> marks among them. ";
    body += "<a class=\"next\" href=\"/" + std::to_string((number * 8 + i) % count) + "\">another page</a></p>\n";
  }
  body += "</body></html>\n";
  return "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}

void serve(const std::vector<std::string>& pages) {
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  const auto watch = [epoll](int fd, std::uint32_t what) {
    epoll_event e{what, {}};
    e.data.fd = fd;
    if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e)) peer::fail("epoll_ctl");
  };
  ::fcntl(peer::listener, F_SETFL, O_NONBLOCK);
  watch(peer::listener, EPOLLIN);
  epoll_event events[64];
  char request[8192];
  while (true) {
    const int ready = ::epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < ready; ++i) {
      const int fd = events[i].data.fd;
      if (fd == peer::listener) {
        for (int got; (got = ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;)
          watch(got, EPOLLIN | EPOLLET);
        continue;
      }
      // A client sends its next request after the answer only, and a whole one in one piece.
      const ssize_t got = ::recv(fd, request, sizeof request - 1, 0);
      if (got < 0 && errno == EAGAIN) continue;
      request[got > 0 ? got : 0] = 0;
      const bool is_get = std::string_view(request).starts_with("GET /");
      const std::size_t number = is_get ? std::size_t(std::atoll(request + 5)) : pages.size();
      if (number >= pages.size()) {
        ::close(fd);
        continue;
      }
      const std::string& answer = pages[number];
      if (::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL) != ssize_t(answer.size())) ::close(fd);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t count = argc > 1 ? std::size_t(std::atoll(argv[1])) : 0;
  if (count == 0) return std::fprintf(stderr, "%s COUNT\n", argv[0]), 2;
  std::vector<std::string> pages;
  for (std::size_t i = 0; i < count; ++i) pages.push_back(page(i, count));
  serve(pages);
}
