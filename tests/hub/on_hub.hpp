#pragma once
// What the tests of hub, sync and io share: the modes in which a case runs, and the look at what it left behind.
//
// HUB_CASE runs its body on this thread's hub (whose engine RINGLET_ENGINE chooses), and again on new threads whose hubs
// stand on the simulated engine, with two seeds: there time jumps, so that an hour's sleep is instant and exact.
// After each, nothing may be left: no fiber, timer, operation, wait, stack or greenlet.

#include <chrono>
#include <exception>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <ringlet/ringlet.hpp>

#include "context/child.hpp"
#include "hub/hub.hpp"
#include "loop/clock.hpp"
#include "loop/engine.hpp"
#include "support/support.hpp"

namespace hub_test {

using namespace ringlet;
using namespace std::chrono_literals;
using support::contains;

// What this thread's hub still has, in words, or nothing.
inline std::string left_behind() {
  auto* hub = detail::hub_state::here_or_null();
  if (!hub) return {};
  hub->thread.tidy();
  for (int i = 0; i < 1000 && hub->fiber_count > 0; ++i) yield();  // links that have just been started
  const hub::counts c = hub::count();
  std::string text;
  auto add = [&](const char* what, std::size_t n) {
    if (n) text += (text.empty() ? "" : ", ") + std::to_string(n) + " " + what;
  };
  add("fibers", c.fibers);
  add("ready", c.ready);
  add("timers", c.timers);
  add("operations", c.operations);
  add("waits on fds", c.fd_waits);
  add("stacks", c.stacks);
  if (c.fibers) text += "\n" + hub::describe_fibers();
  return text;
}

inline bool has_background_thread() {
#if defined(__SANITIZE_THREAD__)
  return true;  // ThreadSanitizer's own: to the hub, somebody who may yet wake us
#else
  return false;
#endif
}

inline bool is_simulated() { return loop::thread_clock() != nullptr; }

// Runs f on a new thread, on whose hub time is simulated.
template <class F>
void on_simulated_hub(std::uint64_t seed, F f) {
  std::exception_ptr failed;
  std::thread([&] {
    INFO("on the simulated engine, seed ", seed);
    try {
      detail::hub_state::make_here({loop::make_simulated_engine(seed), "a test"});
      f();
      CHECK(left_behind() == "");
    } catch (...) {
      failed = std::current_exception();
    }
  }).join();
  if (failed) std::rethrow_exception(failed);
}

inline void in_each_mode(void (*body)()) {
  const std::size_t living = living_greenlets();
  body();
  CHECK(left_behind() == "");
  for (std::uint64_t seed : {1, 2}) on_simulated_hub(seed, body);
  CHECK(living_greenlets() == living);
}

#define RINGLET_HUB_CASE(function, name)             \
  static void function();                            \
  TEST_CASE(name) { hub_test::in_each_mode(&function); } \
  static void function()
#define HUB_CASE(name) RINGLET_HUB_CASE(DOCTEST_ANONYMOUS(hub_case_), name)

// In a forked child ThreadSanitizer goes deaf on the stack that forked, and takes all that happens on others for races
// with it.
#if defined(__SANITIZE_THREAD__)
#define NOT_UNDER_TSAN RINGLET_SKIP("ThreadSanitizer does not follow a fork of a process with fibers")
#else
#define NOT_UNDER_TSAN
#endif

// A fact that other fibers, other threads or the kernel bring about, in real time; false after 20 s without.
template <class Fact>
bool soon(Fact holds) {
  const auto give_up = std::chrono::steady_clock::now() + 20s;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    ringlet::sleep(1ms);
  }
  return true;
}

// A moment of the clock that the running hub reads.
inline clock::time_point now() { return clock::now(); }
// At least that long, and exactly so where time is simulated.
inline bool took(clock::time_point since, clock::duration wanted) {
  const auto passed = now() - since;
  return is_simulated() ? passed == wanted : passed >= wanted;
}

template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  } catch (const greenlet_exit& e) {
    return e.what();
  } catch (const timeout_expired& e) {
    return e.what();
  } catch (int n) {
    return std::to_string(n);
  }
  return "";
}

// stderr, as long as it lives, goes into a file.
class captured_stderr {
 public:
  captured_stderr() {
    std::fflush(stderr);
    before_ = ::dup(2);
    file_ = std::tmpfile();
    ::dup2(::fileno(file_), 2);
  }
  ~captured_stderr() { end(); }
  std::string end() {
    if (!file_) return text_;
    std::fflush(stderr);
    ::dup2(before_, 2);
    ::close(before_);
    std::rewind(file_);
    char buffer[4096];
    while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, file_)) text_.append(buffer, n);
    std::fclose(std::exchange(file_, nullptr));
    return text_;
  }

 private:
  int before_ = -1;
  std::FILE* file_ = nullptr;
  std::string text_;
};

inline std::size_t times_in(std::string_view text, std::string_view part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace hub_test
