// Greenlets: who runs when, what travels, and who gets what a dead one leaves. The contract is Python's greenlet; where
// that has kwargs and late attributes, this has types.

#include <cerrno>
#include <cfenv>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <ringlet/greenlet.hpp>

#include "context/child.hpp"

using namespace ringlet;
using support::contains;

namespace {

// Says what it was told, in order.
struct notebook {
  std::string text;
  void operator()(std::string_view s) { text += s; }
};

struct sets_at_end {
  bool& flag;
  ~sets_at_end() { flag = true; }
};

greenlet main_greenlet() { return greenlet::current(); }

template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  } catch (const greenlet_exit&) {
    return "greenlet_exit";
  }
  return "";
}

struct living_is_unchanged {
  std::size_t before = living_greenlets();
  ~living_is_unchanged() { CHECK(living_greenlets() == before); }
};

void zero_to_four() {
  std::string log;
  greenlet child([&] {
    log += '1';
    greenlet::current().parent().switch_to();
    log += '3';
  });
  log += '0';
  child.switch_to();
  log += '2';
  child.switch_to();
  log += '4';
  CHECK(log == "01234");
  CHECK(child.dead());
}

}  // namespace

// --- order -----------------------------------------------------------------------------------------------------------

TEST_CASE("greenlet: runs at the first switch and goes on where it left") {
  living_is_unchanged check;
  zero_to_four();
}

TEST_CASE("greenlet: two children interleave and their results go to the parent") {
  living_is_unchanged check;
  std::string log;
  auto f = [&](char name) {
    return [&log, name] {
      log += name;
      greenlet::current().parent().switch_to();
      log += name;
      return std::string(1, name);
    };
  };
  greenlet g(f('g')), h(f('h'));
  g.switch_to();
  h.switch_to();
  CHECK(log == "gh");
  CHECK(h.switch_to<std::string>() == "h");
  CHECK(log == "ghh");
  CHECK(h.dead());
  CHECK(g.switch_to<std::string>() == "g");
  CHECK(log == "ghhg");
  CHECK(g.dead());
}

TEST_CASE("greenlet: a grandchild's end returns to the child, not to main") {
  living_is_unchanged check;
  std::string log;
  greenlet child([&] {
    log += "c";
    greenlet grandchild([&] { log += "g"; });
    grandchild.switch_to();
    log += "c";
    CHECK(grandchild.dead());
  });
  child.switch_to();
  log += "m";
  CHECK(log == "cgcm");
}

TEST_CASE("greenlet: a greenlet may be begun while another begins") {
  living_is_unchanged check;
  std::string log;
  std::function<void(int)> nest = [&](int depth) {
    log += std::to_string(depth);
    if (depth == 5) return;
    greenlet inner([&, depth] { nest(depth + 1); });
    inner.switch_to();
    log += std::to_string(depth);
  };
  nest(0);
  CHECK(log == "01234543210");
}

TEST_CASE("greenlet: ten threads switch at once, each in its own order") {
  std::vector<std::thread> threads;
  for (int i = 0; i < 10; ++i)
    threads.emplace_back([] {
      for (int n = 0; n < 50; ++n) zero_to_four();
    });
  for (auto& t : threads) t.join();
  CHECK(living_greenlets() == 0);
}

TEST_CASE("greenlet: siblings switch to each other without their parent") {
  living_is_unchanged check;
  std::string log;
  greenlet a, b;
  a = greenlet([&] {
    for (int i = 0; i < 3; ++i) {
      log += 'a';
      b.switch_to();
    }
  });
  b = greenlet([&] {
    for (int i = 0; i < 3; ++i) {
      log += 'b';
      a.switch_to();
    }
  });
  a.switch_to();
  CHECK(log == "ababab");
  CHECK(a.dead());
  CHECK_FALSE(b.dead());
  b.switch_to();
  CHECK(b.dead());
}

// --- values ----------------------------------------------------------------------------------------------------------

TEST_CASE("switch: no value, one value, several as one tuple") {
  living_is_unchanged check;
  greenlet echo([] {
    auto parent = greenlet::current().parent();
    parent.switch_to<>();
    const int one = parent.switch_to<int>();
    auto two = parent.switch_to<std::tuple<int, std::string>>(one + 1);
    parent.switch_to(std::get<0>(two), std::get<1>(two), 2.5);
  });
  echo.switch_to();
  echo.switch_to();
  CHECK(echo.switch_to<int>(41) == 42);
  auto [a, b, c] = echo.switch_to<std::tuple<int, std::string, double>>(7, std::string("seven"));
  CHECK(a == 7);
  CHECK(b == "seven");
  CHECK(c == 2.5);
  echo.switch_to();
}

TEST_CASE("switch: the first switch's values are the function's arguments") {
  living_is_unchanged check;
  CHECK(greenlet([](int a, std::string b) { return b + std::to_string(a); }).switch_to<std::string>(3, std::string("x")) == "x3");
  CHECK(greenlet([](const std::string& s) { return s.size(); }).switch_to<std::size_t>(std::string("four")) == 4);
  CHECK(greenlet([](const char* s) { return std::string(s); }).switch_to<std::string>("literal") == "literal");
  CHECK(greenlet(+[](int x) { return x + 1; }).switch_to<int>(1) == 2);
}

TEST_CASE("switch: values that can only be moved travel both ways") {
  living_is_unchanged check;
  greenlet g([](std::unique_ptr<int> p) {
    *p += 1;
    p = greenlet::current().parent().switch_to<std::unique_ptr<int>>(std::move(p));
    *p += 10;
    return p;
  });
  auto p = g.switch_to<std::unique_ptr<int>>(std::make_unique<int>(1));
  CHECK(*p == 2);
  p = g.switch_to<std::unique_ptr<int>>(std::move(p));
  CHECK(*p == 12);
}

TEST_CASE("switch: a value is moved once, never copied") {
  struct counted {
    int copies = 0, moves = 0;
    counted() = default;
    counted(const counted& o) : copies(o.copies + 1), moves(o.moves) {}
    counted(counted&& o) noexcept : copies(o.copies), moves(o.moves + 1) {}
    counted& operator=(const counted&) = default;
  };
  living_is_unchanged check;
  greenlet g([](counted c) {
    CHECK(c.copies == 0);
    CHECK(c.moves <= 3);
    return c;
  });
  const counted back = g.switch_to<counted>(counted{});
  CHECK(back.copies == 0);
}

TEST_CASE("switch: what is sent lives no longer than the switch") {
  living_is_unchanged check;
  auto value = std::make_shared<int>(1);
  greenlet g([](std::shared_ptr<int> p) {
    p.reset();
    p = greenlet::current().parent().switch_to<std::shared_ptr<int>>();
    p.reset();
    greenlet::current().parent().switch_to();
  });
  g.switch_to(value);
  CHECK(value.use_count() == 1);
  g.switch_to(value);
  CHECK(value.use_count() == 1);
}

TEST_CASE("switch: another type than the expected one is an error at the receiver, and both are named") {
  living_is_unchanged check;
  greenlet g([](int) {
    const std::string at_me = error_of([] { greenlet::current().parent().switch_to<int>(1); });
    CHECK(contains(at_me, "expected int"));
    CHECK(contains(at_me, "double"));
    return 5;
  });
  g.switch_to<int>(1);
  CHECK(g.switch_to<int>(2.5) == 5);

  greenlet wrong_start([](int) {});
  CHECK(contains(error_of([&] { wrong_start.switch_to(std::string("s")); }), "expected int"));
  CHECK(wrong_start.dead());
  greenlet no_arguments([](int, int) {});
  CHECK(contains(error_of([&] { no_arguments.switch_to(); }), "nothing"));
  greenlet result([] { return 1; });
  CHECK(contains(error_of([&] { result.switch_to<std::string>(); }), "int"));
  greenlet none([] {});
  CHECK(contains(error_of([&] { none.switch_to<int>(); }), "got nothing"));
}

TEST_CASE("switch: an optional is empty when nothing came, or greenlet_exit") {
  living_is_unchanged check;
  greenlet one([] { return 1; });
  CHECK(one.switch_to<std::optional<int>>() == 1);
  greenlet none([] {});
  CHECK_FALSE(none.switch_to<std::optional<int>>());
  greenlet killed([] { greenlet::current().parent().switch_to(); });
  killed.switch_to();
  CHECK_FALSE(killed.throw_into<std::optional<int>>());
}

TEST_CASE("switch: to oneself returns one's own values at once") {
  living_is_unchanged check;
  CHECK(main_greenlet().switch_to<int>(5) == 5);
  greenlet g([] { return greenlet::current().switch_to<std::string>(std::string("me")); });
  CHECK(g.switch_to<std::string>() == "me");
  CHECK_THROWS_AS(main_greenlet().throw_into(std::runtime_error("x")), std::runtime_error);
}

TEST_CASE("switch: what arrives is taken before anything of the sender is destroyed") {
  // The sender's last handle goes while it runs: its stack must stay until its value has been taken.
  living_is_unchanged check;
  auto holder = std::make_unique<greenlet>([&] {});
  bool unwound = false;
  *holder = greenlet([&] {
    sets_at_end mark{unwound};
    holder.reset();  // nobody holds us now
    greenlet::current().parent().switch_to(std::string(100, 'x'));
  });
  CHECK(holder->switch_to<std::string>() == std::string(100, 'x'));
  (void)greenlet::current().parent();
  greenlet([] {}).switch_to();  // the next use of greenlets ends it
  CHECK(unwound);
}

// --- death -----------------------------------------------------------------------------------------------------------

TEST_CASE("death: an exception surfaces in the parent; a dead one then gives back what is sent to it") {
  living_is_unchanged check;
  greenlet g([] { throw std::out_of_range("oops"); });
  CHECK_THROWS_AS(g.switch_to(), std::out_of_range);
  CHECK(g.dead());
  CHECK(g.switch_to<int>(42) == 42);
  CHECK(g.switch_to<std::tuple<int, int>>(1, 2) == std::tuple(1, 2));
}

TEST_CASE("death: the parent as of now gets the result, even if it was changed meanwhile") {
  living_is_unchanged check;
  std::string log;
  greenlet heir([&](std::string first) {
    log += first;
    while (true) {
      const auto came = greenlet::current().parent().switch_to<std::optional<std::string>>();
      if (!came) return;
      log += *came;
    }
  });
  heir.switch_to(std::string("start "));
  greenlet g([] {
    greenlet::current().parent().switch_to();
    return std::string("result");
  });
  g.switch_to();
  g.set_parent(heir);
  CHECK(g.parent() == heir);
  g.switch_to();
  CHECK(log == "start result");
  CHECK(g.dead());
  heir.switch_to();
}

TEST_CASE("death: an unstarted parent is started with the value") {
  living_is_unchanged check;
  int got = 0;
  greenlet unstarted([&](int v) {
    got = v;
    return v + 1;
  });
  greenlet child([] { return 10; });
  child.set_parent(unstarted);
  CHECK(child.switch_to<int>() == 11);
  CHECK(got == 10);
  CHECK(unstarted.dead());
}

TEST_CASE("death: a value that does not fit the unstarted parent's arguments goes on to main as an error") {
  living_is_unchanged check;
  greenlet unstarted([](int, int) {});
  greenlet child([] { return 10; });
  child.set_parent(unstarted);
  CHECK_THROWS_AS(child.switch_to(), greenlet_error);
  CHECK(unstarted.dead());
}

TEST_CASE("death: an exception kills unstarted parents on its way") {
  living_is_unchanged check;
  greenlet first([](int) {}), second([](int) {});
  second.set_parent(first);
  greenlet child([] { throw std::domain_error("d"); });
  child.set_parent(second);
  CHECK_THROWS_AS(child.switch_to(), std::domain_error);
  CHECK(first.dead());
  CHECK(second.dead());
}

TEST_CASE("death: a dead target passes the value to its nearest living ancestor") {
  living_is_unchanged check;
  std::string log;
  greenlet grandparent([&] {
    while (true) {
      auto v = greenlet::current().parent().switch_to<std::optional<int>>();
      if (!v) return;
      log += std::to_string(*v);
    }
  });
  grandparent.switch_to();
  greenlet parent([] {}), child([] {});
  parent.set_parent(grandparent);
  child.set_parent(parent);
  child.switch_to();  // its end goes to the unstarted parent, whose end goes to the grandparent
  CHECK(child.dead());
  CHECK(parent.dead());
  CHECK(grandparent.dead());  // nothing arrived there: it returned
  CHECK(child.switch_to<int>(9) == 9);

  greenlet alive([&](int v) {
    while (v) v = greenlet::current().parent().switch_to<int>(v * 2);
  });
  greenlet dead_one([] {});
  dead_one.switch_to();
  dead_one.set_parent(alive);
  CHECK(dead_one.switch_to<int>(4) == 8);  // begins the unstarted one
  CHECK(dead_one.switch_to<int>(5) == 10);
  alive.switch_to(0);
}

TEST_CASE("death: destructors run in order, innermost first") {
  living_is_unchanged check;
  std::string log;
  struct says {
    std::string& log;
    char c;
    ~says() { log += c; }
  };
  {
    greenlet g([&] {
      says a{log, 'a'};
      [&] {
        says b{log, 'b'}, c{log, 'c'};
        greenlet::current().parent().switch_to();
      }();
    });
    g.switch_to();
    CHECK(log == "");
  }
  CHECK(log == "cba");
}

TEST_CASE("death: what the function captured goes with its run, not with the last handle") {
  living_is_unchanged check;
  auto value = std::make_shared<int>(1);
  greenlet returns([value] {});
  greenlet fails([value] { throw 1; });
  greenlet killed([value] {});
  CHECK(value.use_count() == 4);
  returns.switch_to();
  CHECK_THROWS_AS(fails.switch_to(), int);
  CHECK(value.use_count() == 2);
}

TEST_CASE("death: many nested greenlets unwind through each other") {
  living_is_unchanged check;
  int ended = 0;
  std::function<void(int)> nest = [&](int depth) {
    struct at_end {
      int& n;
      ~at_end() { ++n; }
    } count{ended};
    if (depth == 0) {
      greenlet::current().parent().switch_to();
      return;
    }
    greenlet inner([&, depth] { nest(depth - 1); });
    inner.switch_to();
    greenlet::current().parent().switch_to();
  };
  {
    greenlet outer([&] { nest(20); });
    outer.switch_to();
    CHECK(ended == 0);
  }
  CHECK(ended == 21);
}

// --- throw -----------------------------------------------------------------------------------------------------------

TEST_CASE("throw: injects where the greenlet waits, which may catch it and go on") {
  living_is_unchanged check;
  greenlet g([] {
    try {
      greenlet::current().parent().switch_to();
    } catch (const std::out_of_range& e) {
      return std::string(e.what());
    }
    return std::string("?");
  });
  g.switch_to();
  CHECK(g.throw_into<std::string>(std::out_of_range("here")) == "here");

  greenlet lets_go([] { greenlet::current().parent().switch_to(); });
  lets_go.switch_to();
  CHECK_THROWS_AS(lets_go.throw_into(std::domain_error("d")), std::domain_error);
  CHECK(lets_go.dead());
}

TEST_CASE("throw: without an argument throws greenlet_exit, which comes back as a value") {
  living_is_unchanged check;
  bool unwound = false;
  greenlet g([&] {
    sets_at_end mark{unwound};
    greenlet::current().parent().switch_to();
  });
  g.switch_to();
  g.throw_into<greenlet_exit>();
  CHECK(unwound);
  CHECK(g.dead());
}

TEST_CASE("throw: table of unstarted, suspended and dead by greenlet_exit and others") {
  living_is_unchanged check;
  for (const char* state : {"unstarted", "suspended", "dead"}) {
    CAPTURE(state);
    auto make = [&] {
      greenlet g([] { greenlet::current().parent().switch_to(); });
      if (std::string(state) != "unstarted") g.switch_to();
      if (std::string(state) == "dead") g.switch_to();
      return g;
    };
    greenlet g = make();
    g.throw_into<greenlet_exit>();  // returns it, in every state
    CHECK(g.dead());
    g = make();
    g.throw_into(std::make_exception_ptr(greenlet_exit{}));
    CHECK(g.dead());
    g = make();
    CHECK_THROWS_AS(g.throw_into(std::logic_error("e")), std::logic_error);
    CHECK(g.dead());
    g = make();
    CHECK_THROWS_AS(g.throw_into(42), int);
    CHECK(g.dead());
  }
}

TEST_CASE("throw: goes to the original parent, whoever threw") {
  living_is_unchanged check;
  for (int started = 0; started < 3; ++started) {
    CAPTURE(started);
    std::string caught;
    greenlet parent([&] {
      try {
        greenlet::current().parent().switch_to();
      } catch (const std::exception& e) {
        caught = e.what();
      }
    });
    parent.switch_to();
    greenlet g([] { greenlet::current().parent().switch_to(); });
    for (int i = 0; i < started; ++i) g.switch_to();
    g.set_parent(parent);
    g.throw_into(std::runtime_error("for the parent"));
    CHECK(caught == "for the parent");
    CHECK(parent.dead());
  }
}

TEST_CASE("throw: greenlet_exit passes by catch (std::exception&)") {
  living_is_unchanged check;
  bool swallowed = false;
  {
    greenlet g([&] {
      try {
        greenlet::current().parent().switch_to();
      } catch (const std::exception&) {
        swallowed = true;
      }
    });
    g.switch_to();
  }
  CHECK_FALSE(swallowed);
}

// --- exception state, errno, rounding --------------------------------------------------------------------------------

TEST_CASE("exceptions: four greenlets interleave inside catch blocks, each sees its own") {
  living_is_unchanged check;
  std::vector<greenlet> all;
  int right = 0;
  for (int i = 0; i < 4; ++i)
    all.emplace_back([i, &right] {
      auto parent = greenlet::current().parent();
      CHECK(std::current_exception() == nullptr);
      CHECK(std::uncaught_exceptions() == 0);
      try {
        parent.switch_to();
        throw std::runtime_error(std::to_string(i));
      } catch (const std::runtime_error& outer) {
        parent.switch_to();
        try {
          throw std::logic_error("inner " + std::to_string(i));
        } catch (const std::logic_error& inner) {
          parent.switch_to();
          if (inner.what() == "inner " + std::to_string(i)) ++right;
        }
        parent.switch_to();
        try {
          throw;  // what is handled here is still the outer one
        } catch (const std::runtime_error& again) {
          if (again.what() == std::to_string(i) && &again == &outer) ++right;
        }
      }
      CHECK(std::current_exception() == nullptr);
    });
  for (int round = 0; round < 5; ++round)
    for (auto& g : all) {
      g.switch_to();
      CHECK(std::current_exception() == nullptr);
    }
  CHECK(right == 8);
  for (auto& g : all) CHECK(g.dead());
}

TEST_CASE("exceptions: a child's own handling does not disturb what its parent handles") {
  living_is_unchanged check;
  try {
    throw std::runtime_error("parent's");
  } catch (...) {
    greenlet g([] {
      CHECK(std::current_exception() == nullptr);
      try {
        throw 1;
      } catch (int) {
      }
    });
    g.switch_to();
    std::string still = error_of([] { std::rethrow_exception(std::current_exception()); });
    CHECK(still == "parent's");
  }
}

TEST_CASE("exceptions: dropping a suspended greenlet while an exception is in flight") {
  living_is_unchanged check;
  bool unwound = false;
  int in_flight = -1;
  try {
    greenlet g([&] {
      struct look {
        bool& flag;
        int& n;
        ~look() {
          flag = true;
          n = std::uncaught_exceptions();
        }
      } at_end{unwound, in_flight};
      greenlet::current().parent().switch_to();
    });
    g.switch_to();
    throw std::runtime_error("in flight");
  } catch (const std::runtime_error& e) {
    CHECK(std::string(e.what()) == "in flight");
  }
  CHECK(unwound);
  CHECK(in_flight == 1);  // its own greenlet_exit, not the one that is in flight here
  CHECK(std::uncaught_exceptions() == 0);
}

TEST_CASE("greenlet: errno and the rounding mode are kept") {
  living_is_unchanged check;
  greenlet g([] {
    errno = EXDEV;
    std::fesetround(FE_UPWARD);
    greenlet::current().parent().switch_to();
    CHECK(errno == EXDEV);
    CHECK(std::fegetround() == FE_UPWARD);
    std::fesetround(FE_TONEAREST);
  });
  errno = EDOM;
  g.switch_to();
  CHECK(errno == EDOM);
  CHECK(std::fegetround() == FE_TONEAREST);
  g.switch_to();
}

// --- parents ---------------------------------------------------------------------------------------------------------

TEST_CASE("parent: default is the current greenlet, main has none") {
  living_is_unchanged check;
  CHECK(main_greenlet().parent().empty());
  greenlet g([] {
    greenlet inner([] {});
    CHECK(inner.parent() == greenlet::current());
  });
  CHECK(g.parent() == main_greenlet());
  g.switch_to();
}

TEST_CASE("parent: each wrong parent is its own error and changes nothing") {
  living_is_unchanged check;
  const greenlet main = main_greenlet();
  greenlet a([] {}), b([] {}), c([] {});
  b.set_parent(a);
  c.set_parent(b);
  CHECK(contains(error_of([&] { a.set_parent(a); }), "cyclic"));
  CHECK(contains(error_of([&] { a.set_parent(b); }), "cyclic"));
  CHECK(contains(error_of([&] { a.set_parent(c); }), "cyclic"));
  CHECK(contains(error_of([&] { main.set_parent(a); }), "main"));
  CHECK(contains(error_of([&] { main.set_parent(main); }), "main"));
  CHECK(contains(error_of([&] { a.set_parent(greenlet()); }), "empty"));
  CHECK(contains(error_of([&] { greenlet().set_parent(a); }), "empty"));
  CHECK_THROWS_AS(greenlet([] {}, greenlet()), greenlet_error);
  std::thread([&] {
    greenlet here([] {});
    CHECK_THROWS_AS(here.set_parent(a), wrong_thread);
    CHECK_THROWS_AS(a.set_parent(here), wrong_thread);
    CHECK_THROWS_AS(greenlet([] {}, a), wrong_thread);
    CHECK(here.parent() == greenlet::current());
  }).join();
  CHECK(a.parent() == main);
  CHECK(b.parent() == a);
  CHECK(c.parent() == b);
}

TEST_CASE("parent: a kill by drop lends the dropper as parent and gives the own one back") {
  living_is_unchanged check;
  greenlet other([] { greenlet::current().parent().switch_to(); });
  other.switch_to();
  greenlet seen, saved;
  {
    greenlet g([&] {
      try {
        greenlet::current().parent().switch_to();
      } catch (const greenlet_exit&) {
        seen = greenlet::current().parent();
        saved = greenlet::current();  // it is brought back to life
        greenlet::current().parent().switch_to();
      }
    });
    g.switch_to();
    g.set_parent(other);
  }
  CHECK(seen == main_greenlet());
  CHECK(saved.parent() == other);
  CHECK_FALSE(saved.dead());
  saved.set_parent(main_greenlet());
  saved.switch_to();
  CHECK(saved.dead());
  other.switch_to();
}

// --- handles ---------------------------------------------------------------------------------------------------------

TEST_CASE("handle: states are told") {
  living_is_unchanged check;
  greenlet none;
  CHECK(none.empty());
  CHECK_FALSE(none.dead());
  CHECK_FALSE(none.started());
  CHECK(none.describe() == "no greenlet");
  CHECK_THROWS_AS(none.switch_to(), greenlet_error);
  CHECK_THROWS_AS(none.throw_into(), greenlet_error);
  const greenlet main = main_greenlet();
  CHECK(main.describe() == "the main greenlet, running");
  greenlet g([&] {
    CHECK(g.started());
    CHECK(contains(g.describe(), "running"));
    CHECK(contains(main.describe(), "suspended"));
    main.switch_to();
  });
  CHECK_FALSE(g);
  CHECK(contains(g.describe(), "not started"));
  g.switch_to();
  CHECK(bool(g));
  CHECK(contains(g.describe(), "suspended"));
  g.switch_to();
  CHECK_FALSE(g);
  CHECK(g.dead());
  CHECK(contains(g.describe(), "dead"));
  greenlet moved = std::move(g);
  CHECK(g.empty());
  CHECK(moved.dead());
}

TEST_CASE("handle: living_greenlets counts what was made and is not dead") {
  const std::size_t before = living_greenlets();
  greenlet a([] {}), b([] { greenlet::current().parent().switch_to(); });
  CHECK(living_greenlets() == before + 2);
  a.switch_to();
  b.switch_to();
  CHECK(living_greenlets() == before + 1);
  a = greenlet();
  b = greenlet();
  CHECK(living_greenlets() == before);
}

TEST_CASE("handle: dropping the last one of a suspended greenlet unwinds it at once") {
  living_is_unchanged check;
  bool unwound = false;
  greenlet g([&] {
    sets_at_end mark{unwound};
    greenlet::current().parent().switch_to();
  });
  g.switch_to();
  greenlet copy = g;
  g = greenlet();
  CHECK_FALSE(unwound);
  copy = greenlet();
  CHECK(unwound);
}

TEST_CASE("handle: a hundred dropped inside each other") {
  living_is_unchanged check;
  int ended = 0;
  greenlet previous;
  for (int i = 0; i < 100; ++i) {
    greenlet next([&ended, held = previous] {
      struct at_end {
        int& n;
        ~at_end() { ++n; }
      } mark{ended};
      greenlet::current().parent().switch_to();
    });
    next.switch_to();
    previous = next;
  }
  previous = greenlet();
  greenlet([] {}).switch_to();
  CHECK(ended == 100);
}

TEST_CASE("handle: an error thrown by the unwinding is reported, not thrown at the dropper") {
  if (support::child_part("drop")) {
    {
      greenlet g([] {
        try {
          greenlet::current().parent().switch_to();
        } catch (const greenlet_exit&) {
          throw std::runtime_error("from the unwinding");
        }
      });
      g.switch_to();
    }
    std::_Exit(living_greenlets() == 0 ? 7 : 8);
  }
  const auto r = support::run_this_case("drop");
  CHECK(r.exit_status == 7);
  CHECK(contains(r.err, "from the unwinding"));
}

TEST_CASE("handle: a greenlet that refuses to die is reported, and ends with its thread") {
  if (support::child_part("refuse")) {
    std::thread([] {
      {
        greenlet g([] {
          for (int i = 0; i < 3; ++i) try {
              greenlet::current().parent().switch_to();
            } catch (const greenlet_exit&) {
            }
        });
        g.switch_to();
      }
      {
        greenlet never_ends([] {
          while (true) try {
              greenlet::current().parent().switch_to();
            } catch (const greenlet_exit&) {
            }
        });
        never_ends.switch_to();
      }
    }).join();
    std::_Exit(living_greenlets() == 0 ? 7 : 8);
  }
  const auto r = support::run_this_case("refuse");
  CHECK(r.exit_status == 7);
  CHECK(contains(r.err, "greenlet 1 was dropped and did not end on greenlet_exit"));
  CHECK(contains(r.err, "greenlet 2 was dropped and did not end on greenlet_exit"));
  CHECK(contains(r.err, "greenlet 2 did not end on greenlet_exit at its thread's end"));
  CHECK_FALSE(contains(r.err, "greenlet 1 did not end"));
}

TEST_CASE("generator: yields from a nested function") {
  living_is_unchanged check;
  struct generator {
    greenlet body;
    greenlet consumer;
    void yield_value(int v) { consumer.switch_to(v); }
    std::optional<int> next() {
      consumer = greenlet::current();
      return body.switch_to<std::optional<int>>();
    }
  };
  generator numbers;
  std::function<void(int)> tree = [&](int depth) {
    if (depth == 0) return;
    tree(depth - 1);
    numbers.yield_value(depth);
    tree(depth - 1);
  };
  numbers.body = greenlet([&] { tree(4); });
  std::vector<int> got;
  while (auto v = numbers.next()) got.push_back(*v);
  CHECK(got == std::vector<int>{1, 2, 1, 3, 1, 2, 1, 4, 1, 2, 1, 3, 1, 2, 1});
  CHECK_FALSE(numbers.next());
}

TEST_CASE("generator: permutations by nested generators") {
  living_is_unchanged check;
  std::vector<std::string> all;
  std::function<greenlet(std::string)> permutations = [&](std::string of) {
    return greenlet([&, of] {
      auto parent = greenlet::current().parent();
      if (of.empty()) {
        parent.switch_to(std::string());
        return;
      }
      for (std::size_t i = 0; i < of.size(); ++i) {
        std::string rest = of;
        rest.erase(i, 1);
        greenlet inner = permutations(rest);
        inner.set_parent(greenlet::current());
        while (auto tail = inner.switch_to<std::optional<std::string>>()) parent.switch_to(of[i] + *tail);
      }
    });
  };
  greenlet g = permutations("abcd");
  while (auto p = g.switch_to<std::optional<std::string>>()) all.push_back(*p);
  CHECK(all.size() == 24);
  CHECK(all.front() == "abcd");
  CHECK(all.back() == "dcba");
}

TEST_CASE("greenlet: ten thousand at once, made, switched to and dropped in any order") {
  living_is_unchanged check;
  const int count = support::is_instrumented() ? 1000 : 10'000;
  std::vector<greenlet> all;
  int ran = 0, ended = 0;
  for (int i = 0; i < count; ++i) {
    all.emplace_back([&] {
      struct at_end {
        int& n;
        ~at_end() { ++n; }
      } mark{ended};
      ++ran;
      greenlet::current().parent().switch_to();
    });
    all.back().switch_to();
  }
  CHECK(ran == count);
  for (int i = 0; i < count; i += 2) all[std::size_t(i)] = greenlet();
  for (int i = count - 1; i > 0; i -= 2) all[std::size_t(i)].switch_to();
  CHECK(ended == count);
}
