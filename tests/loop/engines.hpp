#pragma once
// What the engine tests share: the engines as types, so that each case runs over all of them, and a watcher that writes
// down what it is told.

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <poll.h>

#include "loop/clock.hpp"
#include "loop/engine.hpp"
#include "support/support.hpp"

namespace loop_test {

using namespace ringlet::loop;
using ringlet::clock;
using namespace std::chrono_literals;

struct uring {
  static std::unique_ptr<engine> make(std::string* why_not) { return make_uring_engine(why_not); }
};
struct epoll {
  static std::unique_ptr<engine> make(std::string*) { return make_epoll_engine(); }
};
struct simulated {
  static std::unique_ptr<engine> make(std::string*) {
    const char* seed = std::getenv("RINGLET_SEED");
    return make_simulated_engine(seed ? std::strtoull(seed, nullptr, 10) : 1);
  }
};

#define ENGINE_CASE(name) TEST_CASE_TEMPLATE(name, E, loop_test::uring, loop_test::epoll, loop_test::simulated)
#define KERNEL_ENGINE_CASE(name) TEST_CASE_TEMPLATE(name, E, loop_test::uring, loop_test::epoll)
#define MAKE_ENGINE(variable)                                 \
  std::string why_not;                                        \
  const auto variable##_owner = E::make(&why_not);            \
  if (!variable##_owner) RINGLET_SKIP("no ring: " + why_not); \
  engine& variable = *variable##_owner

struct watcher : readiness {
  std::vector<unsigned> told;
  unsigned all = 0;  // every bit ever told
  explicit watcher(int number) {
    fd = number;
    notify = [](readiness& r, unsigned events) {
      auto& self = static_cast<watcher&>(r);
      self.told.push_back(events);
      self.all |= events;
    };
  }
  bool saw(unsigned events) const { return (all & events) == events; }
};

struct result_of : completion {
  unsigned times = 0;
  result_of() {
    wake = [](completion& c) { ++static_cast<result_of&>(c).times; };
  }
};

// Turns until the condition holds; false after 20 real seconds without.
template <class Condition>
bool turn_until(engine& e, Condition holds) {
  const auto give_up = real_now() + 20s;
  while (!holds()) {
    if (real_now() > give_up) return false;
    e.wait(e.name() == "simulated" ? clock::time_point::max() : e.now() + 1s);
  }
  return true;
}

// Enough turns, without sleeping, for all that has happened to be told.
inline void settle(engine& e) {
  for (int i = 0; i < 64; ++i) e.wait(clock::time_point::min());
}

class variable_set {
 public:
  variable_set(const char* name, const char* value) : name_(name) {
    if (const char* was = std::getenv(name)) was_ = was, had_ = true;
    value ? ::setenv(name, value, 1) : ::unsetenv(name);
  }
  ~variable_set() { had_ ? ::setenv(name_, was_.c_str(), 1) : ::unsetenv(name_); }
  variable_set(const variable_set&) = delete;

 private:
  const char* name_;
  std::string was_;
  bool had_ = false;
};

}  // namespace loop_test
