// An echo server as in the first chapter on sockets: accept, one flow of control a client, read, write, close.
//
// Written for a thread a client, with libc's calls and nothing else; the one difference is that spawn makes a fiber.
// Ten thousand clients cost ten thousand small stacks, not threads.
//
//   echo_server [PORT]       serves 127.0.0.1:PORT (0, the default: a free one), says which, until it is killed
//   echo_server PORT N TEXT  is the client instead: N connections at once, each sends TEXT three times and checks what
//                            comes back; then it says how many bytes came back right
//
// expected/echo_server.txt is what the client prints for 100 connections and "hello, fibers".

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ringlet/fiber.hpp>
#include <ringlet/hooks.hpp>

namespace {

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "echo_server: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<unsigned short>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

bool write_all(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t written = send(fd, data, size, MSG_NOSIGNAL);
    if (written <= 0) return false;
    data += written;
    size -= static_cast<std::size_t>(written);
  }
  return true;
}

void serve_client(int client) {
  char buffer[4096];
  for (ssize_t size; (size = read(client, buffer, sizeof buffer)) > 0;)
    if (!write_all(client, buffer, static_cast<std::size_t>(size))) break;
  close(client);
}

int serve(int port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address = loopback(port);
  socklen_t length = sizeof address;
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0) fail("bind");
  if (listen(listener, SOMAXCONN) != 0) fail("listen");
  if (getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) != 0) fail("getsockname");
  std::printf("serving 127.0.0.1:%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  for (;;) {
    const int client = accept(listener, nullptr, nullptr);
    if (client >= 0) {
      ringlet::spawn({.name = "client"}, serve_client, client);
    } else if (errno == EMFILE || errno == ENFILE) {
      usleep(10000);  // somebody must leave first; meanwhile the clients' fibers run
    } else if (errno != EINTR && errno != ECONNABORTED) {
      fail("accept");
    }
  }
}

// How many bytes came back as they were sent.
std::size_t converse(int port, const std::string& text) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = loopback(port);
  if (fd < 0 || connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fail("connect");
  std::size_t right = 0;
  for (int round = 0; round < 3; ++round) {
    if (!write_all(fd, text.data(), text.size())) fail("send");
    std::string back(text.size(), '\0');
    std::size_t got = 0;
    for (ssize_t size; got < back.size() && (size = read(fd, back.data() + got, back.size() - got)) > 0;)
      got += static_cast<std::size_t>(size);
    if (got == text.size() && back == text) right += got;
  }
  close(fd);
  return right;
}

int be_clients(int port, int count, const std::string& text) {
  std::vector<ringlet::fiber<std::size_t>> clients;
  for (int i = 0; i < count; ++i) clients.push_back(ringlet::spawn({.name = "talker"}, converse, port, text));
  ringlet::joinall(clients);
  std::size_t right = 0;
  for (const auto& each : clients) right += each.get();
  std::printf("%d clients, %zu bytes came back right of %zu\n", count, right, 3 * text.size() * clients.size());
  return right == 3 * text.size() * clients.size() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;  // a descriptor a client; the soft limit is often 1024
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  ringlet::hooks::enable();
  const int port = argc > 1 ? std::atoi(argv[1]) : 0;
  if (argc == 4) return be_clients(port, std::atoi(argv[2]), argv[3]);
  if (argc <= 2) return serve(port);
  std::fprintf(stderr, "usage: echo_server [PORT]  or  echo_server PORT CLIENTS TEXT\n");
  return 2;
}
