#include "conformance.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cctype>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <netinet/in.h>
#include <optional>
#include <sstream>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <system_error>
#include <unistd.h>

#include <ringlet/fiber.hpp>
#include <ringlet/hooks.hpp>

namespace conformance {

namespace {

std::vector<std::string> rows;
std::size_t cases = 0;
std::atomic<unsigned long> ticks{0};

constexpr auto at_once_means = 25ms;

void raw_close(int fd) { ::syscall(SYS_close, fd); }

// The thread sleeps in the kernel.
bool is_asleep(pid_t thread) {
  char path[64], text[512];
  std::snprintf(path, sizeof path, "/proc/self/task/%d/stat", int(thread));
  const int fd = int(::syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC));
  if (fd < 0) return true;
  const long n = ::syscall(SYS_read, fd, text, sizeof text - 1);
  raw_close(fd);
  if (n <= 0) return true;
  text[n] = 0;
  const char* after_name = std::strrchr(text, ')');
  return after_name && after_name[2] == 'S';
}

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

}  // namespace

struct trace::helper {
  std::function<void()> run;
  std::optional<std::thread> thread;
  ringlet::any_fiber fiber;
  std::atomic<bool> at_the_latest{false};
};

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

unsigned long trace::others_ran() { return ticks.load(); }

void trace::waited(std::chrono::steady_clock::time_point begin, std::chrono::milliseconds at_least, unsigned long before) {
  const auto took = std::chrono::steady_clock::now() - begin;
  // Timers may be a little early by another clock's resolution.
  pace_ += took + 1ms >= at_least ? "waited long enough\n" : "did not wait long enough\n";
  if (hooked_ && others_ran() == before) complaint_ += "the thread was blocked: no other fiber ran meanwhile\n";
}

void trace::came_back(std::chrono::steady_clock::time_point begin) {
  pace_ += std::chrono::steady_clock::now() - begin < at_once_means ? "at once\n" : "not at once\n";
}

void trace::meanwhile(std::function<void()> f) {
  auto h = std::make_unique<helper>();
  h->run = std::move(f);
  helper* mine = h.get();
  if (hooked_) {
    h->fiber = ringlet::spawn([mine] { mine->run(); });
  } else {
    const pid_t caller = pid_t(::syscall(SYS_gettid));
    h->thread.emplace([mine, caller] {
      // Asleep twice in a row, a moment apart: not just between two calls.
      for (int seen = 0; seen < 2 && !mine->at_the_latest;) {
        seen = is_asleep(caller) ? seen + 1 : 0;
        timespec moment{0, 1000000};
        ::syscall(SYS_nanosleep, &moment, nullptr);
      }
      mine->run();
    });
  }
  helpers_.push_back(std::move(h));
}

void trace::join() {
  for (auto& h : helpers_) {
    h->at_the_latest = true;
    if (h->thread && h->thread->joinable()) h->thread->join();
    if (!h->fiber.empty()) h->fiber.join();
  }
  helpers_.clear();
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

registered::registered(const char*, const char* which) {
  ++cases;
  std::istringstream words(which);
  for (std::string word; words >> word;) rows.push_back(word);
}
const std::vector<std::string>& tried_rows() { return rows; }
std::size_t case_count() { return cases; }

namespace {

struct result {
  std::string text, pace, complaint;
};

result run_case(case_function f, bool hooked) {
  result r;
  try {
    trace t(hooked);
    try {
      f(t);
    } catch (const std::exception& e) {
      r.complaint += std::string("the case threw: ") + e.what() + "\n";
    }
    t.join();
    r.text = t.text();
    r.pace = t.pace();
    r.complaint += t.complaint();
  } catch (const std::exception& e) {
    r.complaint += std::string("thrown at the end: ") + e.what() + "\n";
  }
  return r;
}

result run_bare(case_function f) {
  result r;
  std::thread([&] { r = run_case(f, false); }).join();
  return r;
}

result run_hooked(case_function f, place where) {
  result r;
  ringlet::hooks::enable();
  bool done = false;
  auto ticker = ringlet::spawn({.name = "ticker"}, [&] {
    while (!done) {
      ringlet::sleep(1ms);
      ++ticks;
    }
  });
  if (where == place::main_fiber) {
    ringlet::yield();
    r = run_case(f, true);
  } else {
    ringlet::spawn({.name = "case", .stack_size_bytes = 512 * 1024}, [&] { r = run_case(f, true); }).join();
  }
  done = true;
  ticker.join();
  ringlet::hooks::disable();
  return r;
}

}  // namespace

void compare(case_function f, place where) {
  for (int tries_left = 2;; --tries_left) {
    const result bare = run_bare(f);
    const result hooked = run_hooked(f, where);
    const bool same = bare.text == hooked.text && bare.complaint.empty() && hooked.complaint.empty();
    if (same && bare.pace != hooked.pace && tries_left > 0) continue;
    CHECK_MESSAGE(bare.text == hooked.text, "bare:\n" << bare.text << "hooked:\n" << hooked.text);
    CHECK_MESSAGE(bare.pace == hooked.pace, "bare:\n" << bare.pace << "hooked:\n" << hooked.pace << "of:\n" << bare.text);
    CHECK_MESSAGE(bare.complaint.empty(), bare.complaint << bare.text);
    CHECK_MESSAGE(hooked.complaint.empty(), hooked.complaint << hooked.text);
    // What was not written down was not compared.
    CHECK_MESSAGE(!bare.text.empty(), "the case saw nothing");
    return;
  }
}

}  // namespace conformance
