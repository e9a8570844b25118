// What a fiber says of itself before, while and after it runs, and who may be linked to its end.

#include <string>
#include <tuple>
#include <vector>

#include "on_hub.hpp"

using namespace hub_test;

namespace {
// started, ready, successful, has an error
std::string states(const any_fiber& f) {
  return std::string(f.started() ? "S" : "-") + (f.ready() ? "R" : "-") + (f.successful() ? "V" : "-") + (f.exception() ? "E" : "-");
}
}  // namespace

HUB_CASE("fiber: its states before, during and after, by every way to end") {
  enum ending { returns, throws, exits, killed, killed_by_error, killed_before };
  for (const ending how : {returns, throws, exits, killed, killed_by_error, killed_before}) {
    CAPTURE(int(how));
    event go;
    std::string during;
    auto f = spawn([&] {
      during = states(current());
      go.wait();
      if (how == throws) throw std::runtime_error("thrown");
      if (how == exits) throw greenlet_exit{};
      return 7;
    });
    CHECK(states(f) == "----");
    if (how == killed_before) {
      f.kill();
    } else {
      yield();
      CHECK(states(f) == "S---");
      CHECK_THROWS_AS(f.get(deadline::passed()), not_ready);
      if (how == killed) f.kill();
      if (how == killed_by_error) f.kill(std::make_exception_ptr(std::runtime_error("thrown")));
      go.set();
      CHECK(f.join());
      CHECK(during == "S---");
    }
    const bool fails = how == throws || how == killed_by_error;
    CHECK(states(f) == (fails ? "-R-E" : "-RV-"));
    const std::string result = error_of([&] { f.get(); });
    CHECK(result == (how == returns ? "" : fails ? "thrown" : "ringlet::greenlet_exit"));
    if (how == returns) CHECK(f.get() == 7);
  }
}

HUB_CASE("fiber: is never finished, and its greenlet never dead, while it runs or waits") {
  bool right = true;
  auto f = spawn([&] {
    for (int i = 0; i < 3; ++i) {
      right = right && !current().ready() && current().started() && !greenlet::current().dead() && greenlet::current().started();
      yield();
    }
  });
  greenlet g([&] {
    right = right && !greenlet::current().dead();
    greenlet::current().parent().switch_to();
  });
  g.switch_to();
  CHECK_FALSE(g.dead());
  while (!f.ready()) {
    CHECK_FALSE(current().ready());
    yield();
  }
  CHECK(right);
}

HUB_CASE("link: to a queue, a result and another fiber's wait") {
  queue<any_fiber> ended;
  async_result<int> value;
  event failed;
  auto good = spawn([] { return 5; });
  auto bad = spawn([] { throw 1; });
  for (auto f : std::vector<any_fiber>{good, bad}) f.link([&](any_fiber which) { ended.put(which); });
  good.link_value([&](any_fiber) { value.set(good.get()); });
  good.link_exception([&](any_fiber) { value.set(-1); });
  bad.link_value([&](any_fiber) { value.set(-2); });
  bad.link_exception([&](any_fiber) { failed.set(); });
  CHECK(*ended.get() == good);
  CHECK(*ended.get() == bad);
  CHECK(value.get() == 5);
  CHECK(failed.wait(10s));
}

HUB_CASE("spawn: takes any callable once; what is scheduled and killed never begins") {
  struct counts_calls {
    int& calls;
    void operator()() && { calls += 100; }
    int operator()() & { return ++calls; }
  };
  int calls = 0;
  auto f = spawn(counts_calls{calls});
  CHECK(f.get() == 1);
  CHECK(f.get() == 1);  // no second start
  auto never_begins = spawn(counts_calls{calls});
  CHECK(never_begins.kill());
  auto later = spawn_later(1ms, counts_calls{calls});
  CHECK(later.kill());
  sleep(2ms);
  CHECK(calls == 1);
}
