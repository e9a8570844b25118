// Generators: what is yielded, sent, thrown and returned, also from nested calls; Python's semantics.

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <ringlet/generator.hpp>

#include "hub/on_hub.hpp"

using namespace hub_test;

namespace {

template <class G>
auto all_of(G&& g) {
  std::vector<std::decay_t<decltype(*g.next())>> values;
  for (auto& v : g) values.push_back(v);
  return values;
}

void countdown(int from) {  // knows no generator object: yields for whoever called
  if (from == 0) return;
  generator<int>::yield(from);
  countdown(from - 1);
}

// All orders of the first n numbers, by generators within generators.
generator<std::vector<int>> permutations(int n) {
  return generator<std::vector<int>>([n](auto& yield) {
    if (n == 0) {
      yield({});
      return;
    }
    for (auto& shorter : permutations(n - 1))
      for (std::size_t i = 0; i <= shorter.size(); ++i) {
        auto longer = shorter;
        longer.insert(longer.begin() + std::ptrdiff_t(i), n);
        yield(longer);
      }
  });
}

struct own_error : std::runtime_error {
  own_error() : std::runtime_error("own error") {}
};

}  // namespace

HUB_CASE("generator: yields in turn, and is over when it returns") {
  bool ran = false;
  generator<int> g([&](auto& yield) {
    ran = true;
    for (int i = 0; i < 3; ++i) yield(i * i);
  });
  CHECK_FALSE(ran);
  CHECK(g.next() == 0);
  CHECK(ran);
  CHECK(g.next() == 1);
  CHECK_FALSE(g.done());
  CHECK(g.next() == 4);
  CHECK_FALSE(g.next());
  CHECK(g.done());
  CHECK_FALSE(g.next());  // again
  g.close();
  CHECK(all_of(generator<int>([] {})).empty());
}

HUB_CASE("generator: yields from nested functions that know nothing of it") {
  CHECK(all_of(generator<int>([] { countdown(3); })) == std::vector<int>{3, 2, 1});
}

HUB_CASE("generator: generators within generators: all permutations") {
  auto found = all_of(permutations(4));
  CHECK(found.size() == 24);
  std::sort(found.begin(), found.end());
  CHECK(std::unique(found.begin(), found.end()) == found.end());
}

HUB_CASE("generator: layers, each of which changes what the one below yields") {
  auto numbers = std::make_shared<generator<int>>([](auto& yield) {
    for (int i = 1; i < 5; ++i) yield(i);
  });
  auto doubled = std::make_shared<generator<int>>([numbers](auto& yield) {
    for (int n : *numbers) yield(2 * n);
  });
  generator<std::string> text([doubled](auto& yield) {
    for (int n : *doubled) yield(std::to_string(n));
  });
  CHECK(all_of(text) == std::vector<std::string>{"2", "4", "6", "8"});
}

HUB_CASE("generator: what is sent is the waiting yield's value, the result what it returns") {
  generator<int, int, std::string> sum([] {
    int total = 0;
    while (auto more = generator<int, int, std::string>::yield(total)) total += *more;
    return std::to_string(total);
  });
  CHECK_THROWS_AS(sum.send(1), generator_error);  // nobody waits for it
  CHECK_THROWS_AS(sum.result(), generator_error);
  CHECK(sum.next() == 0);
  CHECK(sum.send(5) == 5);
  CHECK(sum.send(7) == 12);
  CHECK_FALSE(sum.next());
  CHECK(sum.result() == "12");
  CHECK_FALSE(sum.send(1));
}

HUB_CASE("generator: an exception thrown into it is raised at the yield, and may be answered") {
  std::string log;
  generator<int> g([&](auto& yield) {
    try {
      yield(1);
    } catch (const own_error&) {
      log += "caught ";
      yield(2);
    }
  });
  CHECK(g.next() == 1);
  CHECK(g.throw_into(own_error()) == 2);
  CHECK(log == "caught ");
  CHECK_THROWS_AS(g.throw_into(own_error()), own_error);  // not caught: comes back here
  CHECK(g.done());
  CHECK_THROWS_AS(g.throw_into(own_error()), own_error);  // over
  generator<int> unbegun([&](auto&) { log += "never"; });
  CHECK_THROWS_AS(unbegun.throw_into(7), int);
  CHECK(unbegun.done());
  CHECK(log == "caught ");
}

HUB_CASE("generator: what leaves the body is thrown at who resumed it, once") {
  generator<int> g([](auto& yield) {
    yield(1);
    throw own_error();
  });
  CHECK(g.next() == 1);
  CHECK_THROWS_AS(g.next(), own_error);
  CHECK_FALSE(g.next());
}

HUB_CASE("generator: close raises generator_exit and runs the cleanup; destroying closes") {
  std::string log;
  auto body = [&](auto& yield) {
    struct says {
      std::string& log;
      ~says() { log += "cleaned "; }
    } at_end{log};
    try {
      yield(1);
    } catch (const std::exception&) {
      log += "wrong";  // generator_exit is none
    }
  };
  generator<int> g(body);
  g.next();
  g.close();
  CHECK(log == "cleaned ");
  g.close();
  CHECK(g.done());
  log.clear();
  {
    generator<int> dropped(body);
    dropped.next();
    generator<int> unbegun(body);
    auto moved = std::move(dropped);
    CHECK(dropped.done());
    CHECK_THROWS_AS(dropped.next(), generator_error);
  }
  CHECK(log == "cleaned ");
  generator<int> stubborn([](auto& yield) {
    try {
      yield(1);
    } catch (const generator_exit&) {
      yield(2);
    }
  });
  stubborn.next();
  CHECK_THROWS_AS(stubborn.close(), generator_error);
  generator<int> fails([](auto& yield) {
    try {
      yield(1);
    } catch (const generator_exit&) {
      throw own_error();
    }
  });
  fails.next();
  CHECK_THROWS_AS(fails.close(), own_error);
}

HUB_CASE("generator: leaving its loop early, by break or by an exception, closes it with its owner") {
  bool cleaned = false;
  auto run = [&](bool fail) {
    cleaned = false;
    struct mark {
      bool& flag;
      ~mark() { flag = true; }
    };
    for (int i : generator<int>([&](auto& yield) {
           mark m{cleaned};
           for (int n = 0;; ++n) yield(n);
         }))
      if (i == 3) {
        if (fail) throw own_error();
        break;
      }
  };
  run(false);
  CHECK(cleaned);
  CHECK_THROWS_AS(run(true), own_error);
  CHECK(cleaned);
}

HUB_CASE("generator: a yield outside of one, or of another type, is an error; so is one that resumes itself") {
  CHECK_THROWS_AS(generator<int>::yield(1), generator_error);
  greenlet plain([] { CHECK_THROWS_AS(generator<int>::yield(1), generator_error); });
  plain.switch_to();
  generator<int> other([] { generator<std::string>::yield("text"); });
  CHECK_THROWS_AS(other.next(), generator_error);
  generator<int>* self = nullptr;
  generator<int> g([&](auto& yield) {
    CHECK_THROWS_AS(self->next(), generator_error);
    CHECK_THROWS_AS(self->close(), generator_error);
    yield(1);
  });
  self = &g;
  CHECK(g.next() == 1);
}

HUB_CASE("generator: yield_from hands down what is sent and thrown, and gives the result") {
  using source = generator<int, int, std::string>;
  std::string log;
  auto make_inner = [&] {
    return source([&](auto& yield) -> std::string {
      int n = 0;
      while (n < 10) try {
          auto sent = yield(n);
          n += sent ? *sent : 1;
        } catch (const own_error&) {
          log += "inner caught ";
          n = 100;
        }
      return "inner";
    });
  };
  source outer([&](auto& yield) -> std::string {
    auto inner = make_inner();
    auto first = yield.from(inner);
    auto second = make_inner();
    return first + "+" + yield.from(second);
  });
  CHECK(outer.next() == 0);
  CHECK(outer.next() == 1);
  CHECK(outer.send(5) == 6);
  CHECK(outer.throw_into(own_error()) == 0);  // the first is over, the second begins
  CHECK(log == "inner caught ");
  CHECK_FALSE(outer.send(10));
  CHECK(outer.result() == "inner+inner");
  bool cleaned = false;
  generator<int> closes([&](auto& yield) {
    generator<int> inner([&](auto& y) {
      try {
        y(1);
      } catch (const generator_exit&) {
        cleaned = true;
        throw;
      }
    });
    yield.from(inner);
  });
  closes.next();
  closes.close();
  CHECK(cleaned);
}

HUB_CASE("generator: values that can only be moved; the input iterator works with algorithms") {
  generator<std::unique_ptr<int>> g([](auto& yield) {
    for (int i = 0; i < 3; ++i) yield(std::make_unique<int>(i));
  });
  int sum = 0;
  while (auto p = g.next()) sum += **p;
  CHECK(sum == 3);
  generator<int> numbers([](auto& yield) {
    for (int i = 1; i <= 4; ++i) yield(i);
  });
  static_assert(std::input_iterator<generator<int>::iterator>);
  CHECK(std::ranges::count_if(numbers, [](int n) { return n % 2 == 0; }) == 2);
}

HUB_CASE("generator: waits like its fiber, is handed from fiber to fiber, and dies with a fiber killed inside it") {
  generator<int> g([](auto& yield) {
    for (int i = 0; i < 4; ++i) {
      sleep(1ms);
      yield(i);
    }
  });
  std::string log;
  auto reader = [&](const char* name) {
    return spawn([&, name] { log += name + std::to_string(*g.next()); });
  };
  reader("a").join();
  reader("b").join();
  auto inside = reader("c");
  yield();
  CHECK_THROWS_AS(g.next(), generator_error);  // c waits inside
  inside.kill();
  CHECK(log == "a0b1");
  CHECK(g.done());
  CHECK_FALSE(g.next());
}

HUB_CASE("generator: on another thread is an error") {
  generator<int> g([](auto& yield) { yield(1); });
  std::thread([&] { CHECK_THROWS_AS(g.next(), wrong_thread); }).join();
  CHECK(g.next() == 1);
}
