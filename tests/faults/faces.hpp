#pragma once
// The faces of one work load: ringlet's own calls, libc's names under the hooks, plain threads. Results are the
// kernel's dialect everywhere. A plain build has threads only, and knows nothing of ringlet.

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <mutex>
#include <thread>

#ifndef FAULTS_PLAIN
#include <ringlet/hooks.hpp>
#include <ringlet/io.hpp>
#include <ringlet/ringlet.hpp>
#endif

namespace faults {

inline long long now_ns() {
  timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

// libc's names, as whoever links them: libc, or the hooks.
struct libc_calls {
  static ssize_t told(ssize_t got) { return got < 0 ? -errno : got; }
  static ssize_t read(int fd, void* to, std::size_t size) { return told(::read(fd, to, size)); }
  static ssize_t write(int fd, const void* from, std::size_t size) { return told(::write(fd, from, size)); }
  static ssize_t recv(int fd, void* to, std::size_t size) { return told(::recv(fd, to, size, 0)); }
  static ssize_t send(int fd, const void* from, std::size_t size) { return told(::send(fd, from, size, MSG_NOSIGNAL)); }
  static int accept(int fd) { return int(told(::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC))); }
  static int connect(int fd, const sockaddr* to, unsigned size) { return int(told(::connect(fd, to, size))); }
  static int close(int fd) { return int(told(::close(fd))); }
  static int poll_in(int fd, int milliseconds) {
    pollfd p{fd, POLLIN, 0};
    return int(told(::poll(&p, 1, milliseconds)));
  }
  static ssize_t pread(int fd, void* to, std::size_t size, off_t at) { return told(::pread(fd, to, size, at)); }
  static int fsync(int fd) { return int(told(::fsync(fd))); }
  static int sleep_until(long long moment_ns) {
    const timespec t{moment_ns / 1'000'000'000, moment_ns % 1'000'000'000};
    return -::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr);
  }
};

struct threads_face : libc_calls {
  using task = std::thread;
  using lock = std::mutex;
  static constexpr bool has_order = false;  // of timers, and of those who wake
  // Whoever makes fibers of threads has all it needs by then.
  static void begin() {
    start([] {}).join();
  }
  static std::string left() { return {}; }
  static task start(std::function<void()> f) { return std::thread(std::move(f)); }
};

#ifndef FAULTS_PLAIN
// What is left of the hub's when all is done.
inline std::string left_on_hub() {
  const auto give_up = now_ns() + 5'000'000'000;
  std::string text;
  do {
    ringlet::sleep(std::chrono::microseconds(100));
    const auto c = ringlet::hub::count();
    text.clear();
    if (c.fibers + c.ready + c.timers + c.operations + c.fd_waits + c.watched_fds + c.stacks)
      text = std::to_string(c.fibers) + " fibers, " + std::to_string(c.timers) + " timers, " +
             std::to_string(c.operations) + " operations, " + std::to_string(c.fd_waits) + " waits, " +
             std::to_string(c.watched_fds) + " polls, " + std::to_string(c.stacks) + " stacks";
  } while (!text.empty() && now_ns() < give_up);
  return text;
}

struct io_face {
  using task = ringlet::fiber<>;
  using lock = ringlet::mutex;
  static constexpr bool has_order = true;
  static void begin() { ringlet::yield(); }
  static std::string left() { return left_on_hub(); }
  static task start(std::function<void()> f) { return ringlet::spawn(std::move(f)); }
  static ssize_t read(int fd, void* to, std::size_t size) { return ringlet::io::read(fd, to, size); }
  static ssize_t write(int fd, const void* from, std::size_t size) { return ringlet::io::write(fd, from, size); }
  static ssize_t recv(int fd, void* to, std::size_t size) { return ringlet::io::recv(fd, to, size, 0); }
  static ssize_t send(int fd, const void* from, std::size_t size) {
    return ringlet::io::send(fd, from, size, MSG_NOSIGNAL);
  }
  static int accept(int fd) { return ringlet::io::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC); }
  static int connect(int fd, const sockaddr* to, unsigned size) { return ringlet::io::connect(fd, to, size); }
  static int close(int fd) { return ringlet::io::close(fd); }
  static int poll_in(int fd, int milliseconds) {
    pollfd p{fd, POLLIN, 0};
    return ringlet::io::poll(&p, 1, std::chrono::milliseconds(milliseconds));
  }
  static ssize_t pread(int fd, void* to, std::size_t size, off_t at) { return ringlet::io::pread(fd, to, size, at); }
  static int fsync(int fd) { return ringlet::io::fsync(fd); }
  static int sleep_until(long long moment_ns) {
    return ringlet::io::sleep_until(ringlet::deadline(ringlet::clock::time_point(std::chrono::nanoseconds(moment_ns))));
  }
};

struct hooked_face : libc_calls {
  using task = ringlet::fiber<>;
  using lock = std::mutex;
  static constexpr bool has_order = true;
  static void begin() {
    ringlet::hooks::enable();
    ringlet::yield();
  }
  static std::string left() { return left_on_hub(); }
  static task start(std::function<void()> f) { return ringlet::spawn(std::move(f)); }
};
#endif

}  // namespace faults
