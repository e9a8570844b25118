// What is special about simulated runs: a seed is a history.

#include <unistd.h>

#include <deque>

#include "engines.hpp"

using namespace loop_test;

namespace {

// Ten pipes, filled in the same way; who is told when.
std::vector<int> history(std::uint64_t seed) {
  const auto e = make_simulated_engine(seed);
  struct numbered : readiness {
    int number = 0;
    std::vector<int>* told = nullptr;
  };
  std::vector<int> told;
  std::deque<support::fd_pair> pipes;
  std::deque<numbered> all(10);
  for (int i = 0; i < 10; ++i) {
    pipes.push_back(support::make_pipe());
    all[unsigned(i)].fd = pipes.back().first;
    all[unsigned(i)].number = i;
    all[unsigned(i)].told = &told;
    all[unsigned(i)].notify = [](readiness& r, unsigned) {
      auto& self = static_cast<numbered&>(r);
      self.told->push_back(self.number);
    };
    REQUIRE(e->arm(all[unsigned(i)], direction::in) == 0);
  }
  std::deque<result_of> results(10);
  for (int turn = 0; turn < 100; ++turn) {
    REQUIRE(::write(pipes[unsigned(turn % 10)].second, "x", 1) == 1);
    if (turn < 10) e->start(operation{}, results[unsigned(turn)]);
    e->wait(clock::time_point::min());
    told.push_back(-1);
  }
  for (auto& r : all) e->disarm(r);
  for (auto& r : results) CHECK(r.times == 1);
  return told;
}

}  // namespace

TEST_CASE("simulated: the same seed gives the same history, another gives another") {
  CHECK(history(1) == history(1));
  CHECK(history(7) == history(7));
  CHECK(history(1) != history(7));
}

TEST_CASE("simulated: clock::now() is the virtual clock while the engine lives") {
  const auto before = clock::now();
  {
    const auto e = make_simulated_engine(1);
    CHECK(clock::now() == clock::time_point(1s));
    e->wait(clock::now() + 5min);
    CHECK(clock::now() == clock::time_point(5min + 1s));
  }
  CHECK(clock::now() >= before);
  CHECK(clock::now() < before + 1h);
}

TEST_CASE("simulated: time stands still while something is pending") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const auto e = make_simulated_engine(seed);
    result_of r;
    e->start(operation{}, r);
    auto [reader, writer] = support::make_pipe();
    watcher w(reader);
    REQUIRE(e->arm(w, direction::in) == 0);
    REQUIRE(::write(writer, "x", 1) == 1);
    while (!r.done || !w.saw(POLLIN)) {
      CHECK(e->now() == clock::time_point(1s));
      e->wait(clock::time_point(10s));
    }
    e->disarm(w);
  }
}

TEST_CASE("simulated: a loop that never sleeps sees time pass in the end") {
  const auto e = make_simulated_engine(1);
  const auto until = clock::now() + 1ms;
  while (clock::now() < until) e->wait(clock::time_point::min());
}

TEST_CASE("simulated: events are sometimes withheld and sometimes false") {
  unsigned withheld = 0, false_alarms = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const auto e = make_simulated_engine(seed);
    auto [reader, writer] = support::make_pipe();
    watcher w(reader);
    REQUIRE(e->arm(w, direction::in) == 0);
    e->wait(clock::time_point::min());
    false_alarms += !w.told.empty();
    w.told.clear();
    REQUIRE(::write(writer, "x", 1) == 1);
    e->wait(clock::time_point::min());
    withheld += w.told.empty();
    CHECK(turn_until(*e, [&] { return !w.told.empty(); }));
    e->disarm(w);
  }
  CHECK(withheld > 10);
  CHECK(withheld < 100);
  CHECK(false_alarms > 2);
  CHECK(false_alarms < 60);
}
