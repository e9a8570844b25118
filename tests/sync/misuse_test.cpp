// What a program gets wrong with what waits is told in words, and what looks wrong but is not, works: one case a symptom.

#include <sys/resource.h>
#include <unistd.h>

#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include <ringlet/async_result.hpp>
#include <ringlet/barrier.hpp>
#include <ringlet/channel.hpp>
#include <ringlet/shared_mutex.hpp>
#include <ringlet/timer.hpp>

#include "hub/on_hub.hpp"

using namespace hub_test;

namespace {
// An item whose own code does what it is told: in its copy constructor, or when it is compared.
struct meddling {
  int value = 0;
  void (*when_copied)() = nullptr;
  void (*when_compared)() = nullptr;
  meddling(int v, void (*copied)(), void (*compared)() = nullptr) : value(v), when_copied(copied), when_compared(compared) {}
  meddling(meddling&&) noexcept = default;
  meddling& operator=(meddling&&) noexcept = default;
  meddling(const meddling& other) : value(other.value), when_copied(other.when_copied), when_compared(other.when_compared) {
    if (when_copied) when_copied();
  }
  bool operator<(const meddling& other) const {
    if (when_compared) when_compared();
    return value < other.value;
  }
};
}  // namespace

HUB_CASE("queue: an item whose copying or comparing waits is told so, and the queue goes on") {
  void (*const ways[])() = {[] { yield(); }, [] { sleep(1ms); }, [] { event().wait(); }, [] { mutex().lock(); }, [] { current(); }};
  for (auto way : ways) {
    queue<meddling> q;
    auto peeks = spawn([&] { return error_of([&] { q.peek(); }); });
    yield();
    q.put(meddling(1, way));  // handed to one who peeks
    if (way != ways[4]) CHECK(contains(peeks.get(), "would block in an item's own code"));
    auto fails = spawn([&] { return error_of([&] { q.peek(); }); });
    auto asks = spawn([&] { return q.size(); });
    CHECK(fails.get() != "");
    CHECK(asks.get() == 1);
    CHECK(q.get()->value == 1);
    joinall({peeks});

    priority_queue<meddling> by_value;
    by_value.put(meddling(1, nullptr));
    CHECK(error_of([&] { by_value.put(meddling(0, nullptr, way)); }) != "");
    CHECK(by_value.size() == 1);
    CHECK(by_value.get()->value == 1);
  }
}

HUB_CASE("priority_queue: takes items that cannot be assigned, or whose assignment throws") {
  struct item {
    int value;
    explicit item(int v) : value(v) {}
    item(item&& other) noexcept : value(std::exchange(other.value, -1)) {}
    item& operator=(item&&) { throw std::runtime_error("assigned"); }
    bool operator<(const item& other) const { return value < other.value; }
  };
  struct constant {
    const int value;
    bool operator<(const constant& other) const { return value < other.value; }
  };
  priority_queue<item> items;
  priority_queue<constant> constants;
  for (int i : {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5}) {
    items.put(item(i));
    constants.put(constant{i});
  }
  int before = 0;
  for (std::size_t left = items.size(); left > 0; --left) {
    const auto i = items.get();
    const auto c = constants.get();
    CHECK(i->value == c->value);
    CHECK(i->value >= before);
    before = i->value;
  }
}

HUB_CASE("select: a case that is used again shows the end of a channel by an empty slot") {
  channel<int> c;
  std::optional<int> slot;
  const select_case cases[] = {receiving(c, slot)};
  auto sender = spawn([&] {
    c.send(7);
    c.shutdown();
  });
  CHECK(select(cases) == 0);
  CHECK(slot == 7);
  sender.join();
  CHECK(select(cases) == 0);
  CHECK_FALSE(slot);
}

HUB_CASE("async_result: is not set from a fiber that has not finished, nor from none") {
  async_result<int> r;
  auto f = spawn([] { return 1; });
  CHECK_THROWS_WITH_AS(r.set_from(f), doctest::Contains("has not finished"), std::logic_error);
  CHECK_THROWS_AS(r.set_from(fiber<int>()), std::logic_error);
  CHECK_FALSE(r.ready());
  f.join();
  r.set_from(f);
  CHECK(r.get() == 1);
}

HUB_CASE("timer: joined by its own function is an error, joined by another fiber is not") {
  timer t;
  std::string said;
  bool joined = false;
  t = timer(1ms, [&] {
    said = error_of([&] { t.join(); });
    spawn([&] { joined = t.join(); });
  });
  t.join();
  yield();
  CHECK(contains(said, "joined by its own function"));
  CHECK(joined);
}

HUB_CASE("barrier: waited for in its own action is an error") {
  std::string said;
  barrier b(1, [&] { said = error_of([&] { b.wait(); }); });
  CHECK(b.wait() == 0);
  CHECK(contains(said, "in its own action"));
  CHECK_FALSE(b.broken());
}

HUB_CASE("barrier: who is early for the next round may give up, which breaks that one only") {
  for (const bool kills : {false, true}) {
    event go_on;
    barrier b(2, [&] { go_on.wait(); });
    auto first = spawn([&] { return b.wait(); });
    yield();
    auto last = spawn([&] { return b.wait(); });
    yield();
    auto early = spawn([&] { return error_of([&] { b.wait(kills ? never : deadline(1ms)); }); });
    yield();
    if (kills)
      CHECK(early.kill());
    else
      CHECK(contains(early.get(), "is broken"));
    CHECK_FALSE(b.broken());
    go_on.set();
    CHECK(first.get() == 0);
    CHECK(last.get() == 1);
    CHECK(b.broken());
    b.reset();
    CHECK_FALSE(b.broken());
  }
}

TEST_CASE("mutex: try_lock on a thread that can have no hub says why, and unlocked it stays") {
  if (support::child_part("no fds")) {
    rlimit none{3, 3};
    ::setrlimit(RLIMIT_NOFILE, &none);
    mutex m;
    recursive_mutex r;
    shared_mutex s;
    int told = 0;
    for (const auto& f : {std::function<void()>([&] { m.try_lock(); }), std::function<void()>([&] { r.try_lock(); }), std::function<void()>([&] { s.try_lock(); })})
      try {
        f();
      } catch (const std::exception& e) {
        told += contains(e.what(), "RLIMIT_NOFILE");
      }
    std::exit(told == 3 && r.depth() == 0 ? 0 : 1);
  }
  const auto seen = support::run_this_case("no fds");
  INFO(seen.err);
  CHECK(seen.exit_status == 0);
}

TEST_CASE("queue: an item whose moving waits is told of when somebody has tried for long to get in") {
  if (support::child_part("waits when moved")) {
    static bool armed = false;
    struct waits {
      waits() = default;
      waits(waits&&) noexcept {
        if (armed) yield();
      }
    };
    int ends[2];
    if (::pipe(ends) != 0) std::exit(1);
    ::dup2(ends[1], 2);
    std::thread([in = ends[0]] {
      std::string said;
      char c;
      while (!contains(said, "Likely cause: its holder waits") && ::read(in, &c, 1) == 1) said += c;
      std::_Exit(7);
    }).detach();
    queue<waits> q;
    auto puts = spawn([&] { q.put(waits()); });
    auto asks = spawn([&] { q.size(); });
    armed = true;
    joinall({puts, asks});
    std::_Exit(0);
  }
  CHECK(support::run_this_case("waits when moved").exit_status == 7);
}
