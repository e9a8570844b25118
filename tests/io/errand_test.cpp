// Calls on helpers: a kill or a timeout ends them early, nothing is lost by it, and one that nobody has begun is not made.

#include "io/errand.hpp"

#include <fcntl.h>
#include <signal.h>

#include <atomic>
#include <deque>

#include <ringlet/ringlet.hpp>

#include "io/io_support.hpp"
#include "loop/offload.hpp"

using namespace io_test;
using ringlet::detail::signal_effect;

namespace {

long read_on_helper(int fd, signal_effect effect = signal_effect::ends_unless_restarted) {
  char c;
  return io::call_on_helper("read", effect, SYS_read, fd, &c, 1);
}
void put(int fd) { REQUIRE(::write(fd, "x", 1) == 1); }
bool is_empty(int fd) { return !is_readable(fd); }

// A sanitizer hides whose handler a monitor, of another case, has left.
struct unused_signal {
  struct sigaction before;
  unused_signal() {
    struct sigaction none {};
    ::sigaction(SIGURG, &none, &before);
  }
  ~unused_signal() { ::sigaction(SIGURG, &before, nullptr); }
};

}  // namespace

TEST_CASE("errand: a kill ends the call, and what comes later is there for others") {
  unused_signal none;
  auto p = pipe_pair();
  long result = 0;
  auto f = ringlet::spawn([&] { result = read_on_helper(p.a); });
  ringlet::sleep(2ms);
  f.kill();
  f.join();
  CHECK(result == -ECANCELED);
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
  for (int i = 0; i < 20; ++i) {
    long result = 0;
    auto f = ringlet::spawn([&] { result = read_on_helper(p.a); });
    ringlet::sleep(1ms);
    f.kill();
    f.join();
    REQUIRE(result == -ECANCELED);
  }
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
  ringlet::sleep(2ms);
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
  ringlet::sleep(2ms);
  f.kill();
  f.join();
  CHECK(first == -ECANCELED);
  CHECK(second == -ECANCELED);
  CHECK_FALSE(is_empty(p.a));
}
