// Structured scopes: nobody outlives the block, and the first error ends it.

#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "hub/on_hub.hpp"

using namespace hub_test;

namespace {
struct first_error : std::runtime_error {
  first_error() : std::runtime_error("first error") {}
};
}  // namespace

HUB_CASE("scope: at its end all children have ended") {
  int ended = 0;
  {
    fiber_scope scope;
    for (int ms : {3, 1, 2})
      scope.spawn([&, ms] {
        sleep(ms * 1ms);
        ++ended;
      });
    CHECK(scope.size() == 3);
  }
  CHECK(ended == 3);
  { fiber_scope empty; }
}

HUB_CASE("scope: children may spawn more, and those are waited for, too") {
  std::vector<int> seen;
  {
    fiber_scope scope;
    scope.spawn([&] {
      sleep(1ms);
      scope.spawn([&] {
        sleep(1ms);
        scope.spawn([&] { seen.push_back(3); });
        seen.push_back(2);
      });
      seen.push_back(1);
    });
    scope.join();
    CHECK(seen == std::vector<int>{1, 2, 3});
    scope.spawn([&] { seen.push_back(4); });
  }
  CHECK(seen.size() == 4);
}

HUB_CASE("scope: results, arguments and options are spawn's") {
  fiber_scope scope;
  auto a = scope.spawn([](int x) { return x + 1; }, 41);
  auto b = scope.spawn({.name = "named"}, [] { return current().name(); });
  scope.join();
  CHECK(a.get() == 42);
  CHECK(b.get() == "named");
}

HUB_CASE("scope: the first error cancels the other children and is thrown by join") {
  std::string log;
  fiber_scope scope;
  auto sleeper = scope.spawn([&] {
    try {
      sleep(1h);
    } catch (const greenlet_exit&) {
      log += "cancelled ";
      sleep(1ms);
      log += "cleaned";
      throw;
    }
  });
  scope.spawn([] {
    sleep(1ms);
    throw first_error();
  });
  auto unstarted = spawn_later(1h, [&] { log += "never"; });
  scope.adopt(unstarted);
  CHECK_THROWS_AS(scope.join(), first_error);
  CHECK(log == "cancelled cleaned");
  CHECK(scope.cancelled());
  CHECK(scope.size() == 0);
  CHECK(unstarted.ready());
  scope.join();  // told once
  CHECK(scope.spawn([&] { log += "never"; }).ready());
}

HUB_CASE("scope: the first error interrupts the block where it waits, and leaves it as it is") {
  bool cleaned = false;
  auto run = [&] {
    fiber_scope scope;
    scope.spawn([&] {
      try {
        sleep(1h);
      } catch (...) {
        cleaned = true;
        throw;
      }
    });
    scope.spawn([] {
      sleep(1ms);
      throw first_error();
    });
    sleep(1h);
    CHECK(false);
  };
  CHECK_THROWS_AS(run(), first_error);
  CHECK(cleaned);
  sleep(1ms);  // nothing is left to interrupt this
}

HUB_CASE("scope: an error that nobody waited for is thrown at the block's end") {
  auto run = [] {
    fiber_scope scope;
    scope.spawn([] { throw first_error(); });
  };
  CHECK_THROWS_AS(run(), first_error);
}

HUB_CASE("scope: a block that is left by an exception cancels its children, and that exception goes on") {
  captured_stderr err;
  bool ran = false, never_ran = true;
  auto run = [&](bool wait_first) {
    fiber_scope scope;
    scope.spawn([&] {
      ran = true;
      try {
        sleep(1h);
      } catch (const greenlet_exit&) {
        sleep(1ms);
        throw first_error();  // from the cleanup
      }
    });
    if (wait_first) yield();
    scope.spawn([&] { never_ran = false; });
    throw 7;
  };
  CHECK_THROWS_AS(run(false), int);
  CHECK_FALSE(ran);
  CHECK_THROWS_AS(run(true), int);
  CHECK(ran);
  CHECK(never_ran);
  CHECK(times_in(err.end(), "first error") == 1);  // not lost: reported as one that nobody asked for
}

HUB_CASE("scope: errors after the first are reported") {
  captured_stderr err;
  fiber_scope scope;
  scope.spawn({.name = "second"}, [] {
    try {
      sleep(1h);
    } catch (const greenlet_exit&) {
      throw std::runtime_error("second error");
    }
  });
  scope.spawn([] {
    sleep(1ms);
    throw first_error();
  });
  CHECK_THROWS_AS(scope.join(), first_error);
  const std::string said = err.end();
  CHECK(contains(said, "'second' failed"));
  CHECK_FALSE(contains(said, "first error"));
}

HUB_CASE("scope: a kill and a timeout of its fiber cancel the children and go on when they have ended") {
  bool cleaned = false;
  auto body = [&] {
    fiber_scope scope;
    scope.spawn([&] {
      try {
        sleep(1h);
      } catch (const greenlet_exit&) {
        sleep(1ms);
        cleaned = true;
        throw;
      }
    });
    scope.join();
  };
  auto killed = spawn(body);
  yield();
  yield();
  killed.kill();
  CHECK(cleaned);
  CHECK(killed.successful());
  cleaned = false;
  CHECK_FALSE(with_timeout(1ms, body));
  CHECK(cleaned);
}

HUB_CASE("scope: a child that is killed has not failed") {
  fiber_scope scope;
  auto victim = scope.spawn([] { sleep(1h); });
  int other = 0;
  scope.spawn([&] {
    sleep(1ms);
    other = 1;
  });
  yield();
  victim.kill();
  scope.join();
  CHECK(other == 1);
  CHECK_FALSE(scope.cancelled());
}

HUB_CASE("scope: cancel, by the block or by a child, ends all at their next wait") {
  int ended = 0;
  fiber_scope scope;
  for (int i = 0; i < 3; ++i)
    scope.spawn([&] {
      try {
        sleep(1h);
      } catch (const greenlet_exit&) {
        ++ended;
        throw;
      }
    });
  scope.spawn([&] {
    scope.cancel();
    ++ended;
    sleep(1h);
    ended = 100;
  });
  scope.join();
  CHECK(ended == 4);
}

HUB_CASE("scope: children see its stop token, those that ask for it as an argument") {
  fiber_scope scope;
  bool stopped = false;
  auto computes = scope.spawn([](std::stop_token stop, int step) {
    int turns = 0;
    kill_shield uninterrupted;  // so that only the token tells it
    while (!stop.stop_requested()) {
      turns += step;
      yield();
    }
    return turns;
  }, 1);
  std::stop_callback call(scope.stop_token(), [&] { stopped = true; });
  scope.spawn([&] {
    sleep(1ms);
    scope.cancel();
  });
  scope.join();
  CHECK(computes.get() > 0);
  CHECK(stopped);
}

TEST_CASE("scope: is cancelled by a stop token from another thread, early, late or never") {
  for (int i = 0; i < 20; ++i) {
    std::stop_source source;
    std::thread stopper([&] { source.request_stop(); });
    {
      fiber_scope scope(source.get_token());
      scope.spawn([] { sleep(1h); });
      scope.join();
      CHECK(scope.cancelled());
    }
    stopper.join();
    {
      fiber_scope scope(source.get_token());  // requested already
      scope.spawn([] { sleep(1h); });
    }
    std::stop_source late;
    { fiber_scope scope(late.get_token()); }
    late.request_stop();
  }
}

HUB_CASE("scope: nested ones: the inner one's error ends the inner block, then the outer one") {
  std::string log;
  auto run = [&] {
    fiber_scope outer;
    outer.spawn([&] {
      try {
        sleep(1h);
      } catch (const greenlet_exit&) {
        log += "outer child ";
        throw;
      }
    });
    outer.spawn([&] {
      try {
        fiber_scope inner;
        inner.spawn([&] {
          sleep(1ms);
          log += "inner fails ";
          throw first_error();
        });
        sleep(1h);
      } catch (const first_error&) {
        log += "inner block ";
        throw;
      }
    });
    outer.join();
  };
  CHECK_THROWS_AS(run(), first_error);
  CHECK(log == "inner fails inner block outer child ");
}

HUB_CASE("scope: an error that the block's shield holds off is thrown when it is down") {
  fiber_scope scope;
  bool slept = false;
  scope.spawn([] { throw first_error(); });
  {
    kill_shield shield;
    sleep(1ms);
    slept = true;
  }
  CHECK_THROWS_AS(sleep(1h), first_error);
  CHECK(slept);
}

HUB_CASE("scope: a thousand children") {
  int sum = 0;
  {
    fiber_scope scope;
    for (int i = 0; i < 1000; ++i)
      scope.spawn([&, i] {
        sleep((i % 3) * 1ms);
        sum += i;
      });
  }
  CHECK(sum == 499500);
  CHECK_THROWS_AS([] {
    fiber_scope scope;
    for (int i = 0; i < 1000; ++i)
      scope.spawn([i] {
        sleep(1ms);
        if (i == 500) throw first_error();
        sleep(1h);
      });
  }(), first_error);
}
