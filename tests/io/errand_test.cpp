// Calls on helpers: a kill or a timeout ends them early, nothing is lost by it, and one that nobody has begun is not made.

#include "io/errand.hpp"

#include <fcntl.h>
#include <signal.h>

#include <atomic>
#include <deque>

#include <ringlet/ringlet.hpp>

#include "io/io_support.hpp"
#include "loop/offload.hpp"
#include "support/thread_state.hpp"
#include "support/unused_signal.hpp"

using namespace io_test;
using ringlet::detail::signal_effect;
using support::unused_signal;

namespace {

long read_on_helper(int fd, signal_effect effect = signal_effect::ends_unless_restarted) {
  char c;
  return io::call_on_helper("read", effect, SYS_read, fd, &c, 1);
}
// The call of read_on_helper, seen from inside: its helper sleeps in the kernel.
struct watched_reading : io::errand {
  int fd;
  std::atomic<int> thread{0};
  long result = 0;
  explicit watched_reading(int fd) : fd(fd) {}
  long perform() {
    const auto make = [](io::errand& of) {
      auto& mine = static_cast<watched_reading&>(of);
      mine.thread = int(ringlet::sys::call(SYS_gettid));
      char c;
      mine.result = ringlet::sys::call(SYS_read, mine.fd, &c, 1);
    };
    const auto outcome = run_on_helper("read", make, signal_effect::ends_unless_restarted);
    return outcome == outcome::made && result != -EINTR ? result : asked();
  }
  bool waits() {
    const ringlet::deadline give_up = 20s;
    while (thread == 0 || support::state_of(thread) != 'S') {
      if (give_up.has_passed()) return false;
      ringlet::sleep(50us);
    }
    return true;
  }
};
// What a fiber got that waits in the kernel, on a helper, when it is killed.
long killed_while_it_reads(int fd) {
  watched_reading reading(fd);
  long result = 0;
  auto f = ringlet::spawn([&] { result = reading.perform(); });
  const bool waits = reading.waits();
  f.kill();
  f.join();
  return waits ? result : -ETIMEDOUT;
}
void put(int fd) { REQUIRE(::write(fd, "x", 1) == 1); }
bool is_empty(int fd) { return !is_readable(fd); }

}  // namespace

TEST_CASE("errand: a kill ends the call, and what comes later is there for others") {
  unused_signal none;
  auto p = pipe_pair();
  CHECK(killed_while_it_reads(p.a) == -ECANCELED);
  put(p.b);
  CHECK(read_on_helper(p.a) == 1);
}

TEST_CASE("errand: a timeout ends the call in time") {
  unused_signal none;
  auto p = pipe_pair();
  const auto begin = std::chrono::steady_clock::now();
  long result = 0;
  CHECK_FALSE(ringlet::with_timeout(20ms, [&] {
    result = read_on_helper(p.a);
    ringlet::sleep(20s);
  }));
  CHECK(result == -ECANCELED);
  CHECK(std::chrono::steady_clock::now() - begin < 10s);
}

TEST_CASE("errand: killed at any moment, a byte is either read or still there") {
  unused_signal none;
  auto p = pipe_pair();
  int read = 0, left = 0;
  for (int i = 0; i < 300; ++i) {
    long result = 0;
    auto f = ringlet::spawn([&] { result = read_on_helper(p.a); });
    ringlet::yield();
    for (int turns = i % 7; turns > 0; --turns) ringlet::yield();
    put(p.b);
    f.kill();
    f.join();
    if (result == 1) {
      ++read;
      REQUIRE(is_empty(p.a));
      continue;
    }
    REQUIRE(result == -ECANCELED);
    ++left;
    REQUIRE(read_on_helper(p.a) == 1);
  }
  CHECK(read + left == 300);
}

#if !defined(__SANITIZE_THREAD__)
TEST_CASE("errand: a kill ends the call, also while a monitor uses the signal, and the monitor goes on") {
  std::atomic<int> reports{0};
  ringlet::blocking_monitor monitor(20ms, [&](const ringlet::blocking_report&) { ++reports; });
  auto p = pipe_pair();
  for (int i = 0; i < 20; ++i) REQUIRE(killed_while_it_reads(p.a) == -ECANCELED);
  struct sigaction now;
  ::sigaction(SIGURG, nullptr, &now);
  CHECK((now.sa_flags & SA_RESTART) != 0);
  const auto before = reports.load();
  const auto give_up = std::chrono::steady_clock::now() + 20s;
  while (reports == before && std::chrono::steady_clock::now() < give_up) {
  }
  CHECK(reports > before);
}
#endif

TEST_CASE("errand: one without an effect is not ended") {
  unused_signal none;
  auto p = pipe_pair();
  long result = 0;
  auto writer = ringlet::spawn([&] {
    ringlet::sleep(20ms);
    put(p.b);
  });
  ringlet::with_timeout(2ms, [&] { result = read_on_helper(p.a, signal_effect::none); });
  CHECK(result == 1);
  writer.join();
}

TEST_CASE("errand: one that waits for a helper is not made at all") {
  unused_signal none;
  auto p = pipe_pair();
  std::deque<ringlet::any_fiber> busy;
  constexpr unsigned most = 64;
  for (unsigned i = 0; i < most; ++i) busy.push_back(ringlet::spawn([&] { read_on_helper(p.a); }));
  REQUIRE(turn_until([] { return ringlet::loop::offload_threads() == most; }));
  long result = 0;
  auto late = ringlet::spawn([&] { result = read_on_helper(p.a); });
  ringlet::yield();  // it has begun to wait
  late.kill();
  late.join();
  CHECK(result == -ECANCELED);
  for (auto& f : busy) f.kill();
  for (auto& f : busy) f.join();
  put(p.b);
  CHECK(read_on_helper(p.a) == 1);
}

TEST_CASE("errand: one that was killed before it began is not made") {
  unused_signal none;
  auto p = pipe_pair();
  put(p.b);
  long first = 0, second = 0;
  auto q = pipe_pair();
  auto f = ringlet::spawn([&] {
    first = read_on_helper(q.a);
    second = read_on_helper(p.a);
  });
  ringlet::yield();  // the first has begun to wait
  f.kill();
  f.join();
  CHECK(first == -ECANCELED);
  CHECK(second == -ECANCELED);
  CHECK_FALSE(is_empty(p.a));
}
