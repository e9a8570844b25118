#pragma once
// The load: connections to one server, each with one request at a time. The same for every peer.
//
// A request is so many bytes, the first eight its own number; the answer must be the same bytes. Whatever is wrong
// (another byte, the end, ten seconds of silence) is a std::runtime_error with the peer's name.

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <vector>

namespace bench {

enum class transport { unix_socket, tcp };
const char* text(transport) noexcept;

// A free port of 127.0.0.1, or a free name of unix sockets; listening, TCP_NODELAY set.
struct listener {
  explicit listener(transport over);
  ~listener() { close(); }
  listener(const listener&) = delete;
  void close();
  int fd = -1;
  sockaddr_storage address{};
  socklen_t size = sizeof address;
};

class load {
 public:
  load(std::string peer, const listener& at, std::size_t connections, std::size_t bytes);
  ~load();
  load(const load&) = delete;

  // So many requests over all connections, each of which has one under way as long as there are enough left.
  void run(std::size_t requests);
  // Each time: connect, one request, close (by a reset, so that no port is kept back).
  void connect_each(std::size_t times);
  // Of all runs so far, one for each request.
  std::vector<float> latencies_ns;

 private:
  struct connection {
    int fd;
    std::uint64_t number = 0;
    std::size_t got = 0;
    double sent_at = 0;
  };
  int connected();
  void send(connection&);
  bool receive(connection&);  // true: the answer is whole
  [[noreturn]] void fail(const char* what) const;

  std::string peer_;
  sockaddr_storage address_;
  socklen_t size_;
  std::vector<connection> all_;
  std::vector<char> request_, answer_;
  int epoll_;
  std::uint64_t number_ = 0;
};

}  // namespace bench
