#pragma once
// The load: connections to one server, each with one request at a time, or with so many (depth: they are pipelined). The
// same for every peer.
//
// A request is so many bytes, the first eight its own number; the answer must be the same bytes, in the order of the
// requests. Answers that come together are followed by as many requests in one send. Whatever is wrong
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
  load(std::string peer, const listener& at, std::size_t connections, std::size_t bytes, std::size_t depth = 1);
  ~load();
  load(const load&) = delete;

  // So many requests over all connections, each of which has `depth` under way as long as there are enough left.
  void run(std::size_t requests);
  // Each time: connect, one request, close (by a reset, so that no port is kept back).
  void connect_each(std::size_t times);
  // Of all runs so far, one for each request; not of pipelined ones.
  std::vector<float> latencies_ns;

 private:
  struct connection {
    int fd;
    std::uint64_t sent = 0, answered = 0;  // numbers of the last ones: a connection's requests have numbers in a row
    std::size_t got = 0;                   // of the answer after those
    double sent_at = 0;                    // the last ones
  };
  connection connected();
  void send(connection&, std::size_t requests);
  std::size_t receive(connection&);  // answers that are whole
  [[noreturn]] void fail(const char* what) const;

  std::string peer_;
  sockaddr_storage address_;
  socklen_t size_;
  std::size_t bytes_, depth_;
  std::vector<connection> all_;
  std::vector<char> request_, answer_;  // so many of each as can be under way
  int epoll_;
  std::uint64_t connections_ = 0;
};

}  // namespace bench
