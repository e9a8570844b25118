// Addresses and the words for them.
//
// The words are taken apart here; numbers and names are getaddrinfo's matter, asked on a helper thread.

#include <ringlet/socket.hpp>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>

#include <ringlet/io.hpp>

namespace ringlet {

namespace {
struct free_answer {
  void operator()(addrinfo* a) const noexcept { ::freeaddrinfo(a); }
};

socket_address unix_address(std::string_view path) {
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  const bool is_abstract = !path.empty() && path[0] == '@';
  // A path ends with a zero byte, an abstract name with its length.
  if (path.empty() || path.size() > sizeof a.sun_path - (is_abstract ? 0 : 1))
    throw io_error(ENAMETOOLONG, "unix socket '" + std::string(path) + "': a path has 1 to " + std::to_string(sizeof a.sun_path - 1) +
                                     " bytes. Cure: a shorter one, perhaps relative to the working directory");
  std::copy(path.begin(), path.end(), a.sun_path);
  if (is_abstract) a.sun_path[0] = 0;
  const std::size_t length = offsetof(sockaddr_un, sun_path) + path.size() + (is_abstract ? 0 : 1);
  return socket_address(reinterpret_cast<const sockaddr*>(&a), unsigned(length));
}

struct host_and_port {
  std::string host, port;
};
host_and_port split(std::string_view where) {
  const auto bad = [&](const char* why) {
    return std::invalid_argument("ringlet: '" + std::string(where) + "' names no place: " + why +
                                 ". Examples: 127.0.0.1:80, localhost:http, [::1]:80, :80, unix:/run/my.sock");
  };
  if (!where.empty() && where[0] == '[') {
    const auto end = where.find(']');
    if (end == where.npos || end + 1 >= where.size() || where[end + 1] != ':') throw bad("a port is missing behind ']'");
    return {std::string(where.substr(1, end - 1)), std::string(where.substr(end + 2))};
  }
  const auto colon = where.rfind(':');
  if (colon == where.npos) {
    if (where.empty() || !std::all_of(where.begin(), where.end(), [](char c) { return c >= '0' && c <= '9'; })) throw bad("it has no port");
    return {"", std::string(where)};
  }
  if (where.find(':') != colon) throw bad("an IPv6 address stands in brackets");
  return {std::string(where.substr(0, colon)), std::string(where.substr(colon + 1))};
}
}  // namespace

socket_address::socket_address(const sockaddr* address, unsigned length) noexcept : length_(std::min<unsigned>(length, sizeof storage_)) {
  std::memcpy(&storage_, address, length_);
}

std::vector<socket_address> socket_address::resolve(std::string_view where, int socket_type, bool to_listen, deadline until) {
  if (where.starts_with("unix:")) return {unix_address(where.substr(5))};
  const auto [host, port] = split(where);
  if (port.empty()) throw std::invalid_argument("ringlet: '" + std::string(where) + "' names no port");
  addrinfo hints{};
  hints.ai_socktype = socket_type;
  hints.ai_flags = to_listen ? AI_PASSIVE : 0;
  addrinfo* found = nullptr;
  const int failed = io::getaddrinfo(host.empty() ? nullptr : host.c_str(), port.c_str(), &hints, &found, until);
  const std::unique_ptr<addrinfo, free_answer> list(failed ? nullptr : found);
  if (failed == EAI_SYSTEM) detail::throw_io_failure(-errno, "looking up '" + std::string(where) + "'");
  if (failed) throw io_error(EADDRNOTAVAIL, "looking up '" + std::string(where) + "': " + ::gai_strerror(failed));
  std::vector<socket_address> result;
  for (const addrinfo* a = list.get(); a; a = a->ai_next)
    if (a->ai_family == AF_INET || a->ai_family == AF_INET6) result.emplace_back(a->ai_addr, a->ai_addrlen);
  // One IPv6 socket takes both kinds of connections.
  if (to_listen && host.empty()) std::stable_partition(result.begin(), result.end(), [](const auto& a) { return a.family() == AF_INET6; });
  if (result.empty()) throw io_error(EADDRNOTAVAIL, "looking up '" + std::string(where) + "': it has no IP address");
  return result;
}

unsigned short socket_address::port() const noexcept {
  if (family() == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in*>(&storage_)->sin_port);
  if (family() == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage_)->sin6_port);
  return 0;
}

std::string socket_address::path() const {
  if (length_ == 0 || family() != AF_UNIX) return "";
  const auto* name = reinterpret_cast<const sockaddr_un*>(&storage_)->sun_path;
  const std::size_t size = length_ - std::min<std::size_t>(length_, offsetof(sockaddr_un, sun_path));
  if (size == 0) return "";
  if (name[0] == 0) return "@" + std::string(name + 1, size - 1);
  return std::string(name, ::strnlen(name, size));
}

std::string socket_address::to_string() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (length_ == 0) return "nowhere";
  switch (family()) {
    case AF_INET:
      ::inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&storage_)->sin_addr, text, sizeof text);
      return std::string(text) + ":" + std::to_string(port());
    case AF_INET6:
      ::inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(&storage_)->sin6_addr, text, sizeof text);
      return "[" + std::string(text) + "]:" + std::to_string(port());
    case AF_UNIX: return "unix:" + path();
    default: return "an address of family " + std::to_string(family());
  }
}

bool socket_address::operator==(const socket_address& other) const noexcept {
  return length_ == other.length_ && std::memcmp(&storage_, &other.storage_, length_) == 0;
}

}  // namespace ringlet
