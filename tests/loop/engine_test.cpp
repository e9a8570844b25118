// What an engine promises about operations, sleeping, waking and forking, over all three engines.

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <thread>

#include "engines.hpp"
#include "loop/offload.hpp"

using namespace loop_test;

namespace {

operation of(opcode code, int fd) {
  operation op;
  op.code = code;
  op.fd = fd;
  return op;
}

int perform(engine& e, const operation& op) {
  result_of r;
  e.start(op, r);
  REQUIRE(turn_until(e, [&] { return r.done; }));
  CHECK(r.times == 1);
  return r.result;
}

constexpr auto passed = clock::time_point::min();
constexpr auto never = clock::time_point::max();

}  // namespace

ENGINE_CASE("operation: opens, writes, syncs and reads a file") {
  MAKE_ENGINE(e);
  support::temporary_directory dir;
  const std::string path = dir.path() / "file";
  operation open = of(opcode::openat, AT_FDCWD);
  open.path = path.c_str();
  open.flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
  open.mode = 0600;
  support::fd file(perform(e, open));
  REQUIRE(file.get() >= 0);
  struct stat about {};
  REQUIRE(::fstat(file, &about) == 0);
  CHECK((about.st_mode & 0777) == 0600);

  char hello[] = "hello ", world[] = "world";
  iovec parts[] = {{hello, 6}, {world, 5}};
  operation write = of(opcode::writev, file);
  write.parts = parts;
  write.count = 2;
  CHECK(perform(e, write) == 11);  // at the file's own position, which moves
  write.parts = parts + 1;
  write.count = 1;
  CHECK(perform(e, write) == 5);
  write.offset = 0;
  CHECK(perform(e, write) == 5);
  CHECK(perform(e, of(opcode::fsync, file)) == 0);
  CHECK(perform(e, of(opcode::fdatasync, file)) == 0);

  char first[8] = {}, second[32] = {};
  iovec into[] = {{first, 6}, {second, sizeof second}};
  operation read = of(opcode::readv, file);
  read.parts = into;
  read.count = 2;
  read.offset = 0;
  CHECK(perform(e, read) == 16);
  CHECK(std::string(first, 6) + std::string(second, 10) == "world worldworld");
  read.parts = into + 1;
  read.count = 1;
  read.offset = 12;
  CHECK(perform(e, read) == 4);
  CHECK(std::string(second, 4) == "orld");
  read.offset = 100;
  CHECK(perform(e, read) == 0);
  CHECK(perform(e, of(opcode::nop, -1)) == 0);
  CHECK(e.operations_in_flight() == 0);
}

ENGINE_CASE("operation: errors are the kernel's") {
  MAKE_ENGINE(e);
  operation open = of(opcode::openat, AT_FDCWD);
  open.path = "/nonexistent/file";
  open.flags = O_RDONLY;
  CHECK(perform(e, open) == -ENOENT);
  open.path = nullptr;
  CHECK(perform(e, open) == -EFAULT);
  char byte = 'x';
  iovec part{&byte, 1};
  operation read = of(opcode::readv, 9999);
  read.parts = &part;
  read.count = 1;
  CHECK(perform(e, read) == -EBADF);
  support::fd directory(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  read.fd = directory;
  CHECK(perform(e, read) == -EISDIR);
  operation write = read;
  write.code = opcode::writev;
  CHECK(perform(e, write) == -EBADF);
  auto [reader, writer] = support::make_pipe();
  CHECK(perform(e, of(opcode::fsync, reader)) == -EINVAL);
}

TEST_CASE("operation: accept and connect wait in the ring") {
  using E = uring;
  MAKE_ENGINE(e);
  REQUIRE(e.waits_for_sockets());
  auto listener = support::listen_on_free_port();
  operation accept = of(opcode::accept, listener.socket);
  sockaddr_in from{};
  unsigned from_length = sizeof from;
  accept.address = reinterpret_cast<sockaddr*>(&from);
  accept.address_length = &from_length;
  accept.flags = SOCK_CLOEXEC;
  result_of accepted;
  e.start(accept, accepted);
  settle(e);
  CHECK_FALSE(accepted.done);

  support::fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  unsigned to_length = sizeof to;
  REQUIRE(::getsockname(listener.socket, reinterpret_cast<sockaddr*>(&to), &to_length) == 0);
  operation connect = of(opcode::connect, client);
  connect.address = reinterpret_cast<sockaddr*>(&to);
  connect.address_length = &to_length;
  CHECK(perform(e, connect) == 0);
  REQUIRE(turn_until(e, [&] { return accepted.done; }));
  support::fd server(accepted.result);
  CHECK(server.get() >= 0);
  CHECK(from.sin_family == AF_INET);
  CHECK(from_length == sizeof from);

  result_of cancelled;
  e.start(accept, cancelled);
  e.wait(passed);
  e.cancel(cancelled);
  REQUIRE(turn_until(e, [&] { return cancelled.done; }));
  CHECK(cancelled.result == -ECANCELED);
  listener.socket.reset();
  client = support::fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  connect.fd = client;
  CHECK(perform(e, connect) == -ECONNREFUSED);
}

ENGINE_CASE("operation: three hundred at once each complete once") {
  MAKE_ENGINE(e);
  support::fd zero(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  std::deque<result_of> results(300);
  char byte;
  iovec part{&byte, 1};
  for (std::size_t i = 0; i < results.size(); ++i) {
    operation op = of(i % 2 ? opcode::readv : opcode::nop, zero);
    op.parts = &part;
    op.count = 1;
    e.start(op, results[i]);
  }
  CHECK(e.operations_in_flight() == 300);
  CHECK(turn_until(e, [&] { return e.operations_in_flight() == 0; }));
  settle(e);
  for (std::size_t i = 0; i < results.size(); ++i) {
    CHECK(results[i].times == 1);
    CHECK(results[i].result == int(i % 2));
  }
}

TEST_CASE("tiny ring: overflows lose no operation") {
  for (const char* entries : {"1", "2", "4"}) {
    CAPTURE(entries);
    variable_set set("RINGLET_RING_ENTRIES", entries);
    std::string why_not;
    const auto e = make_uring_engine(&why_not);
    if (!e) RINGLET_SKIP("no ring: " + why_not);
    std::deque<result_of> results(1000);
    for (auto& r : results) e->start(of(opcode::nop, -1), r);
    CHECK(e->has_news());
    CHECK(turn_until(*e, [&] { return e->operations_in_flight() == 0; }));
    for (auto& r : results) CHECK(r.times == 1);
  }
}

ENGINE_CASE("operation: a completion may start the next one") {
  MAKE_ENGINE(e);
  struct chain : completion {
    engine* e = nullptr;
    int left = 100;
  } c;
  c.e = &e;
  c.wake = [](completion& base) {
    auto& self = static_cast<chain&>(base);
    if (--self.left > 0) self.e->start(of(opcode::nop, -1), self);
  };
  e.start(of(opcode::nop, -1), c);
  CHECK(turn_until(e, [&] { return c.left == 0; }));
}

TEST_CASE("cancel: a read that waits ends with ECANCELED on the ring") {
  using E = uring;
  MAKE_ENGINE(e);
  auto [reader, writer] = support::make_pipe();
  char byte;
  iovec part{&byte, 1};
  operation read = of(opcode::readv, reader);
  read.parts = &part;
  read.count = 1;
  for (bool submitted : {true, false}) {
    result_of r;
    e.start(read, r);
    if (submitted) e.wait(passed);
    CHECK_FALSE(r.done);
    e.cancel(r);
    REQUIRE(turn_until(e, [&] { return r.done; }));
    CHECK(r.result == -ECANCELED);
    settle(e);
    CHECK(r.times == 1);
  }
}

TEST_CASE("cancel: on helper threads one that runs ends by itself, one that waits for a helper is called off") {
  using E = epoll;
  MAKE_ENGINE(e);
  auto [reader, writer] = support::make_pipe();
  char bytes[128];
  std::deque<iovec> parts;
  std::deque<result_of> results(80);  // more than there are helpers
  for (unsigned i = 0; i < results.size(); ++i) {
    parts.push_back({&bytes[i], 1});
    operation read = of(opcode::readv, reader);
    read.parts = &parts.back();
    read.count = 1;
    e.start(read, results[i]);
  }
  auto& last = results.back();
  e.cancel(last);
  CHECK_FALSE(last.done);
  REQUIRE(turn_until(e, [&] { return last.done; }));
  CHECK(last.result == -ECANCELED);
  CHECK(e.operations_in_flight() == 79);
  e.cancel(results.front());  // perhaps with a helper already, perhaps not
  const std::string enough(79, 'y');
  REQUIRE(::write(writer, enough.data(), enough.size()) == 79);
  writer.reset();
  CHECK(turn_until(e, [&] { return e.operations_in_flight() == 0; }));
  for (auto& r : results) CHECK(r.times == 1);
  for (unsigned i = 1; i < 79; ++i) CHECK(results[i].result == 1);
}

ENGINE_CASE("cancel: whatever the moment, a completion comes exactly once") {
  MAKE_ENGINE(e);
  support::fd zero(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  char byte;
  iovec part{&byte, 1};
  operation read = of(opcode::readv, zero);
  read.parts = &part;
  read.count = 1;
  std::deque<result_of> results(200);
  for (unsigned i = 0; i < results.size(); ++i) {
    e.start(read, results[i]);
    if (i % 3 == 0) e.wait(passed);
    if (i % 2) e.cancel(results[i]);
  }
  CHECK(turn_until(e, [&] { return e.operations_in_flight() == 0; }));
  settle(e);
  for (auto& r : results) {
    CHECK(r.times == 1);
    CHECK((r.result == 1 || r.result == -ECANCELED));
    e.cancel(r);  // too late is no harm
  }
}

KERNEL_ENGINE_CASE("engine: may be destroyed with operations under way") {
  auto [reader, writer] = support::make_pipe();
  char byte;
  iovec part{&byte, 1};
  result_of r;
  {
    MAKE_ENGINE(e);
    operation read = of(opcode::readv, reader);
    read.parts = &part;
    read.count = 1;
    e.start(read, r);
    e.wait(passed);
  }
  CHECK(r.times == 0);
  writer.reset();  // lets a helper go
  const auto give_up = real_now() + 20s;
  while (::recv(reader, &byte, 0, 0) == 0 && real_now() < give_up) {
  }
}

// ---- sleeping and waking

KERNEL_ENGINE_CASE("wait: never ends before its moment if nothing happens") {
  // On a thread of its own: the kernel still interrupts this one to take down the rings of earlier cases.
  std::string why_not;
  long earliest = 0;
  std::thread([&] {
    const auto e = E::make(&why_not);
    if (!e) return;
    for (auto length : {1ns, 999ns, 50'000ns, 1'000'000ns, 1'500'000ns, 20'000'000ns}) {
      const auto until = e->now() + length;
      e->wait(until);
      earliest = std::min(earliest, long((e->now() - until).count()));
    }
  }).join();
  if (!why_not.empty()) RINGLET_SKIP("no ring: " + why_not);
  CHECK(earliest == 0);
}

TEST_CASE("wait: simulated time jumps exactly to the moment waited for") {
  const auto e = make_simulated_engine(3);
  CHECK(e->now() == clock::time_point(1s));
  e->wait(e->now() + 1h);
  CHECK(e->now() == clock::time_point(1h + 1s));
  e->wait(e->now() + 1ns);
  CHECK(e->now() == clock::time_point(1h + 1s + 1ns));
  e->wait(passed);
  CHECK(e->now() == clock::time_point(1h + 1s + 1ns));
}

ENGINE_CASE("wait: a moment that has passed does not sleep") {
  MAKE_ENGINE(e);
  for (int i = 0; i < 1000; ++i) e.wait(i % 2 ? passed : e.now() - 1s);
}

ENGINE_CASE("wait: an idle engine has no news") {
  MAKE_ENGINE(e);
  settle(e);
  CHECK_FALSE(e.has_news());
  e.wake();
  CHECK(e.has_news());
  settle(e);
  CHECK_FALSE(e.has_news());
}

KERNEL_ENGINE_CASE("wait: a signal that ends it is said, and nothing fails") {
  MAKE_ENGINE(e);
  struct sigaction nothing {
  }, before{};
  nothing.sa_handler = [](int) {};
  ::sigaction(SIGUSR1, &nothing, &before);
  std::atomic<bool> stop{false};
  const pthread_t self = ::pthread_self();
  std::thread sender([&] {
    while (!stop) ::pthread_kill(self, SIGUSR1), std::this_thread::yield();
  });
  const auto until = e.now() + 20ms;
  bool seen = false;
  while (e.now() < until || !seen) {
    e.wait(e.now() + 1ms);
    seen = seen || e.signal_seen;
  }
  stop = true;
  sender.join();
  ::sigaction(SIGUSR1, &before, nullptr);
}

ENGINE_CASE("wake: before the wait prevents its sleep") {
  MAKE_ENGINE(e);
  for (int i = 0; i < 100; ++i) {
    e.wake();
    if (i % 2) e.wake();
    e.wait(never);
  }
}

ENGINE_CASE("wake: from another thread ends a sleep, and none is lost") {
  MAKE_ENGINE(e);
  std::atomic<int> asked{0}, answered{0};
  const int rounds = support::is_instrumented() ? 2000 : 20000;
  std::thread other([&] {
    for (int i = 1; i <= rounds; ++i) {
      asked = i;
      e.wake();
      while (answered != i) std::this_thread::yield();
    }
  });
  // Each wait is without end: a lost wake is a hang. Spurious ends are allowed.
  for (int i = 1; i <= rounds; ++i) {
    while (asked != i) e.wait(never);
    answered = i;
  }
  other.join();
}

KERNEL_ENGINE_CASE("wake: none is lost by a wait with an end, while an fd is watched") {
  MAKE_ENGINE(e);
  auto [a, b] = support::make_socketpair();
  watcher quiet(a);
  REQUIRE(e.arm(quiet, direction::in) == 0);
  std::atomic<int> asked{0}, answered{0};
  const int rounds = support::is_instrumented() ? 2000 : 20000;
  std::thread other([&] {
    for (int i = 1; i <= rounds; ++i) {
      asked = i;
      e.wake();
      while (answered != i) std::this_thread::yield();
    }
  });
  for (int i = 1; i <= rounds; ++i) {
    while (asked != i) e.wait(e.now() + 1h);
    answered = i;
  }
  other.join();
  e.disarm(quiet);
}

ENGINE_CASE("wake: many threads at once") {
  MAKE_ENGINE(e);
  std::atomic<int> done{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) done.fetch_add(1), e.wake();
    });
  while (done < 4000) e.wait(never);
  for (auto& t : threads) t.join();
}

namespace {
std::atomic<engine*> to_wake{nullptr};
}

ENGINE_CASE("wake: from a signal handler") {
  MAKE_ENGINE(e);
  to_wake = &e;
  struct sigaction waking {
  }, before{};
  waking.sa_handler = [](int) { to_wake.load()->wake(); };
  waking.sa_flags = SA_RESTART;
  ::sigaction(SIGUSR1, &waking, &before);
  ::raise(SIGUSR1);
  e.wait(never);
  ::sigaction(SIGUSR1, &before, nullptr);
}

// ---- fork

KERNEL_ENGINE_CASE("fork: the child abandons its copy and makes its own, the parent's goes on") {
  MAKE_ENGINE(e);
  auto [a, b] = support::make_socketpair();
  watcher w(a);
  REQUIRE(e.arm(w, direction::in) == 0);
  e.wait(passed);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    e.abandon_after_fork();
    offload_forget_after_fork();
    std::string why;
    const auto own = E::make(&why);
    if (!own) ::_exit(2);  // the parent's ring is charged to the same limit
    auto [c, d] = support::make_socketpair();
    watcher mine(c);
    bool good = own->arm(mine, direction::in) == 0 && ::write(d, "x", 1) == 1 &&
                turn_until(*own, [&] { return mine.saw(POLLIN); });
#ifndef __SANITIZE_THREAD__  // which forbids threads in a child of a threaded process
    result_of r;
    if (good) own->start(of(opcode::nop, -1), r);
    good = good && turn_until(*own, [&] { return r.done; });
#endif
    ::_exit(good ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  if (WEXITSTATUS(status) == 2) RINGLET_SKIP("no second ring");
  CHECK(status == 0);
  REQUIRE(::write(b, "x", 1) == 1);
  CHECK(turn_until(e, [&] { return w.saw(POLLIN); }));
  e.disarm(w);
}

KERNEL_ENGINE_CASE("fork: a child that abandoned the engine does not keep the parent's sockets alive") {
  MAKE_ENGINE(e);
  auto [a, b] = support::make_socketpair();
  watcher w(a);
  REQUIRE(e.arm(w, direction::in) == 0);
  e.wait(passed);
  auto [child_reads, parent_writes] = support::make_pipe();
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(a);
    ::close(b);
    ::close(parent_writes);
    e.abandon_after_fork();
    char byte;
    (void)!::read(child_reads, &byte, 1);  // until the parent is done
    ::_exit(0);
  }
  e.disarm(w);
  a.reset();
  // The child closes its copy in its own time.
  char byte;
  CHECK(::recv(b, &byte, 1, 0) == 0);
  parent_writes.reset();
  ::waitpid(child, nullptr, 0);
}
