#pragma once
// A work load whose outcome is checked to the byte, whatever happens to it meanwhile.
//
// Lanes: in each a sender and a receiver, over a unix stream, a pipe, TCP, sequenced packets, or a file; each byte is
// determined by its lane and its place, each message arrives once and in order. Beside them sleepers, which never wake
// early and in the end all wake, and those who count under a lock. The last lane's receiver is the main flow itself: it
// is the one whose calls a signal may end (hooks/README.md).
//
// A call may be interrupted, or refused where refusals have been asked for; then it is made again. Anything else is
// wrong, and so is a call restarted by SA_RESTART that says EINTR, or more EINTR than handlers that ran.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "faces.hpp"

namespace faults {

struct load_options {
  unsigned seed = 1;
  unsigned lanes = 10;
  std::size_t bytes = 20'000;  // a lane
  unsigned sleeps = 100;       // of each sleeper
  bool restarts = false;       // the signals' handlers have SA_RESTART
  bool may_refuse = false;
};

extern std::atomic<unsigned long> handled;  // handlers that have run

inline std::atomic<unsigned long> interrupted{0}, interrupted_although_restarted{0}, refused_calls{0}, transferred{0};

[[noreturn]] inline void wrong(const char* what, long got, long wanted) {
  std::printf("WRONG: %s: %ld, not %ld\n", what, got, wanted);
  std::fflush(stdout);
  ::_exit(1);
}
inline void must_be(const char* what, long got, long wanted) {
  if (got != wanted) wrong(what, got, wanted);
}

template <class Face>
class load {
 public:
  explicit load(const load_options& how) : how_(how) {}

  void run() {
    std::vector<typename Face::task> tasks;
    for (unsigned lane = 0; lane < how_.lanes; ++lane) add_lane(tasks, lane);
    for (unsigned i = 0; i < 3; ++i) start(tasks, [this, i] { sleep_often(i); });
    for (unsigned i = 0; i < 4; ++i) start(tasks, [this] { count_under_lock(); });
    receive_on_main();
    for (auto& t : tasks) t.join();
    must_be("counted under the lock", long(counted_), 4 * 50);
    must_be("sleeps that ended", long(slept_), long(3 * how_.sleeps));
    if (interrupted > handled) wrong("calls interrupted, by so many handlers", long(interrupted), long(handled));
    if (how_.restarts) must_be("calls interrupted although restarted", long(interrupted_although_restarted), 0);
  }

  // Fifty sleep to fifty moments, and meanwhile() keeps the whole process from noticing that they have come. Each wakes
  // once, in the order of its moment.
  void wake_in_order(void (*meanwhile)()) {
    constexpr unsigned count = 50;
    const long long begun = now_ns();
    std::vector<typename Face::task> tasks;
    for (unsigned n = 0; n < count; ++n) {
      const unsigned i = n * 17 % count;
      start(tasks, [this, i, moment = begun + 100'000'000 + i * 1'000'000LL] {
        while (Face::sleep_until(moment) == -EINTR) ++interrupted;
        if (now_ns() < moment) wrong("a sleeper woke early, by so many ns", long(moment - now_ns()), 0);
        std::lock_guard hold(lock_);
        woken_.push_back(i);
      });
    }
    pause(10'000'000);  // all sleep
    meanwhile();
    for (auto& t : tasks) t.join();
    must_be("sleepers that woke", long(woken_.size()), count);
    for (unsigned i = 0; Face::has_order && i < count; ++i) must_be("the next to wake", woken_[i], i);
  }

 private:
  enum class kind { stream, pipe, tcp, packets, file };

  static unsigned char byte_at(unsigned lane, std::size_t place) {
    return static_cast<unsigned char>((place * 2654435761u) >> 13 ^ lane * 37 ^ place);
  }

  // Until it is neither interrupted nor refused.
  template <class Call>
  ssize_t insist(Call call, bool restartable = true) {
    for (;;) {
      const ssize_t got = call();
      if (got == -EINTR) {
        ++interrupted;
        if (restartable) ++interrupted_although_restarted;
      } else if (how_.may_refuse && (got == -ENOMEM || got == -EMFILE || got == -ENFILE || got == -ENOBUFS ||
                                     got == -ENOSPC || got == -EAGAIN)) {
        ++refused_calls;
        pause(100'000);
      } else {
        return got;
      }
    }
  }
  void pause(long long nanoseconds) {
    const long long until = now_ns() + nanoseconds;
    while (Face::sleep_until(until) == -EINTR) ++interrupted;
    if (now_ns() < until) wrong("a sleep ended early, by so many ns", long(until - now_ns()), 0);
  }

  // Threads, too, may be refused.
  void start(std::vector<typename Face::task>& tasks, std::function<void()> f) {
    for (;;) {
      try {
        tasks.push_back(Face::start(f));
        return;
      } catch (const std::exception&) {
        if (!how_.may_refuse) throw;
        ++refused_calls;
        pause(1'000'000);
      }
    }
  }
  int made(int fd) {
    if (fd < 0) wrong("a socket or pipe", -errno, 0);
    return fd;
  }
  // How many descriptors are free is the row's; whoever finds none waits for the others to end.
  template <class Make>
  void make(Make f) {
    insist([&]() -> ssize_t { return f() < 0 ? -errno : 0; });
  }

  void add_lane(std::vector<typename Face::task>& tasks, unsigned lane) {
    const kind k = kind(lane % 5);
    int ends[2] = {-1, -1};
    switch (k) {
      case kind::tcp: {
        int listener = -1;
        make([&] { return listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); });
        must_be("listen", ::listen(listener, 8), 0);  // on a free port
        start(tasks, [this, lane, listener] {
          const int fd = int(insist([&] { return Face::accept(listener); }));
          Face::close(made(listener));
          receive(lane, made(fd), kind::tcp);
        });
        start(tasks, [this, lane, listener] { send_to(lane, listener); });
        return;
      }
      case kind::pipe:
        make([&] { return ::pipe2(ends, O_CLOEXEC); });
        break;
      case kind::stream:
        make([&] { return ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends); });
        break;
      case kind::packets:
        make([&] { return ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends); });
        break;
      case kind::file:
        start(tasks, [this, lane] { through_file(lane); });
        return;
    }
    start(tasks, [this, lane, fd = ends[0], k] { receive(lane, fd, k); });
    start(tasks, [this, lane, fd = ends[1], k] { send(lane, fd, k); });
  }

  void receive_on_main() {
    int ends[2];
    make([&] { return ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends); });
    std::vector<typename Face::task> sender;
    start(sender, [this, fd = ends[1]] { send(how_.lanes, fd, kind::stream); });
    receive(how_.lanes, ends[0], kind::stream);
    sender[0].join();
  }

  void send_to(unsigned lane, int listener) {
    sockaddr_in to{};
    socklen_t size = sizeof to;
    if (::getsockname(listener, reinterpret_cast<sockaddr*>(&to), &size) != 0) wrong("getsockname", -errno, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = -1;
    make([&] { return fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); });
    // A second connect after an interrupted one tells how the first went on (connect(2)).
    const ssize_t got = insist([&] { return Face::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to); });
    if (got != 0 && got != -EISCONN && got != -EALREADY) wrong("connect", long(got), 0);
    send(lane, fd, kind::tcp);
  }

  void send(unsigned lane, int fd, kind k) {
    std::mt19937 lots(how_.seed * 7919 + lane);
    std::vector<unsigned char> piece;
    for (std::size_t at = 0; at < how_.bytes;) {
      std::size_t size = std::min<std::size_t>(1 + lots() % 3000, how_.bytes - at);
      if (k == kind::packets)
        size = std::min<std::size_t>(1 + at % 997, how_.bytes - at);  // the receiver knows it, too
      piece.resize(size);
      for (std::size_t i = 0; i < size; ++i) piece[i] = byte_at(lane, at + i);
      for (std::size_t done = 0; done < size;) {
        const ssize_t got = insist([&] {
          return k == kind::pipe || lots() % 2 ? Face::write(fd, piece.data() + done, size - done)
                                               : Face::send(fd, piece.data() + done, size - done);
        });
        if (got <= 0 || (k == kind::packets && std::size_t(got) != size)) wrong("a send", long(got), long(size - done));
        done += std::size_t(got);
      }
      at += size;
      if (lots() % 8 == 0) pause(lots() % 300'000);
    }
    must_be("close", Face::close(fd), 0);
  }

  void receive(unsigned lane, int fd, kind k) {
    std::mt19937 lots(how_.seed * 104729 + lane);
    std::vector<unsigned char> piece(4096);
    std::size_t at = 0;
    for (;;) {
      if (lots() % 4 == 0) {
        const ssize_t ready = insist([&] { return Face::poll_in(fd, int(lots() % 3)); }, false);
        if (ready < 0) wrong("poll", long(ready), 1);
      }
      const std::size_t size = k == kind::packets ? piece.size() : 1 + lots() % 2500;
      const ssize_t got = insist([&] {
        return k == kind::pipe || lots() % 2 ? Face::read(fd, piece.data(), size) : Face::recv(fd, piece.data(), size);
      });
      if (got < 0) wrong("a receive", long(got), long(size));
      if (got == 0) break;
      if (k == kind::packets)
        must_be("a packet's size", long(got), long(std::min<std::size_t>(1 + at % 997, how_.bytes - at)));
      for (ssize_t i = 0; i < got; ++i) must_be("a byte", piece[std::size_t(i)], byte_at(lane, at + std::size_t(i)));
      at += std::size_t(got);
      transferred += std::size_t(got);
      if (lots() % 8 == 0) pause(lots() % 300'000);
    }
    must_be("bytes of a lane", long(at), long(how_.bytes));
    must_be("close", Face::close(fd), 0);
  }

  void through_file(unsigned lane) {
    int fd = -1;
    make([&] { return fd = ::memfd_create("lane", MFD_CLOEXEC); });
    std::vector<unsigned char> all(how_.bytes), back(how_.bytes);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = byte_at(lane, i);
    for (std::size_t at = 0; at < all.size(); at += 4000) {
      const std::size_t size = std::min<std::size_t>(4000, all.size() - at);
      must_be("a write to a file", long(insist([&] { return Face::write(fd, all.data() + at, size); })), long(size));
    }
    must_be("fsync", long(insist([&] { return Face::fsync(fd); })), 0);
    must_be("pread", long(insist([&] { return Face::pread(fd, back.data(), back.size(), 0); })), long(back.size()));
    must_be("the file's bytes differ", std::memcmp(all.data(), back.data(), all.size()), 0);
    must_be("close", Face::close(fd), 0);
    transferred += back.size();
  }

  // Moments ahead of time, so that all of them may be over at once: then each is due, and none is early.
  void sleep_often(unsigned which) {
    std::mt19937 lots(how_.seed * 31 + which);
    long long moment = now_ns();
    for (unsigned i = 0; i < how_.sleeps; ++i) {
      moment += lots() % 1'000'000;
      while (Face::sleep_until(moment) == -EINTR) ++interrupted;
      if (now_ns() < moment) wrong("a sleeper woke early, by so many ns", long(moment - now_ns()), 0);
      ++slept_;
    }
  }

  void count_under_lock() {
    for (int i = 0; i < 50; ++i) {
      std::lock_guard hold(lock_);
      const unsigned before = counted_;
      pause(20'000);
      counted_ = before + 1;
    }
  }

  const load_options how_;
  typename Face::lock lock_;
  unsigned counted_ = 0;
  std::atomic<unsigned> slept_{0};
  std::vector<unsigned> woken_;
};

}  // namespace faults
