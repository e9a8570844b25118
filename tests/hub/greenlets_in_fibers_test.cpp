// Greenlets inside fibers: a fiber is a flow of control, which may switch between stacks by hand and park on any of them.

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include <ringlet/io.hpp>

#include "on_hub.hpp"

using namespace hub_test;

namespace {

// Yields 1, 2, 3 … up to `last`, sleeping before each.
greenlet slow_numbers(int last) {
  return greenlet([last] {
    auto parent = greenlet::current().parent();
    for (int i = 1; i <= last; ++i) {
      sleep(1ms);
      parent.switch_to(i);
    }
  });
}

}  // namespace

HUB_CASE("greenlet in a fiber: a generator that sleeps parks its fiber, and others run") {
  std::string log;
  auto consumer = [&](char name) {
    return [&log, name] {
      greenlet numbers = slow_numbers(3);
      int sum = 0;
      while (auto n = numbers.switch_to<std::optional<int>>()) {
        log += name;
        sum += *n;
      }
      return sum;
    };
  };
  auto a = spawn(consumer('a'));
  auto b = spawn(consumer('b'));
  CHECK(a.get() == 6);
  CHECK(b.get() == 6);
  CHECK(std::count(log.begin(), log.end(), 'a') == 3);
  CHECK(log.substr(0, 3) != "aaa");  // they took turns
}

HUB_CASE("greenlet in the main fiber: a generator that waits") {
  greenlet numbers = slow_numbers(2);
  CHECK(numbers.switch_to<std::optional<int>>() == 1);
  CHECK(numbers.switch_to<std::optional<int>>() == 2);
  CHECK_FALSE(numbers.switch_to<std::optional<int>>());
  greenlet gets([] { return spawn([] { return 5; }).get(); });
  CHECK(gets.switch_to<int>() == 5);
}

HUB_CASE("greenlet in a fiber: current() is the fiber, on whichever stack") {
  auto f = spawn([] {
    const any_fiber self = current();
    greenlet g([self] { return current() == self; });
    return g.switch_to<bool>();
  });
  CHECK(f.get());
}

HUB_CASE("greenlet in a fiber: one that waits in the hub cannot be switched to by others") {
  greenlet sleeper;
  auto owner = spawn([&] {
    sleeper = greenlet([] { sleep(20ms); });
    sleeper.switch_to();
  });
  auto intruder = spawn([&] { return error_of([&] { sleeper.switch_to(); }); });
  CHECK(contains(intruder.get(), "waits in the hub"));
  owner.get();
  CHECK(sleeper.dead());
  sleeper = greenlet();

  // and so a fiber's own greenlet, parked or switched away from
  greenlet base, inner;
  auto parked = spawn([&] {
    base = greenlet::current();
    inner = greenlet([] { sleep(20ms); });
    inner.switch_to();
  });
  yield();
  CHECK(contains(error_of([&] { base.switch_to(); }), "belongs to another fiber"));
  CHECK(contains(error_of([&] { base.throw_into(); }), "belongs to another fiber"));
  auto other = spawn([&] { return error_of([&] { base.switch_to(); }); });
  CHECK(contains(other.get(), "belongs to another fiber"));
  parked.get();
}

HUB_CASE("greenlet in a fiber: main's greenlet is not for fibers to resume") {
  const greenlet main = greenlet::current();
  auto f = spawn([&] { return error_of([&] { main.switch_to(); }); });
  CHECK(contains(f.get(), "the main greenlet"));
}

HUB_CASE("greenlet in a fiber: a generator handed to another fiber gives a clear error there, and nobody is harmed") {
  greenlet numbers;
  auto maker = spawn([&] {
    numbers = greenlet([] {
      auto parent = greenlet::current().parent();
      for (int i = 1;; ++i) parent.switch_to(i);
    });
    const int first = numbers.switch_to<int>();
    sleep(10ms);
    return first;
  });
  auto user = spawn([&] { return error_of([&] { numbers.switch_to<int>(); }); });
  const std::string said = user.get();
  CAPTURE(said);
  CHECK(contains(said, "another fiber"));
  CHECK(maker.get() == 1);
  CHECK(numbers.dead());
}

HUB_CASE("greenlet in a fiber: a generator whose maker has ended gives a clear error") {
  greenlet numbers;
  spawn([&] { numbers = greenlet([] { return 1; }); }).join();
  auto user = spawn([&] { return error_of([&] { numbers.switch_to<int>(); }); });
  const std::string said = user.get();
  CAPTURE(said);
  CHECK(contains(said, "belongs to another fiber"));

  greenlet mains;
  spawn([&] { mains = greenlet([] { return 2; }); }).join();
  CHECK(mains.switch_to<int>() == 2);  // its nearest living ancestor is main, who asks
}

HUB_CASE("greenlet in a fiber: set_parent makes a generator another fiber's own") {
  greenlet numbers;
  spawn([&] {
    numbers = greenlet([] {
      for (int i = 1; i < 3; ++i) greenlet::current().parent().switch_to(i);
    });
    CHECK(numbers.switch_to<int>() == 1);
  }).get();
  auto user = spawn([&] {
    numbers.set_parent(greenlet::current());
    const int second = numbers.switch_to<int>();
    numbers.switch_to();
    return second;
  });
  CHECK(user.get() == 2);
  CHECK(numbers.dead());
}

HUB_CASE("kill: of a fiber that waits inside a generator ends the fiber, not only the generator") {
  std::string log;
  auto f = spawn([&] {
    struct at_end {
      std::string& log;
      ~at_end() { log += "fiber "; }
    } mark{log};
    greenlet outer([&] {
      greenlet inner([&] {
        struct at_end {
          std::string& log;
          ~at_end() { log += "generator "; }
        } mark{log};
        sleep(1h);
        return 1;
      });
      return inner.switch_to<int>();
    });
    const int n = outer.switch_to<int>();
    log += "not reached";
    return n;
  });
  yield();
  CHECK(f.kill());
  CHECK(log == "generator fiber ");
  CHECK(f.successful());
  CHECK_THROWS_AS(f.get(), greenlet_exit);
}

HUB_CASE("timeout: inside a generator passes through to its fiber") {
  auto f = spawn([] {
    timeout limit(2ms);
    greenlet g([] {
      sleep(1h);
      return 1;
    });
    try {
      g.switch_to<int>();
    } catch (const timeout_expired& e) {
      return e.is(limit);
    }
    return false;
  });
  CHECK(f.get());
}

HUB_CASE("greenlet in a fiber: a fiber that ends drops its generators, whose cleanup may wait") {
  bool cleaned = false;
  auto f = spawn([&] {
    struct waits_at_end {
      bool& flag;
      ~waits_at_end() {
        sleep(1ms);
        flag = true;
      }
    };
    greenlet g([&] {
      waits_at_end mark{cleaned};
      greenlet::current().parent().switch_to();
    });
    g.switch_to();
  });
  f.get();
  CHECK(cleaned);
}

TEST_CASE("greenlet: one dropped on another thread is unwound by its hub, and its cleanup may wait") {
  bool cleaned = false;
  struct waits_at_end {
    bool& flag;
    ~waits_at_end() {
      sleep(1ms);
      flag = true;
    }
  };
  greenlet g([&] {
    waits_at_end mark{cleaned};
    greenlet::current().parent().switch_to();
  });
  g.switch_to();
  std::thread([h = std::move(g)]() mutable { h = greenlet(); }).join();
  CHECK_FALSE(cleaned);
  for (int i = 0; i < 1000 && !cleaned; ++i) sleep(1ms);
  CHECK(cleaned);
}

HUB_CASE("greenlet in a fiber: a generator that reads an fd") {
  auto ends = support::make_pipe();
  auto f = spawn([&] {
    greenlet lines([&] {
      auto parent = greenlet::current().parent();
      char c;
      std::string line;
      while (io::read(ends.first, &c, 1) == 1) {
        if (c != '\n') {
          line += c;
          continue;
        }
        parent.switch_to(std::exchange(line, {}));
      }
    });
    std::vector<std::string> all;
    while (auto line = lines.switch_to<std::optional<std::string>>()) all.push_back(*line);
    return all;
  });
  auto writer = spawn([&] {
    for (const char* part : {"one\ntw", "o\n", "thr", "ee\n"}) {
      io::write(ends.second, part, std::strlen(part));
      sleep(1ms);
    }
    io::close(ends.second.release());
  });
  CHECK(f.get() == std::vector<std::string>{"one", "two", "three"});
  writer.join();
  io::close(ends.first.release());
}
