// Listening sockets: made from words, taken over from systemd, and what becomes of a unix socket's file.
//
// The fd is O_NONBLOCK: it is ours, and who accepts in batches must be able to ask whether there is another one.

#include <ringlet/socket.hpp>

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include <ringlet/io.hpp>

#include "base/sys.hpp"
#include "io/doors.hpp"
#include "net/socket_file.hpp"

namespace ringlet {

namespace {
// An fd until it has an owner.
struct fresh {
  int fd;
  explicit fresh(long made, const std::string& doing) : fd(int(made)) {
    if (made < 0) detail::throw_io_failure(made, doing);
    io::fd_opened(fd);
  }
  ~fresh() {
    if (fd >= 0) io::close(fd);
  }
  int release() { return std::exchange(fd, -1); }
};

void require(long result, const std::string& doing) {
  if (result < 0) detail::throw_io_failure(result, doing);
}

socket_address name_of(int fd) {
  sockaddr_storage room{};
  unsigned length = sizeof room;
  require(sys::call(SYS_getsockname, fd, &room, &length), "asking for a socket's address");
  return socket_address(reinterpret_cast<const sockaddr*>(&room), length);
}

int option_of(int fd, int name) {
  int value = 0;
  unsigned length = sizeof value;
  return sys::call(SYS_getsockopt, fd, SOL_SOCKET, name, &value, &length) < 0 ? -1 : value;
}

fresh listening(const socket_address& where, const listen_options& how) {
  const std::string doing = "listening on " + where.to_string();
  fresh made(sys::call(SYS_socket, where.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), doing);
  const int on = 1, off = 0;
  require(sys::call(SYS_setsockopt, made.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), doing);
  if (how.reuse_port) require(sys::call(SYS_setsockopt, made.fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), doing);
  if (where.family() == AF_INET6) {
    const bool any = IN6_IS_ADDR_UNSPECIFIED(&reinterpret_cast<const sockaddr_in6*>(where.data())->sin6_addr);
    sys::call(SYS_setsockopt, made.fd, IPPROTO_IPV6, IPV6_V6ONLY, any ? &off : &on, sizeof on);
  }
  require(sys::call(SYS_bind, made.fd, where.data(), where.length()), doing);
  require(sys::call(SYS_listen, made.fd, how.backlog), doing);
  return made;
}

// Somebody accepts (or would, had he time) behind this path.
bool is_alive(const socket_address& path) {
  const long fd = sys::call(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return true;
  const long answer = sys::call(SYS_connect, fd, path.data(), path.length());
  sys::call(SYS_close, fd);
  return answer == 0 || answer == -EAGAIN || answer == -EACCES;
}
}  // namespace

// Goes with the last listener that shares it.
struct listener::own_file : detail::socket_file {
  using socket_file::socket_file;
};

listener::listener(std::string_view where, const listen_options& how) : how_(how) {
  const auto addresses = socket_address::resolve(where, SOCK_STREAM, true);
  if (addresses.front().family() == AF_UNIX && addresses.front().path()[0] != '@') {
    bind_unix(addresses.front());
    return;
  }
  for (std::size_t i = 0; fd_ < 0; ++i) {
    try {
      fd_ = listening(addresses[i], how).release();
    } catch (const io_error&) {  // IPv6 may be switched off here
      if (i + 1 == addresses.size()) throw;
    }
  }
  address_ = name_of(fd_);
}

// Under a name of its own first, then renamed: in place of a dead server's file in one step, and never seen before it
// listens.
void listener::bind_unix(const socket_address& where) {
  const std::string path = where.path(), doing = "listening on " + where.to_string();
  struct stat s{};
  if (detail::info_of(path, s) == 0) {
    if (!S_ISSOCK(s.st_mode)) throw io_error(EADDRINUSE, doing + ": there is a file of that name, and it is no socket");
    if (is_alive(where)) throw io_error(EADDRINUSE, doing + ": another server accepts connections there");
  }
  static std::atomic<unsigned> count{0};
  const std::string made_as = path + "." + std::to_string(sys::call(SYS_getpid)) + "." + std::to_string(count.fetch_add(1));
  const auto temporary = socket_address::resolve("unix:" + made_as).front();
  fresh made(sys::call(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), doing);
  require(sys::call(SYS_fchmod, made.fd, how_.permissions), doing);  // of the file to come, says unix(7)'s bind in Linux
  require(sys::call(SYS_bind, made.fd, temporary.data(), temporary.length()), doing);
  struct remove {
    const std::string& name;
    bool wanted = true;
    ~remove() {
      if (wanted) sys::call(SYS_unlinkat, AT_FDCWD, name.c_str(), 0);
    }
  } unless_renamed{made_as};
  require(sys::call(SYS_listen, made.fd, how_.backlog), doing);
  require(detail::info_of(made_as, s), doing);
  file_ = std::make_shared<own_file>(path, s);
  require(sys::call(SYS_renameat, AT_FDCWD, made_as.c_str(), AT_FDCWD, path.c_str()), doing);
  unless_renamed.wanted = false;
  address_ = where;
  fd_ = made.release();
}

listener listener::adopt(int fd) {
  if (option_of(fd, SO_ACCEPTCONN) != 1)
    throw io_error(option_of(fd, SO_TYPE) < 0 ? ENOTSOCK : EINVAL, "fd " + std::to_string(fd) + " is no listening socket");
  const long flags = sys::call(SYS_fcntl, fd, F_GETFL);
  if (!(flags & O_NONBLOCK)) {
    sys::call(SYS_fcntl, fd, F_SETFL, flags | O_NONBLOCK);
    io::fd_changed(fd);
  }
  sys::call(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
  listener made;
  made.fd_ = fd;
  made.address_ = name_of(fd);
  made.how_.reuse_port = option_of(fd, SO_REUSEPORT) == 1 && made.address_.family() != AF_UNIX;
  return made;
}

listener::listener(listener&& other) noexcept { *this = std::move(other); }
listener& listener::operator=(listener&& other) noexcept {
  if (this == &other) return *this;
  close();
  fd_ = std::exchange(other.fd_, -1);
  address_ = other.address_;
  how_ = other.how_;
  file_ = std::move(other.file_);
  return *this;
}
listener::~listener() { close(); }

void listener::close() noexcept {
  if (fd_ < 0) return;
  file_.reset();
  io::close(std::exchange(fd_, -1));
}

listener listener::another() const {
  if (!how_.reuse_port)
    throw std::logic_error("ringlet: another listener on " + address_.to_string() + ", which was not made to share its port. Cure: listen_options{.reuse_port = true}");
  listener made;
  made.how_ = how_;
  made.fd_ = listening(address_, how_).release();
  made.address_ = address_;
  return made;
}

listener listener::share() const {
  fresh copy(sys::call(SYS_fcntl, fd_, F_DUPFD_CLOEXEC, 0), "sharing the listener on " + address_.to_string());
  listener made;
  made.fd_ = copy.release();
  made.address_ = address_;
  made.how_ = how_;
  made.file_ = file_;
  return made;
}

connection listener::accept(deadline until) {
  while (true) {
    sockaddr_storage from{};
    unsigned length = sizeof from;
    const int fd = io::accept4(fd_, reinterpret_cast<sockaddr*>(&from), &length, SOCK_CLOEXEC, until);
    if (fd >= 0) return connection(fd, socket_address(reinterpret_cast<const sockaddr*>(&from), length));
    if (fd == -ECONNABORTED || fd == -EINTR) continue;
    if (fd != -EAGAIN) detail::throw_io_failure(fd, "accepting on " + address_.to_string());
    if (const int failed = io::wait_readable(fd_, until); failed < 0 && failed != -EINTR)
      detail::throw_io_failure(failed, "accepting on " + address_.to_string());
  }
}

std::vector<inherited_listener> inherited_listeners() {
  std::vector<inherited_listener> result;
  const char* for_whom = std::getenv("LISTEN_PID");
  const char* how_many = std::getenv("LISTEN_FDS");
  const char* named = std::getenv("LISTEN_FDNAMES");
  const std::string names = named ? named : "";
  if (for_whom && how_many && std::strtol(for_whom, nullptr, 10) == sys::call(SYS_getpid)) {
    constexpr int first = 3;
    const long count = std::strtol(how_many, nullptr, 10);
    std::size_t at = 0;
    for (int fd = first; fd < first + count; ++fd) {
      const std::size_t end = std::min(names.find(':', at), names.size());
      std::string name = at <= names.size() ? names.substr(at, end - at) : "";
      at = end + 1;
      sys::call(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
      if (option_of(fd, SO_ACCEPTCONN) == 1 && option_of(fd, SO_TYPE) == SOCK_STREAM) result.push_back({std::move(name), listener::adopt(fd)});
    }
  }
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(name);
  return result;
}

}  // namespace ringlet
