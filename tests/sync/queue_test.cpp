// queue: each item goes from one put to one get, whatever happens to those who wait.

#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "hub/on_hub.hpp"

using namespace hub_test;

HUB_CASE("queue: first in, first out; bounded; try") {
  queue<int> q(2);
  CHECK(q.capacity() == 2);
  CHECK(q.empty());
  CHECK(q.try_put(1));
  CHECK(q.put(2));
  CHECK(q.full());
  CHECK_FALSE(q.try_put(3));
  CHECK_FALSE(q.put(3, 1ms));
  CHECK(q.get() == 1);
  CHECK(q.size() == 1);
  CHECK(q.try_get() == 2);
  CHECK_FALSE(q.try_get());
  CHECK_FALSE(q.get(1ms));
  CHECK_THROWS_AS(queue<int>(0), std::invalid_argument);
}

HUB_CASE("queue: a getter waits for a putter, a putter for a getter") {
  queue<std::string> q(1);
  auto getter = spawn([&] {
    std::string all;
    for (int i = 0; i < 3; ++i) all += *q.get();
    return all;
  });
  auto putter = spawn([&] {
    for (const char* s : {"a", "b", "c"}) q.put(std::string(s));
  });
  CHECK(getter.get() == "abc");
  putter.join();
}

HUB_CASE("queue: getters and putters are served in the order they came") {
  queue<int> q(1);
  std::string log;
  std::vector<any_fiber> all;
  for (char c : {'a', 'b', 'c'})
    all.push_back(spawn([&, c] {
      const int n = *q.get();
      log += c + std::to_string(n) + " ";
    }));
  yield();
  for (int i = 1; i < 4; ++i) q.put(i);
  joinall(all);
  CHECK(log == "a1 b2 c3 ");
  all.clear();
  q.put(0);
  for (int i = 1; i < 4; ++i) all.push_back(spawn([&, i] { q.put(i); }));
  yield();
  for (int i = 0; i < 4; ++i) CHECK(q.get() == i);
  joinall(all);
  CHECK(q.empty());
}

HUB_CASE("queue: an item for one who waits cannot be taken by one who comes by") {
  queue<int> q;
  auto waiter = spawn([&] { return *q.get(); });
  yield();
  q.put(1);
  CHECK_FALSE(q.try_get());
  CHECK(q.empty());
  CHECK(waiter.get() == 1);
}

HUB_CASE("queue: a getter that is killed or late eats no item") {
  queue<int> q;
  auto killed = spawn([&] { q.get(); });
  auto late = spawn([&] { return q.get(1ms).has_value(); });
  auto other = spawn([&] { return *q.get(); });
  yield();
  killed.kill();
  CHECK_FALSE(late.get());
  q.put(7);
  CHECK(other.get() == 7);
  auto bogus = spawn([&] { q.get(); });
  auto bogus2 = spawn([&] { q.get(); });
  yield();
  killall({bogus, bogus2});
  q.put(8);
  CHECK(q.size() == 1);
  CHECK(q.try_get() == 8);
}

HUB_CASE("queue: a getter killed after the item was handed to it keeps the item") {
  queue<int> q;
  int got = 0;
  auto f = spawn([&] {
    got = *q.get();
    sleep(1h);
  });
  yield();
  q.put(3);
  CHECK(f.kill());
  CHECK(got == 3);
}

HUB_CASE("queue: a putter that is killed or late keeps its item") {
  queue<std::unique_ptr<int>> q(1);
  q.put(std::make_unique<int>(0));
  auto item = std::make_unique<int>(1);
  CHECK_FALSE(q.put(std::move(item), 1ms));
  REQUIRE(item);
  CHECK_FALSE(q.try_put(std::move(item)));
  REQUIRE(item);
  std::unique_ptr<int> kept;
  auto killed = spawn([&] {
    auto mine = std::make_unique<int>(2);
    try {
      q.put(std::move(mine));
    } catch (const greenlet_exit&) {
      kept = std::move(mine);
      throw;
    }
  });
  yield();
  killed.kill();
  REQUIRE(kept);
  CHECK(*kept == 2);
  CHECK(**q.get() == 0);
  CHECK(q.empty());
}

HUB_CASE("queue: ten thousand items through one slot") {
  const int count = support::is_instrumented() ? 2000 : 10'000;
  queue<int> q(1);
  auto getter = spawn([&] {
    long sum = 0;
    for (int i = 0; i < count; ++i) {
      const int n = *q.get();
      if (n != i) return -1L;
      sum += n;
    }
    return sum;
  });
  auto putter = spawn([&] {
    for (int i = 0; i < count; ++i) q.put(i);
  });
  CHECK(getter.get() == long(count) * (count - 1) / 2);
  putter.join();
}

HUB_CASE("queue: many putters and getters; each item arrives once") {
  queue<int> q(3);
  std::vector<int> seen(400, 0);
  std::vector<any_fiber> all;
  for (int p = 0; p < 4; ++p)
    all.push_back(spawn([&, p] {
      for (int i = 0; i < 100; ++i) {
        q.put(p * 100 + i);
        if (i % 7 == 0) yield();
      }
    }));
  for (int g = 0; g < 4; ++g)
    all.push_back(spawn([&] {
      for (int i = 0; i < 100; ++i) ++seen[std::size_t(*q.get())];
    }));
  // Those who come and give up must not disturb.
  for (int k = 0; k < 20; ++k)
    all.push_back(spawn([&] {
      if (auto n = q.get(deadline::passed())) q.put(*n);
    }));
  joinall(all);
  CHECK(seen == std::vector<int>(400, 1));
  CHECK(q.empty());
}

HUB_CASE("queue: what it still holds is destroyed with it") {
  auto value = std::make_shared<int>(1);
  {
    queue<std::shared_ptr<int>> q;
    q.put(value);
    q.put(value);
    CHECK(value.use_count() == 3);
  }
  CHECK(value.use_count() == 1);
}
