// A load tester: hits a URL from many processes, with many fibers in each, and prints a table of how long the answers took.
//
//   load_tester http://127.0.0.1:8080/ [requests 10000] [processes: the cores] [fibers in each 50]
//
// Each fiber has a connection of its own and keeps it (HTTP/1.1). Each process sends what it has measured through a pipe when it
// is done; one that dies is seen by the end of its pipe, and missed in the table.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ringlet/ipc/message.hpp>
#include <ringlet/process.hpp>
#include <ringlet/ringlet.hpp>

namespace {

namespace io = ringlet::io;

struct target {
  std::string host, port = "80", path = "/";
};
struct measured {
  std::vector<std::uint32_t> microseconds;  // of each good answer
  std::map<std::string, unsigned> errors;
  std::uint64_t bytes = 0;
  MSGPACK_DEFINE(microseconds, errors, bytes)
};

bool parse(std::string_view url, target& to) {
  constexpr std::string_view scheme = "http://";
  if (!url.starts_with(scheme)) return false;
  url.remove_prefix(scheme.size());
  const auto slash = url.find('/');
  if (slash != url.npos) to.path = url.substr(slash);
  std::string_view place = url.substr(0, slash);
  if (const auto colon = place.rfind(':'); colon != place.npos) {
    to.port = place.substr(colon + 1);
    place = place.substr(0, colon);
  }
  to.host = place;
  return !to.host.empty();
}

class connection {
 public:
  ~connection() { close(); }
  // Empty: good, and its size in `bytes`; else what went wrong.
  std::string get(const target& from, const addrinfo& address, std::uint64_t& bytes) {
    if (fd_ < 0) {
      fd_ = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (const int result = io::connect(fd_, address.ai_addr, address.ai_addrlen); result < 0) return failed("connect", result);
    }
    const std::string request = "GET " + from.path + " HTTP/1.1\r\nHost: " + from.host + "\r\nUser-Agent: ringlet-load-tester\r\n\r\n";
    if (const ssize_t put = io::send(fd_, request.data(), request.size(), MSG_NOSIGNAL); put < 0) return failed("send", put);
    std::size_t end;
    while ((end = left_.find("\r\n\r\n")) == left_.npos)
      if (const ssize_t got = more(); got <= 0) return failed("receive", got);
    const std::string head = left_.substr(0, end + 2);
    left_.erase(0, end + 4);
    const auto length = head.find("Content-Length: ");
    if (length == head.npos) return failed("an answer without Content-Length", 0);
    std::size_t body = std::strtoull(head.c_str() + length + 16, nullptr, 10);
    bytes += body;
    while (left_.size() < body)
      if (const ssize_t got = more(); got <= 0) return failed("receive", got);
    left_.erase(0, body);
    if (head.find("Connection: close") != head.npos) close();
    return head.compare(9, 3, "200") == 0 ? "" : "status " + head.substr(9, 3);
  }

 private:
  ssize_t more() {
    char buffer[16384];
    const ssize_t got = io::recv(fd_, buffer, sizeof buffer, 0);
    if (got > 0) left_.append(buffer, std::size_t(got));
    return got;
  }
  std::string failed(const char* what, ssize_t result) {
    close();
    return result == 0 ? std::string(what) + ": the end" : std::string(what) + ": " + std::strerror(int(-result));
  }
  void close() {
    if (fd_ >= 0) io::close(std::exchange(fd_, -1));
    left_.clear();
  }
  int fd_ = -1;
  std::string left_;
};

void hit(const target& to, unsigned requests, unsigned fibers, ringlet::ipc::end report) {
  measured m;
  addrinfo hints{}, *address = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (const int wrong = io::getaddrinfo(to.host.c_str(), to.port.c_str(), &hints, &address)) {
    m.errors[gai_strerror(wrong)] = requests;
    report.send(m);
    return;
  }
  unsigned left = requests;
  std::vector<ringlet::fiber<void>> all;
  for (unsigned i = 0; i < fibers; ++i)
    all.push_back(ringlet::spawn([&] {
      connection c;
      while (left > 0) {
        --left;
        const auto begin = std::chrono::steady_clock::now();
        const std::string wrong = c.get(to, *address, m.bytes);
        const auto time = std::chrono::steady_clock::now() - begin;
        if (wrong.empty())
          m.microseconds.push_back(std::uint32_t(std::chrono::duration_cast<std::chrono::microseconds>(time).count()));
        else
          ++m.errors[wrong];
      }
    }));
  ringlet::joinall(all);
  freeaddrinfo(address);
  report.send(m);
}

}  // namespace

int main(int argc, char** argv) {
  target to;
  if (argc < 2 || !parse(argv[1], to)) {
    std::fprintf(stderr, "usage: load_tester http://HOST[:PORT]/PATH [REQUESTS] [PROCESSES] [FIBERS]\n");
    return 2;
  }
  const auto number = [&](int i, unsigned otherwise) { return argc > i ? unsigned(std::max(1, std::atoi(argv[i]))) : otherwise; };
  const unsigned requests = number(2, 10000), processes = number(3, ringlet::usable_cpu_count()), fibers = number(4, 50);

  const auto begin = std::chrono::steady_clock::now();
  std::vector<ringlet::process> all;
  std::vector<ringlet::ipc::end> reports;
  for (unsigned p = 0; p < processes; ++p) {
    auto pipe = ringlet::ipc::pipe();
    all.emplace_back(hit, to, requests / processes + (p < requests % processes), fibers, std::move(pipe.writer));
    all.back().start();
    reports.push_back(std::move(pipe.reader));
  }
  measured sum;
  for (auto& report : reports) try {
      const measured m = *report.receive<measured>();
      sum.microseconds.insert(sum.microseconds.end(), m.microseconds.begin(), m.microseconds.end());
      for (const auto& [what, count] : m.errors) sum.errors[what] += count;
      sum.bytes += m.bytes;
    } catch (const ringlet::ipc::end_of_pipe&) {
      ++sum.errors["a process of ours has died"];
    }
  for (auto& p : all) p.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  auto& times = sum.microseconds;
  std::sort(times.begin(), times.end());
  std::printf("%zu good answers to %u requests, from %u processes with %u fibers each\n", times.size(), requests, processes, fibers);
  for (const auto& [what, count] : sum.errors) std::printf("%u failed: %s\n", count, what.c_str());
  std::printf("%.0f a second, %.1f MB a second, %.2f s in all\n", double(times.size()) / seconds, double(sum.bytes) / seconds / 1e6, seconds);
  if (times.empty()) return 1;
  std::printf("%8s %12s\n", "of them", "took at most");
  for (double part : {0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0}) {
    const auto at = std::min(times.size() - 1, std::size_t(part * double(times.size())));
    std::printf("%7.1f%% %9.2f ms\n", part * 100, times[at] / 1000.0);
  }
  return sum.errors.empty() ? 0 : 1;
}
