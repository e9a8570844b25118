// What ends while somebody is still on his way out of it: channels, handles, threads, the process. One case a bug.

#include <unistd.h>

#include <map>
#include <optional>

#include <ringlet/barrier.hpp>
#include <ringlet/channel.hpp>
#include <ringlet/generator.hpp>
#include <ringlet/io.hpp>

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

HUB_CASE("ends: a barrier may go when its last party has come, though another's time was up in the same moment") {
  for (int i = 0; i < 20; ++i) {
    std::optional<barrier> b;
    b.emplace(2);
    const deadline moment(1ms);
    auto meet = [&](deadline patience, bool last) {
      try {
        b->wait(patience);
        if (last) b.reset();
        return true;
      } catch (const broken_barrier&) {
        return false;
      }
    };
    auto last = spawn([&] {
      sleep(moment);
      return meet(never, true);
    });
    yield();
    auto late = spawn([&] { return meet(moment, false); });
    CHECK(last.get() == late.get());
  }
}

HUB_CASE("ends: a barrier may go when it is broken by one whose time is up") {
  std::optional<barrier> b;
  b.emplace(3);
  std::vector<any_fiber> all;
  for (int i = 0; i < 2; ++i)
    all.push_back(spawn([&, i] {
      CHECK_THROWS_AS(b->wait(i == 0 ? deadline(1ms) : never), broken_barrier);
      if (i == 1) b.reset();  // though the late one, which was readied after us, has not run
    }));
  joinall(all);
}

TEST_CASE("ends: an event that goes while a fiber waits for it is called the program's mistake") {
  if (support::child_part("waited for")) {
    spawn([] {
      auto e = std::make_unique<event>();
      spawn([&] { e->wait(); });
      yield();
      e.reset();
    }).join();
    std::exit(0);
  }
  const auto seen = support::run_this_case("waited for");
  CHECK(seen.exit_status != 0);
  CHECK(contains(seen.err, "misused: an event, lock or queue is destroyed while a fiber waits for it"));
  CHECK_FALSE(contains(seen.err, "bug in ringlet"));
}

TEST_CASE("ends: the engine goes on when a program has closed its file descriptors") {
  for (const char* engine : {"RINGLET_ENGINE=epoll", "RINGLET_ENGINE=auto"}) {
    if (support::child_part("closes all")) {
      int ends[2], gone[2];
      if (::pipe(ends) != 0 || ::pipe(gone) != 0) std::exit(2);
      char c = 0, d = 0;
      auto waits = spawn([&] { return io::read(ends[0], &c, 1); });
      auto closed = spawn([&] { return io::read(gone[0], &d, 1); });
      sleep(1ms);
      for (int fd = 3; fd < 64; ++fd) {
        if (fd == ends[0] || fd == ends[1]) continue;
        char what[64] = {};
        const bool engines = ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), what, sizeof what - 1) > 0 && contains(what, "anon_inode");
        ::close(fd);
        if (engines && fd % 2 && ::dup2(2, fd) < 0) std::exit(3);  // the number is somebody else's, or nobody's
      }
      sleep(1ms);
      auto writes = spawn([&] { return io::write(ends[1], "x", 1); });
      std::thread([h = hub::here()] { h.post([] {}); }).join();
      if (waits.get() != 1 || writes.get() != 1) std::exit(4);
      if (contains(hub::engine_name(), "epoll") && closed.get() >= 0) std::exit(5);
      std::_Exit(0);
    }
    const auto seen = support::run_this_case("closes all", {engine});
    INFO(std::string(engine), " ", seen.err);
    CHECK(seen.exit_status == 0);
    CHECK_FALSE(contains(seen.err, "bug in ringlet"));
    if (std::string_view(engine) == "RINGLET_ENGINE=epoll") CHECK(contains(seen.err, "were closed by the program"));
  }
}
