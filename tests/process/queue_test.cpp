// queues between processes.

#include <algorithm>

#include <ringlet/ipc/queue.hpp>
#include <ringlet/ipc/shared.hpp>

#include "on_processes.hpp"

using namespace process_test;

PROCESS_CASE("ipc queue: two readers get every item once, and their loops end with its shutdown") {
  ipc::queue<int> items;
  ipc::queue<int> got;
  std::vector<process> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      for (int n : items) got.put(n);
    });
    readers.back().start();
  }
  auto feeder = spawn([&] {
    for (int i = 0; i < 2000; ++i) items.put(i);
    items.shutdown();
  });
  std::vector<int> seen(2000);
  for (int i = 0; i < 2000; ++i) {
    const auto n = got.get(20s);
    REQUIRE(n);
    ++seen[std::size_t(*n)];
  }
  CHECK(std::count(seen.begin(), seen.end(), 1) == 2000);
  feeder.join();
  for (auto& p : readers) {
    CHECK(p.join(20s));
    CHECK(p.exit_code() == 0);
  }
  CHECK(got.empty());
}

PROCESS_CASE("ipc queue: items of all sizes, from several writers, whole") {
  ipc::queue<std::pair<int, std::string>> q;
  std::vector<process> writers;
  for (int w = 0; w < 3; ++w) {
    writers.emplace_back([w, &q] {
      for (int i = 0; i < 10; ++i) q.put({w, std::string(std::size_t(i) * 30000, char('a' + w))});
    });
    writers.back().start();
  }
  std::size_t total = 0;
  for (int i = 0; i < 30; ++i) {
    const auto item = q.get(20s);
    REQUIRE(item);
    total += item->second.size();
    CHECK(item->second == std::string(item->second.size(), char('a' + item->first)));
  }
  CHECK(total == 3 * 45 * 30000);
  for (auto& p : writers) CHECK(p.join(20s));
}

PROCESS_CASE("ipc queue: put waits for room in a bounded one, and says when it was late") {
  ipc::queue<int> q(2);
  CHECK(q.put(1));
  CHECK(q.try_put(2));
  CHECK(q.full());
  CHECK_FALSE(q.try_put(3));
  CHECK_FALSE(q.put(3, 5ms));
  CHECK(q.size() == 2);
  process p([&] {
    sleep(5ms);
    return *q.get();
  });
  p.start();
  CHECK(q.put(3, 20s));
  CHECK(p.join(20s));
  CHECK(p.exit_code() == 1);
  CHECK(q.get() == 2);
  CHECK(q.get() == 3);
  CHECK_FALSE(q.get(5ms));
  CHECK_FALSE(q.try_get());
  CHECK_THROWS_AS(ipc::queue<int>(0), std::invalid_argument);
}

PROCESS_CASE("ipc queue: join waits until all that was put has been dealt with") {
  ipc::queue<int> q;
  ipc::value<int> sum(0);
  std::vector<process> workers;
  for (int i = 0; i < 3; ++i) {
    workers.emplace_back([&] {
      for (int n : q) {
        sleep(1ms);
        sum.update([n](int& s) { s += n; });
        q.task_done();
      }
    });
    workers.back().start();
  }
  for (int i = 1; i <= 50; ++i) q.put(i);
  CHECK(q.join(20s));
  CHECK(sum.get() == 1275);
  CHECK(q.unfinished() == 0);
  CHECK_THROWS_AS(q.task_done(), std::logic_error);
  q.put(1);
  q.shutdown();
  for (auto& p : workers) CHECK(p.join(20s));
}

PROCESS_CASE("ipc queue: join gives up at its deadline") {
  ipc::queue<int> q;
  CHECK(q.join());
  q.put(1);
  CHECK_FALSE(q.join(5ms));
  CHECK(q.get() == 1);
  CHECK_FALSE(q.join(deadline::passed()));
  q.task_done();
  CHECK(q.join(deadline::passed()));
}

PROCESS_CASE("ipc queue: shutdown ends waits everywhere; what is in it can still be got") {
  ipc::queue<int> q, full(1);
  full.put(1);
  process gets([&] {
    try {
      q.get();
      q.get();
      return 1;
    } catch (const shut_down&) {
      return 0;
    }
  });
  process puts([&] {
    try {
      full.put(2);
      return 1;
    } catch (const shut_down&) {
      return 0;
    }
  });
  gets.start();
  puts.start();
  sleep(20ms);
  q.put(7);
  q.shutdown();
  full.shutdown();
  CHECK(gets.join(20s));
  CHECK(gets.exit_code() == 0);
  CHECK(puts.join(20s));
  CHECK(puts.exit_code() == 0);
  CHECK(full.get() == 1);
  CHECK_THROWS_AS(full.get(), shut_down);
  CHECK_THROWS_AS(full.put(3), shut_down);
}

PROCESS_CASE("ipc queue: a getter that was killed or gave up took nothing") {
  ipc::queue<int> q;
  process p([&] { q.get(); });
  p.start();
  sleep(20ms);
  p.kill();
  CHECK(p.join(20s));
  auto f = spawn([&] { q.get(); });
  yield();
  f.kill();
  CHECK_FALSE(with_timeout(2ms, [&] { q.get(); }));
  q.put(1);
  CHECK(q.get(20s) == 1);
}

PROCESS_CASE("ipc queue: putters killed with -9 at random moments leave whole items only") {
  ipc::queue<std::string> q(50);
  std::size_t came = 0;
  for (unsigned round = 0; round < 10; ++round) {
    process p([&] {
      for (std::size_t i = 1;; ++i) q.put(std::string(i * 7919 % 200000, 'x'));
    });
    p.start();
    bool ended = false;
    auto killer = spawn([&] {
      sleep(std::chrono::milliseconds(1 + round * 3));
      p.kill();
      p.join();
      ended = true;
    });
    while (true) {
      const auto item = q.get(ended ? deadline::passed() : deadline(5ms));
      if (item) {
        ++came;
        CHECK(*item == std::string(item->size(), 'x'));
      } else if (ended) {
        break;
      }
    }
    killer.join();
  }
  CHECK(came > 0);
}
