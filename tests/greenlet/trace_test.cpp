// Tracing: who is told of which switch, and what a tracer that throws does.

#include <string>
#include <vector>

#include "hub/on_hub.hpp"

using namespace hub_test;

namespace {

struct tracing {
  tracer before;
  explicit tracing(tracer t) : before(set_trace(std::move(t))) {}
  ~tracing() { set_trace(std::move(before)); }
};

// "main>a " for a switch, "main!a " for a throw.
struct log_of {
  std::vector<std::pair<greenlet, std::string>> names{{greenlet::current(), "main"}};
  std::string text;
  std::string name(const greenlet& g) const {
    for (auto& [known, name] : names)
      if (known == g) return name;
    return "?";
  }
  void operator()(const trace_event& e) {
    text += name(e.origin) + (e.kind == trace_kind::thrown ? "!" : ">") + name(e.target) + " ";
  }
};

}  // namespace

TEST_CASE("trace: every switch by hand, the first and the last ones, with origin and target") {
  log_of log;
  greenlet a([&] {
    greenlet::current().parent().switch_to();
    greenlet::current().parent().switch_to();
  });
  greenlet fails([] { throw 1; });
  log.names.push_back({a, "a"});
  log.names.push_back({fails, "f"});
  {
    tracing on([&](const trace_event& e) { log(e); });
    a.switch_to();
    a.switch_to();
    CHECK(log.text == "main>a a>main main>a a>main ");
    log.text.clear();
    a.throw_into<greenlet_exit>();
    CHECK(log.text == "main!a a>main ");  // greenlet_exit comes back as a value
    log.text.clear();
    CHECK_THROWS_AS(fails.switch_to(), int);
    CHECK(log.text == "main>f f!main ");
    log.text.clear();
    greenlet::current().switch_to();  // to oneself: no switch
    CHECK(log.text == "");
  }
  greenlet([] {}).switch_to();
  CHECK(log.text == "");
}

TEST_CASE("trace: siblings, and the switch in which a greenlet loses its last handle") {
  log_of log;
  greenlet first, second;
  second = greenlet([&] { first.switch_to(); });
  first = greenlet([&] {
    second.switch_to();
    second = {};
  });
  log.names.push_back({first, "1"});
  log.names.push_back({second, "2"});
  tracing on([&](const trace_event& e) { log(e); });
  first.switch_to();
  CHECK(log.text == "main>1 1>2 2>1 1>main ");
  log.names.clear();
  first = {};
  log.text.clear();
  bool unwound = false;
  {
    greenlet dropped([&] {
      struct at_end {
        bool& flag;
        ~at_end() { flag = true; }
      } mark{unwound};
      greenlet::current().parent().switch_to();
    });
    dropped.switch_to();
  }
  CHECK(unwound);
  CHECK(log.text == "?>? ?>? ?!? ?>? ");
}

TEST_CASE("trace: runs in the target, which is current, and is not told of its own switches") {
  int told = 0;
  bool in_target = true;
  greenlet a([] { greenlet::current().parent().switch_to(); });
  tracing on([&](const trace_event& e) {
    ++told;
    in_target = in_target && e.target == greenlet::current();
    greenlet([] {}).switch_to();
  });
  a.switch_to();
  CHECK(told == 2);
  CHECK(in_target);
}

TEST_CASE("trace: a tracer that throws is removed, and the target gets the exception") {
  struct traced : std::runtime_error {
    traced() : std::runtime_error("traced") {}
  };
  int told = 0;
  const tracer throws = [&](const trace_event&) {
    ++told;
    throw traced();
  };
  std::string log;
  greenlet child([&] {
    log += "begun ";
    try {
      greenlet::current().parent().switch_to();
    } catch (const traced&) {
      log += "caught ";
    }
  });
  {
    tracing on(throws);
    CHECK_THROWS_AS(child.switch_to(), traced);  // at its very first switch: it dies before it has run
    CHECK(child.dead());
    CHECK(told == 1);
    CHECK_FALSE(get_trace());
  }
  CHECK(log == "");
  child = greenlet([&] {
    try {
      greenlet::current().parent().switch_to();
    } catch (const traced&) {
      log += "caught ";
    }
  });
  child.switch_to();
  {
    tracing on(throws);
    child.switch_to();
    CHECK(log == "caught ");
    CHECK(told == 2);
  }
  greenlet sends([] { return 5; });
  {
    tracing on([&, n = 0](const trace_event&) mutable {
      if (++n == 2) throw traced();
    });
    CHECK_THROWS_AS(sends.switch_to<int>(), traced);  // in place of the value
  }
  CHECK(living_greenlets() == 0);
}

TEST_CASE("trace: setting gives the one before, the same twice, none, and another from inside") {
  int first = 0, second = 0;
  const tracer one = [&](const trace_event&) { ++first; };
  CHECK_FALSE(set_trace(one));
  CHECK(get_trace());
  CHECK(set_trace(one));
  greenlet([] {}).switch_to();
  CHECK(first == 2);
  set_trace([&](const trace_event&) {
    ++first;
    set_trace([&](const trace_event&) { ++second; });
  });
  greenlet([] {}).switch_to();
  CHECK(first == 3);
  CHECK(second == 1);
  CHECK(set_trace({}));
  CHECK_FALSE(get_trace());
  greenlet([] {}).switch_to();
  CHECK(second == 1);
}

TEST_CASE("trace: a tracer that switches on inside a switch harms nobody") {
  // The tracer runs another greenlet, in which somebody else is switched to, three deep.
  std::string log;
  greenlet one, two, three;
  three = greenlet([&] {
    log += '3';
    one.switch_to();
    log += 'c';
  });
  two = greenlet([&] {
    log += '2';
    three.switch_to();
    log += 'b';
  });
  one = greenlet([&] {
    log += '1';
    greenlet::current().parent().switch_to();
    log += 'a';
  });
  bool entered = false;
  {
    tracing on([&](const trace_event&) {
      if (std::exchange(entered, true)) return;
      two.switch_to();
    });
    one.switch_to();
  }
  while (!one.dead()) one.switch_to();
  while (!two.dead()) two.switch_to();
  while (!three.dead()) three.switch_to();
  for (char c : {'1', '2', '3', 'a', 'b', 'c'}) CHECK(log.find(c) != log.npos);
  one = two = three = {};
  CHECK(living_greenlets() == 0);
}

HUB_CASE("trace: sees fibers come and go") {
  std::size_t to_main = 0, all = 0;
  const greenlet main = greenlet::current();
  {
    tracing on([&](const trace_event& e) {
      ++all;
      to_main += e.target == main;
    });
    auto f = spawn([] {
      yield();
      sleep(1ms);
    });
    f.join();
  }
  CHECK(to_main == 1);
  CHECK(all >= 4);
}

HUB_CASE("trace: what it throws in a fiber's switch is thrown at that fiber's next wait") {
  std::string caught;
  greenlet its_own;
  auto f = spawn([&] {
    its_own = greenlet::current();
    try {
      sleep(1ms);
      sleep(1ms);
    } catch (const std::runtime_error& e) {
      caught = e.what();
    }
  });
  yield();
  {
    tracing on([&](const trace_event& e) {
      if (e.target == its_own) throw std::runtime_error("from the tracer");
    });
    f.join();
  }
  CHECK(caught == "from the tracer");
}
