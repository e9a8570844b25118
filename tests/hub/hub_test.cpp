// The hub: its turn, fairness, deadlocks, messages from other threads, its making and its end.

#include <fcntl.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include <ringlet/io.hpp>

#include "loop/crew.hpp"
#include "on_hub.hpp"
#include "support/thread_state.hpp"

using namespace hub_test;

// --- deadlock --------------------------------------------------------------------------------------------------------

TEST_CASE("deadlock: the main fiber is told of every parked fiber and what it waits on, and goes on afterwards") {
  if (has_background_thread()) RINGLET_SKIP("ThreadSanitizer has a thread of its own");
  event e, unused;
  semaphore s(0);
  queue<int> q;
  auto a = spawn({.name = "first"}, [&] { e.wait(); });
  auto b = spawn({.name = "second"}, [&] { s.acquire(); });
  auto c = spawn([&] { q.get(); });
  auto d = spawn_later(never, [] {});
  std::string text;
  try {
    unused.wait();
  } catch (const deadlock_error& error) {
    text = error.what();
  }
  CAPTURE(text);
  char address[32];
  std::snprintf(address, sizeof address, "%p", static_cast<void*>(&e));
  for (const std::string& part : std::vector<std::string>{"deadlock", "main fiber: parked in event", "'first': parked in event on " + std::string(address),
                                 "'second': parked in semaphore on", "parked in queue::get", "to begin later", " for 0."})
    CHECK(contains(text, part));
  e.set();
  s.release();
  q.put(1);
  joinall({a, b, c});
  CHECK(a.successful());
  CHECK_THROWS_AS(unused.wait(), deadlock_error);  // again
  CHECK_THROWS_AS(q.get(), deadlock_error);
  auto sleeper = spawn([] { sleep(never); });
  CHECK_THROWS_AS(sleeper.join(), deadlock_error);
  sleeper.kill();
  d.kill();
  hub::handle nothing;
  killall({a, b, c});
}

TEST_CASE("deadlock: leftover fiber of the case before is still there to be killed") {
  if (has_background_thread()) RINGLET_SKIP("ThreadSanitizer has a thread of its own");
  any_fiber left;
  event e;
  left = spawn([&] { e.wait(); });
  CHECK_THROWS_AS(left.join(), deadlock_error);
  CHECK(left.kill());
}

TEST_CASE("deadlock: is none while a timer, another thread, an fd or a handle could wake somebody") {
  event e;
  CHECK_FALSE(e.wait(5ms));
  {
    timeout limit(5ms);
    CHECK_THROWS_AS(e.wait(), timeout_expired);
  }
  std::thread other([&] {
    std::this_thread::sleep_for(20ms);  // the silence in which a hub looks whether somebody could wake it
    e.set();
  });
  e.wait();
  other.join();
  if (has_background_thread()) return;
  e.clear();
  hub::handle held = hub::here();
  std::thread poster([&] {
    std::this_thread::sleep_for(20ms);
    held.post([&] { e.set(); });
  });
  e.wait();
  poster.join();
  held = {};
  e.clear();
  CHECK_THROWS_AS(e.wait(), deadlock_error);
}

TEST_CASE("deadlock: is told although the kernel still keeps threads for files that were read") {
  if (has_background_thread()) RINGLET_SKIP("ThreadSanitizer has a thread of its own");
  support::temporary_directory folder;
  const std::string path = folder.path() / "file";
  support::fd file(int(io::openat(AT_FDCWD, path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)));
  CHECK(file.get() >= 0);
  CHECK(io::fsync(file) == 0);
  event e;
  CHECK_THROWS_AS(e.wait(), deadlock_error);
}

// Waits until it is set; how many deadlocks were told meanwhile.
static int false_alarms(event& e) {
  for (int told = 0;; ++told) try {
      e.wait();
      return told;
    } catch (const deadlock_error&) {
    }
}

TEST_CASE("deadlock: is none while another thread makes helpers for its own work, whatever the moment") {
  // Each helper leaves as soon as it has nothing to do: threads come and go in every moment of a look.
  struct task : loop::job {
    std::atomic<bool> done{false};
  };
  auto* helpers = new loop::crew(1, loop::crew::works_for::runtime, std::chrono::nanoseconds(1));
  std::atomic<event*> asked{nullptr};
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) {
      event* const e = asked.exchange(nullptr);
      if (!e) continue;
      for (const auto end = std::chrono::steady_clock::now() + 8ms; std::chrono::steady_clock::now() < end;) {
        task t;
        t.run = [](loop::job& self) { static_cast<task&>(self).done = true; };
        if (helpers->submit(t) == 0)
          while (!t.done) std::this_thread::yield();
      }
      e->set();
    }
  });
  int told = 0;
  for (int round = 0; round < 200; ++round) {
    event e;
    asked = &e;
    told += false_alarms(e);
  }
  stop = true;
  other.join();
  helpers->disband();
  CHECK(told == 0);
}

TEST_CASE("deadlock: is none while another thread lives, however many end during the look") {
  // The kernel's list of threads ends at one that dies while it is read: those behind it, the reader among them, are missed.
  int told = 0;
  for (int round = 0; round < 100; ++round) {
    const auto base = std::chrono::steady_clock::now() + 6ms;  // the first look comes 5 ms after the wait begins
    std::vector<std::thread> mortals;
    for (int i = 0; i < 150; ++i) mortals.emplace_back([=] { std::this_thread::sleep_until(base + 4500us + i * 8us); });
    event e;
    std::atomic<bool> waits{false};
    std::thread looker([&] {
      std::this_thread::sleep_until(base);
      waits = true;
      told += false_alarms(e);
    });
    for (auto& each : mortals) each.join();
    while (!waits) std::this_thread::yield();
    e.set();
    looker.join();
  }
  CHECK(told == 0);
}

TEST_CASE("deadlock: a join of a fiber that waits for main is told too") {
  if (has_background_thread()) RINGLET_SKIP("ThreadSanitizer has a thread of its own");
  const any_fiber main = current();
  auto f = spawn([&] { main.join(); });
  CHECK_THROWS_AS(f.join(), deadlock_error);
  f.kill();
}

// --- fairness --------------------------------------------------------------------------------------------------------

HUB_CASE("turn: busy yielders starve no timer") {
  bool stop = false;
  std::vector<any_fiber> crowd;
  for (int i = 0; i < 50; ++i)
    crowd.push_back(spawn([&] {
      while (!stop) yield();
    }));
  const auto start = now();
  sleep(5ms);
  CHECK(now() - start >= 5ms);
  if (is_simulated()) CHECK(now() - start < 6ms);
  stop = true;
  joinall(crowd);
}

HUB_CASE("turn: busy yielders starve no I/O") {
  auto ends = support::make_pipe();
  char c = 0;
  auto reader = spawn([&] { return io::read(ends.first, &c, 1); });
  yield();
  bool stop = false;
  std::vector<any_fiber> crowd;
  for (int i = 0; i < 50; ++i)
    crowd.push_back(spawn([&] {
      while (!stop) yield();
    }));
  CHECK(::write(ends.second, "x", 1) == 1);
  long rounds = 0;
  while (!reader.ready() && ++rounds < 1'000'000) yield();
  CHECK(reader.ready());
  CHECK(c == 'x');
  stop = true;
  joinall(crowd);
  io::close(ends.first.release());
}

HUB_CASE("turn: busy yielders starve no messages") {
  std::atomic<bool> posted{false};
  auto h = hub::here();
  std::thread other([&] { h.post([&] { posted = true; }); });
  auto yielder = spawn([&] {
    long rounds = 0;
    while (!posted && ++rounds < 100'000'000) yield();
    return posted.load();
  });
  CHECK(yielder.get());
  other.join();
}

HUB_CASE("turn: one fiber that only yields lets the loop turn") {
  const auto start = now();
  auto f = spawn([] { sleep(2ms); });
  long rounds = 0;
  while (!f.ready() && ++rounds < 100'000'000) yield();
  CHECK(f.ready());
  CHECK(now() - start >= 2ms);
}

// --- other threads ---------------------------------------------------------------------------------------------------

HUB_CASE("post: from four threads, each in its order, to a hub that sleeps") {
  constexpr int threads = 4;
  const int each = support::is_instrumented() ? 200 : 2000;
  std::vector<std::vector<int>> got(threads);
  auto h = hub::here();
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t)
    all.emplace_back([&, t] {
      for (int i = 0; i < each; ++i) h.post([&got, t, i] { got[std::size_t(t)].push_back(i); });
    });
  auto done = [&] {
    for (auto& g : got)
      if (int(g.size()) < each) return false;
    return true;
  };
  timeout limit(support::is_instrumented() ? 1h : 30s);
  while (!done()) is_simulated() ? yield() : sleep(1ms);
  for (auto& t : all) t.join();
  for (auto& g : got)
    for (int i = 0; i < each; ++i)
      if (g[std::size_t(i)] != i) FAIL("out of order");
}

TEST_CASE("post: a posted function runs in a fiber: it may wait, and its error is reported") {
  captured_stderr err;
  auto h = hub::here();
  event e;
  CHECK(h.post([&] {
    sleep(1ms);
    e.set();
  }));
  CHECK(h.post([] { throw std::runtime_error("posted error"); }));
  CHECK(e.wait(10s));
  yield();
  CHECK(contains(err.end(), "posted error"));
}

TEST_CASE("post: to a hub that has gone is false; what was posted and never ran is freed") {
  hub::handle h;
  CHECK_FALSE(h.post([] {}));
  auto value = std::make_shared<int>(0);
  std::thread([&] {
    h = hub::here();
    CHECK(h.post([value] {}));
  }).join();
  CHECK_FALSE(h.post([value] {}));
  CHECK(value.use_count() == 1);
}

TEST_CASE("post: races with the hub's end") {
  const int rounds = support::is_instrumented() ? 50 : 300;
  std::atomic<int> ran{0};
  for (int i = 0; i < rounds; ++i) {
    hub::handle h;
    int posted = 0;
    ran = 0;
    std::atomic<bool> made{false};
    std::thread owner([&] {
      h = hub::here();
      made.store(true, std::memory_order_release);
      for (int n = 0; n < 3; ++n) sleep(0s);
    });
    std::thread poster([&] {
      while (!made.load(std::memory_order_acquire)) std::this_thread::yield();
      while (h.post([&] { ++ran; })) {
        for (int spins = 0; ++posted > ran + 20 && spins < 1000; ++spins) std::this_thread::yield();
      }
    });
    owner.join();
    poster.join();
    if (ran > posted) FAIL("one ran twice");
  }
}

TEST_CASE("hub: several threads each have their own") {
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      std::string log;
      auto speaker = [&](char c) {
        return [&log, c] {
          for (int i = 0; i < 3; ++i) {
            log += c;
            sleep(0s);
          }
        };
      };
      joinall({spawn(speaker('a')), spawn(speaker('b'))});
      sleep(t * 1ms);
      if (log == "ababab" && left_behind().empty()) ++right;
    });
  for (auto& t : threads) t.join();
  CHECK(right == 4);
}

TEST_CASE("hub: a thread's end kills its unfinished fibers, and those that their ends start") {
  std::atomic<int> ended{0}, links{0};
  std::thread([&] {
    struct at_end {
      std::atomic<int>& n;
      ~at_end() { ++n; }
    };
    for (int i = 0; i < 20; ++i) {
      auto f = spawn([&, i] {
        at_end mark{ended};
        if (i % 2) sleep(1h);
        event().wait();
      });
      f.link([&](any_fiber) {
        at_end mark{links};
        sleep(1h);
      });
    }
    spawn_later(1h, [] {});
    yield();
    spawn([] {});  // never begins
  }).join();
  CHECK(ended == 20);
  CHECK(living_greenlets() == 0);
}

TEST_CASE("hub: a thread's end waits a second for fibers that resist, and then says which") {
  if (support::child_part("resist")) {
    std::thread([] {
      spawn({.name = "stubborn"}, [] {
        while (true) try {
            sleep(1h);
          } catch (const greenlet_exit&) {
          }
      });
      yield();
    }).join();
    std::_Exit(5);
  }
  const auto r = support::run_this_case("resist");
  CHECK(r.exit_status == 5);
  CHECK(contains(r.err, "'stubborn': parked in sleep"));
}

TEST_CASE("hub: many threads come and go with unfinished fibers") {
  const int rounds = support::is_instrumented() ? 20 : 100;
  std::atomic<int> ended{0};
  for (int i = 0; i < rounds; ++i)
    std::thread([&] {
      for (int n = 0; n < 3; ++n)
        spawn([&] {
          struct at_end {
            std::atomic<int>& n;
            ~at_end() { ++n; }
          } mark{ended};
          sleep(1h);
        });
      yield();
    }).join();
  CHECK(ended == rounds * 3);
}

TEST_CASE("hub: a wake from another thread races with the hub's end") {
  // The waiter's thread ends as soon as it is woken, while the waker may still be inside its call.
  const int rounds = support::is_instrumented() ? 100 : 1000;
  for (int i = 0; i < rounds; ++i) {
    auto* e = new event;
    std::atomic<bool> waiting{false};
    std::thread waiter([&] {
      waiting = true;
      e->wait();
      delete e;
    });
    while (!waiting) std::this_thread::yield();
    e->set();
    waiter.join();
  }
}

TEST_CASE("hub: process exit with parked fibers is peaceful") {
  if (support::child_part("exit")) {
    static any_fiber kept;
    for (int i = 0; i < 50; ++i) kept = spawn([] { sleep(1h); });
    yield();
    std::exit(6);
  }
  if (support::child_part("exit inside")) {
    spawn([] {
      spawn([] { sleep(1h); });
      yield();
      std::exit(7);
    }).join();
  }
  CHECK(support::run_this_case("exit").exit_status == 6);
  CHECK(support::run_this_case("exit inside").exit_status == 7);
}

// --- what it says ----------------------------------------------------------------------------------------------------

HUB_CASE("hub: counts and describes what there is") {
  auto a = spawn({.name = "sleeper"}, [] { sleep(1h); });
  auto b = spawn({.name = "new one"}, [] {});
  CHECK(hub::count().fibers == 2);
  CHECK(hub::count().stacks == 2);
  CHECK(contains(hub::describe_fibers(), "'new one': not begun"));
  const auto switches = hub::count().switches;
  yield();
  CHECK(hub::count().switches > switches);
  CHECK(hub::count().timers == 1);
  CHECK(contains(hub::describe_fibers(), "main fiber: running"));
  CHECK(contains(hub::describe_fibers(), "'sleeper': parked in sleep for"));
  CHECK(hub::engine_name() == (is_simulated() ? "simulated" : hub::engine_name()));
  a.kill();
}

TEST_CASE("hub: a thread without one has zero of everything, and asking makes none") {
  std::thread([] {
    CHECK(hub::count().fibers == 0);
    CHECK(hub::count().switches == 0);
    CHECK(contains(hub::describe_fibers(), "no hub"));
    CHECK(detail::hub_state::here_or_null() == nullptr);
  }).join();
}

HUB_CASE("hub: its fibers can be listed, in the order of their spawning") {
  auto a = spawn([] { sleep(1ms); }), b = spawn_later(1ms, [] {});
  CHECK(hub::fibers() == std::vector<any_fiber>{a, b});
  joinall({a, b});
  CHECK(hub::fibers().empty());
}

HUB_CASE("turn limit: with a small one I/O and timers are looked at between few fibers") {
  for (const std::size_t limit : {1, 10, 1000}) {
    const std::size_t former = hub::set_turn_limit(limit);
    const auto before = detail::hub_state::here().turns.load();
    std::vector<any_fiber> all;
    for (int i = 0; i < 1000; ++i) all.push_back(spawn([] {}));
    joinall(all);
    CHECK(detail::hub_state::here().turns.load() - before >= (1000 - 100) / limit);  // what was left of the turn before was larger
    CHECK(hub::set_turn_limit(former) == limit);
  }
  CHECK_THROWS_AS(hub::set_turn_limit(0), std::invalid_argument);
}

TEST_CASE("spin: pays while news keeps coming soon, and not while it takes longer") {
  detail::spin_habit habit;
  habit.limit = 50us;
  CHECK(!habit.pays());
  habit.idle_took(50us);
  CHECK(habit.pays());
  habit.idle_took(51us);
  CHECK(!habit.pays());
  for (int i = 0; i < 100; ++i) habit.idle_took(1us);
  for (int i = 0; i < 3; ++i) {
    habit.idle_took(1s);
    CHECK(habit.pays());  // one that is late now and then
  }
  habit.idle_took(1s);
  CHECK(!habit.pays());
}

TEST_CASE("spin: a hub that looks before it sleeps misses no I/O, no timer and no other thread") {
  const auto former = hub::set_spin(1ms);
  auto p = support::make_pipe();
  auto back = support::make_pipe();
  constexpr int rounds = 300;
  std::thread other([&, who_spins = ::gettid()] {
    char c;
    for (int i = 0; i < rounds && ::read(p.first, &c, 1) == 1; ++i) {
      // Now and then it takes longer than the hub looks.
      const auto give_up = std::chrono::steady_clock::now() + 20s;
      while (i % 50 == 49 && support::state_of(who_spins) != 'S' && std::chrono::steady_clock::now() < give_up) {
      }
      if (::write(back.second, &c, 1) != 1) break;
    }
  });
  for (int i = 0; i < rounds; ++i) {
    char c = char(i), got = 0;
    REQUIRE(io::write(p.second, &c, 1) == 1);
    REQUIRE(io::read(back.first, &got, 1, 10s) == 1);
    CHECK(got == c);
    if (i % 10 == 0) sleep(300us);
  }
  other.join();
  CHECK(thread_pool(1).submit([] { return 7; }).get() == 7);
  CHECK(hub::set_spin(former) == 1ms);
  CHECK_THROWS_AS(hub::set_spin(2ms), std::invalid_argument);
  CHECK_THROWS_AS(hub::set_spin(-1ns), std::invalid_argument);
}
