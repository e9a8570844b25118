#pragma once
// Sockets for servers and clients: addresses, listening sockets, connections.
//
//   auto c = ringlet::connect_to("localhost:8080", 5s);
//   c.write("GET / HTTP/1.0\r\n\r\n");
//   auto page = c.read_all();
//
// Where a place is named in words: "127.0.0.1:80", "localhost:http", "[::1]:80", ":80" (all addresses of this machine, IPv6 and
// IPv4), "unix:/run/my.sock", "unix:@name" (Linux's abstract names). Errors are io_error; what() names the place.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <sys/socket.h>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/stream.hpp>

namespace ringlet {

class RINGLET_EXPORT socket_address {
 public:
  socket_address() noexcept = default;
  socket_address(const sockaddr* address, unsigned length) noexcept;
  // What the words mean, in the order to be tried; at least one. Names are looked up on a helper thread.
  static std::vector<socket_address> resolve(std::string_view where, int socket_type = SOCK_STREAM, bool to_listen = false,
                                             deadline until = never);

  const sockaddr* data() const noexcept { return reinterpret_cast<const sockaddr*>(&storage_); }
  unsigned length() const noexcept { return length_; }
  int family() const noexcept { return storage_.ss_family; }
  unsigned short port() const noexcept;  // 0 without one
  std::string path() const;              // of a unix socket: "/run/my.sock", "@name", or ""
  // As the words above: "127.0.0.1:80".
  std::string to_string() const;
  bool operator==(const socket_address& other) const noexcept;

 private:
  sockaddr_storage storage_{};
  unsigned length_ = 0;
};

// A connected stream socket, closed with the object. Other fibers that wait on it when it is closed get EBADF.
class RINGLET_EXPORT connection : public stream {
 public:
  connection() noexcept = default;
  explicit connection(int fd) noexcept : fd_(fd) {}  // owns it
  connection(int fd, const socket_address& peer) noexcept : fd_(fd), peer_(peer) {}
  connection(connection&& other) noexcept;
  connection& operator=(connection&& other) noexcept;
  ~connection() override;

  int fd() const noexcept { return fd_; }
  bool is_open() const noexcept { return fd_ >= 0; }
  // Gives the fd away; what was read ahead is forgotten.
  int release() noexcept;
  void close() noexcept;
  // No more will be written: the peer's reads end.
  void shutdown_writing();
  // Both ways: who waits on it wakes.
  void shutdown();
  socket_address peer() const;   // empty for an unnamed one
  socket_address local() const;

 protected:
  ssize_t receive(void* buffer, std::size_t size, deadline until) override;
  ssize_t transmit(const void* data, std::size_t size, deadline until) override;
  std::string describe() const override;

 private:
  int fd_ = -1;
  mutable socket_address peer_;
};

// Connects to the first address that answers; each gets an equal share of the time that is left, if there is a deadline.
RINGLET_EXPORT connection connect_to(std::string_view where, deadline until = never);
RINGLET_EXPORT connection connect_to(const socket_address& where, deadline until = never);

struct listen_options {
  int backlog = SOMAXCONN;
  bool reuse_port = false;       // several sockets on one port, the kernel spreads connections (SO_REUSEPORT)
  unsigned permissions = 0777;   // of a unix socket's file, less the umask: who may connect
};

// A listening stream socket, closed with the object.
//
// A unix socket's file appears only when connections are accepted already, with its permissions, and in place of one that a dead
// server has left; where a living one listens it is EADDRINUSE. It goes with the object, in the process that
// made it, unless another server has taken the path.
class RINGLET_EXPORT listener {
 public:
  listener() noexcept = default;
  explicit listener(std::string_view where, const listen_options& how = {});
  static listener adopt(int fd);  // owns a socket that listens
  listener(listener&& other) noexcept;
  listener& operator=(listener&& other) noexcept;
  ~listener();

  int fd() const noexcept { return fd_; }
  bool is_open() const noexcept { return fd_ >= 0; }
  const socket_address& address() const noexcept { return address_; }
  unsigned short port() const noexcept { return address_.port(); }
  // Another socket on the same port, for another hub or process: only of one made with reuse_port, else std::logic_error.
  listener another() const;
  // The same socket once more (dup(2)): connections wait in one queue, whichever of both accepts, and closing one resets none: so a
  // server takes over from another without losing anybody. A unix socket's file goes with the last one.
  listener share() const;
  bool shares_port() const noexcept { return how_.reuse_port; }
  // Waits for the next connection.
  connection accept(deadline until = never);
  void close() noexcept;

 private:
  void bind_unix(const socket_address&);
  int fd_ = -1;
  socket_address address_;
  listen_options how_;
  struct own_file;
  std::shared_ptr<own_file> file_;  // of a unix socket, while it is ours
};

struct inherited_listener {
  std::string name;  // LISTEN_FDNAMES; "" if it has none
  listener socket;
};
// The listening sockets that systemd (sd_listen_fds(3)), or whoever speaks as it does, has handed to this process; empty if
// there are none. They are not inherited further (close-on-exec, variables unset); a second call finds none.
RINGLET_EXPORT std::vector<inherited_listener> inherited_listeners();

}  // namespace ringlet
