// async_result and timer: what is set once is got by many; what is cancelled in time never runs.

#include <memory>
#include <string>

#include "crew.hpp"

using namespace sync_test;

HUB_CASE("async_result: is set once and got by many, early and late") {
  async_result<std::string> r;
  CHECK_FALSE(r.ready());
  std::vector<fiber<std::string>> getters;
  for (int i = 0; i < 3; ++i) getters.push_back(spawn([&] { return r.get(); }));
  yield();
  r.set("five");
  CHECK(r.ready());
  CHECK(r.successful());
  for (auto& f : getters) CHECK(f.get() == "five");
  CHECK(r.get() == "five");
  CHECK(&r.get() == &r.get_nowait());
  CHECK(r.exception() == nullptr);
  CHECK_THROWS_AS(r.set("six"), std::logic_error);
  CHECK_FALSE(r.try_set("six"));
  CHECK_THROWS_AS(r.set_exception(std::runtime_error("late")), std::logic_error);
  CHECK(std::as_const(r).get() == "five");
}

HUB_CASE("async_result: fails all who get it with one and the same exception") {
  async_result<int> r;
  const auto error = std::make_exception_ptr(std::runtime_error("no answer"));
  std::vector<const std::exception*> seen;
  auto get = [&] {
    try {
      r.get();
    } catch (const std::exception& e) {
      seen.push_back(&e);
    }
  };
  std::vector<any_fiber> getters{spawn(get), spawn(get)};
  yield();
  r.set_exception(error);
  joinall(getters);
  get();
  REQUIRE(seen.size() == 3);
  CHECK(seen[0] == seen[1]);
  CHECK(seen[1] == seen[2]);
  CHECK(r.ready());
  CHECK_FALSE(r.successful());
  CHECK(r.exception() == error);
  CHECK(r.wait());
  CHECK_FALSE(r.try_set(1));
  async_result<int> other;
  CHECK_THROWS_AS(other.set_exception(std::exception_ptr()), std::invalid_argument);
  CHECK_FALSE(other.ready());
}

HUB_CASE("async_result: not ready in time is an error, and leaves no waiter") {
  async_result<int> r;
  CHECK_THROWS_AS(r.get_nowait(), not_ready);
  CHECK_THROWS_AS(r.get(1ms), not_ready);
  CHECK_FALSE(r.wait(1ms));
  auto killed = spawn([&] { r.get(); });
  yield();
  killed.kill();
  r.set(4);
  CHECK(r.get(deadline::passed()) == 4);
}

HUB_CASE("async_result: of things that cannot be copied, and of nothing") {
  async_result<std::unique_ptr<int>> r;
  r.set(std::make_unique<int>(3));
  CHECK(*r.get() == 3);
  const auto taken = std::move(r.get());
  CHECK(*taken == 3);
  async_result<> done;
  auto f = spawn([&] { done.get(); });
  yield();
  CHECK_FALSE(f.ready());
  done.set();
  f.get();
}

HUB_CASE("async_result: a value whose making fails leaves it open") {
  struct picky {
    explicit picky(int n) { if (n < 0) throw std::invalid_argument("negative"); }
  };
  async_result<picky> r;
  CHECK_THROWS_AS(r.set(-1), std::invalid_argument);
  CHECK_FALSE(r.ready());
  r.set(1);
  CHECK(r.successful());
}

HUB_CASE("async_result: follows a fiber: its value, its error, its death") {
  async_result<int> value, error, death, early;
  auto f = spawn([] { return 7; });
  value.follow(f);
  CHECK(value.get() == 7);
  early.follow(f);  // it has finished already
  CHECK(early.get() == 7);
  auto g = spawn([]() -> int { throw std::runtime_error("g failed"); });
  error.follow(g);
  CHECK(error_of([&] { error.get(); }) == "g failed");
  CHECK(error.exception() == g.exception());
  auto h = spawn([]() -> int { sleep(1h); return 0; });
  death.follow(h);
  yield();
  h.kill();
  CHECK_THROWS_AS(death.get(), greenlet_exit);
  async_result<std::unique_ptr<int>> moved;
  moved.follow(spawn([] { return std::make_unique<int>(2); }));
  CHECK(*moved.get() == 2);
  async_result<> nothing;
  nothing.follow(spawn([] {}));
  nothing.get();
}

HUB_CASE("wait: async_results and timers are ready when set and finished") {
  async_result<int> a, b;
  const deadline soon(1ms), later(20ms);
  timer t(later, [] {});
  auto setter = spawn([&] {
    sleep(soon);
    b.set(1);
  });
  CHECK(wait({a, b, t}, {.count = 2}) == std::vector<std::size_t>{1, 2});
  setter.join();
}

TEST_CASE("async_result: everybody gets it, wherever it is set") {
  with_each_kind([](kind k) {
    for (int i = 0; i < 20; ++i) {
      async_result<int> r;
      std::atomic<int> got{0}, setters{0};
      crew all(k, 8, [&](int who) {
        if (who % 4 == 3 && r.try_set(who)) ++setters;
        const int n = r.get();
        if (n == 3 || n == 7) ++got;
      });
      all.join();
      CHECK(got == 8);
      CHECK(setters == 1);
    }
  });
}

// --- timer -----------------------------------------------------------------------------------------------------------

HUB_CASE("timer: calls its function when the time has come") {
  const auto begun = now();
  int calls = 0;
  timer t(3ms, [&] { ++calls; });
  CHECK_FALSE(t.finished());
  CHECK_FALSE(t.join(1ms));
  CHECK(t.join());
  CHECK(took(begun, 3ms));
  CHECK(calls == 1);
  CHECK(t.finished());
  CHECK_FALSE(t.cancelled());
  CHECK_FALSE(t.cancel());
  CHECK_THROWS_AS(timer(1ms, nullptr), std::invalid_argument);
  CHECK(timer().join());
}

HUB_CASE("timer: one that is cancelled never calls, and is finished at once") {
  int calls = 0;
  timer t(1ms, [&] { ++calls; });
  timer at_once(deadline::passed(), [&] { ++calls; });
  timer copy = t;
  CHECK(copy.cancel());
  CHECK(t.cancel());
  CHECK(at_once.cancel());
  CHECK(t.finished());
  CHECK(t.cancelled());
  CHECK(t.join());
  sleep(3ms);
  CHECK(calls == 0);
}

HUB_CASE("timer: its function may wait, and cannot be cancelled any more") {
  event go_on;
  timer t(deadline::passed(), [&] { go_on.wait(); });
  yield();
  yield();
  CHECK_FALSE(t.cancel());
  CHECK_FALSE(t.finished());
  CHECK_FALSE(t.join(1ms));
  go_on.set();
  CHECK(t.join());
}

HUB_CASE("timer: runs on although nobody refers to it; what it throws is reported") {
  int calls = 0;
  { timer(1ms, [&] { ++calls; }); }
  sleep(2ms);
  CHECK(calls == 1);
  captured_stderr err;
  timer t(1ms, [] { throw std::runtime_error("in a timer"); });
  CHECK(t.join());
  yield();
  CHECK(contains(err.end(), "in a timer"));
}

TEST_CASE("timer: is cancelled and joined from anywhere, once it runs or never") {
  with_each_kind([](kind k) {
    for (int i = 0; i < 20; ++i) {
      std::atomic<int> calls{0}, cancels{0};
      timer t(std::chrono::microseconds(i * 20), [&] { ++calls; });
      crew all(k, 4, [&](int who) {
        timer mine = t;
        if (who == 0 && mine.cancel()) ++cancels;
        mine.join();
        if (!mine.finished()) cancels = 100;
      });
      all.join();
      CHECK(calls + cancels == 1);
    }
  });
}
