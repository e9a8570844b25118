// thread_pool: which thread does the work, how many there are, what comes back, and what is left when somebody gives up.

#include "ringlet/thread_pool.hpp"

#include <atomic>
#include <future>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "hub/on_hub.hpp"

using namespace hub_test;

namespace {

long thread_id() { return ::syscall(SYS_gettid); }

// A gate for real threads: no hub is made where it is waited for.
class gate {
 public:
  void open() {
    is_open_ = true;
    is_open_.notify_all();
  }
  void pass() const { is_open_.wait(false); }

 private:
  std::atomic<bool> is_open_{false};
};

}  // namespace

TEST_CASE("thread_pool: work is done on another thread, while other fibers run") {
  thread_pool threads(2);
  const long here = thread_id();
  std::atomic<bool> seen{false};
  auto other = spawn([&] { seen = true; });
  const long there = threads.apply([&] {
    while (!seen) std::this_thread::yield();  // the fiber's turn comes though this one blocks
    return thread_id();
  });
  CHECK(there != here);
  CHECK(threads.size() == 2);
  CHECK(threads.unfinished() == 0);
}

TEST_CASE("thread_pool: results and errors come back, references too") {
  thread_pool threads(1);
  CHECK(threads.apply([](int a, int b) { return a + b; }, 2, 3) == 5);
  int x = 1;
  CHECK(&threads.apply([&]() -> int& { return ++x; }) == &x);
  CHECK(threads.apply([] { return std::make_unique<int>(7); }) != nullptr);
  CHECK(error_of([&] { threads.apply([] { throw std::runtime_error("there"); }); }) == "there");
  auto later = threads.submit([](std::string s) { return s + "!"; }, "hello");
  CHECK(later.get() == "hello!");
  CHECK(later.successful());
  auto failed = threads.submit([]() -> int { throw std::runtime_error("later"); });
  CHECK(error_of([&] { failed.get(); }) == "later");
  CHECK_FALSE(failed.successful());
}

TEST_CASE("thread_pool: first in, first out; no more threads than allowed, no fewer than wanted") {
  thread_pool threads(3);
  gate go;
  std::atomic<int> running{0};
  std::vector<future<>> all;
  for (int i = 0; i < 10; ++i)
    all.push_back(threads.submit([&] {
      ++running;
      go.pass();
    }));
  CHECK(soon([&] { return running == 3; }));
  CHECK(threads.threads() == 3);
  CHECK(threads.unfinished() == 10);
  CHECK_FALSE(threads.join(2ms));
  go.open();
  CHECK(threads.join());
  CHECK(running == 10);
  thread_pool one(1);
  std::string log;
  for (char c : {'a', 'b', 'c'}) one.submit([&, c] { log += c; });
  one.join();
  CHECK(log == "abc");
}

TEST_CASE("thread_pool: resized from 0 it begins what was kept; smaller, the surplus leaves") {
  thread_pool threads(0);
  auto kept = threads.submit([] { return 1; });
  CHECK_FALSE(kept.wait(5ms));
  CHECK(threads.threads() == 0);
  threads.resize(1);
  CHECK(kept.get() == 1);
  threads.resize(4);
  gate go;
  std::atomic<int> running{0};
  for (int i = 0; i < 4; ++i)
    threads.submit([&] {
      ++running;
      go.pass();
    });
  CHECK(soon([&] { return running == 4; }));
  threads.resize(1);
  CHECK(threads.threads() == 4);  // what runs goes on
  go.open();
  CHECK(soon([&] { return threads.threads() <= 1; }));
  threads.resize(0);
  CHECK(soon([&] { return threads.threads() == 0; }));
  CHECK_THROWS_AS(threads.resize(-1), std::invalid_argument);
  CHECK_THROWS_AS(thread_pool(-1), std::invalid_argument);
}

TEST_CASE("thread_pool: idle threads leave, and come again") {
  thread_pool threads(4, 20ms);
  threads.apply([] {});
  CHECK(threads.threads() >= 1);
  CHECK(soon([&] { return threads.threads() == 0; }));
  CHECK(threads.apply([] { return 5; }) == 5);
}

TEST_CASE("thread_pool: apply by its own helper runs right there, at any depth") {
  thread_pool threads(1);
  const long depth = threads.apply([&] {
    const long outer = thread_id();
    return threads.apply([&] { return threads.apply([&] { return thread_id() == outer ? 3 : 0; }); });
  });
  CHECK(depth == 3);
  const auto doubled = threads.apply([&] { return threads.map([](int i) { return 2 * i; }, std::vector{1, 2}); });
  CHECK(doubled == std::vector{2, 4});
}

TEST_CASE("thread_pool: any thread of any hub, or none, may use it") {
  thread_pool threads(4);
  std::atomic<int> sum{0};
  std::vector<std::thread> foreign;
  for (int t = 1; t <= 4; ++t)
    foreign.emplace_back([&, t] {
      sum += threads.apply([t] { return t; });
      std::vector<any_fiber> fibers;
      for (int i = 0; i < 10; ++i) fibers.push_back(spawn([&] { sum += threads.apply([t] { return 10 * t; }); }));
      joinall(fibers);
    });
  for (auto& t : foreign) t.join();
  CHECK(sum == 10 + 10 * 100);
}

TEST_CASE("thread_pool: what was captured is gone before the result is there") {
  thread_pool threads(1);
  auto thing = std::make_shared<int>(3);
  std::weak_ptr<int> watch = thing;
  auto f = threads.submit([held = std::move(thing)] { return *held; });
  CHECK(f.get() == 3);
  CHECK(watch.expired());
  auto failing = std::make_shared<int>(4);
  watch = failing;
  auto g = threads.submit([held = std::move(failing)]() -> int { throw *held; });
  CHECK(error_of([&] { g.get(); }) == "4");
  CHECK(watch.expired());
}

TEST_CASE("thread_pool: a killed caller of apply takes the work back, or waits for its end") {
  thread_pool threads(1);
  gate go;
  std::atomic<bool> begun{false}, ended{false}, second{false};
  auto first = spawn([&] {
    threads.apply([&] {
      begun = true;
      go.pass();
      ended = true;
    });
  });
  auto waiting = spawn([&] { threads.apply([&] { second = true; }); });
  CHECK(soon([&] { return begun.load(); }));
  CHECK(threads.unfinished() == 2);
  waiting.kill();
  CHECK(threads.unfinished() == 1);
  CHECK_FALSE(first.kill(2ms));
  CHECK_FALSE(ended);
  go.open();
  CHECK(first.kill());
  CHECK(ended);
  threads.join();
  CHECK_FALSE(second);
}

TEST_CASE("thread_pool: a timeout around a future lets the work go on") {
  thread_pool threads(1);
  gate go;
  auto f = threads.submit([&] { go.pass(); return 9; });
  CHECK_THROWS_AS(f.get(2ms), not_ready);
  CHECK_FALSE(with_timeout(2ms, [&] { return f.get(); }));
  go.open();
  CHECK(f.get() == 9);
}

TEST_CASE("thread_pool: its end drops what has not begun and waits for what has") {
  gate go;
  std::atomic<bool> ended{false};
  future<int> running, dropped;
  any_fiber applied;
  std::thread opener;
  {
    thread_pool threads(1);
    std::atomic<bool> begun{false};
    running = threads.submit([&] {
      begun = true;
      go.pass();
      ended = true;
      return 1;
    });
    CHECK(soon([&] { return begun.load(); }));
    dropped = threads.submit([] { return 2; });
    applied = spawn([&] { threads.apply([] {}); });
    yield();
    opener = std::thread([&, dropped] {  // when it has been dropped: else it might begin
      soon([&] { return dropped.ready(); });
      go.open();
    });
  }
  CHECK(ended);
  opener.join();
  CHECK(running.get() == 1);
  CHECK(error_of([&] { dropped.get(); }) == "ringlet::greenlet_exit");
  CHECK(applied.join(1s));
}

TEST_CASE("thread_pool: closed, it takes no more work") {
  thread_pool threads(1);
  auto f = threads.submit([] { return 1; });
  threads.close();
  CHECK_THROWS_AS(threads.submit([] {}), std::runtime_error);
  CHECK_THROWS_AS(threads.apply([] {}), std::runtime_error);
  CHECK(f.get() == 1);
}

TEST_CASE("thread_pool: map gives the results in the order of the items, and the first error") {
  thread_pool threads(4);
  std::vector<int> items(100);
  for (int i = 0; i < 100; ++i) items[std::size_t(i)] = i;
  std::atomic<int> called{0};
  const auto squares = threads.map([&](int i) { ++called; return i * i; }, items);
  CHECK(called == 100);
  for (int i = 0; i < 100; ++i) CHECK(squares[std::size_t(i)] == i * i);
  threads.map([](int& i) { i = -i; }, items);
  CHECK(items[7] == -7);
  const auto said = error_of([&] {
    threads.map([](int i) -> int { if (i < -2) throw std::runtime_error(std::to_string(i)); return i; }, items);
  });
  CHECK(said == "-3");
}

TEST_CASE("thread_pool: an interrupted map begins no more and leaves nobody behind") {
  thread_pool threads(1);
  gate go;
  std::atomic<int> begun{0};
  auto caller = spawn([&] {
    std::vector<int> mine(5);
    threads.map(
        [&](int& i) {
          ++begun;
          go.pass();
          i = 1;
        },
        mine);
  });
  CHECK(soon([&] { return begun == 1; }));
  CHECK_FALSE(caller.kill(1ms));
  go.open();
  CHECK(caller.kill());
  CHECK(begun == 1);
  CHECK(threads.join(10s));
}

TEST_CASE("thread_pool: callbacks run on the thread that asked, in fibers of their own; one that throws harms nobody") {
  thread_pool threads(2);
  const long here = thread_id();
  std::string log;
  event go;
  threads.apply_async([] { return 1; }, [&](int v) { log += std::to_string(v) + (thread_id() == here ? " here " : " there "); });
  threads.apply_async([] { throw std::runtime_error("bad"); }, [&] { log += "never"; },
                      [&](std::exception_ptr e) { log += error_of([&] { std::rethrow_exception(e); }) + " "; });
  {
    captured_stderr quiet;
    auto bad = threads.submit([] {}).on_done([](auto&) { throw std::runtime_error("a callback's own"); });
    bad.join();
    bad = {};
    CHECK(contains(quiet.end(), "a callback's own"));
  }
  auto f = threads.submit([] { return 5; });
  int got = 0;
  f.on_done([&](const future<int>& ended) { got = ended.get(); }).join();
  CHECK(got == 5);
  CHECK(soon([&] { return contains(log, "1 here ") && contains(log, "bad "); }));
  CHECK_FALSE(contains(log, "never"));
}

TEST_CASE("future: cancelled before it begins it never runs; afterwards it cannot be") {
  thread_pool threads(0);
  bool ran = false;
  auto f = threads.submit([&] { ran = true; });
  CHECK(f.cancel());
  CHECK(f.ready());
  CHECK(error_of([&] { f.get(); }) == "ringlet::greenlet_exit");
  threads.resize(1);
  auto g = threads.submit([] {});
  g.get();
  CHECK_FALSE(g.cancel());
  CHECK_FALSE(f.cancel());
  threads.join();
  CHECK_FALSE(ran);
}

TEST_CASE("future: wait and iwait take futures beside fibers and events") {
  thread_pool threads(3);
  gate go;
  event e;
  auto slow = threads.submit([&] { go.pass(); return 1; });
  auto quick = threads.submit([] { return 2; });
  auto f = spawn([&] { quick.wait(); sleep(1ms); });
  std::vector<std::size_t> order;
  for (std::size_t i : iwait({slow, quick, f, e}, {.until = 10s})) {
    order.push_back(i);
    if (i == 2) e.set();
    if (i == 3) go.open();
  }
  CHECK(order == std::vector<std::size_t>{1, 2, 3, 0});
  CHECK(wait_any({quick, slow}) == 0);
}

TEST_CASE("thread_pool: its helpers are no signs of life once they are idle") {
  if (has_background_thread()) RINGLET_SKIP("ThreadSanitizer has a thread of its own, which counts as one that might wake somebody");
  if (support::child_part("deadlock")) {
    thread_pool threads(2);
    threads.map([](int) {}, std::vector<int>(10));
    event nobody_sets;
    const std::string said = error_of([&] { nobody_sets.wait(); });
    std::exit(contains(said, "deadlock") ? 7 : 1);
  }
  CHECK(support::run_this_case("deadlock").exit_status == 7);
}

TEST_CASE("thread_pool: while its helpers work there is no deadlock") {
  thread_pool threads(1);
  event set_by_helper;
  threads.submit([&] {
    ::usleep(30'000);  // longer than the hub is silent before it looks
    set_by_helper.set();
  });
  CHECK(set_by_helper.wait());
}

TEST_CASE("thread_pool: a forked child has one of its own, and does not do its parent's work") {
  if (has_background_thread()) RINGLET_SKIP("ThreadSanitizer lets no forked child of several threads make threads");
  thread_pool threads(1);
  gate go;
  std::atomic<int> ran{0};
  for (int i = 0; i < 3; ++i)
    threads.submit([&] {
      go.pass();
      ++ran;
    });
  const pid_t child = ::fork();
  if (child == 0) {
    const int result = threads.apply([] { return 3; });
    threads.join();
    ::_exit(result == 3 && ran == 0 ? 7 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 7);
  go.open();
  threads.join();
  CHECK(ran == 3);
}

TEST_CASE("thread_pool: many hubs, many calls, every one done once") {
  const int many = support::is_instrumented() ? 200 : 2000;
  thread_pool threads(8);
  std::atomic<long> sum{0};
  std::vector<std::thread> hubs;
  for (int t = 0; t < 3; ++t)
    hubs.emplace_back([&] {
      group g;
      for (int i = 0; i < many; ++i)
        g.spawn([&, i] {
          if (i % 2)
            sum += threads.apply([i] { return i; });
          else
            sum += threads.submit([i] { return i; }).get();
        });
      g.join();
    });
  for (auto& t : hubs) t.join();
  CHECK(sum == 3L * many * (many - 1) / 2);
}

TEST_CASE("thread_pool: what it runs that waits by ringlet's own calls gets a hub there") {
  thread_pool threads(1);
  CHECK(threads.apply([] {
    auto f = spawn([] { sleep(1ms); return 6; });
    return f.get();
  }) == 6);
}

HUB_CASE("from_std: fibers wait for a std::future, and a std::future for an executor's work") {
  thread_pool helpers(2);
  std::promise<std::string> theirs, broken;
  auto value = from_std(theirs.get_future(), helpers);
  auto error = from_std(broken.get_future(), helpers);
  std::thread other([&] {
    theirs.set_value("done");
    broken.set_exception(std::make_exception_ptr(std::runtime_error("no")));
  });
  CHECK(value.get() == "done");
  CHECK(error_of([&] { error.get(); }) == "no");
  other.join();
  CHECK_THROWS_AS(from_std(std::future<int>(), helpers), std::future_error);

  std::packaged_task<int()> task([] { return 42; });
  std::future<int> for_others = task.get_future();
  helpers.submit(std::move(task)).wait();
  CHECK(for_others.get() == 42);
}
