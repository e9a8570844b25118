// The manager: a daemon process with one hub, which listens on a unix socket, and a fiber for each connection. All objects are
// its own and it has one thread, so a request that does not wait is one step.
//
// A call takes an idle connection of this process, or makes one; it has it to itself until the answer is there, and a call
// that is interrupted closes it, so no answer can reach the wrong caller. A forked child does not use its parent's.
//
// The socket is in the abstract namespace, under a name that the kernel gives: nothing is left in a file system. Anybody may
// connect to such a one, so each connection is asked for its user.

#include <ringlet/ipc/manager_core.hpp>

#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <unordered_map>

#include <ringlet/fiber.hpp>
#include <ringlet/io.hpp>
#include <ringlet/process.hpp>

#include "base/lock.hpp"
#include "io/doors.hpp"
#include "process/ends.hpp"
#include "process/failures.hpp"

namespace ringlet::ipc::detail {

namespace {

using process_detail::fail;

// --- what goes over the wire -----------------------------------------------------------------------------------------

void put_number(std::string& to, std::uint64_t n) { to.append(reinterpret_cast<const char*>(&n), sizeof n); }
constexpr std::uint64_t absent = ~std::uint64_t(0);

void put_fields(std::string& to, const fields& from) {
  put_number(to, from.size());
  for (const auto& each : from) {
    put_number(to, each ? each->size() : absent);
    if (each) to += *each;
  }
}

class reader {
 public:
  explicit reader(std::string_view bytes) : left_(bytes) {}
  std::uint64_t number() {
    std::uint64_t n;
    std::memcpy(&n, take(sizeof n).data(), sizeof n);
    return n;
  }
  fields all() {
    fields result;
    for (std::uint64_t n = number(); n > 0; --n) {
      const std::uint64_t size = number();
      if (size == absent)
        result.emplace_back();
      else
        result.emplace_back(take(size));
    }
    return result;
  }

 private:
  std::string_view take(std::uint64_t size) {
    if (size > left_.size()) throw std::runtime_error("ringlet: a manager's message is cut short");
    const auto taken = left_.substr(0, size);
    left_.remove_prefix(size);
    return taken;
  }
  std::string_view left_;
};

// --- the manager's process -------------------------------------------------------------------------------------------

struct object {
  std::unordered_map<std::string, std::string> dict;
  std::deque<std::string> list;
  bool is_dict = false;
};

class keeper_of_objects {
 public:
  // Empty: no.
  std::optional<fields> answer(verb what, std::uint64_t id, fields a) {
    if (what == verb::make_dict || what == verb::make_list) {
      objects_[++last_].is_dict = what == verb::make_dict;
      return fields{std::to_string(last_)};
    }
    object& o = objects_.at(id);
    const auto argument = [&](std::size_t i) -> std::string& { return a.at(i).value(); };
    const auto place = [&](std::size_t most) -> std::optional<std::ptrdiff_t> {
      const auto n = std::stoull(argument(0));
      return n < most ? std::optional(std::ptrdiff_t(n)) : std::nullopt;
    };
    switch (what) {
      case verb::size: return fields{std::to_string(o.is_dict ? o.dict.size() : o.list.size())};
      case verb::clear: o.dict.clear(); o.list.clear(); return fields{};
      case verb::all: {
        fields result;
        for (const auto& [key, value] : o.dict) {
          result.emplace_back(key);
          result.emplace_back(value);
        }
        result.insert(result.end(), o.list.begin(), o.list.end());
        return result;
      }
      case verb::get:
        if (const auto found = o.dict.find(argument(0)); found != o.dict.end()) return fields{found->second};
        return {};
      case verb::set: o.dict.insert_or_assign(std::move(argument(0)), std::move(argument(1))); return fields{};
      case verb::put_new: return o.dict.try_emplace(std::move(argument(0)), std::move(argument(1))).second ? std::optional(fields{}) : std::nullopt;
      case verb::erase: return o.dict.erase(argument(0)) ? std::optional(fields{}) : std::nullopt;
      case verb::exchange: {
        const auto found = o.dict.find(argument(0));
        const bool as_expected = a.at(1) ? found != o.dict.end() && found->second == *a[1] : found == o.dict.end();
        if (!as_expected) return {};
        o.dict.insert_or_assign(std::move(argument(0)), std::move(argument(2)));
        return fields{};
      }
      case verb::append: o.list.push_back(std::move(argument(0))); return fields{};
      case verb::at:
        if (const auto i = place(o.list.size())) return fields{o.list[std::size_t(*i)]};
        return {};
      case verb::replace:
        if (const auto i = place(o.list.size())) {
          o.list[std::size_t(*i)] = std::move(argument(1));
          return fields{};
        }
        return {};
      case verb::insert:
        if (const auto i = place(o.list.size() + 1)) {
          o.list.insert(o.list.begin() + *i, std::move(argument(1)));
          return fields{};
        }
        return {};
      case verb::remove:
        if (const auto i = place(o.list.size())) {
          fields result{std::move(o.list[std::size_t(*i)])};
          o.list.erase(o.list.begin() + *i);
          return result;
        }
        return {};
      case verb::swap:
        if (const auto i = place(o.list.size()); i && o.list[std::size_t(*i)] == argument(1)) {
          o.list[std::size_t(*i)] = std::move(argument(2));
          return fields{};
        }
        return {};
      default: throw std::runtime_error("ringlet: a manager was asked for what it does not know");
    }
  }

 private:
  std::unordered_map<std::uint64_t, object> objects_;
  std::uint64_t last_ = 0;
};

enum class status : char { yes, no, failed };

void serve_one(keeper_of_objects& objects, byte_end end) {
  try {
    while (true) {
      const std::string request = *end.receive_bytes();
      std::string reply(1, char(status::yes));
      try {
        reader from(std::string_view(request).substr(1));
        const std::uint64_t id = from.number();
        if (const auto result = objects.answer(verb(request.at(0)), id, from.all()))
          put_fields(reply, *result);
        else
          reply[0] = char(status::no);
      } catch (const std::exception& e) {
        reply = char(status::failed) + std::string(e.what());
      }
      end.send_bytes(reply);
    }
  } catch (const end_of_pipe&) {
  }
}

bool is_ours(int connection) {
  ucred who{};
  socklen_t size = sizeof who;
  return sys::call(SYS_getsockopt, connection, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && who.uid == ::geteuid();
}

int serve_all(int listener) {
  keeper_of_objects objects;
  while (true) {
    const int connection = io::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection == -EMFILE || connection == -ENFILE || connection == -ENOBUFS || connection == -ENOMEM) {
      ringlet::sleep(std::chrono::milliseconds(10));  // until somebody leaves
      continue;
    }
    if (connection == -ECONNABORTED || connection == -EINTR) continue;
    if (connection < 0) return 1;
    if (!is_ours(connection)) {
      io::close(connection);
      continue;
    }
    spawn([&objects, end = end_maker::make(connection, true, true)]() mutable { serve_one(objects, std::move(end)); });
  }
}

// --- the callers' side -----------------------------------------------------------------------------------------------

constexpr std::size_t most_idle = 16;  // connections to one manager

struct connections {
  base::lock lock;
  int process = 0;  // whose they are
  std::map<std::string, std::vector<byte_end>> idle;
};
connections& the_connections() {
  static connections& c = *[] {
    ::pthread_atfork([] { the_connections().lock.acquire(); }, [] { the_connections().lock.release(); }, [] { the_connections().lock.release(); });
    return new connections;
  }();
  return c;
}

std::map<std::string, std::vector<byte_end>> parents(connections& c) {  // with the lock; closed without
  const int now = int(sys::call(SYS_getpid));
  if (c.process == now) return {};
  c.process = now;
  return std::exchange(c.idle, {});
}

std::optional<byte_end> take_idle(const std::string& address) {
  connections& c = the_connections();
  std::map<std::string, std::vector<byte_end>> others;
  base::lock_guard hold(c.lock);
  others = parents(c);
  auto& idle = c.idle[address];
  if (idle.empty()) return std::nullopt;
  byte_end taken = std::move(idle.back());
  idle.pop_back();
  return taken;
}

void give_back(const std::string& address, byte_end end) {
  connections& c = the_connections();
  base::lock_guard hold(c.lock);
  if (c.process != int(sys::call(SYS_getpid))) return;
  auto& idle = c.idle[address];
  if (idle.size() < most_idle) idle.push_back(std::move(end));
}

void forget(const std::string& address) {
  connections& c = the_connections();
  std::vector<byte_end> gone;
  base::lock_guard hold(c.lock);
  if (const auto found = c.idle.find(address); found != c.idle.end()) {
    gone = std::move(found->second);
    c.idle.erase(found);
  }
}

sockaddr_un address_of(const std::string& name, unsigned& length) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), std::min(name.size(), sizeof address.sun_path - 1));
  length = unsigned(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

[[noreturn]] void gone() { throw manager_gone("ringlet: the manager's process has ended, and what it kept is gone"); }

byte_end connect_to(const std::string& name) {
  const long fd = sys::call(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0L);
  if (fd < 0) fail(fd, "a connection to a manager (a limit on open files? see ulimit -n)");
  byte_end end = end_maker::make(int(fd), true, true);
  unsigned length;
  const sockaddr_un address = address_of(name, length);
  while (true) {
    const int result = io::connect(int(fd), reinterpret_cast<const sockaddr*>(&address), length);
    if (result == 0) return end;
    if (result == -ECONNREFUSED) gone();
    process_detail::waited(result, "ipc::manager");
  }
}

}  // namespace

std::optional<fields> remote_object::call(verb what, const fields& arguments) const {
  if (address_.empty()) throw std::logic_error("ringlet: this dict or list is of no manager; get one from manager.dict<...>() or list<...>()");
  std::string request(1, char(what));
  put_number(request, id_);
  put_fields(request, arguments);
  while (true) {
    auto idle = take_idle(address_);
    byte_end end = idle ? std::move(*idle) : connect_to(address_);
    if (!end.is_open()) continue;  // the parent's, not handed over
    try {
      end.send_bytes(request);
      const std::string reply = *end.receive_bytes();
      give_back(address_, std::move(end));
      if (reply.at(0) == char(status::yes)) return reader(std::string_view(reply).substr(1)).all();
      if (reply.at(0) == char(status::no)) return std::nullopt;
      throw std::runtime_error(reply.substr(1));
    } catch (const end_of_pipe&) {
      gone();
    }
  }
}

struct manager_core::impl {
  std::string address;
  std::optional<process> server;
};

manager_core::manager_core() : impl_(new impl) {
  const long listener = sys::call(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0L);
  if (listener < 0) fail(listener, "a manager needs a socket (a limit on open files? see ulimit -n)");
  io::fd_opened(int(listener));
  struct closed {
    int fd;
    ~closed() { io::close(fd); }
  } at_end{int(listener)};  // the server's alone, from here on
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  unsigned length = sizeof(sa_family_t);  // the kernel gives the name
  long failed = sys::call(SYS_bind, listener, &address, length);
  if (failed == 0) failed = sys::call(SYS_listen, listener, SOMAXCONN);
  length = sizeof address;
  if (failed == 0) failed = sys::call(SYS_getsockname, listener, &address, &length);
  if (failed < 0) fail(failed, "a manager's socket");
  impl_->address.assign(address.sun_path + 1, length - offsetof(sockaddr_un, sun_path) - 1);
  impl_->server.emplace(process_options{.name = "manager", .daemon = true}, [fd = int(listener)] { return serve_all(fd); });
  impl_->server->start();
}

manager_core::~manager_core() { forget(impl_->address); }

const std::string& manager_core::address() const noexcept { return impl_->address; }
int manager_core::pid() const noexcept { return impl_->server->pid(); }
std::uint64_t manager_core::make(verb what) const { return std::stoull(*remote_object(impl_->address, 0).call(what)->at(0)); }

}  // namespace ringlet::ipc::detail
