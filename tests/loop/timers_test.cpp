// The heap of deadlines against the obvious thing: a multimap.

#include <map>
#include <random>
#include <vector>

#include "loop/timers.hpp"
#include "support/support.hpp"

using namespace ringlet::loop;
using ringlet::clock;
using namespace std::chrono_literals;

namespace {

clock::time_point at(long nanoseconds) { return clock::time_point(std::chrono::nanoseconds(nanoseconds)); }

struct noted : timer {
  int number = 0;
  std::vector<int>* fired = nullptr;
  noted() {
    fire = [](timer& t) {
      auto& self = static_cast<noted&>(t);
      self.fired->push_back(self.number);
    };
  }
};

}  // namespace

TEST_CASE("timers: fire in the order of their moments, equal ones in the order of arming") {
  timers heap;
  std::vector<int> fired;
  noted nodes[7];
  const long moments[] = {30, 10, 20, 10, 30, 10, 40};
  for (int i = 0; i < 7; ++i) {
    nodes[i].number = i;
    nodes[i].fired = &fired;
    heap.arm(nodes[i], at(moments[i]));
  }
  CHECK(heap.earliest() == at(10));
  CHECK(heap.expire(at(9)) == 0);
  CHECK(heap.expire(at(30)) == 6);
  CHECK(fired == std::vector<int>{1, 3, 5, 2, 0, 4});
  CHECK(heap.size() == 1);
  CHECK_FALSE(nodes[0].armed());
  heap.cancel(nodes[6]);
  CHECK(heap.earliest() == clock::time_point::max());
  heap.cancel(nodes[6]);
}

TEST_CASE("timers: a fire function may arm itself again, and others, and cancel others") {
  timers heap;
  struct actor : timer {
    timers* heap = nullptr;
    timer* victim = nullptr;
    int times = 0;
  } a, b;
  a.heap = &heap;
  a.victim = &b;
  a.fire = [](timer& t) {
    auto& self = static_cast<actor&>(t);
    ++self.times;
    self.heap->cancel(*self.victim);
    self.heap->arm(self, at(0));  // already past: must not keep expire for ever
  };
  b.fire = [](timer& t) { ++static_cast<actor&>(t).times; };
  heap.arm(a, at(1));
  heap.arm(b, at(2));
  const auto fired = heap.expire(at(5));
  CHECK(fired >= 1);
  CHECK(fired <= 2);
  CHECK(a.times == int(fired));
  CHECK(b.times == 0);
  CHECK(a.armed());
  heap.forget_all();
  CHECK_FALSE(a.armed());
  CHECK(heap.size() == 0);
}

TEST_CASE("timers: agree with a multimap over random operations") {
  for (unsigned seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    timers heap;
    std::multimap<clock::time_point, int> oracle;  // equal keys keep the order of insertion
    std::vector<int> fired;
    std::vector<noted> nodes(300);
    std::vector<std::multimap<clock::time_point, int>::iterator> places(nodes.size());
    for (int i = 0; i < int(nodes.size()); ++i) nodes[unsigned(i)].number = i, nodes[unsigned(i)].fired = &fired;
    long now = 0;
    for (int step = 0; step < 20'000; ++step) {
      const auto i = random() % nodes.size();
      switch (random() % 8) {
        default:
          if (!nodes[i].armed()) {
            const auto moment = at(now + long(random() % 1000) - 50);
            heap.arm(nodes[i], moment);
            places[i] = oracle.emplace(moment, int(i));
          }
          break;
        case 0:
        case 1:
          if (nodes[i].armed()) oracle.erase(places[i]);
          heap.cancel(nodes[i]);
          break;
        case 2: {
          now += long(random() % 30);
          fired.clear();
          std::vector<int> expected;
          for (auto it = oracle.begin(); it != oracle.end() && it->first <= at(now); it = oracle.erase(it))
            expected.push_back(it->second);
          REQUIRE(heap.expire(at(now)) == expected.size());
          REQUIRE(fired == expected);
          break;
        }
      }
      REQUIRE(heap.size() == oracle.size());
      REQUIRE(heap.earliest() == (oracle.empty() ? clock::time_point::max() : oracle.begin()->first));
      REQUIRE(heap.due() == heap.earliest());
    }
  }
}
