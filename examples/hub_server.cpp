// A server on four hubs, twice: the kernel spreads the connections, or we do.
//
// With SO_REUSEPORT each hub has a listening socket of its own on the same port, and the kernel gives every connection to one of
// them: nothing is shared, nothing is handed over. With one acceptor, each accepted socket is handed to the hub that has the
// least to do: evener, if connections differ much in what they cost. Either way a connection is served by one fiber on one
// hub from its first byte to its last.
//
// A hundred clients, fibers of the main thread, ask twice each and compare. Prints expected/hub_server.txt.

#include <cstdio>
#include <cstdlib>
#include <vector>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ringlet/ringlet.hpp>

namespace {

namespace io = ringlet::io;
constexpr std::size_t hub_count = 4;
constexpr int clients = 100;

int checked(int result, const char* what) {
  if (result >= 0) return result;
  std::perror(what);
  std::exit(1);
}

sockaddr_in loopback(unsigned short port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A socket listening on the port (0: a free one, which it then says).
int listen_on(unsigned short& port) {
  const int listener = checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  const int on = 1;
  checked(setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), "SO_REUSEPORT");
  sockaddr_in address = loopback(port);
  socklen_t length = sizeof address;
  checked(bind(listener, reinterpret_cast<sockaddr*>(&address), length), "bind");
  checked(listen(listener, SOMAXCONN), "listen");
  checked(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length), "getsockname");
  port = ntohs(address.sin_port);
  return listener;
}

// Answers each byte with the number of the hub it runs on.
void serve(ringlet::hub_threads& hubs, int client) {
  for (char byte; io::read(client, &byte, 1) == 1;) {
    byte = static_cast<char>(hubs.here());
    if (io::write(client, &byte, 1) != 1) break;
  }
  io::close(client);
}

// Accepts until it is killed, and gives each connection to `take`.
template <class Take>
void accept_all(int listener, Take take) {
  for (int client; (client = io::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) take(client);
}

void ask_everywhere(unsigned short port) {
  std::vector<int> served(hub_count);
  int same = 0;
  ringlet::pool askers(clients);
  for (int i = 0; i < clients; ++i)
    askers.spawn([&] {
      const int s = checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
      const sockaddr_in address = loopback(port);
      checked(io::connect(s, reinterpret_cast<const sockaddr*>(&address), sizeof address), "connect");
      char first = -1, second = -2;
      for (char* answer : {&first, &second})
        if (io::write(s, "?", 1) != 1 || io::read(s, answer, 1) != 1) std::puts("no answer");
      same += first == second;
      if (first >= 0 && std::size_t(first) < hub_count) ++served[std::size_t(first)];
      io::close(s);
    });
  askers.join();
  bool each = true;
  for (int n : served) each = each && n > 0;
  std::printf("  %d clients, %d of them served by one hub throughout; every hub had some: %s\n", clients, same, each ? "yes" : "no");
}

}  // namespace

int main() {
  std::puts("SO_REUSEPORT:");
  {
    ringlet::hub_threads hubs(hub_count);
    unsigned short port = 0;
    std::vector<int> listeners;
    for (std::size_t i = 0; i < hub_count; ++i) listeners.push_back(listen_on(port));
    for (std::size_t i = 0; i < hub_count; ++i)
      hubs.spawn_on(i, [&hubs, listener = listeners[i]] {
        accept_all(listener, [&hubs](int client) { ringlet::spawn([&hubs, client] { serve(hubs, client); }); });
      });
    ask_everywhere(port);
    hubs.shutdown();  // kills the acceptors, waits for all
    for (int listener : listeners) io::close(listener);
  }

  std::puts("hand-off:");
  {
    ringlet::hub_threads hubs(hub_count);
    unsigned short port = 0;
    const int listener = listen_on(port);
    auto acceptor = ringlet::spawn([&] {
      accept_all(listener, [&hubs](int client) { hubs.spawn([&hubs, client] { serve(hubs, client); }); });
    });
    ask_everywhere(port);
    acceptor.kill();
    io::close(listener);
  }
}
