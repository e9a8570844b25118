// What a program gets wrong with generators, pools and executors is told in words, and what it may do is done: one case a
// symptom.

#include <filesystem>
#include <map>
#include <unistd.h>

#include <ringlet/executor.hpp>
#include <ringlet/generator.hpp>
#include <ringlet/hub_threads.hpp>
#include <ringlet/pool.hpp>
#include <ringlet/monitor.hpp>
#include <ringlet/thread_pool.hpp>
#include <ringlet/trace.hpp>

#include "hub/on_hub.hpp"

using namespace hub_test;

// --- executor ----------------------------------------------------------------------------------------------------------

HUB_CASE("executor: map in its own work does it there, wherever the work is done") {
  const std::vector<int> items{1, 2, 3};
  auto square = [](int i) { return i * i; };
  auto check = [&](executor& e) { CHECK(e.submit([&] { return e.map(square, items); }).get() == std::vector<int>{1, 4, 9}); };
  {
    executor e(1);
    check(e);
  }
  {
    pool one(1);
    executor e(one);
    check(e);
  }
}

TEST_CASE("executor: map in its own work on other hubs does it there") {
  hub_threads hubs(1);
  executor e(hubs);
  CHECK(e.submit([&] { return e.map([](int i) { return i + 1; }, std::vector<int>{1, 2}); }).get() == std::vector<int>{2, 3});
}

HUB_CASE("executor: shutdown in its own work is an error, in another's work it is not") {
  executor e(1), other(1);
  CHECK(contains(e.submit([&] { return error_of([&] { e.shutdown(); }); }).get(), "in its own work"));
  CHECK(e.submit([&] { return other.shutdown(); }).get());
  pool fibers(2);
  executor in_fibers(fibers);
  CHECK(contains(in_fibers.submit([&] { return error_of([&] { in_fibers.shutdown(); }); }).get(), "in its own work"));
  CHECK(in_fibers.shutdown());
}

TEST_CASE("executor: one that is destroyed by its own work says so") {
  if (support::child_part("own work")) {
    auto e = std::make_unique<executor>(1);
    e->submit([&] { e.reset(); }).wait();
    std::exit(0);
  }
  const auto seen = support::run_this_case("own work");
  CHECK(seen.exit_status != 0);
  CHECK(contains(seen.err, "an executor is destroyed by its own work"));
}

TEST_CASE("executor: what is submitted while it shuts down is refused, or done before shutdown returns") {
  for (int round = 0; round < 200; ++round) {
    executor e(2);
    std::atomic<bool> begun{false};
    std::atomic<int> accepted{0}, done{0};
    std::thread submits([&] {
      begun = true;
      try {
        for (;;) {
          e.submit([&] { ++done; });
          ++accepted;
        }
      } catch (const std::runtime_error&) {
      }
    });
    while (!begun) std::this_thread::yield();
    CHECK(e.shutdown());
    const int done_then = done;
    submits.join();
    CHECK(done_then == done);
    CHECK(accepted == done);
  }
}

// --- pools and groups ----------------------------------------------------------------------------------------------------

HUB_CASE("pool: a member of a full pool that maps calls all, whatever the first one throws") {
  pool one(1);
  int called = 0;
  auto f = one.spawn([&] {
    try {
      one.map([&](int i) { if (++called, i == 1) throw 42; }, std::vector<int>{1, 2, 3});
    } catch (int n) {
      return n;
    }
    return 0;
  });
  CHECK(f.get() == 42);
  CHECK(called == 3);
}

HUB_CASE("pool: a member of a full pool that is killed while it maps dies at once") {
  pool one(1);
  int called = 0;
  auto f = one.spawn([&] { one.map([&](int) { ++called, sleep(never); }, std::vector<int>{1, 2, 3}); });
  yield();
  CHECK(f.kill());
  CHECK(called == 1);
}

HUB_CASE("group: join takes note of the error that it throws, and the others are reported") {
  std::vector<std::string> told;
  hub::set_error_handler([&](const hub::failure& f) { told.push_back(error_of([&] { std::rethrow_exception(f.error); })); });
  {
    group g;
    g.spawn([] { throw std::runtime_error("one"); });
    g.spawn([] { throw std::runtime_error("two"); });
    CHECK(error_of([&] { g.join(never, true); }) == "one");
  }
  yield();
  CHECK(told == std::vector<std::string>{"two"});
  told.clear();
  {
    group g;
    g.spawn([] { throw std::runtime_error("before the deadline"); });
    g.spawn([] { sleep(never); });
    CHECK_FALSE(g.join(5ms, true));
    g.kill();
  }
  yield();
  hub::set_error_handler({});
  CHECK(told == std::vector<std::string>{"before the deadline"});
}

// --- helpers and hubs of their own ------------------------------------------------------------------------------------------

TEST_CASE("thread_pool: fibers that work leaves behind on a helper run to their end") {
  thread_pool helpers(1);
  event ran, called;
  helpers.apply([&] {
    spawn([&] {
      sleep(1ms);
      ran.set();
    });
  });
  CHECK(ran.wait(30s));
  // One waits for what only another helper could do: it gets one.
  helpers.apply([&] { helpers.submit([] { return 1; }).on_done([&](const future<int>& f) { if (f.get() == 1) called.set(); }); });
  CHECK(called.wait(30s));
  CHECK(helpers.join());
}

TEST_CASE("thread_pool: its end kills the fibers that work has left behind on its helpers") {
  bool unwound = false;
  {
    thread_pool helpers(1);
    helpers.apply([&] {
      spawn([&] {
        struct at_end {
          bool& told;
          ~at_end() { told = true; }
        } here{unwound};
        sleep(never);
      });
    });
  }
  CHECK(unwound);
}

namespace {
struct late_leaver {
  std::atomic<int>* left = nullptr;
  ~late_leaver() {
    if (!left) return;
    sleep(2ms);  // on a new hub
    spawn([] {}).join();
    ++*left;
  }
};
thread_local late_leaver leaver;
}  // namespace

TEST_CASE("hub_threads: shutdown returns when the threads have gone, with their thread_locals") {
  std::atomic<int> left{0};
  hub_threads hubs(2, {.at_start = [&](std::size_t) { leaver.left = &left; }});
  std::vector<long> ids;
  for (auto& f : hubs.spawn_on_each([](std::size_t) { return long(::gettid()); })) ids.push_back(f.get());
  CHECK(hubs.shutdown());
  CHECK(left == 2);
  for (long id : ids) CHECK(::access(("/proc/self/task/" + std::to_string(id)).c_str(), F_OK) != 0);
}

TEST_CASE("ends: a thread_local that uses ringlet when its thread ends leaves nothing") {
  std::atomic<int> left{0};
  auto run = [&] {
    std::thread([&] { leaver.left = &left; yield(); }).join();
    std::thread([&] { leaver.left = &left; }).join();
  };
  run();
  auto open_fds = [] {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return std::distance(begin(all), end(all));
  };
  const auto fds = open_fds();
  for (int i = 0; i < 3; ++i) run();
  CHECK(open_fds() == fds);
  CHECK(left == 8);
}

// --- fibers ---------------------------------------------------------------------------------------------------------------

HUB_CASE("kill: a fiber that has not begun lets go of what it captured at once") {
  auto captured = std::make_shared<int>(1);
  auto f = spawn([captured] {});
  auto later = spawn_later(1h, [captured] {});
  CHECK(captured.use_count() == 3);
  f.kill();
  later.kill();
  CHECK(captured.use_count() == 1);
}

// --- generators and greenlets ---------------------------------------------------------------------------------------------

HUB_CASE("throw: a null exception_ptr is refused, and nobody notices") {
  greenlet g([] { greenlet::current().parent().switch_to(); });
  g.switch_to();
  CHECK_THROWS_AS(g.throw_into(std::exception_ptr()), std::invalid_argument);
  CHECK(g.started());
  generator<int> numbers([](auto& y) { y(1), y(2); });
  CHECK_THROWS_AS(numbers.throw_into(std::exception_ptr()), std::invalid_argument);
  CHECK(numbers.next() == 1);
  CHECK_THROWS_AS(numbers.throw_into(std::exception_ptr()), std::invalid_argument);
  CHECK(numbers.next() == 2);
}

HUB_CASE("generator: with a timeout or shield open it belongs to its fiber until that is closed") {
  for (const bool shield : {true, false}) {
    auto made = [shield] {
      return std::make_shared<generator<int>>([shield](auto& y) {
        {
          std::optional<kill_shield> s;
          std::optional<timeout> t;
          shield ? (void)s.emplace() : (void)t.emplace(1h);
          y(1);
          y(2);
        }
        y(3);
      });
    };
    auto g = made();
    event go_on;
    auto first = spawn([&, g] {
      g->next();
      go_on.wait();
      return *g->next() + *g->next();
    });
    yield();
    CHECK(contains(error_of([&] { g->next(); }), "resumed by another fiber"));
    go_on.set();
    CHECK(first.get() == 5);
    CHECK_FALSE(g->next());

    // Its fiber ends before it does, and somebody else drops it.
    auto left = made();
    spawn([left] { left->next(); }).join();
    auto others = spawn([] {
      timeout mine(1h);
      sleep(1ms);
    });
    yield();
    CHECK(contains(error_of([&] { left->next(); }), "resumed by another fiber"));
    left.reset();
    others.join();
  }
}

TEST_CASE("generator: one that is destroyed while a fiber waits inside says so") {
  if (support::child_part("inside")) {
    auto g = std::make_unique<generator<int>>([](auto& y) {
      sleep(1h);
      y(1);
    });
    auto f = spawn([&] { g->next(); });
    yield();
    g.reset();
    std::exit(0);
  }
  const auto seen = support::run_this_case("inside");
  CHECK(seen.exit_status != 0);
  CHECK(contains(seen.err, "a generator is destroyed while it runs"));
}

HUB_CASE("generator: may be moved while a fiber waits inside") {
  generator<int> g([](auto& y) {
    sleep(1ms);
    y(1);
    y(2);
  });
  auto f = spawn([&] { return *g.next(); });
  yield();
  generator<int> moved = std::move(g);
  CHECK(f.get() == 1);
  CHECK(moved.next() == 2);
}

// --- monitors -----------------------------------------------------------------------------------------------------------

HUB_CASE("switch_check: several at once each see their own fiber, in whatever order they end") {
  const bool traced_before = bool(get_trace());
  event begun, over;
  auto first = spawn([&] {
    switch_check c;
    begun.wait();
    c.finish();
    over.set();
  });
  auto second = spawn([&] {
    switch_check c;
    begun.set();
    over.wait();
    for (int i = 0; i < 3; ++i) sleep(1ms);
    return c.switches();
  });
  first.get();
  CHECK(second.get() == 4);
  CHECK(bool(get_trace()) == traced_before);
}

// --- deadlocks ------------------------------------------------------------------------------------------------------------

TEST_CASE("deadlock: is told, too, when the last thread that could have helped has ended without a word") {
  if (support::child_part("alone")) {
    std::atomic<bool> end{false};
    std::thread other([&] { while (!end) ::usleep(1000); });
    auto ends = std::thread([&] {
      ::usleep(50'000);  // the hub has looked, and found them; if not, the case is right all the same, and less sharp
      end = true;
    });
    other.detach();
    ends.detach();
    try {
      event().wait();
    } catch (const deadlock_error&) {
      std::exit(7);
    }
    std::exit(0);
  }
  if (has_background_thread()) RINGLET_SKIP("ThreadSanitizer's own thread might wake us");
  CHECK(support::run_this_case("alone").exit_status == 7);
}
