// Who watches a hub: errors that nobody asked for, spawn callbacks, the wait for everything, the tree, monitor and checks.

#include <algorithm>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/lock.hpp"
#include "on_hub.hpp"

using namespace hub_test;

namespace {

struct handling {
  using handler = std::function<void(const hub::failure&)>;
  handler before;
  explicit handling(handler h) : before(hub::set_error_handler(std::move(h))) {}
  ~handling() { hub::set_error_handler(std::move(before)); }
};

// In a section of its own, whose end the linker tells: its size is what the compiler and its sanitizers make of it.
extern "C" char __start_code_of_burn[], __stop_code_of_burn[];
[[gnu::noinline, gnu::section("code_of_burn")]] void burn(std::chrono::milliseconds real_time) {
  const auto until = std::chrono::steady_clock::now() + real_time;
  while (std::chrono::steady_clock::now() < until) asm volatile("" ::: "memory");
}
// Until it has been reported, so that a slow machine's watcher has its time; and all of it is here, wherever a machine that stalls
// lets the watcher look.
[[gnu::section("code_of_burn"), gnu::noinline]] void burn_until_reported(const blocking_monitor& watch) {
  for (int i = 0; i < 1000 && watch.reports() == 0; ++i) burn(10ms);
  burn(60ms);
}
bool has_frame_of_burn(const std::vector<void*>& frames) {
  return std::ranges::any_of(frames, [](void* f) { return f > __start_code_of_burn && f <= __stop_code_of_burn; });
}

}  // namespace

// --- errors ----------------------------------------------------------------------------------------------------------

HUB_CASE("error handler: is told of unseen errors of fibers, links, posts and spawn callbacks, and stderr is not") {
  captured_stderr err;
  std::string log;
  handling h([&](const hub::failure& r) { log += std::string(r.what) + " " + r.fiber + ": " + error_of([&] { std::rethrow_exception(r.error); }) + "; "; });
  spawn({.name = "detached"}, [] { throw std::runtime_error("one"); }).join();
  yield();
  auto f = spawn({.name = "source"}, [] {});
  f.link([](any_fiber) { throw std::runtime_error("two"); });
  f.join();
  for (int i = 0; i < 5; ++i) yield();
  hub::here().post([] { throw std::runtime_error("three"); });
  sleep(1ms);
  const auto id = hub::add_spawn_callback([](const any_fiber&) { throw 4; });
  spawn({.name = "spawned"}, [] {}).join();
  hub::remove_spawn_callback(id);
  CHECK(contains(log, "fiber detached: one; fiber source's link: two; "));
  CHECK(contains(log, ": three; spawn callback spawned: 4; "));
  CHECK(err.end() == "");
}

HUB_CASE("error handler: what it throws is reported, and so is the error") {
  captured_stderr err;
  {
    handling h([](const hub::failure&) { throw std::runtime_error("broken handler"); });
    spawn({.name = "fails"}, [] { throw std::runtime_error("the error"); }).join();
    yield();
  }
  const std::string said = err.end();
  CHECK(contains(said, "'fails' failed"));
  CHECK(contains(said, "the error"));
  CHECK(contains(said, "broken handler"));
}

HUB_CASE("error handler: may bring an error to the main fiber, and the hub goes on") {
  captured_stderr err;
  struct fatal : std::runtime_error {
    fatal() : std::runtime_error("fatal") {}
  };
  const any_fiber main = current();
  handling h([&](const hub::failure& r) {
    try {
      std::rethrow_exception(r.error);
    } catch (const fatal&) {
      main.kill(r.error, deadline::passed());
    } catch (...) {
    }
  });
  auto fails = [&](auto error) {
    spawn([error] { throw error; });
    sleep(1ms);
  };
  fails(1);  // an ordinary one stops nobody
  if (current() == main) CHECK_THROWS_AS(fails(fatal()), fatal);
  hub::here().post([] { throw fatal(); });  // from a callback
  CHECK_THROWS_AS(sleep(1h), fatal);
  spawn_later(1ms, [] { throw fatal(); });  // from a timer
  CHECK_THROWS_AS(sleep(1h), fatal);
  int ran = 0;
  spawn([&] { ran = 1; }).join();
  CHECK(ran == 1);
}

// --- spawn callbacks, slots, the tree --------------------------------------------------------------------------------

HUB_CASE("spawn callback: is called in the spawner for each fiber, before it runs, until it is removed") {
  std::vector<std::string> seen;
  const any_fiber spawner = current();
  bool in_spawner = true;
  const auto id = hub::add_spawn_callback([&](const any_fiber& f) {
    seen.push_back(f.name());
    in_spawner = in_spawner && current() == spawner && !f.started();
    f.link([&](any_fiber) { seen.push_back("end"); });
  });
  const auto second = hub::add_spawn_callback([&](const any_fiber&) { seen.push_back("second"); });
  auto a = spawn({.name = "a"}, [] {});
  auto later = spawn_later(1h, [] {});
  later.set_name("later");
  CHECK(seen == std::vector<std::string>{"a", "second", "fiber-" + std::to_string(later.id()), "second"});
  CHECK(in_spawner);
  CHECK(hub::remove_spawn_callback(second));
  CHECK_FALSE(hub::remove_spawn_callback(second));
  CHECK(hub::remove_spawn_callback(id));
  spawn([] {}).join();
  CHECK(seen.size() == 5);  // and a's end
  later.kill();
  yield();
}

HUB_CASE("spawn callback: may kill the fiber before it runs") {
  bool ran = false;
  const auto id = hub::add_spawn_callback([](const any_fiber& f) { f.kill(); });
  auto now_or_never = spawn([&] { ran = true; });
  auto later = spawn_later(1ms, [&] { ran = true; });
  hub::remove_spawn_callback(id);
  CHECK(now_or_never.ready());
  CHECK(later.ready());
  sleep(2ms);
  CHECK_FALSE(ran);
}

HUB_CASE("fiber: slots are small, unlike each other's, and used again") {
  std::vector<any_fiber> all;
  for (int i = 0; i < 20; ++i) all.push_back(spawn([] { sleep(1h); }));
  std::set<std::uint32_t> slots;
  for (auto& f : all) slots.insert(f.slot());
  CHECK(slots.size() == 20);
  CHECK(*slots.begin() == 1);
  CHECK(*slots.rbegin() == 20);
  const auto third = all[3].slot();
  CHECK(all[3].slot() == third);
  all[3].kill();
  CHECK(spawn([] { return current().slot(); }).get() == third);
  killall(all);
  CHECK(spawn([] {}).slot() == 1);
  yield();
}

HUB_CASE("tree: fibers are told under those that spawned them") {
  event go;
  auto child = spawn({.name = "child"}, [&] {
    spawn({.name = "grandchild"}, [&] { go.wait(); });
    spawn({.name = "brief"}, [&] { spawn({.name = "orphan"}, [&] { go.wait(); }); });
    go.wait();
  });
  auto sibling = spawn({.name = "sibling"}, [&] { go.wait(); });
  for (int i = 0; i < 3; ++i) yield();
  CHECK(child.spawned_by() == 0);
  const std::string text = hub::describe_fibers({.tree = true});
  auto indent_of = [&](const char* name) {
    const auto at = text.find(std::string("'") + name + "'");
    const auto line = at == text.npos ? text.npos : text.rfind('\n', at) + 1;
    return line == text.npos ? -1 : int(text.find_first_not_of(' ', line) - line);
  };
  CAPTURE(text);
  CHECK(text.rfind("  main fiber: running", 0) == 0);
  CHECK(indent_of("child") == 4);
  CHECK(indent_of("grandchild") == 6);
  CHECK(indent_of("sibling") == 4);
  CHECK(indent_of("orphan") == 2);  // its spawner has finished
  CHECK(text.find("'child'") < text.find("'grandchild'"));
  CHECK(text.find("'grandchild'") < text.find("'sibling'"));
  go.set();
  hub::join();
}

// --- join ------------------------------------------------------------------------------------------------------------

HUB_CASE("hub join: returns when all have finished, at once if none is left, again and again") {
  CHECK(hub::join());
  CHECK(hub::join(deadline::passed()));
  for (int round = 0; round < 20; ++round) {
    int ended = 0;
    spawn([&] {
      sleep(1ms);
      spawn([&] {
        sleep(1ms);
        ++ended;
      });
      ++ended;
    });
    spawn_later(2ms, [&] { ++ended; });
    CHECK_FALSE(hub::join(deadline::passed()));
    CHECK(hub::join());
    CHECK(ended == 3);
  }
  auto f = spawn([] {});
  int linked = 0;
  f.link([&](any_fiber) {
    sleep(1ms);
    linked = 1;
  });
  CHECK(hub::join());
  CHECK(linked == 1);
}

HUB_CASE("hub join: gives up at its deadline, and ends early by an event that lets all finish") {
  event go;
  for (int i = 0; i < 3; ++i) spawn([&] { go.wait(); });
  yield();
  const auto start = now();
  CHECK_FALSE(hub::join(3ms));
  CHECK(took(start, 3ms));
  auto setter = spawn_later(2ms, [&] { go.set(); });
  CHECK(hub::join(1h));
  CHECK_FALSE(with_timeout(1ms, [] {
    auto f = spawn([] { sleep(1h); });
    struct at_end {
      any_fiber f;
      ~at_end() { f.kill(); }
    } kill{f};
    hub::join();
  }));
}

HUB_CASE("hub join: daemons do not hold it, and a fiber may join the rest") {
  auto daemon = spawn({.daemon = true}, [] { sleep(1h); });
  int ended = 0;
  spawn([&] {
    sleep(1ms);
    ++ended;
  });
  auto joiner = spawn([&] {
    hub::join();
    ended += 10;
  });
  joiner.join();
  CHECK(ended == 11);
  CHECK(hub::join());
  CHECK_FALSE(daemon.ready());
  daemon.kill();
}

TEST_CASE("hub join: what can never finish is a deadlock, and named") {
  if (has_background_thread()) RINGLET_SKIP("ThreadSanitizer has a thread of its own");
  event never_set;
  auto f = spawn({.name = "forever"}, [&] { never_set.wait(); });
  CHECK(contains(error_of([] { hub::join(); }), "'forever'"));
  f.kill();
}

TEST_CASE("hub join: on new threads, made and gone, many times") {
  for (int i = 0; i < 50; ++i) {
    int ended = 0;
    std::thread([&] {
      for (int n = 0; n < 3; ++n) spawn([&] { ++ended; });
      hub::join();
    }).join();
    CHECK(ended == 3);
  }
}

// --- monitor ---------------------------------------------------------------------------------------------------------

TEST_CASE("monitor: a fiber that computes for longer than the limit is reported once, by name, with its stack") {
  std::vector<blocking_report> reports;
  base::lock lock;
  blocking_monitor watch(20ms, [&](const blocking_report& r) {
    base::lock_guard hold(lock);
    reports.push_back(r);
  });
  spawn({.name = "greedy"}, [&] { burn_until_reported(watch); }).join();
  base::lock_guard hold(lock);
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].fiber == "greedy");
  CHECK(reports[0].at_least >= 20ms);
  CHECK(has_frame_of_burn(reports[0].frames));
}

TEST_CASE("monitor: idle, sleeping and yielding hubs are not reported, nor a crowd of short runs") {
  std::thread worker([&] { burn(200ms); });  // not of this hub
  struct at_end {
    std::thread& thread;
    ~at_end() { thread.join(); }
  } joins{worker};
  blocking_monitor watch(200ms);  // long, so that no stall of the machine makes one run of it
  sleep(100ms);
  std::vector<any_fiber> crowd;
  event all_there;  // so that they are one crowd
  for (int i = 0; i < 600; ++i) {
    crowd.push_back(spawn([&] {
      all_there.wait();
      for (int n = 0; n < 2; ++n) {
        burn(1ms);
        yield();
      }
    }));
    if (i % 4 == 0) yield();  // to make one takes a sanitizer a millisecond
  }
  all_there.set();
  joinall(crowd);
  CHECK(watch.reports() == 0);
}

TEST_CASE("monitor: by itself it says on stderr who blocks; the main fiber, too; and is silent when it has gone") {
  captured_stderr err;
  {
    blocking_monitor watch(10ms);
    for (int i = 0; i < 1000 && watch.reports() == 0; ++i) burn(10ms);
    sleep(1ms);
  }
  burn(50ms);
  const std::string said = err.end();
  CHECK(times_in(said, "fiber 'main' has run for 0.") == 1);
  CHECK(contains(said, "Cure"));
}

TEST_CASE("monitor: is nobody who could end a deadlock") {
  if (has_background_thread()) RINGLET_SKIP("ThreadSanitizer has a thread of its own");
  blocking_monitor watch;
  event e;
  CHECK_THROWS_AS(e.wait(), deadlock_error);
}

TEST_CASE("switch check: fails for what never switches or keeps the thread too long, and passes otherwise") {
  CHECK_THROWS_AS(require_switches(1h, [] {}), failed_to_switch);
  CHECK(require_switches(1h, [] {
    yield();
    sleep(1ms);
    return 5;
  }) == 5);
  CHECK(contains(error_of([] {
    require_switches(5ms, [] {
      sleep(1ms);
      burn(20ms);
      sleep(1ms);
    });
  }), "has kept the thread for"));
  spawn([] {
    switch_check check;
    CHECK(check.switches() == 0);
    sleep(1ms);
    sleep(1ms);
    CHECK(check.switches() == 2);
    check.finish();
  }).join();
  CHECK_FALSE(get_trace());
}
