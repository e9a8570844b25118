#include "conformance.hpp"
#include "support/thread_state.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cctype>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <netinet/in.h>
#include <sstream>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <system_error>
#include <unistd.h>

namespace conformance {

std::atomic<unsigned long> ticks{0};

namespace {

constexpr auto at_once_means = 25ms;
constexpr auto in_time_means = 15ms;  // the shortest time limit of a case is 30 ms

// The thread sleeps in the kernel, which may also know none of that number.
bool is_asleep(pid_t thread) {
  const char state = support::state_of(thread);
  return state == 'S' || state == 0;
}

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

}  // namespace

bool waits(pid_t flow) { return flow != 0 && (flow == ::syscall(SYS_gettid) || is_asleep(flow)); }

std::unique_ptr<flow> thread_beside(std::function<void()> run) {
  struct thread_flow : flow {
    std::atomic<bool> at_the_latest{false};
    std::thread thread;
    thread_flow(std::function<void()> run, pid_t caller)
        : thread([this, run = std::move(run), caller] {
            // Asleep twice in a row, a moment apart: not just between two calls.
            for (int seen = 0; seen < 2 && !at_the_latest;) {
              seen = is_asleep(caller) ? seen + 1 : 0;
              timespec moment{0, 1000000};
              ::syscall(SYS_nanosleep, &moment, nullptr);
            }
            run();
          }) {}
    void join() override {
      at_the_latest = true;
      if (thread.joinable()) thread.join();
    }
  };
  return std::make_unique<thread_flow>(std::move(run), pid_t(::syscall(SYS_gettid)));
}

trace::trace(bool hooked) : hooked_(hooked) {}
trace::~trace() {
  join();
  // Where fibers may have waited on them, ringlet must hear of it; else it is the same.
  for (int fd : owned_) ::close(fd);
}

void trace::line(std::string_view what, std::string_view value) {
  text_.append("  ").append(what).append(": ").append(value).append("\n");
}

void trace::bytes(const char* what, const void* data, std::size_t size) {
  std::string shown;
  std::size_t hash = 1469598103934665603ull;
  for (std::size_t i = 0; i < size; ++i) {
    const unsigned char c = static_cast<const unsigned char*>(data)[i];
    hash = (hash ^ c) * 1099511628211ull;
    if (i < 40) {
      if (std::isprint(c)) shown += char(c);
      else {
        char escaped[8];
        std::snprintf(escaped, sizeof escaped, "\\x%02x", c);
        shown += escaped;
      }
    }
  }
  line(what, std::to_string(size) + " bytes '" + shown + (size > 40 ? "…' " + std::to_string(hash) : "'"));
}

std::string trace::error_name(int error) {
  const char* name = ::strerrorname_np(error);
  return name ? name : "errno " + std::to_string(error);
}

void trace::waited(std::chrono::steady_clock::time_point begin, std::chrono::milliseconds at_least, unsigned long before) {
  const auto took = std::chrono::steady_clock::now() - begin;
  // Timers may be a little early by another clock's resolution.
  pace_ += took + 1ms >= at_least ? "waited long enough\n" : "did not wait long enough\n";
  if (hooked_ && ticks.load() == before) complaint_ += "the thread was blocked: no other fiber ran meanwhile\n";
}

void trace::came_back(std::chrono::steady_clock::time_point begin) {
  pace_ += std::chrono::steady_clock::now() - begin < at_once_means ? "at once\n" : "not at once\n";
}

void trace::meanwhile(std::function<void()> f) {
  const auto asked = std::chrono::steady_clock::now();
  auto made = flow_beside(
      [this, asked, f = std::move(f)] {
        if (std::chrono::steady_clock::now() - asked > in_time_means) late_ = true;
        f();
      },
      hooked_);
  std::lock_guard hold(lock_);
  helpers_.push_back(std::move(made));
}

void trace::join() {
  while (true) {
    std::unique_ptr<flow> first;
    {
      std::lock_guard hold(lock_);
      if (helpers_.empty()) return;
      first = std::move(helpers_.front());
      helpers_.erase(helpers_.begin());
    }
    first->join();
  }
}

int trace::own(int fd) {
  if (fd >= 0) owned_.push_back(fd);
  return fd;
}
void trace::disown(int fd) { owned_.erase(std::remove(owned_.begin(), owned_.end(), fd), owned_.end()); }

ends trace::stream() {
  int both[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) != 0) fail("socketpair");
  return {own(both[0]), own(both[1])};
}
ends trace::datagrams() {
  int both[2];
  if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, both) != 0) fail("socketpair");
  return {own(both[0]), own(both[1])};
}
ends trace::pipe() {
  int both[2];
  if (::pipe2(both, O_CLOEXEC) != 0) fail("pipe2");
  return {own(both[0]), own(both[1])};
}
int trace::listening(unsigned short* port) {
  const int fd = own(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  if (::bind(fd, reinterpret_cast<sockaddr*>(&at), size) != 0 || ::listen(fd, 16) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) != 0)
    fail("listen");
  *port = ntohs(at.sin_port);
  return fd;
}
ends trace::tcp() {
  unsigned short port;
  const int door = listening(&port);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = htons(port);
  const int b = own(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(b, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0) fail("connect");
  const int a = own(::accept(door, nullptr, nullptr));
  if (a < 0) fail("accept");
  return {a, b};
}

void* nowhere() {
  static char* volatile p = nullptr;
  return p + 8;
}
int opaque(int n) {
  static volatile int none = 0;
  return n + none;
}

std::deque<registered>& cases() {
  static std::deque<registered> all;
  return all;
}
bool add(registered made) {
  cases().push_back(std::move(made));
  added(cases().back());
  return true;
}
std::vector<std::string> tried_rows() {
  std::vector<std::string> rows;
  for (const auto& each : cases()) {
    std::istringstream words(each.rows);
    for (std::string word; words >> word;) rows.push_back(word);
  }
  return rows;
}

result run_case(const case_function& f, bool hooked) {
  result r;
  try {
    trace t(hooked);
    try {
      f(t);
    } catch (const not_here& why) {
      r.not_here = why.reason;
    } catch (const std::exception& e) {
      r.complaint += std::string("the case threw: ") + e.what() + "\n";
    }
    t.join();
    r.text = t.text();
    r.pace = t.pace();
    r.late = t.was_late();
    r.complaint += t.complaint();
  } catch (const std::exception& e) {
    r.complaint += std::string("thrown at the end: ") + e.what() + "\n";
  }
  return r;
}

}  // namespace conformance
