// group and pool: who is a member, who waits for a place, what join and kill wait for, and what map, imap and apply give.

#include <algorithm>
#include <list>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "hub/on_hub.hpp"

using namespace hub_test;

namespace {
int next_random(unsigned& seed) { return int((seed = seed * 1103515245u + 12345u) >> 16 & 0x7fff); }

// Fails where a copy would be made.
struct only_moved {
  int value;
  explicit only_moved(int v) : value(v) {}
  only_moved(only_moved&&) = default;
  only_moved& operator=(only_moved&&) = default;
};
}  // namespace

// --- members ---------------------------------------------------------------------------------------------------------

HUB_CASE("group: a member leaves when it is finished, however it ends") {
  group g;
  CHECK(g.empty());
  auto returns = g.spawn([] { return 5; });
  auto throws = g.spawn([] { throw std::runtime_error("no"); });
  auto killed = g.spawn([] { sleep(never); });
  auto never_run = g.spawn([] {});
  CHECK(g.size() == 4);
  CHECK(g.contains(returns));
  CHECK(g.members() == std::vector<any_fiber>{returns, throws, killed, never_run});
  never_run.kill();
  CHECK(g.size() == 3);
  yield();
  CHECK(g.members() == std::vector<any_fiber>{killed});
  killed.kill();
  CHECK(g.empty());
  CHECK(g.join());
  CHECK(returns.get() == 5);
  CHECK(error_of([&] { throws.get(); }) == "no");
}

HUB_CASE("group: fibers spawned elsewhere are added and discarded") {
  group g;
  auto f = spawn([] { sleep(1s); });
  CHECK(g.add(f));
  CHECK(g.add(f));
  CHECK(g.size() == 1);
  CHECK(g.discard(f));
  CHECK_FALSE(g.discard(f));
  CHECK(g.empty());
  f.kill();
  CHECK(g.add(f));  // a finished one is not let in
  CHECK(g.empty());
  CHECK_THROWS_AS(g.add(any_fiber()), std::logic_error);
}

HUB_CASE("group: join waits for all, gives up at its deadline, and raises the first error if asked") {
  group g;
  CHECK(g.join(deadline::passed()));
  g.spawn([] { sleep(20ms); });
  const auto start = now();
  CHECK_FALSE(g.join(5ms));
  CHECK(took(start, 5ms));
  CHECK(g.join());
  CHECK(took(start, 20ms));
  auto first = g.spawn([] { sleep(2ms); throw std::runtime_error("first"); });
  auto second = g.spawn([] { sleep(4ms); throw std::runtime_error("second"); });
  CHECK(error_of([&] { g.join(never, true); }) == "first");
  CHECK(g.empty());
  CHECK(second.exception());
  CHECK(error_of([&] { g.spawn([&] { g.join(); }).get(); }).find("joins a group that it is a member of") != std::string::npos);
}

HUB_CASE("group: kill reaches each member once, also those that come meanwhile") {
  group g;
  int kills = 0, late = 0, late_kills = 0;
  for (int i = 0; i < 3; ++i)
    g.spawn([&] {
      try {
        sleep(never);
      } catch (const greenlet_exit&) {
        ++kills;
        g.spawn([&] {
          ++late;
          try {
            sleep(1h);
          } catch (...) {
            ++late_kills;
            throw;
          }
        });
        sleep(1ms);  // it takes its time to die, and is not killed again
        yield();
        throw;
      }
    });
  g.spawn([&] { kills += 1000; });
  g.members().back().kill();  // has not begun: it never runs
  yield();
  CHECK(g.kill());
  CHECK(g.empty());
  CHECK(kills == 3);
  CHECK(late_kills == late);  // those that had begun
}

HUB_CASE("group: kill gives up waiting at its deadline, and a survivor is not killed twice") {
  group g;
  int caught = 0;
  event end;
  g.spawn([&] {
    try {
      sleep(never);
    } catch (const greenlet_exit&) {
      ++caught;
    }
    end.wait();
  });
  yield();
  CHECK_FALSE(g.kill(deadline::passed()));
  CHECK_FALSE(g.kill(2ms));
  CHECK(caught == 1);
  end.set();
  CHECK(g.kill(1s));
  CHECK(caught == 1);
}

HUB_CASE("group: a member that kills its group dies last") {
  group g;
  std::string log;
  auto other = g.spawn([&] {
    try {
      sleep(never);
    } catch (...) {
      log += "other ";
      throw;
    }
  });
  auto killer = g.spawn([&] {
    yield();
    try {
      g.kill(std::make_exception_ptr(std::runtime_error("enough")));
    } catch (const std::exception& e) {
      log += e.what();
      throw;
    }
  });
  CHECK(g.join());
  CHECK(log == "other enough");
  CHECK(error_of([&] { killer.get(); }) == "enough");
  CHECK(error_of([&] { other.get(); }) == "enough");
}

HUB_CASE("group: its end kills its members and waits for them") {
  std::string log;
  {
    group g;
    g.spawn([&] {
      struct says {
        std::string& log;
        ~says() { sleep(1ms); log += "unwound "; }
      } at_end{log};
      sleep(never);
    });
    yield();
  }
  log += "gone";
  CHECK(log == "unwound gone");
}

HUB_CASE("group: a killed fiber that leaves a group's scope still waits for its members") {
  bool unwound = false, order = false;
  auto f = spawn([&] {
    group g;
    g.spawn([&] {
      try {
        sleep(never);
      } catch (...) {
        sleep(1ms);
        unwound = true;
        throw;
      }
    });
    sleep(never);
  });
  yield();
  yield();
  f.link([&](any_fiber) { order = unwound; });
  f.kill();
  yield();
  CHECK(order);
}

TEST_CASE("group: another thread is told where its fibers run") {
  group g;
  g.spawn([] { sleep(1h); });
  std::string said;
  std::thread([&] { said = error_of([&] { g.spawn([] {}); }); }).join();
  CHECK(contains(said, "run on another thread"));
  g.kill();
}

// --- room ------------------------------------------------------------------------------------------------------------

HUB_CASE("pool: spawn waits while it is full, and those who wait are served in order") {
  pool p(2);
  CHECK(p.free_count() == 2);
  std::string log;
  event go;
  for (char c : {'a', 'b'}) p.spawn([&, c] { go.wait(); log += c; });
  CHECK(p.full());
  CHECK(p.free_count() == 0);
  std::vector<any_fiber> spawners;
  for (char c : {'c', 'd', 'e'})
    spawners.push_back(spawn([&, c] {
      p.spawn([&, c] { log += c; });
      log += char(c - 'a' + 'A');
    }));
  yield();
  CHECK(log == "");
  go.set();
  joinall(spawners);
  p.join();
  CHECK(log.substr(0, 2) == "ab");
  std::string small, big;
  for (char c : log) (c >= 'a' ? small : big) += c;
  CHECK(small == "abcde");
  CHECK(big == "CDE");
  CHECK(p.free_count() == 2);
}

HUB_CASE("pool: without waiting, or by a deadline, a full one takes nobody") {
  pool p(1);
  auto first = p.try_spawn([] { sleep(10ms); return 1; });
  REQUIRE(first);
  CHECK_FALSE(p.try_spawn([] { return 2; }));
  const auto start = now();
  CHECK_FALSE(p.try_spawn_until(3ms, [] { return 3; }));
  CHECK(took(start, 3ms));
  auto outside = spawn([] { sleep(1s); });
  CHECK_FALSE(p.add(outside, deadline::passed()));
  CHECK_FALSE(p.add(outside, 1ms));
  const auto fourth = p.try_spawn_until(1s, [] { return 4; });
  REQUIRE(fourth);
  CHECK(fourth->get() == 4);
  CHECK(first->get() == 1);
  CHECK(p.add(outside, deadline::passed()));
  CHECK(p.full());
  p.kill();
  CHECK(outside.ready());
}

HUB_CASE("pool: a spawner that gives up waiting leaves the place to the next") {
  pool p(1);
  event go;
  p.spawn([&] { go.wait(); });
  int ran = 0;
  auto impatient = spawn([&] { p.spawn([&] { ran += 100; }); });
  auto patient = spawn([&] { p.spawn([&] { ran += 1; }); });
  yield();
  impatient.kill();
  go.set();
  patient.join();
  p.join();
  CHECK(ran == 1);
  CHECK(p.free_count() == 1);
}

HUB_CASE("pool: wait_available says how many places are free, and takes none") {
  pool p(2);
  CHECK(p.wait_available() == 2);
  event first, second;
  p.spawn([&] { first.wait(); });
  CHECK(p.wait_available() == 1);
  p.spawn([&] { second.wait(); });
  const auto start = now();
  CHECK(p.wait_available(1ms) == 0);
  CHECK(took(start, 1ms));
  auto setter = spawn([&] { first.set(); });
  CHECK(p.wait_available() == 1);
  CHECK(p.free_count() == 1);
  second.set();
  p.join();
  setter.join();
  CHECK(group().wait_available() == group::unbounded);
}

TEST_CASE("pool: a negative size is an error") {
  CHECK_THROWS_AS(pool(-1), std::invalid_argument);
  CHECK_THROWS_AS(pool(-5L), std::invalid_argument);
  CHECK_NOTHROW(pool(3u));
}

HUB_CASE("pool: of size 0 lets nobody in, for ever") {
  pool p(0);
  CHECK(p.full());
  CHECK_FALSE(p.try_spawn([] {}));
  CHECK_FALSE(p.try_spawn_until(2ms, [] {}));
  CHECK(p.wait_available(1ms) == 0);
  auto waits = spawn([&] { p.spawn([] {}); });
  CHECK_FALSE(waits.join(5ms));
  waits.kill();
}

TEST_CASE("pool: who waits for a place in a pool of size 0 is told that nobody will ever give it one") {
  if (support::child_part("waits")) {
    pool p(0);
    const std::string said = error_of([&] { p.spawn([] {}); });
    std::exit(contains(said, "deadlock") && contains(said, "a place in a pool") ? 7 : 1);
  }
  CHECK(support::run_this_case("waits").exit_status == 7);
}

HUB_CASE("pool: members that fail or are killed give their places back, even if nobody can be told of their error") {
  pool p(1);
  {
    captured_stderr quiet;
    for (int i = 0; i < 5; ++i) p.spawn([] { throw std::runtime_error("nobody asks"); });
    p.join();
    CHECK(times_in(quiet.end(), "nobody asks") == 5);
  }
  const int closed = ::dup(2);
  ::close(2);
  for (int i = 0; i < 5; ++i) p.spawn([] { throw std::runtime_error("nobody can read this"); });
  p.join();
  ::dup2(closed, 2);
  ::close(closed);
  CHECK(p.free_count() == 1);
}

HUB_CASE("pool: killed with long tasks it is gone at once") {
  pool p(10);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 10; ++i) p.spawn([] { sleep(1h); });
  auto more = spawn([&] { p.map([](int) { sleep(1h); }, std::vector<int>(5)); });
  yield();
  more.kill();
  CHECK(p.kill());
  CHECK(std::chrono::steady_clock::now() - start < 500ms);
}

// --- apply -----------------------------------------------------------------------------------------------------------

HUB_CASE("apply: gives the result or the error of the call") {
  pool p(1);
  CHECK(p.apply([](int a, int b) { return a + b; }, 2, 3) == 5);
  CHECK(p.apply([] { return only_moved(7); }).value == 7);
  int x = 1;
  p.apply([&] { x = 2; });
  int& same = p.apply([&]() -> int& { return x; });
  CHECK(&same == &x);
  CHECK(x == 2);
  CHECK(error_of([&] { p.apply([] { throw std::runtime_error("refused"); }); }) == "refused");
  CHECK(p.free_count() == 1);
}

HUB_CASE("apply: a task of a full pool may call it, at any depth") {
  pool p(1);
  const int depth = p.apply([&] { return 1 + p.apply([&] { return 1 + p.apply([] { return 1; }); }); });
  CHECK(depth == 3);
  pool two(2);
  const auto sums = two.map([&](int i) { yield(); return i + two.apply([i] { yield(); return 10 * i; }); }, std::vector{1, 2, 3});
  CHECK(sums == std::vector{11, 22, 33});
}

HUB_CASE("apply: an interrupted caller kills the task and waits for its end") {
  pool p(1);
  bool ended = false;
  auto caller = spawn([&] {
    p.apply([&] {
      try {
        sleep(never);
      } catch (...) {
        sleep(1ms);
        ended = true;
        throw;
      }
    });
  });
  yield();
  yield();
  caller.kill();
  CHECK(ended);
  CHECK(p.empty());
}

HUB_CASE("apply_async: never waits, and calls back on success or on failure") {
  pool p(1);
  event go;
  p.spawn([&] { go.wait(); });
  std::string log;
  auto failed = [&](std::exception_ptr e) { log += "failed:" + error_of([&] { std::rethrow_exception(e); }) + " "; };
  auto a = p.apply_async([] { return 42; }, [&](int& v) { log += "done:" + std::to_string(v) + " "; }, failed);
  auto b = p.apply_async([]() -> int { throw std::runtime_error("boom"); }, [&](int) { log += "never "; }, failed);
  auto c = p.apply_async([&] { log += "c "; }, [&] { log += "done:c "; });
  auto killed = p.apply_async([] {}, [&] { log += "never "; }, failed);
  CHECK(p.size() == 5);
  killed.kill();
  yield();
  CHECK(p.free_count() == 0);
  go.set();
  p.join();
  for (int i = 0; i < 3; ++i) yield();
  CHECK(a.get() == 42);
  CHECK(contains(log, "done:42 "));
  CHECK(contains(log, "failed:boom "));
  CHECK(contains(log, "failed:ringlet::greenlet_exit "));
  CHECK(contains(log, "c "));
  CHECK(contains(log, "done:c "));
  CHECK_FALSE(contains(log, "never"));
  CHECK(p.free_count() == 1);
}

HUB_CASE("apply_async: a pool that ends kills those that still wait for a place") {
  int ran = 0;
  {
    pool p(1);
    p.spawn([] { sleep(1h); });
    for (int i = 0; i < 3; ++i) p.apply_async([&] { ++ran; });
    yield();
    CHECK(p.size() == 4);
  }
  CHECK(ran == 0);
}

// --- map -------------------------------------------------------------------------------------------------------------

HUB_CASE("map: results in the order of the items, whatever the order of their ends") {
  pool p(5);
  std::vector<int> items(100);
  unsigned seed = 7;
  for (auto& i : items) i = next_random(seed) % 5;
  std::size_t most = 0;
  const auto results = p.map(
      [&](int& i) {
        most = std::max(most, p.size());
        sleep(std::chrono::milliseconds(i));
        return std::to_string(i);
      },
      items);
  CHECK(most == 5);
  REQUIRE(results.size() == 100);
  for (std::size_t i = 0; i < 100; ++i) CHECK(results[i] == std::to_string(items[i]));
  CHECK(p.map([](int i) { return i; }, std::vector<int>{}).empty());
}

HUB_CASE("map: items stay where they are; what cannot be copied is mapped, too") {
  group g;
  std::vector<only_moved> items;
  for (int i = 0; i < 3; ++i) items.emplace_back(i);
  g.map([](only_moved& m) { m.value *= 10; }, items);
  CHECK(items[2].value == 20);
  const auto moved = g.map([](only_moved& m) { return std::move(m); }, items);
  CHECK(moved[1].value == 10);
  const auto bits = g.map([](bool b) { return b ? 1 : 0; }, std::vector<bool>{true, false, true});
  CHECK(bits == std::vector{1, 0, 1});
  std::list<std::string> words{"a", "b"};
  CHECK(g.map([](const std::string& w) { return w + w; }, words) == std::vector<std::string>{"aa", "bb"});
}

HUB_CASE("map: all are called, then the error of the first item that failed is thrown") {
  pool p(3);
  int called = 0;
  const auto said = error_of([&] {
    p.map(
        [&](int i) {
          ++called;
          sleep(std::chrono::milliseconds(10 - i));
          if (i % 3 == 2) throw std::runtime_error(std::to_string(i));
          return i;
        },
        std::vector{1, 2, 3, 4, 5, 6, 7, 8});
  });
  CHECK(said == "2");
  CHECK(called == 8);
  CHECK(p.empty());
}

HUB_CASE("map: an interrupted caller leaves nobody behind") {
  pool p(2);
  int ended = 0;
  auto caller = spawn([&] {
    std::vector<int> mine(6);  // what the tasks refer to goes with the caller
    p.map(
        [&](int& i) {
          try {
            sleep(never);
          } catch (...) {
            i = ++ended;
            throw;
          }
        },
        mine);
  });
  while (p.size() < 2) yield();
  caller.kill();
  CHECK(ended == 2);
  CHECK(p.empty());
  CHECK(p.free_count() == 2);
}

HUB_CASE("map: called by a task of a full pool it does the work itself") {
  pool p(2);
  const auto sums = p.map(
      [&](int i) {
        int sum = 0;
        for (int v : p.map([i](int j) { yield(); return i * j; }, std::vector{1, 2, 3})) sum += v;
        return sum;
      },
      std::vector{1, 2, 3, 4});
  CHECK(sums == std::vector{6, 12, 18, 24});
}

// --- imap ------------------------------------------------------------------------------------------------------------

HUB_CASE("imap: hundreds of items in order, however long each takes") {
  pool p(10);
  unsigned seed = 3;
  std::vector<int> items(300);
  for (auto& i : items) i = next_random(seed);
  std::size_t at = 0;
  for (int& r : p.imap([](int i) { sleep(std::chrono::microseconds(i % 1000)); return i; }, items)) {
    REQUIRE(r == items[at]);
    ++at;
  }
  CHECK(at == 300);
}

HUB_CASE("imap_unordered: as they end") {
  pool p(3);
  std::vector<int> order;
  for (int r : p.imap_unordered([](int i) { sleep(std::chrono::milliseconds(10 * i)); return i; }, std::vector{3, 1, 2})) order.push_back(r);
  CHECK(order == std::vector{1, 2, 3});
  auto none = p.imap_unordered([](int i) { return i; }, std::vector<int>{});
  CHECK_FALSE(none.next());
  CHECK_FALSE(none.next());
}

HUB_CASE("imap: an item's error is thrown at its position, and later items still come") {
  for (const bool ordered : {true, false}) {
    pool p(1);
    auto f = [](int i) {
      if (i == 2) throw std::runtime_error("two");
      return i;
    };
    auto r = ordered ? p.imap(f, std::vector{1, 2, 3}) : p.imap_unordered(f, std::vector{1, 2, 3});
    CHECK(r.next() == 1);
    CHECK(error_of([&] { r.next(); }) == "two");
    CHECK(r.next() == 3);
    CHECK_FALSE(r.next());
  }
}

namespace {
// A range whose third step throws.
struct breaking {
  struct iterator {
    using iterator_category = std::input_iterator_tag;
    using value_type = int;
    using difference_type = std::ptrdiff_t;
    int at;
    int operator*() const { return at; }
    iterator& operator++() {
      if (++at == 3) throw std::runtime_error("broken input");
      return *this;
    }
    bool operator!=(const iterator& o) const { return at != o.at; }
  };
  iterator begin() const { return {1}; }
  iterator end() const { return {10}; }
};
}  // namespace

HUB_CASE("imap: an error of the input comes after the results of what was read before, and ends it") {
  pool p(2);
  auto r = p.imap([](int i) { return 10 * i; }, breaking());
  CHECK(r.next() == 10);
  CHECK(r.next() == 20);
  CHECK(error_of([&] { r.next(); }) == "broken input");
  CHECK_FALSE(r.next());
}

HUB_CASE("imap: no more are begun than may be unread") {
  for (const bool ordered : {true, false}) {
    group g;
    int begun = 0;
    std::vector<int> items(50);
    auto f = [&](int) { return ++begun; };
    auto r = ordered ? g.imap(f, items, 4) : g.imap_unordered(f, items, 4);
    for (int i = 0; i < 10; ++i) yield();
    CHECK(begun == 4);
    for (int read = 1; read <= 50; ++read) {
      REQUIRE(r.next());
      for (int i = 0; i < 10; ++i) yield();
      REQUIRE(begun == std::min(50, read + 4));
    }
    CHECK_FALSE(r.next());
    CHECK_THROWS_AS(g.imap(f, items, 0), std::invalid_argument);
  }
}

HUB_CASE("imap: given up early, it leaves nobody behind") {
  pool p(2);
  int begun = 0, unwound = 0;
  {
    auto r = p.imap_unordered(
        [&](int i) {
          if (i == 0) return 0;
          ++begun;
          try {
            sleep(never);
          } catch (...) {
            ++unwound;
            throw;
          }
          return i;
        },
        std::vector{0, 1, 2, 3, 4});
    CHECK(r.next() == 0);
    while (begun < 2) yield();
  }
  CHECK(p.empty());
  CHECK(unwound == 2);
  {
    auto unread = p.imap([](int i) { return i; }, std::vector{1, 2, 3});
  }
  {
    auto unread = p.imap([](int i) { return i; }, std::vector{1, 2, 3});
    for (int i = 0; i < 5; ++i) yield();
  }
  CHECK(p.free_count() == 2);
}

HUB_CASE("imap: a pool that ends first ends it") {
  std::optional<results<int>> r;
  {
    pool p(1);
    r = p.imap([](int i) { sleep(1h); return i; }, std::vector{1, 2});
    yield();
    yield();
  }
  CHECK(error_of([&] { r->next(); }) == "ringlet::greenlet_exit");
}

TEST_CASE("pool: in a forked child only the fiber that forked is a member") {
  pool p(3);
  int status = -1;
  for (int i = 0; i < 2; ++i) p.spawn([] { sleep(1h); });
  auto forks = p.spawn([&] {
    const pid_t child = ::fork();
    if (child == 0) {
      const bool full_before = p.free_count() == 0;
      auto inside = p.try_spawn([] { return 5; });
      const bool ok = full_before && inside && inside->get() == 5 && p.size() == 1 && p.free_count() == 2;
      ::_exit(ok ? 7 : 1);
    }
    ::waitpid(child, &status, 0);
  });
  forks.join();
  CHECK(WEXITSTATUS(status) == 7);
  CHECK(p.size() == 2);
  p.kill();
}

HUB_CASE("group: killing a hundred thousand takes one pass") {
  if (is_simulated()) return;
  const int many = support::is_instrumented() ? 2'000 : 100'000;
  int unwound = 0;
  group g;
  for (int i = 0; i < many; ++i)
    g.spawn([&] {
      struct counts {
        int& n;
        ~counts() { ++n; }
      } at_end{unwound};
      sleep(never);
    });
  yield();
  CHECK(g.kill());
  CHECK(unwound == many);
}

HUB_CASE("map_async: begins at once and gives map's result later, also to a callback; killed it ends what it has begun") {
  pool p(2);
  int living = 0;
  auto work = [&](int i) {
    struct counted {
      int& n;
      explicit counted(int& c) : n(++c) {}
      ~counted() { --n; }
    } here(living);
    sleep(i * 1ms);
    return i * i;
  };
  std::vector<int> called_with;
  event called;
  auto f = p.map_async(work, std::vector<int>{3, 1, 2}, [&](std::vector<int>& all) {
    called_with = all;
    called.set();
  });
  CHECK(f.get() == std::vector<int>{9, 1, 4});
  called.wait();
  CHECK(called_with == f.get());

  const std::vector<int> long_ones{1000, 1000, 1000};
  auto killed = p.map_async(work, long_ones);
  yield();
  yield();
  CHECK(living == 2);
  CHECK(killed.kill());
  CHECK(living == 0);
  CHECK(p.free_count() == 2);
}
