// process_pool: tasks in worker processes, and what becomes of them when workers die.

#include <algorithm>
#include <numeric>
#include <random>
#include <thread>

#include <ringlet/ipc/shared.hpp>
#include <ringlet/process_pool.hpp>

#include "on_processes.hpp"

using namespace process_test;

namespace {

int square(int n) { return n * n; }
int who(int) { return ::getpid(); }
void nothing(int) {}
int fails_on_seven(int n) {
  if (n == 7) throw std::out_of_range("seven");
  return n;
}
int initialised = 0;

template <class R>
std::string thrown_by(const pool_result<R>& r) {
  try {
    r.get(30s);
    return "nothing";
  } catch (const remote_error& e) {
    return "remote " + e.type + ": " + e.what();
  } catch (const worker_died& e) {
    return "died " + std::to_string(e.exit_code);
  } catch (const shut_down&) {
    return "shut down";
  } catch (const pool_broken&) {
    return "broken";
  } catch (const std::exception& e) {
    return e.what();
  }
}
std::vector<int> up_to(int n) {
  std::vector<int> all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

}  // namespace

PROCESS_CASE("process pool: apply runs in another process, and other fibers go on") {
  process_pool pool(2);
  CHECK(pool.size() == 2);
  CHECK(pool.apply(square, 7) == 49);
  CHECK(pool.apply([](const std::string& a, int b) { return a + std::to_string(b); }, std::string("x"), 5) == "x5");
  CHECK(pool.apply([](const std::string& a) { return a.size(); }, "a literal") == 9);
  CHECK(pool.apply(who, 0) != ::getpid());
  pool.apply(nothing, 1);
  bool ran = false;
  auto other = spawn([&] { ran = true; });
  CHECK(pool.apply([](int ms) { sleep(std::chrono::milliseconds(ms)); return ms; }, 5) == 5);
  CHECK(ran);
  CHECK(process_pool().size() == usable_cpu_count());
}

PROCESS_CASE("process pool: apply_async tells done or failed, in fibers of the caller's thread") {
  process_pool pool(2);
  std::vector<int> got;
  std::vector<std::string> errors;
  for (int i = 5; i < 10; ++i)
    pool.apply_async(fails_on_seven, i).then([&](int n) { got.push_back(n); },
                                             [&](const std::exception_ptr& e) {
                                               try {
                                                 std::rethrow_exception(e);
                                               } catch (const remote_error& r) {
                                                 errors.push_back(r.type + ": " + r.what());
                                               }
                                             });
  pool.close();
  CHECK(pool.join(30s));
  hub::join(10s);
  std::sort(got.begin(), got.end());
  CHECK(got == std::vector<int>{5, 6, 8, 9});
  CHECK(errors == std::vector<std::string>{"std::out_of_range: seven"});
}

PROCESS_CASE("process pool: get gives up at its deadline, and the task goes on") {
  process_pool pool(1);
  auto slow = pool.apply_async([](int ms) {
    sleep(std::chrono::milliseconds(ms));
    return ms;
  }, 60);
  CHECK_THROWS_AS(slow.get(1ms), not_ready);
  CHECK_FALSE(slow.ready());
  CHECK(slow.get(30s) == 60);
  CHECK(slow.successful());
}

PROCESS_CASE("process pool: what a task throws comes back with its type and text") {
  process_pool pool(1);
  CHECK(thrown_by(pool.apply_async(fails_on_seven, 7)) == "remote std::out_of_range: seven");
  CHECK(thrown_by(pool.apply_async([](int) -> int { throw 5; }, 0)) == "remote int: an exception of type int");
  CHECK(pool.apply(fails_on_seven, 8) == 8);
}

PROCESS_CASE("process pool: map keeps the order, in chunks of any size, and throws the first item's error") {
  process_pool pool(2);
  std::vector<int> squares;
  for (int i = 0; i < 101; ++i) squares.push_back(i * i);
  for (std::size_t chunk : {0, 1, 7, 1000}) CHECK(pool.map(square, up_to(101), chunk) == squares);
  CHECK(pool.map(square, std::vector<int>{}).empty());
  pool.map(nothing, up_to(5));
  CHECK(pool.starmap([](int a, int b) { return a - b; }, std::vector<std::pair<int, int>>{{5, 3}, {9, 2}}) == std::vector<int>{2, 7});
  CHECK(contains(error_of([&] { pool.map(fails_on_seven, up_to(20)); }), "seven"));
}

PROCESS_CASE("process pool: imap gives results in order as they come, and an error at its place") {
  process_pool pool(2);
  for (std::size_t chunk : {1, 3}) {
    std::vector<int> got;
    for (int n : pool.imap(square, up_to(30), chunk)) got.push_back(n);
    CHECK(got == pool.map(square, up_to(30)));
  }
  auto results = pool.imap(fails_on_seven, up_to(10));
  std::vector<int> good;
  int errors = 0;
  while (true) {
    try {
      const auto n = results.next(30s);
      if (!n) break;
      good.push_back(*n);
    } catch (const remote_error&) {
      ++errors;
      CHECK(good.size() == 7);
    }
  }
  CHECK(errors == 1);
  CHECK(good == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 8, 9});
}

PROCESS_CASE("process pool: imap submits as it is read") {
  process_pool pool(1);
  std::vector<int> items = up_to(1000);
  ipc::value<int> begun(0);
  static ipc::value<int>* seen;
  seen = &begun;
  process_pool after(1);  // its worker sees the pointer
  auto results = after.imap([](int n) {
    seen->update([](int& v) { ++v; });
    return n;
  }, items);
  CHECK(results.next(30s) == 0);
  CHECK(begun.get() <= 2);
  CHECK(results.next(30s) == 1);
}

PROCESS_CASE("process pool: imap_unordered gives what is ready first; next gives up at its deadline") {
  process_pool pool(2);
  auto results = pool.imap_unordered([](int ms) {
    sleep(std::chrono::milliseconds(ms));
    return ms;
  }, std::vector<int>{300, 1, 2, 3});
  CHECK(results.next(30s) == 1);
  CHECK_THROWS_AS(
      [&] {
        for (int i = 0; i < 4; ++i) results.next(1ms);
      }(),
      not_ready);
  std::vector<int> rest;
  while (const auto n = results.next(30s)) rest.push_back(*n);
  CHECK(!rest.empty());
  CHECK(rest.back() == 300);
}

PROCESS_CASE("process pool: close lets finish what was given; terminate does not; both end join") {
  {
    process_pool pool(2);
    CHECK_THROWS_AS(pool.join(), std::logic_error);
    auto last = pool.apply_async(square, 3);
    pool.close();
    CHECK_THROWS_AS(pool.apply_async(square, 4), shut_down);
    CHECK(pool.join(30s));
    CHECK(last.get(deadline::passed()) == 9);
  }
  process_pool pool(2);
  std::vector<pool_result<int>> all;
  for (int i = 0; i < 6; ++i)
    all.push_back(pool.apply_async([](int) {
      sleep(1h);
      return 0;
    }, i));
  while (pool.pids().size() < 2) sleep(1ms);
  pool.terminate();
  CHECK(pool.join(30s));
  for (auto& each : all) CHECK(thrown_by(each) == "shut down");
}

PROCESS_CASE("process pool: the initializer runs in each worker before its first task") {
  process_pool pool({.workers = 2, .initializer = [] { initialised = 5; }});
  CHECK(pool.map([](int) { return initialised; }, up_to(10)) == std::vector<int>(10, 5));
  CHECK(initialised == 0);
}

PROCESS_CASE("process pool: an initializer that fails breaks the pool, and nobody waits for ever") {
  captured_stderr said;
  process_pool pool({.workers = 2, .initializer = [] { throw std::runtime_error("no database"); }});
  auto a = pool.apply_async(square, 1), b = pool.apply_async(square, 2);
  CHECK(thrown_by(a) == "broken");
  CHECK(thrown_by(b) == "broken");
  pool.close();
  CHECK(pool.join(30s));
  CHECK(contains(said.end(), "no database"));
}

PROCESS_CASE("process pool: a worker does so many tasks and is replaced") {
  process_pool pool({.workers = 1, .initializer = {}, .tasks_per_worker = 3});
  std::vector<int> pids;
  for (int i = 0; i < 7; ++i) pids.push_back(pool.apply(who, i));
  CHECK(pids[0] == pids[2]);
  CHECK(pids[2] != pids[3]);
  CHECK(pids[3] == pids[5]);
  CHECK(pids[5] != pids[6]);
}

PROCESS_CASE("process pool: a worker killed amid its task: the task fails, another worker comes") {
  process_pool pool(1);
  CHECK(thrown_by(pool.apply_async([](int s) {
    ::kill(::getpid(), s);
    return 0;
  }, SIGKILL)) == "died -9");
  CHECK(thrown_by(pool.apply_async([](int status) -> int { ::_exit(status); }, 3)) == "died 3");
  CHECK(thrown_by(pool.apply_async([](int status) -> int { throw process_exit{status}; }, 4)) == "died 4");
  CHECK(pool.apply(square, 6) == 36);
}

PROCESS_CASE("process pool: an idle worker that is killed is replaced before it is needed") {
  process_pool pool(1);
  const int first = pool.apply(who, 0);
  ::kill(first, SIGKILL);
  for (int i = 0; i < 20000; ++i) {
    const auto pids = pool.pids();
    if (pids.size() == 1 && pids[0] != first) break;
    sleep(1ms);
  }
  REQUIRE(pool.pids().size() == 1);
  CHECK(pool.pids()[0] != first);
  CHECK(pool.apply(square, 2) == 4);
}

PROCESS_CASE("process pool: workers killed with -9 at 100 random moments: no task is lost silently") {
  process_pool pool(3);
  std::mt19937 random(7);
  std::vector<pool_result<int>> all;
  auto feeder = spawn([&] {
    for (int i = 0; i < 600; ++i) {
      all.push_back(pool.apply_async([](int n) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(n % 7 * 300);
        while (std::chrono::steady_clock::now() < end) {
        }
        return n * 2;
      }, i));
      if (i % 3 == 0) sleep(1ms);
    }
  });
  int kills = 0;
  auto killer = spawn([&] {
    while (kills < 100) {
      sleep(std::chrono::microseconds(random() % 3000));
      const auto pids = pool.pids();
      if (!pids.empty() && ::kill(pids[random() % pids.size()], SIGKILL) == 0) ++kills;
    }
  });
  feeder.join();
  killer.join();
  int done = 0, died = 0, other = 0;
  for (int i = 0; i < 600; ++i) {
    try {
      done += all[std::size_t(i)].get(60s) == i * 2;
    } catch (const worker_died& e) {
      died += e.exit_code == -SIGKILL;
    } catch (...) {
      ++other;
    }
  }
  CHECK(done + died == 600);
  CHECK(other == 0);
  CHECK(done > 0);
  CHECK(pool.apply(square, 5) == 25);
}

PROCESS_CASE("process pool: tasks from several threads and many fibers") {
  process_pool pool(2);
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) right += pool.apply(square, t * 100 + i) == (t * 100 + i) * (t * 100 + i);
    });
  std::vector<any_fiber> fibers;
  for (int f = 0; f < 20; ++f) fibers.push_back(spawn([&, f] { right += pool.apply(square, f) == f * f; }));
  joinall(fibers);
  while (right < 80) sleep(1ms);
  for (auto& t : threads) t.join();
  CHECK(right == 80);
}

PROCESS_CASE("process pool: a fork while it works: the child may have one of its own, and the parent's goes on") {
  process_pool pool(2);
  CHECK(pool.apply(square, 2) == 4);
  auto under_way = pool.apply_async([](int n) {
    sleep(20ms);
    return n;
  }, 11);
  process p([&] {
    try {
      pool.apply_async(square, 1);
      return 1;
    } catch (const std::logic_error&) {
    }
    process_pool own(2);
    return own.apply(square, 3) == 9 ? 0 : 2;
  });
  p.start();
  CHECK(p.join(30s));
  CHECK(p.exit_code() == 0);
  CHECK(under_way.get(30s) == 11);
}

PROCESS_CASE("process pool: large arguments and results") {
  process_pool pool(2);
  const std::string big(3 << 20, 'q');
  CHECK(pool.apply([](const std::string& s) { return s + s; }, big) == big + big);
}

PROCESS_CASE("process pool: destroyed with tasks under way, it ends them") {
  pool_result<int> left = [] {
    process_pool pool(1);
    return pool.apply_async([](int) {
      sleep(1h);
      return 0;
    }, 0);
  }();
  CHECK(thrown_by(left) == "shut down");
}
