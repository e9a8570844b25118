// What ends while somebody is still on his way out of it: channels, handles, threads, the process. One case a bug.

#include <map>
#include <optional>

#include <ringlet/channel.hpp>
#include <ringlet/generator.hpp>

#include "on_hub.hpp"

using namespace hub_test;

HUB_CASE("ends: a channel may go when a select has happened on another") {
  channel<int> a;
  std::optional<channel<int>> b;
  b.emplace();
  std::optional<int> x, y;
  auto f = spawn([&] { return *select({receiving(a, x), receiving(*b, y)}); });
  yield();
  a.send(1);
  b.reset();
  CHECK(f.get() == 0);
  CHECK(x == 1);
}

HUB_CASE("ends: a channel that stands twice in a select may go when it has happened") {
  std::optional<channel<int>> c;
  c.emplace();
  std::optional<int> x, y;
  auto f = spawn([&] { return *select({receiving(*c, x), receiving(*c, y)}); });
  yield();
  c->send(1);
  c.reset();
  f.get();
  CHECK((x == 1) != (y == 1));
}

HUB_CASE("ends: a channel may go when its receiver has been killed, or its deadline has passed") {
  for (bool kills : {true, false}) {
    std::optional<channel<int>> c;
    c.emplace();
    auto f = spawn([&] { return c->receive(kills ? never : deadline(1ms)); });
    yield();
    if (kills) f.kill(deadline::passed());
    auto goes = spawn_later(1ms, [&] { c.reset(); });
    f.join();
    goes.join();
  }
}

HUB_CASE("ends: who waits for a fiber's end may lose its only handle meanwhile") {
  std::map<int, any_fiber> sessions;
  event ended;
  struct forgets {
    std::map<int, any_fiber>& all;
    event& told;
    ~forgets() {
      all.erase(1);
      told.set();
    }
  };
  sessions[1] = spawn([&] {
    forgets at_end{sessions, ended};
    sleep(never);
  });
  any_fiber next;
  auto reuses = spawn([&] {
    ended.wait();
    next = spawn([] { sleep(never); });  // on the stack that has come free
  });
  yield();
  CHECK(sessions.at(1).kill());
  reuses.join();
  next.kill();
}

HUB_CASE("ends: a fiber that kills itself inside a generator ends, by kill and by killall") {
  for (bool all : {false, true}) {
    bool lives_on = false;
    auto f = spawn([&] {
      generator<int> g([all](auto& y) {
        y(1);
        if (all)
          killall({current()});
        else
          current().kill();
      });
      g.next();
      g.next();
      lives_on = true;
    });
    f.join();
    CHECK_FALSE(lives_on);
    CHECK(f.successful());
  }
}

HUB_CASE("ends: a fiber-local's destructor may wait in a fiber that is killed meanwhile") {
  static int destroyed;
  destroyed = 0;
  struct waits {
    ~waits() {
      sleep(1ms);
      ++destroyed;
    }
  };
  static fiber_local<waits> local;
  auto f = spawn([] {
    *local;
    sleep(never);
  });
  yield();
  f.kill();
  CHECK(f.ready());
  CHECK(destroyed == 1);
}

HUB_CASE("ends: asking an unfinished fiber for its error does not hide the error to come") {
  int told = 0;
  hub::set_error_handler([&](const hub::failure&) { ++told; });
  {
    auto f = spawn([] { throw std::runtime_error("nobody asked"); });
    CHECK(f.exception() == nullptr);
    yield();
  }
  yield();
  hub::set_error_handler({});
  CHECK(told == 1);
}

TEST_CASE("ends: a handle that a dying hub gave away refers to nothing afterwards") {
  hub::handle late;
  std::thread([&] {
    struct asks {
      hub::handle& late;
      ~asks() { late = hub::here(); }
    };
    spawn([&] {
      asks at_end{late};
      sleep(never);
    });
    yield();
  }).join();
  CHECK_FALSE(late.post([] {}));
}

TEST_CASE("ends: what a fiber that resists waits on knows nothing of it when its thread has gone") {
  event e;
  std::thread([&] {
    spawn([&] {
      kill_shield stays;
      e.wait();
    });
    yield();
  }).join();
  e.set();  // would wake a fiber of a hub that is gone
}

TEST_CASE("ends: a static queue with a worker is destroyed at exit") {
  if (support::child_part("exits")) {
    static queue<int> jobs;
    spawn([] {
      while (jobs.get()) {
      }
    });
    yield();
    std::exit(0);
  }
  const auto seen = support::run_this_case("exits");
  CHECK(seen.exit_status == 0);
  CHECK_FALSE(contains(seen.err, "broken"));
}

HUB_CASE("ends: try_lock_until of the furthest past does not wait") {
  mutex m;
  m.lock();
  auto f = spawn([&] { return m.try_lock_until(std::chrono::steady_clock::time_point::min()); });
  CHECK_FALSE(f.get());
  m.unlock();
}

TEST_CASE("ends: a priority queue by a comparator with a capture can be shut down") {
  const int sign = -1;
  auto before = [sign](int a, int b) { return sign * a < sign * b; };
  queue<int, by_priority<decltype(before)>> q(by_priority<decltype(before)>{before});
  q.put(1);
  q.shutdown(true);
  CHECK(q.size() == 0);
}
