// Timeout scopes: whose time is up, and that nobody else's is swallowed.

#include <string>

#include "on_hub.hpp"

using namespace hub_test;

HUB_CASE("timeout: interrupts a wait when the time is up, and says whose") {
  const auto start = now();
  timeout limit(5ms);
  CHECK(limit.pending());
  bool mine = false;
  try {
    sleep(1h);
  } catch (const timeout_expired& e) {
    mine = e.is(limit);
  }
  CHECK(mine);
  CHECK(limit.expired());
  CHECK_FALSE(limit.pending());
  CHECK(took(start, 5ms));
  sleep(1ms);  // thrown once
}

HUB_CASE("timeout: is no std::exception") {
  bool passed_by = true;
  try {
    timeout limit(1ms);
    try {
      sleep(1h);
    } catch (const std::exception&) {
      passed_by = false;
    }
  } catch (const timeout_expired& e) {
    CHECK(std::string(e.what()) == "ringlet::timeout_expired");
  }
  CHECK(passed_by);
}

HUB_CASE("timeout: nested, the inner one first") {
  timeout outer(50ms);
  try {
    timeout inner(2ms);
    try {
      sleep(1h);
      FAIL("not interrupted");
    } catch (const timeout_expired& e) {
      CHECK(e.is(inner));
      CHECK_FALSE(e.is(outer));
    }
    CHECK(outer.pending());
  } catch (const timeout_expired&) {
    FAIL("the inner one was not caught");
  }
  try {
    sleep(1h);
    FAIL("not interrupted");
  } catch (const timeout_expired& e) {
    CHECK(e.is(outer));
  }
}

HUB_CASE("timeout: nested, the outer one first, passes through the inner block") {
  timeout outer(2ms);
  bool inner_pending = false;
  try {
    timeout inner(1h);
    try {
      sleep(1h);
    } catch (const timeout_expired& e) {
      inner_pending = inner.pending();
      CHECK_FALSE(e.is(inner));
      throw;
    }
  } catch (const timeout_expired& e) {
    CHECK(e.is(outer));
  }
  CHECK(inner_pending);
}

HUB_CASE("timeout: of two that have run out the outer one is told") {
  timeout outer(1ms);
  try {
    timeout inner(1ms);
    const auto both = now() + 2ms;
    while (now() < both) yield();  // both fire; the outer one ends more
    sleep(1h);
    FAIL("not interrupted");
  } catch (const timeout_expired& e) {
    CHECK(e.is(outer));
  }
  sleep(1ms);
}

HUB_CASE("timeout: with_timeout gives the value or nothing, and only for its own") {
  CHECK(with_timeout(1h, [] { return 5; }) == 5);
  CHECK_FALSE(with_timeout(1ms, [] {
    sleep(1h);
    return 5;
  }));
  CHECK(with_timeout(1h, [] {}));
  CHECK_FALSE(with_timeout(1ms, [] { sleep(1h); }));
  timeout outer(2ms);
  try {
    with_timeout(1h, [] { sleep(2h); });
    FAIL("swallowed the outer one");
  } catch (const timeout_expired& e) {
    CHECK(e.is(outer));
  }
  CHECK_THROWS_AS(with_timeout(1h, []() -> int { throw std::runtime_error("x"); }), std::runtime_error);
}

HUB_CASE("timeout: is not delivered after the scope, nor after cancel") {
  {
    timeout limit(1ms);
  }
  {
    timeout limit(1ms);
    limit.cancel();
    CHECK_FALSE(limit.pending());
    CHECK_FALSE(limit.expired());
    limit.cancel();
    sleep(3ms);
  }
  {  // fired while the fiber did not wait, and never thrown
    timeout limit(1ms);
    const auto end = now() + 2ms;
    try {
      while (now() < end) yield();
    } catch (const timeout_expired&) {
    }
  }
  sleep(3ms);
  CHECK(hub::count().timers == 0);
}

HUB_CASE("timeout: of never does nothing") {
  timeout limit(never);
  CHECK(limit.pending());
  sleep(1ms);
  CHECK(limit.pending());
}

HUB_CASE("timeout: of zero fires in a loop of sleep(0)") {
  for (const auto length : {clock::duration(0), clock::duration(1ms)}) {
    timeout limit(length);
    bool fired = false;
    long rounds = 0;
    try {
      for (; rounds < 100'000'000; ++rounds) sleep(0s);
    } catch (const timeout_expired& e) {
      fired = e.is(limit);
    }
    CHECK(fired);
    if (length == length.zero()) CHECK(rounds < 5000);
  }
}

HUB_CASE("timeout: of zero fires in a fiber among a crowd of yielders") {
  bool stop = false;
  std::vector<any_fiber> crowd;
  for (int i = 0; i < 100; ++i)
    crowd.push_back(spawn([&] {
      while (!stop) yield();
    }));
  auto f = spawn([] {
    timeout limit(0s);
    while (true) yield();
  });
  CHECK_THROWS_AS(f.get(), timeout_expired);
  stop = true;
  joinall(crowd);
}

TEST_CASE("timeout: processor time burnt before arming does not shorten it") {
  yield();  // a turn has read the clock
  const auto burnt_until = now() + 30ms;
  while (now() < burnt_until) {
  }
  const auto start = now();
  timeout limit(15ms);
  try {
    sleep(1h);
  } catch (const timeout_expired&) {
  }
  CHECK(now() - start >= 15ms);
}

HUB_CASE("timeout: what arrived in time wins over the deadline") {
  // Woken and run out in the same turn: the value is taken.
  event e;
  bool got = false;
  auto f = spawn([&] { got = e.wait(10ms); });
  auto g = spawn([&] { sleep(10ms); });
  yield();
  if (is_simulated()) {
    sleep(9ms);
    e.set();
    sleep(10ms);
    CHECK(got);
  } else {
    e.set();
    f.join();
    CHECK(got);
  }
  joinall({f, g});
}

HUB_CASE("timeout: each wait of a fiber is interrupted: join, get, event, queue, semaphore, mutex, condition") {
  auto endless = spawn([] { sleep(1h); });
  event e;
  queue<int> empty, full(1);
  full.put(1);
  semaphore none(0);
  mutex held;
  auto holder = spawn([&] {
    held.lock();
    try {
      sleep(1h);
    } catch (const greenlet_exit&) {
    }
    held.unlock();
  });
  yield();
  mutex own;
  condition c;
  const std::vector<std::pair<const char*, std::function<void()>>> waits = {
      {"join", [&] { endless.join(); }},
      {"get", [&] { endless.get(); }},
      {"joinall", [&] { joinall({endless, holder}); }},
      {"event", [&] { e.wait(); }},
      {"queue::get", [&] { empty.get(); }},
      {"queue::put", [&] { full.put(2); }},
      {"semaphore", [&] { none.acquire(); }},
      {"mutex", [&] { held.lock(); }},
      {"condition", [&] {
         std::unique_lock hold(own);
         c.wait(own);
       }}};
  for (auto& each : waits) {
    const char* const name = each.first;
    const auto& wait = each.second;
    CAPTURE(name);
    timeout limit(1ms);
    CHECK(error_of(wait) == "ringlet::timeout_expired");
    auto f = spawn(wait);
    yield();
    CHECK(contains(hub::describe_fibers(), "parked in " + std::string(name == std::string("get") ? "join" : name)));
    f.kill();
    CHECK(f.ready());
  }
  killall({endless, holder});
  CHECK(empty.empty());
  CHECK(full.size() == 1);
  CHECK(held.try_lock());
  held.unlock();
}

HUB_CASE("timeout: one cancelled by another fiber after it has fired still arrives, before it never") {
  timeout* theirs = nullptr;
  for (const bool in_time : {true, false}) {
    auto f = spawn([&] {
      timeout limit(5ms);
      theirs = &limit;
      try {
        sleep(20ms);
        return true;
      } catch (const timeout_expired&) {
        return false;
      }
    });
    yield();
    if (in_time) {
      theirs->cancel();
    } else {
      while (!theirs->expired()) yield();
      if (!f.ready()) theirs->cancel();
    }
    CHECK(f.get() == in_time);
  }
}

HUB_CASE("timeout: scopes of two fibers do not know each other") {
  std::string log;
  auto fiber_with = [&](clock::duration length, const char* name) {
    return [&log, length, name] {
      timeout limit(length);
      try {
        sleep(1h);
      } catch (const timeout_expired& e) {
        CHECK(e.is(limit));
        log += name;
      }
    };
  };
  joinall({spawn(fiber_with(30ms, "c")), spawn(fiber_with(5ms, "a")), spawn(fiber_with(15ms, "b"))});
  CHECK(log == "abc");
}

HUB_CASE("timeout: restarted, it begins anew, also after it has fired or was cancelled") {
  timeout limit(1h);
  limit.restart(2ms);
  const auto start = now();
  CHECK_THROWS_AS(sleep(1h), timeout_expired);
  CHECK(took(start, 2ms));
  CHECK(limit.expired());
  CHECK(limit.thrown());
  limit.restart(3ms);
  CHECK(limit.pending());
  CHECK_FALSE(limit.thrown());
  CHECK_THROWS_AS(sleep(1h), timeout_expired);
  limit.restart(1ms);
  limit.cancel();
  CHECK_FALSE(limit.pending());
  sleep(2ms);
  limit.restart(1ms);
  bool mine = false;
  try {
    sleep(1h);
  } catch (const timeout_expired& e) {
    mine = e.is(limit);
  }
  CHECK(mine);
  limit.restart(never);
  sleep(1ms);
  auto other = spawn([&] { CHECK_THROWS_AS(limit.restart(1ms), std::logic_error); });
  other.join();
}

HUB_CASE("timeout: one that has fired and not been told is restarted, and then not told") {
  timeout limit(0s);
  {
    kill_shield shield;
    sleep(1ms);
    CHECK(limit.expired());
    limit.restart(1h);
  }
  sleep(1ms);
  CHECK_FALSE(limit.thrown());
}

HUB_CASE("timeout: may throw an exception of one's own, of any type") {
  struct too_slow : std::runtime_error {
    too_slow() : std::runtime_error("too slow") {}
  };
  timeout limit(1ms, too_slow());
  CHECK_THROWS_AS(sleep(1h), too_slow);
  CHECK(limit.thrown());
  timeout inner(1ms, std::make_exception_ptr(7));
  CHECK_THROWS_AS(sleep(1h), int);
  // with_timeout takes only its own for its own.
  CHECK_THROWS_AS(with_timeout(1h,
                               [] {
                                 timeout narrow(1ms, too_slow());
                                 sleep(1h);
                               }),
                  too_slow);
}

// --- shields ---------------------------------------------------------------------------------------------------------

HUB_CASE("shield: a kill waits until it is down, and is told at the next wait") {
  std::string log;
  auto f = spawn([&] {
    {
      kill_shield shield;
      sleep(2ms);
      log += "committed ";
      sleep(0s);
      log += "said goodbye ";
    }
    log += "unshielded ";
    sleep(1h);
    log += "never";
  });
  yield();
  CHECK_FALSE(f.kill(deadline::passed()));
  CHECK(f.kill());  // the second changes nothing
  CHECK(log == "committed said goodbye unshielded ");
  CHECK(f.successful());
}

HUB_CASE("shield: nests; a kill that was on its way when it went up waits, too") {
  std::string log;
  event go;
  auto f = spawn([&] {
    go.wait();
    kill_shield outer;
    {
      kill_shield inner;
      sleep(1ms);
      log += "inner ";
    }
    sleep(1ms);
    log += "outer ";
  });
  yield();
  go.set();                   // it is ready to run,
  f.kill(deadline::passed());  // and killed before it runs
  CHECK(f.join());
  CHECK(log == "inner outer ");
  CHECK(f.successful());
}

HUB_CASE("shield: holds off timeouts from outside of it, not those inside") {
  std::string log;
  auto f = spawn([&] {
    timeout outer(1ms);
    try {
      kill_shield shield;
      sleep(3ms);
      log += "slept ";
      CHECK(outer.expired());
      CHECK_FALSE(with_timeout(1ms, [] { sleep(1h); }));
      log += "inner ";
      with_timeout(1h, [] { sleep(1ms); });
    } catch (const timeout_expired&) {
      log += "too early";
    }
    try {
      sleep(1h);
    } catch (const timeout_expired& e) {
      log += e.is(outer) ? "outer" : "?";
    }
  });
  f.get();
  CHECK(log == "slept inner outer");
}

HUB_CASE("shield: a fiber that is killed inside it and ends there was not killed") {
  auto f = spawn([] {
    kill_shield shield;
    sleep(2ms);
    return 5;
  });
  yield();
  f.kill();
  CHECK(f.get() == 5);
}

TEST_CASE("shield: a deadlock is told through it") {
  if (has_background_thread()) RINGLET_SKIP("ThreadSanitizer has a thread of its own");
  kill_shield shield;
  event e;
  CHECK_THROWS_AS(e.wait(), deadlock_error);
}
