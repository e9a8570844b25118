#pragma once
// Stock client libraries in fibers: what a library must offer to be tested, and what is the same for all of them.
//
// A file per library makes a `client` of it, in the way its manual says for blocking use, and adds a row to the table. The
// cases (cases.cpp) know only the row. A client fails by throwing `failure`, from our own frames, after the library's call
// has returned: never through the library's.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace clients {

using std::chrono::milliseconds;
using namespace std::chrono_literals;

// The library has ended a request with an error of its own; the text has the error's name.
struct failure {
  std::string said;
};

// What one fiber holds: a handle, a connection.
class client {
 public:
  virtual ~client() = default;
  // Connects, or connects anew.
  virtual void connect() = 0;
  // Asks for answer_to(id), which the server gives after so long.
  virtual std::string ask(int id, milliseconds after) = 0;
  // From now on the library itself gives up a request that takes longer; may connect anew.
  virtual void give_up_after(milliseconds) = 0;
  // The server has been asked, as far as that is not the library's own doing.
  virtual bool is_in_call() const { return true; }
  // Called by another fiber: ends the request under way as the library's manual says. May come too early or too late.
  virtual void cancel() {}
};

// The texts of which a failure must have one.
using any_of = std::vector<const char*>;

struct library {
  const char* name;
  std::string (*version)();
  std::unique_ptr<client> (*make)();
  any_of timed_out;    // by its own limit
  any_of cancelled;    // in its own way; empty: it has none
  any_of interrupted;  // its calls were ended by ECANCELED
  any_of gone;         // the server went away in the middle; empty: then the answer comes
  milliseconds shortest_limit = 200ms;  // that can be given
  bool waits_on_fds = true;
  std::size_t at_once = 100;
  bool reconnects_itself = false;
  // Facts of this library alone, and what shows them.
  struct own_fact {
    const char* says;
    void (*show)();
  };
  std::vector<own_fact> own = {};
};

// Every library that was found when this was built.
std::vector<library>& libraries();
inline bool add(library l) { return libraries().push_back(std::move(l)), true; }

// The same from every server: long enough for several packets and TLS records. The servers are told to repeat it themselves.
inline constexpr int repetitions = 2000;
inline std::string one_of(int id) { return "answer " + std::to_string(id) + ";"; }
inline std::string answer_to(int id) {
  std::string all;
  for (int i = 0; i < repetitions; ++i) all += one_of(id);
  return all;
}

inline std::string seconds(milliseconds t) {
  const std::string thousandths = std::to_string(1000 + t.count() % 1000);
  return std::to_string(t.count() / 1000) + "." + thousandths.substr(1);
}

// What the script that started the servers says of them.
inline std::string told(const char* name) {
  const char* value = std::getenv(name);
  if (!value) throw std::runtime_error(std::string(name) + " is not set: tests/clients/clients_test.py does that");
  return value;
}
inline int port_of(const char* name) { return std::stoi(told(name)); }

// For libraries that want a socket: a blocking one, connected to the server of that name.
inline int connected_socket(const char* name) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(std::uint16_t(port_of(name)));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd >= 0 && ::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0) return fd;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  throw failure{std::string("connect: ") + std::strerror(error)};
}

}  // namespace clients
