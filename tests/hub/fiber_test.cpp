// Fibers: in which order they run, how they end, and who is told.

#include <algorithm>
#include <cfenv>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "on_hub.hpp"

using namespace hub_test;

namespace {

struct appends {
  std::string& log;
  const char* text;
  ~appends() { log += text; }
};

struct own_error : std::runtime_error {
  own_error() : std::runtime_error("own error") {}
};

}  // namespace

HUB_CASE("fiber: the rounding mode of floating point is each fiber's own") {
  REQUIRE(std::fegetround() == FE_TONEAREST);
  bool kept = false;
  auto upward = spawn([&] {
    std::fesetround(FE_UPWARD);
    yield();
    kept = std::fegetround() == FE_UPWARD;
  });
  yield();
  CHECK(std::fegetround() == FE_TONEAREST);
  auto later = spawn([] { return std::fegetround(); });
  CHECK(later.get() == FE_TONEAREST);
  upward.join();
  CHECK(kept);
  CHECK(std::fegetround() == FE_TONEAREST);
}

// --- order -----------------------------------------------------------------------------------------------------------

HUB_CASE("spawn: only queues; nothing runs until the spawner waits") {
  std::string log;
  auto a = spawn([&] { log += 'a'; });
  auto b = spawn([&] { log += 'b'; });
  log += '0';
  CHECK_FALSE(a.started());
  CHECK(hub::count().fibers == 2);
  CHECK(hub::count().ready == 2);
  yield();
  CHECK(log == "0ab");
  CHECK(a.ready());
  CHECK(b.ready());
}

HUB_CASE("sleep(0): lets all that are ready run first, in order") {
  std::string log;
  auto speaker = [&](const char* name) {
    return [&log, name] {
      log += std::string(name) + "A ";
      sleep(0s);
      log += std::string(name) + "B ";
    };
  };
  joinall({spawn(speaker("1")), spawn(speaker("2"))});
  CHECK(log == "1A 2A 1B 2B ");
}

HUB_CASE("spawn: a fiber's own children come after those who were ready before") {
  std::string log;
  std::vector<any_fiber> all;
  all.push_back(spawn([&] {
    log += '1';
    all.push_back(spawn([&] { log += '3'; }));
  }));
  all.push_back(spawn([&] { log += '2'; }));
  while (std::count(log.begin(), log.end(), '3') == 0) yield();
  CHECK(log == "123");
}

HUB_CASE("sleep: fibers wake by their moments, equal moments in the order of sleeping") {
  std::string log;
  std::vector<any_fiber> all;
  const auto start = now();
  const auto unit = is_simulated() ? clock::duration(1h) : clock::duration(4ms);
  const auto begin = clock::now();
  for (int n : {5, 1, 3, 1, 2})
    all.push_back(spawn([&, n, id = char('a' + all.size())] {
      sleep(deadline(begin + n * unit));
      log += id;
    }));
  yield();
  const bool all_sleep = now() < begin + unit;  // on a machine that stood still, some found their moment passed
  joinall(all);
  if (all_sleep) CHECK(log == "bdeca");
  CHECK(took(start, 5 * unit));
}

HUB_CASE("sleep: negative is zero, and never wakes only by interruption") {
  const auto start = now();
  sleep(-5s);
  if (is_simulated()) CHECK(now() == start);
  auto f = spawn([] { sleep(never); });
  yield();
  CHECK(f.started());
  f.kill();
  CHECK(f.ready());
}

HUB_CASE("spawn_later: begins at its moment, and not if killed before") {
  std::string log;
  const auto start = now();
  auto late = spawn_later(is_simulated() ? clock::duration(1h) : clock::duration(5ms), [&] { log += "late "; });
  auto killed = spawn_later(1h, [&] { log += "killed "; });
  auto never_begins = spawn_later(never, [&] { log += "never "; });
  yield();
  CHECK_FALSE(late.started());
  CHECK(killed.kill());
  CHECK(killed.ready());
  CHECK(killed.successful());
  CHECK(never_begins.kill());
  CHECK(late.join());
  CHECK(log == "late ");
  CHECK(took(start, is_simulated() ? clock::duration(1h) : clock::duration(5ms)));
  CHECK(hub::count().timers == 0);
}

HUB_CASE("spawn: arguments are moved into the fiber, references by std::ref") {
  auto p = std::make_unique<int>(4);
  int x = 1;
  auto f = spawn([](std::unique_ptr<int> q, int& r, const std::string& s) { return r += *q + int(s.size()); }, std::move(p), std::ref(x),
                 std::string("abc"));
  CHECK(f.get() == 8);
  CHECK(x == 8);
}

HUB_CASE("spawn: what was captured goes with the run, not with the handle") {
  auto value = std::make_shared<int>(1);
  auto returns = spawn([value] {});
  auto fails = spawn([value] { throw own_error(); });
  joinall({returns, fails});
  CHECK(value.use_count() == 1);
  CHECK(fails.exception());
}

HUB_CASE("spawn: a constructor that throws leaves nothing") {
  struct refuses {
    refuses() = default;
    refuses(const refuses&) { throw own_error(); }
    void operator()() const {}
  };
  refuses r;
  CHECK_THROWS_AS(spawn(r), own_error);
}

// --- results ---------------------------------------------------------------------------------------------------------

HUB_CASE("get: the value, to many, as a reference to the same") {
  auto f = spawn([] { return std::string("result"); });
  std::vector<const std::string*> seen;
  std::vector<any_fiber> getters;
  for (int i = 0; i < 3; ++i) getters.push_back(spawn([&] { seen.push_back(&f.get()); }));
  joinall(getters);
  CHECK(seen.size() == 3);
  CHECK(seen[0] == seen[2]);
  CHECK(*seen[1] == "result");
  int n = 0;
  auto reference = spawn([&]() -> int& { return n; });
  CHECK(&reference.get() == &n);
  spawn([] {}).get();
}

HUB_CASE("get: one error, rethrown to each who asks") {
  auto f = spawn([]() -> int { throw own_error(); });
  int caught = 0;
  std::vector<any_fiber> getters;
  for (int i = 0; i < 3; ++i)
    getters.push_back(spawn([&] {
      try {
        f.get();
      } catch (const own_error&) {
        ++caught;
      }
    }));
  CHECK_THROWS_AS(f.get(), own_error);
  joinall(getters);
  CHECK(caught == 3);
  CHECK_FALSE(f.successful());
  CHECK(f.exception());
  CHECK(f.join());  // never throws the fiber's own error
}

HUB_CASE("get: not_ready when the deadline passes, greenlet_exit when it was killed") {
  auto f = spawn([] {
    sleep(1h);
    return 1;
  });
  CHECK_THROWS_AS(f.get(0s), not_ready);
  CHECK_THROWS_AS(f.get(1ms), not_ready);
  CHECK_THROWS_AS(f.get(deadline::passed()), not_ready);
  f.kill();
  CHECK_THROWS_AS(f.get(), greenlet_exit);
}

HUB_CASE("handle: misuse is an error that says what and how") {
  any_fiber none;
  CHECK(none.empty());
  CHECK(contains(error_of([&] { none.join(); }), "empty fiber handle"));
  CHECK(contains(error_of([&] { none.kill(); }), "empty fiber handle"));
  CHECK(contains(error_of([&] { fiber<int>().get(); }), "empty fiber handle"));
  CHECK(contains(error_of([&] { none.link([](any_fiber) {}); }), "empty fiber handle"));
  CHECK(contains(error_of([&] { joinall({none}); }), "empty fiber handle"));
  CHECK_FALSE(none.ready());
  CHECK(none.name() == "no fiber");
  auto self = spawn([] { return error_of([] { current().join(); }) + error_of([] { joinall({current()}); }); });
  CHECK(times_in(self.get(), "joins itself") == 2);
  auto f = spawn([] {});
  CHECK_THROWS_AS(f.kill(std::exception_ptr()), std::invalid_argument);
  f.join();
}

TEST_CASE("handle: from another thread is wrong_thread, also from one with a hub, and after the owner's end") {
  auto f = spawn([] { sleep(1h); });
  yield();
  std::thread([&] {
    CHECK_THROWS_AS(f.join(), wrong_thread);
    spawn([&] {
      CHECK_THROWS_AS(f.kill(), wrong_thread);
      CHECK_THROWS_AS(joinall({f}), wrong_thread);
      CHECK_THROWS_AS(f.get(), wrong_thread);
      CHECK_THROWS_AS(f.link([](any_fiber) {}), wrong_thread);
    }).join();
  }).join();
  CHECK(f.kill());
  f = {};
  for (int i = 0; i < 10; ++i) {
    any_fiber orphan, main;
    std::thread([&] {
      orphan = spawn([] { sleep(1h); });
      main = current();
      yield();
    }).join();
    CHECK(orphan.ready());  // killed at its thread's end
    CHECK(main.ready());
    CHECK_THROWS_AS(orphan.join(), wrong_thread);
    std::thread([&] {
      spawn([] {}).join();  // a hub, perhaps at the same address
      CHECK_THROWS_AS(orphan.join(), wrong_thread);
      CHECK_THROWS_AS(main.kill(), wrong_thread);
    }).join();
  }
}

HUB_CASE("fiber: names, ids and current()") {
  CHECK(current().name() == "main");
  CHECK(current().id() == 0);
  auto f = spawn({.name = "worker"}, [] {
    const std::string first = current().name();
    current().set_name("renamed");
    return first;
  });
  auto unnamed = spawn([] { return current().id(); });
  CHECK(f.get() == "worker");
  CHECK(f.name() == "renamed");
  CHECK(unnamed.name() == "fiber-" + std::to_string(unnamed.get()));
  CHECK(unnamed.id() == f.id() + 1);
  CHECK(current() == current());
  CHECK(f != any_fiber(unnamed));
}

// --- join ------------------------------------------------------------------------------------------------------------

HUB_CASE("join: true at the end, false at the deadline, never the fiber's error") {
  event may_end;
  auto f = spawn([&] {
    may_end.wait();
    throw own_error();
  });
  CHECK_FALSE(f.join(1ms));
  CHECK_FALSE(f.join(deadline::passed()));
  may_end.set();
  CHECK(f.join(10s));
  CHECK(f.join(deadline::passed()));
  CHECK(f.exception());
}

HUB_CASE("join: many wait for one and are told in the order they came") {
  std::string log;
  event go;
  auto f = spawn([&] { go.wait(); });
  std::vector<any_fiber> waiters;
  for (char c = 'a'; c < 'f'; ++c)
    waiters.push_back(spawn([&, c] {
      f.join();
      log += c;
    }));
  yield();
  waiters[2].kill();
  go.set();
  joinall(waiters);
  CHECK(log == "abde");
}

HUB_CASE("joinall: in the order of finishing; duplicates once; nothing for nothing") {
  auto slow = spawn([] { sleep(20ms); });
  auto fast = spawn([] { sleep(2ms); });
  auto done = spawn([] {});
  done.join();
  CHECK(joinall({slow, fast, slow, done, fast}) == std::vector<any_fiber>{done, fast, slow});
  CHECK(joinall(std::vector<any_fiber>()).empty());
  const std::vector<fiber<>> typed{spawn([] {}), spawn([] {})};
  CHECK(joinall(typed).size() == 2);
}

HUB_CASE("joinall: a timeout gives those that are finished; count stops early") {
  std::vector<any_fiber> all;
  for (int ms : {1, 2, 3}) all.push_back(spawn([ms] { sleep(ms * 1ms); }));
  auto endless = spawn([] { sleep(1h); });
  all.push_back(endless);
  CHECK(joinall(all, {.count = 2}).size() == 2);
  CHECK(joinall(all, {.until = 50ms}).size() == 3);
  CHECK(joinall(all, {.until = deadline::passed()}).size() == 3);
  CHECK(joinall(all, {.count = 0}).empty());
  CHECK(joinall({endless}, {.until = 0s}).empty());
  endless.kill();
  CHECK(joinall(all).size() == 4);
}

HUB_CASE("joinall: raise_error throws the error of the first to finish with one, at once") {
  auto never_ends = spawn([] { sleep(1h); });
  auto later = spawn([] {
    sleep(10ms);
    throw std::logic_error("later");
  });
  auto first = spawn([] {
    sleep(2ms);
    throw own_error();
  });
  auto fine = spawn([] {});
  CHECK_THROWS_AS(joinall({never_ends, later, first, fine}, {.raise_error = true}), own_error);
  CHECK_THROWS_AS(joinall({later, fine}, {.raise_error = true}), std::logic_error);
  never_ends.kill();
  CHECK(joinall({never_ends, fine}, {.raise_error = true}).size() == 2);  // greenlet_exit is no error
}

HUB_CASE("joinall: leaves no trace when it is killed") {
  auto f = spawn([] { sleep(1h); });
  auto joiner = spawn([&] { joinall({f}); });
  yield();
  joiner.kill();
  CHECK(joiner.ready());
  f.kill();
}

// --- kill ------------------------------------------------------------------------------------------------------------

HUB_CASE("kill: matrix of state, waiting and reason") {
  enum state { unstarted, delayed, parked_in_sleep, parked_in_event, ready_again, finished };
  for (const state s : {unstarted, delayed, parked_in_sleep, parked_in_event, ready_again, finished})
    for (const bool wait : {true, false})
      for (const bool own : {true, false})
        for (const bool by_killall : {true, false}) {
          CAPTURE(int(s));
          CAPTURE(wait);
          CAPTURE(own);
          CAPTURE(by_killall);
          bool ran = false, ended = false;
          event gate;
          auto body = [&] {
            ran = true;
            struct at_end {
              bool& flag;
              ~at_end() { flag = true; }
            } mark{ended};
            if (s == finished) return;
            if (s == parked_in_sleep) sleep(1h);
            gate.wait();
            if (s == ready_again) sleep(1h);
          };
          auto f = s == delayed ? spawn_later(1h, body) : spawn(body);
          if (s > delayed) yield();
          if (s == ready_again) gate.set();
          int links = 0;
          f.link([&](any_fiber) { ++links; });
          const auto reason = own ? std::make_exception_ptr(own_error()) : std::make_exception_ptr(greenlet_exit{});
          const deadline until = wait ? never : deadline::passed();
          const bool done = by_killall ? killall({f}, reason, until) : f.kill(reason, until);
          if (wait || s < parked_in_sleep || s == finished) CHECK(done);
          CHECK(done == f.ready());
          CHECK(f.join());
          CHECK(ran == (s > delayed));
          CHECK(ended == ran);
          CHECK(f.successful() == (s == finished || !own));
          if (s == finished)
            CHECK(error_of([&] { f.get(); }) == "");
          else
            CHECK(error_of([&] { f.get(); }) == (own ? "own error" : "ringlet::greenlet_exit"));
          CHECK(f.kill());  // again: nothing happens
          while (links == 0) yield();
          CHECK(links == 1);
        }
}

HUB_CASE("kill: the running fiber throws here") {
  auto f = spawn([] { current().kill(); });
  f.join();
  CHECK(f.successful());
  CHECK_THROWS_AS(f.get(), greenlet_exit);
  auto g = spawn([] { killall({current()}, std::make_exception_ptr(own_error())); });
  CHECK_THROWS_AS(g.get(), own_error);
  CHECK_THROWS_AS(current().kill(std::make_exception_ptr(own_error())), own_error);
}

HUB_CASE("kill: a victim may catch it and live on") {
  auto f = spawn([] {
    try {
      sleep(1h);
    } catch (const greenlet_exit&) {
    }
    sleep(1ms);
    return 7;
  });
  yield();
  CHECK_FALSE(f.kill(0s));
  CHECK(f.get() == 7);
}

HUB_CASE("kill: a second one while the first is on its way changes nothing") {
  int thrown = 0;
  auto f = spawn([&] {
    for (int i = 0; i < 2; ++i) try {
        sleep(5ms);
      } catch (const own_error&) {
        ++thrown;
      } catch (const greenlet_exit&) {
        thrown += 100;
      }
  });
  yield();
  f.kill(std::make_exception_ptr(own_error()), deadline::passed());
  f.kill(deadline::passed());
  f.join();
  CHECK(thrown == 1);
}

HUB_CASE("kill: while it cleans up it may wait, and be killed again") {
  std::string log;
  auto f = spawn([&] {
    try {
      sleep(1h);
    } catch (const greenlet_exit&) {
      log += "cleaning ";
      sleep(1ms);
      log += "cleaned ";
      try {
        sleep(1h);
      } catch (const greenlet_exit&) {
        log += "again ";
      }
      throw;
    }
  });
  yield();
  CHECK_FALSE(f.kill(20ms));
  CHECK(f.kill());
  CHECK(log == "cleaning cleaned again ");
  CHECK(f.successful());
}

HUB_CASE("kill: destructors of locals may wait") {
  bool done = false;
  struct waits_at_end {
    bool& flag;
    ~waits_at_end() {
      sleep(1ms);
      flag = true;
    }
  };
  auto f = spawn([&] {
    waits_at_end w{done};
    sleep(1h);
  });
  yield();
  CHECK(f.kill());
  CHECK(done);
}

HUB_CASE("kill: a value that is already there is not lost") {
  // The victim has been woken but has not run: it takes what woke it, and dies at its next wait.
  queue<int> q;
  int got = 0;
  auto f = spawn([&] {
    got = *q.get();
    sleep(1h);
  });
  yield();
  q.put(5);
  f.kill();
  CHECK(got == 5);
  CHECK(f.ready());
}

HUB_CASE("kill: several reasons of any type arrive as they are") {
  for (const int kind : {0, 1, 2}) {
    CAPTURE(kind);
    auto f = spawn([] { sleep(1h); });
    yield();
    f.kill(kind == 0   ? std::make_exception_ptr(42)
           : kind == 1 ? std::make_exception_ptr(std::string("text"))
                       : std::make_exception_ptr(own_error()));
    CHECK_FALSE(f.successful());
    bool right = false;
    try {
      f.get();
    } catch (int n) {
      right = kind == 0 && n == 42;
    } catch (const std::string& s) {
      right = kind == 1 && s == "text";
    } catch (const own_error&) {
      right = kind == 2;
    }
    CHECK(right);
  }
}

HUB_CASE("killall: each once, begun or not; a deadline for those that resist") {
  std::string log;
  std::vector<any_fiber> all;
  for (int i = 0; i < 3; ++i)
    all.push_back(spawn([&] {
      try {
        sleep(1h);
      } catch (const greenlet_exit&) {
        log += 'k';
      }
    }));
  yield();
  all.push_back(spawn([&] { log += "never"; }));
  all.push_back(spawn_later(1h, [&] { log += "never"; }));
  all.push_back(all[0]);
  CHECK(killall(all));
  CHECK(log == "kkk");
  for (auto& f : all) CHECK(f.ready());

  int kills = 0;
  auto stubborn = spawn([&] {
    for (int i = 0; i < 2; ++i) try {
        sleep(1h);
      } catch (const greenlet_exit&) {
        ++kills;
      }
  });
  auto meek = spawn([] { sleep(1h); });
  yield();
  CHECK_FALSE(killall({stubborn, meek}, 5ms));
  CHECK(meek.ready());
  CHECK(kills == 1);
  CHECK_FALSE(killall({stubborn}, deadline::passed()));
  CHECK(stubborn.join());
  CHECK(kills == 2);
}

HUB_CASE("killall: may contain the caller, who dies last") {
  auto other = spawn([] { sleep(1h); });
  yield();
  auto f = spawn([&] { killall({current(), other}); });
  f.join();
  CHECK(other.ready());
  CHECK_THROWS_AS(f.get(), greenlet_exit);
}

// --- links -----------------------------------------------------------------------------------------------------------

HUB_CASE("link: a thousand are called in the order of adding") {
  std::vector<int> order;
  auto f = spawn([] { yield(); });
  for (int i = 0; i < 1000; ++i) f.link([&order, i](any_fiber) { order.push_back(i); });
  f.join();
  for (int i = 0; i < 1000 && order.size() < 1000; ++i) yield();
  std::vector<int> wanted(1000);
  std::iota(wanted.begin(), wanted.end(), 0);
  CHECK(order == wanted);
}

HUB_CASE("link: by value, by exception, to one that is finished; unlinked ones are not called") {
  std::string log;
  auto say = [&](const char* text) { return [&log, text](any_fiber) { log += text; }; };
  auto good = spawn([] {});
  auto bad = spawn([] { throw own_error(); });
  auto killed = spawn([] { sleep(1h); });
  for (auto& [f, name] : std::vector<std::pair<any_fiber, std::string>>{{good, "g"}, {bad, "b"}, {killed, "k"}}) {
    f.link([&log, n = name](any_fiber about) {
      log += n + (about.ready() ? "+" : "?");
    });
    f.link_value([&log, n = name](any_fiber) { log += n + "v "; });
    f.link_exception([&log, n = name](any_fiber) { log += n + "e "; });
    const auto id = f.link(say("unlinked"));
    f.unlink(id);
    f.unlink(id);
    f.unlink(12345);
  }
  yield();
  killed.kill();
  for (int i = 0; i < 20; ++i) yield();
  CHECK(log == "g+gv b+be k+kv ");
  log.clear();
  good.link(say("late"));
  CHECK(log == "");  // not at once: from a fiber of its own
  yield();
  CHECK(log == "late");
}

HUB_CASE("link: one that throws is reported and does not stop the others; one may wait") {
  captured_stderr err;
  std::string log;
  auto f = spawn({.name = "source"}, [] {});
  f.link([&](any_fiber) { log += '1'; });
  f.link([&](any_fiber) { throw std::runtime_error("bad link"); });
  f.link([&](any_fiber) {
    sleep(1ms);
    log += '3';
  });
  f.link([&](any_fiber) { log += '2'; });
  f.join();
  while (log.size() < 3) sleep(1ms);
  yield();
  CHECK(log == "123");
  const std::string said = err.end();
  CHECK(times_in(said, "bad link") == 1);
  CHECK(contains(said, "source's link"));
}

HUB_CASE("link: may unlink a later one, and link anew") {
  std::string log;
  auto f = spawn([] { yield(); });
  std::uint64_t second = 0;
  f.link([&](any_fiber about) {
    log += '1';
    about.link([&](any_fiber) { log += '3'; });
  });
  second = f.link([&](any_fiber) { log += '2'; });
  f.unlink(second);
  f.join();
  for (int i = 0; i < 5; ++i) yield();
  CHECK(log == "13");
}

// --- errors that nobody saw --------------------------------------------------------------------------------------------

HUB_CASE("error: unseen ones are told once on stderr, with name, type and text") {
  captured_stderr err;
  spawn({.name = "detached"}, [] { throw own_error(); });
  spawn({.name = "odd"}, [] { throw 42; });
  {
    auto joined = spawn({.name = "joined"}, [] { throw own_error(); });
    joined.join();
  }
  {
    auto asked = spawn({.name = "asked"}, [] { throw own_error(); });
    asked.join();
    CHECK(asked.exception());
    auto got = spawn({.name = "got"}, [] { throw own_error(); });
    CHECK_THROWS(got.get());
    auto raised = spawn({.name = "raised"}, [] { throw own_error(); });
    CHECK_THROWS(joinall({raised}, {.raise_error = true}));
    auto killed = spawn({.name = "killed"}, [] { sleep(1h); });
    killed.kill();
  }
  yield();
  yield();
  const std::string said = err.end();
  CAPTURE(said);
  CHECK(times_in(said, "'detached' failed") == 1);
  CHECK(times_in(said, "own_error: own error") == 2);
  CHECK(times_in(said, "'odd' failed") == 1);
  CHECK(contains(said, "of type int"));
  CHECK(times_in(said, "'joined' failed") == 1);
  for (const char* seen : {"'asked'", "'got'", "'raised'", "'killed'"}) CHECK_FALSE(contains(said, seen));
}

HUB_CASE("error: the exception being handled is kept across waits and other fibers' failures") {
  auto f = spawn([] {
    try {
      throw own_error();
    } catch (const own_error&) {
      auto other = spawn([] { throw std::logic_error("other"); });
      sleep(1ms);
      CHECK(other.exception());
      CHECK(error_of([] { std::rethrow_exception(std::current_exception()); }) == "own error");
    }
    CHECK(std::current_exception() == nullptr);
  });
  f.get();
}

// --- many ------------------------------------------------------------------------------------------------------------

HUB_CASE("fiber: ten thousand sleep, yield and end") {
  const int count = support::is_instrumented() ? 1000 : 10'000;
  int sum = 0;
  std::vector<any_fiber> all;
  for (int i = 0; i < count; ++i)
    all.push_back(spawn([&sum, i] {
      sleep((i % 7) * 1ms);
      yield();
      ++sum;
    }));
  CHECK(joinall(all).size() == std::size_t(count));
  CHECK(sum == count);
}

HUB_CASE("link: all links may be taken away at once") {
  int told = 0;
  auto f = spawn([] {});
  CHECK_FALSE(f.has_links());
  for (int i = 0; i < 3; ++i) f.link([&](any_fiber) { ++told; });
  CHECK(f.has_links());
  f.unlink_all();
  CHECK_FALSE(f.has_links());
  f.join();
  yield();
  CHECK(told == 0);
}
