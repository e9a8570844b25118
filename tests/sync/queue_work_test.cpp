// Queues beyond put and get: their orders, peek, task_done and join, shutdown, iteration, and use from where nothing may wait.

#include <memory>
#include <string>

#include "crew.hpp"

using namespace sync_test;

namespace {
// Runs f on the hub's own stack, as the loop's callbacks run, and waits until it has.
void in_the_hub(std::function<void()> f) {
  struct callback : detail::message {
    std::function<void()> call;
    event done;
  };
  callback c;
  c.call = std::move(f);
  c.deliver = [](detail::message& m) {
    auto& mine = static_cast<callback&>(m);
    mine.call();
    mine.done.set();
  };
  detail::hub_state::here().send(c);
  c.done.wait();
}

// Counts the living; comparisons or copies fail when told to.
struct fussy {
  int key = 0;
  int number = 0;
  static inline bool fail_compare = false, fail_copy = false;
  fussy(int k, int n) : key(k), number(n) {}
  fussy(fussy&&) noexcept = default;
  fussy& operator=(fussy&&) noexcept = default;
  fussy(const fussy& other) : key(other.key), number(other.number) {
    if (fail_copy) throw std::runtime_error("no copy");
  }
  bool operator<(const fussy& other) const {
    if (fail_compare) throw std::runtime_error("no order");
    return key < other.key;
  }
};
}  // namespace

// --- orders ----------------------------------------------------------------------------------------------------------

HUB_CASE("lifo_queue: last in, first out") {
  lifo_queue<std::unique_ptr<int>> q(3);
  for (int i = 0; i < 3; ++i) CHECK(q.try_put(std::make_unique<int>(i)));
  CHECK(q.full());
  auto putter = spawn([&] { q.put(std::make_unique<int>(9)); });
  yield();
  std::string log;
  for (int i = 0; i < 4; ++i) log += std::to_string(**q.get());
  CHECK(log == "2910");
  putter.join();
}

HUB_CASE("priority_queue: the smallest first, equal ones in the order they came") {
  priority_queue<fussy> q;
  int number = 0;
  for (int key : {5, 1, 3, 1, 5, 2, 3, 1, 4}) q.put(fussy(key, number++));
  std::string log;
  while (auto item = q.try_get()) log += std::to_string(item->key) + std::to_string(item->number) + " ";
  CHECK(log == "11 13 17 25 32 36 48 50 54 ");
}

HUB_CASE("priority_queue: by an order of one's own; a waiting getter and a waiting putter are served") {
  auto by_length = [](const std::string& a, const std::string& b) { return a.size() > b.size(); };
  ringlet::queue<std::string, by_priority<decltype(by_length)>> q(by_priority<decltype(by_length)>{by_length}, 2);
  auto getter = spawn([&] { return *q.get(); });
  yield();
  q.put("bb");
  CHECK(getter.get() == "bb");
  q.put("a");
  q.put("bb");
  auto putter = spawn([&] { q.put("ccc"); });
  yield();
  CHECK(q.get() == "bb");
  CHECK(q.get() == "ccc");
  CHECK(q.get() == "a");
  putter.join();
  priority_queue<std::pair<int, std::string>, std::greater<>> greatest;
  greatest.put({1, "low"});
  greatest.put({9, "high"});
  CHECK(greatest.get()->second == "high");
}

HUB_CASE("priority_queue: sorts whatever comes") {
  priority_queue<int> q;
  std::uint32_t state = 7;
  for (int i = 0; i < 500; ++i) {
    state = state * 1664525u + 1013904223u;
    q.put(int(state >> 24));
    if (i % 3 == 0) q.get();
  }
  int last = 0, count = 0;
  while (auto n = q.try_get()) {
    CHECK(*n >= last);
    last = *n;
    ++count;
  }
  CHECK(count == 333);
}

HUB_CASE("priority_queue: a comparison that fails loses nothing") {
  priority_queue<fussy> q(3);
  for (int i = 0; i < 3; ++i) q.put(fussy(3 - i, i));
  auto putter = spawn([&] {
    fussy mine(7, 42);
    try {
      q.put(std::move(mine));
    } catch (const std::runtime_error&) {
      return mine.number;
    }
    return -1;
  });
  yield();
  fussy::fail_compare = true;
  CHECK_THROWS_AS(q.get(), std::runtime_error);
  CHECK(q.size() == 3);
  fussy::fail_compare = false;
  CHECK(q.get()->key == 1);
  CHECK(putter.get() == -1);
  CHECK(q.get()->key == 2);
  fussy extra(9, 1);
  fussy::fail_compare = true;
  CHECK_THROWS_AS(q.put(std::move(extra)), std::runtime_error);
  fussy::fail_compare = false;
  CHECK(q.get()->key == 3);
  CHECK(q.get()->key == 7);
  CHECK(q.empty());
}

HUB_CASE("simple_queue: unbounded put and get") {
  simple_queue<int> q;
  auto getter = spawn([&] { return *q.get(); });
  yield();
  for (int i = 0; i < 1000; ++i) q.put(i);
  CHECK(getter.get() == 0);
  CHECK(q.size() == 999);
  for (int i = 1; i < 1000; ++i) CHECK(q.try_get() == i);
  CHECK(q.empty());
  CHECK_FALSE(q.get(1ms));
}

// --- peek ------------------------------------------------------------------------------------------------------------

HUB_CASE("queue: peek shows the next item and leaves it") {
  queue<int> q;
  CHECK_FALSE(q.try_peek());
  CHECK_FALSE(q.peek(1ms));
  q.put(1);
  q.put(2);
  CHECK(q.peek() == 1);
  CHECK(q.peek() == 1);
  CHECK(q.get() == 1);
  CHECK(q.try_peek() == 2);
}

HUB_CASE("queue: peek waits on an empty one; all who came before the getter see the item") {
  queue<int> q;
  std::string log;
  std::vector<any_fiber> all;
  auto peek = [&](char name) {
    all.push_back(spawn([&, name] { log += name + std::to_string(*q.peek()) + " "; }));
  };
  peek('a'), peek('b');
  all.push_back(spawn([&] { log += "G" + std::to_string(*q.get()) + " "; }));
  peek('c');
  yield();
  q.put(1);
  yield();
  CHECK(log == "a1 b1 G1 ");
  q.put(2);
  yield();
  CHECK(log == "a1 b1 G1 c2 ");
  CHECK(q.size() == 1);
  joinall(all);
  auto killed = spawn([&] {
    q.get();
    q.peek();
  });
  yield();
  killed.kill();
  CHECK(q.empty());
}

HUB_CASE("queue: a peek that cannot copy fails alone") {
  queue<fussy> q;
  auto peeker = spawn([&] { return error_of([&] { q.peek(); }); });
  auto getter = spawn([&] { return q.get()->key; });
  yield();
  fussy::fail_copy = true;
  CHECK(q.put(fussy(5, 0)));
  fussy::fail_copy = false;
  CHECK(peeker.get() == "no copy");
  CHECK(getter.get() == 5);
}

// --- task_done, join -------------------------------------------------------------------------------------------------

HUB_CASE("queue: join returns when all that was put has been done") {
  queue<int> q;
  CHECK(q.join());  // nothing was put
  CHECK_THROWS_AS(q.task_done(), std::logic_error);
  for (int i = 0; i < 3; ++i) q.put(i);
  CHECK_FALSE(q.join(1ms));
  CHECK_FALSE(q.join(deadline::passed()));
  int done = 0;
  auto worker = spawn([&] {
    for (int i = 0; i < 3; ++i) {
      q.get();
      sleep(1ms);
      ++done;
      q.task_done();
    }
  });
  std::vector<any_fiber> joiners;
  for (int i = 0; i < 2; ++i) joiners.push_back(spawn([&] { CHECK(q.join()); CHECK(done == 3); }));
  CHECK(q.join());
  CHECK(done == 3);
  CHECK(q.unfinished() == 0);
  joinall(joiners);
  CHECK_THROWS_AS(q.task_done(), std::logic_error);
  worker.join();
}

HUB_CASE("queue: what is handed to a waiting getter, and what a waiting putter brings, counts as put") {
  queue<int> q(1);
  auto getter = spawn([&] { return *q.get(); });
  yield();
  q.put(1);
  CHECK(q.unfinished() == 1);
  CHECK(getter.get() == 1);
  q.put(2);
  auto putter = spawn([&] { q.put(3); });
  yield();
  CHECK(q.unfinished() == 2);
  q.get();
  CHECK(q.unfinished() == 3);
  for (int i = 0; i < 3; ++i) q.task_done();
  CHECK(q.join(deadline::passed()));
  putter.join();
}

TEST_CASE("queue: workers of all kinds do every task once, and join sees the last of them") {
  with_each_kind([](kind k) {
    const int tasks = support::is_instrumented() ? 200 : 2000;
    queue<int> q(5);
    std::vector<std::atomic<int>> done(static_cast<std::size_t>(tasks));
    crew workers(k, 5, [&](int) {
      for (int& task : q) {
        ++done[std::size_t(task)];
        if (task % 32 == 0) yield();
        q.task_done();
      }
    });
    for (int i = 0; i < tasks; ++i) q.put(i);
    CHECK(q.join());
    int wrong = 0;
    for (auto& n : done) wrong += n != 1;
    CHECK(wrong == 0);
    q.shutdown();
    workers.join();
  });
}

// --- shutdown --------------------------------------------------------------------------------------------------------

HUB_CASE("queue: after shutdown nothing goes in; what is in can be taken, then that is an error") {
  queue<std::string> q;
  q.put("a");
  q.put("b");
  q.shutdown();
  CHECK(q.is_shut_down());
  std::string item = "c";
  CHECK_THROWS_AS(q.put(std::move(item)), shut_down);
  CHECK(item == "c");
  CHECK_THROWS_AS(q.try_put("d"), shut_down);
  CHECK(q.get() == "a");
  CHECK(q.peek() == "b");
  CHECK(q.try_get() == "b");
  CHECK_THROWS_AS(q.get(), shut_down);
  CHECK_THROWS_AS(q.try_get(), shut_down);
  CHECK_THROWS_AS(q.peek(), shut_down);
  q.task_done();
  q.task_done();
  CHECK(q.join());
}

HUB_CASE("queue: an immediate shutdown destroys what is in, and counts it as done") {
  auto item = std::make_shared<int>(1);
  queue<std::shared_ptr<int>> q;
  for (int i = 0; i < 3; ++i) q.put(item);
  auto being_done = q.get();
  auto joiner = spawn([&] { return q.join(1h); });
  yield();
  q.shutdown(true);
  CHECK(item.use_count() == 2);
  yield();
  CHECK_FALSE(joiner.ready());  // one is being done
  q.task_done();
  CHECK(joiner.get());
  CHECK_THROWS_AS(q.get(), shut_down);
  q.shutdown();
}

TEST_CASE("queue: shutdown ends the waits of getters, of those who peek and of putters") {
  with_each_kind([](kind k) {
    for (const bool immediate : {false, true}) {
      queue<int> empty, full(1);
      full.put(0);
      std::atomic<int> ended{0};
      crew all(k, 9, [&](int i) {
        try {
          if (i % 3 == 0) empty.get();
          if (i % 3 == 1) empty.peek();
          if (i % 3 == 2) full.put(i);
        } catch (const shut_down&) {
          ++ended;
        }
      });
      CHECK(all.all_started(9));
      let_others_run();
      CHECK(ended == 0);
      empty.shutdown(immediate);
      full.shutdown(immediate);
      all.join();
      CHECK(ended == 9);
      CHECK(full.size() == (immediate ? 0 : 1));
      CHECK(full.unfinished() == (immediate ? 0 : 1));
    }
  });
}

HUB_CASE("queue: is iterated until it is shut down and empty") {
  queue<int> q;
  q.put(1);
  q.put(2);
  auto sum = spawn([&] {
    int total = 0;
    for (int& n : q) total += n;
    return total;
  });
  yield();
  q.put(3);
  yield();
  q.put(4);
  q.shutdown();
  CHECK(sum.get() == 10);
  for (int& n : q) CHECK(n == -1);  // nothing
}

// --- other uses ------------------------------------------------------------------------------------------------------

HUB_CASE("queue: put and get that do not wait serve a blocked peer from the hub's own stack, too") {
  queue<int> q(1);
  auto getter = spawn([&] { return *q.get(); });
  yield();
  in_the_hub([&] { CHECK(q.try_put(5)); });
  CHECK(getter.get() == 5);
  q.put(1);
  auto putter = spawn([&] { return q.put(2); });
  yield();
  std::optional<int> got;
  in_the_hub([&] {
    CHECK_FALSE(q.try_put(3));
    got = q.try_get();
  });
  CHECK(got == 1);
  CHECK(putter.get());
  CHECK(q.get() == 2);
  in_the_hub([&] {
    CHECK_FALSE(q.try_get());
    CHECK(contains(error_of([&] { q.get(); }), "inside the hub itself"));
    mutex m;
    CHECK_FALSE(m.try_lock());
    semaphore s(1);
    CHECK(s.try_acquire());
    s.release();
  });
}

HUB_CASE("queue: of two getters the one whose time is up takes nothing, the other gets the item") {
  queue<int> q;
  auto late = spawn([&] { return q.get(2ms); });
  auto patient = spawn([&] { return q.get(1h); });
  CHECK_FALSE(late.get());
  q.put(3);
  CHECK(patient.get() == 3);
}

HUB_CASE("queue: its capacity can be changed; those who wait for room come in") {
  queue<int> q(1);
  q.put(0);
  std::vector<any_fiber> putters;
  for (int i = 1; i < 4; ++i) putters.push_back(spawn([&, i] { q.put(i); }));
  yield();
  CHECK(q.size() == 1);
  q.set_capacity(3);
  CHECK(q.capacity() == 3);
  CHECK(q.size() == 3);
  q.set_capacity(1);
  CHECK(q.full());
  for (int i = 0; i < 4; ++i) CHECK(q.get() == i);
  joinall(putters);
  CHECK_THROWS_AS(q.set_capacity(0), std::invalid_argument);
}

HUB_CASE("wait: a queue is ready when an item is in it, and nothing is taken") {
  queue<int> q, other;
  CHECK_FALSE(wait_any({q, other}, 1ms));
  auto putter = spawn([&] {
    sleep(1ms);
    other.put(1);
  });
  CHECK(wait_any({q, other}, 1h) == 1);
  CHECK(other.size() == 1);
  CHECK(wait_any({q, other}, deadline::passed()) == 1);
  putter.join();
  q.shutdown();
  CHECK(wait_any({q, other}) == 0);
}
