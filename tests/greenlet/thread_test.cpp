// Greenlets and threads: a greenlet stays on its thread, its handles need not, and threads and processes end with
// greenlets suspended.

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <ringlet/greenlet.hpp>

#include "context/child.hpp"

using namespace ringlet;
using support::contains;

namespace {

struct counts_end {
  std::atomic<int>* n;
  explicit counts_end(std::atomic<int>& of) : n(&of) {}
  counts_end(const counts_end&) = delete;
  ~counts_end() { ++*n; }
};

greenlet suspended(std::atomic<int>& ended) {
  greenlet g([&ended] {
    counts_end mark(ended);
    greenlet::current().parent().switch_to();
  });
  g.switch_to();
  return g;
}

std::string error_of(const greenlet& g) {
  try {
    g.switch_to();
  } catch (const wrong_thread& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("thread: a switch from another thread is wrong_thread, and nothing else breaks") {
  std::atomic<int> ended{0};
  greenlet g = suspended(ended);
  greenlet unstarted([] {});
  const greenlet main = greenlet::current();
  std::thread([&] {
    CHECK(contains(error_of(g), "different thread"));
    CHECK(contains(error_of(unstarted), "different thread"));
    CHECK(contains(error_of(main), "the main greenlet of another thread"));
    CHECK_THROWS_AS(g.throw_into(), wrong_thread);
    greenlet own([&] { CHECK(contains(error_of(g), "different thread")); });
    own.switch_to();
  }).join();
  CHECK(ended == 0);
  g.switch_to();
  CHECK(ended == 1);
  unstarted.switch_to();
}

TEST_CASE("thread: ten threads switch at each other's greenlets and all get the error") {
  constexpr int count = 10;
  std::vector<greenlet> all(count);
  std::atomic<int> ready{0}, errors{0}, ended{0}, done{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i)
    threads.emplace_back([&, i] {
      all[std::size_t(i)] = suspended(ended);
      ++ready;
      while (ready < count) std::this_thread::yield();
      for (int n = 0; n < 100; ++n)
        if (error_of(all[std::size_t((i + 1 + n % (count - 1)) % count)]) != "no error") ++errors;
      ++done;
      while (done < count) std::this_thread::yield();
      all[std::size_t(i)].switch_to();
    });
  for (auto& t : threads) t.join();
  CHECK(errors == count * 100);
  CHECK(ended == count);
}

TEST_CASE("thread: a greenlet of a thread that has exited is dead or refuses with the reason") {
  greenlet unstarted, of_main, killed;
  std::atomic<int> ended{0};
  std::thread([&] {
    unstarted = greenlet([] {});
    of_main = greenlet::current();
    killed = suspended(ended);
  }).join();
  CHECK(ended == 1);  // unwound at its thread's end, although a handle is left
  CHECK(killed.dead());
  CHECK(of_main.dead());
  CHECK(contains(error_of(of_main), "a thread that has exited"));
  CHECK(contains(error_of(killed), "a thread that has exited"));
  CHECK(contains(error_of(unstarted), "a thread that has exited"));
  CHECK_THROWS_AS(killed.throw_into(), wrong_thread);
}

TEST_CASE("thread: one dropped on another thread is unwound at its owner's next call") {
  std::atomic<int> ended{0};
  greenlet g = suspended(ended);
  std::thread([h = std::move(g)]() mutable { h = greenlet(); }).join();
  CHECK(ended == 0);
  greenlet([] {}).switch_to();
  CHECK(ended == 1);
  CHECK(living_greenlets() == 0);
}

TEST_CASE("thread: one dropped after its thread's end is freed") {
  for (int i = 0; i < 20; ++i) {
    greenlet unstarted, main;
    std::atomic<int> ended{0};
    greenlet killed;
    std::thread([&] {
      unstarted = greenlet([] {});
      killed = suspended(ended);
      main = greenlet::current();
    }).join();
    if (i % 2) main = greenlet();
    std::thread([a = std::move(unstarted), b = std::move(killed)]() mutable {}).join();
  }
  CHECK(living_greenlets() == 0);
}

TEST_CASE("thread: drops race with the owner's end") {
  const int rounds = support::is_instrumented() ? 50 : 300;
  std::atomic<int> ended{0};
  for (int i = 0; i < rounds; ++i) {
    std::vector<greenlet> all;
    std::atomic<bool> made{false};
    std::thread owner([&] {
      for (int n = 0; n < 6; ++n) all.push_back(n % 3 ? suspended(ended) : greenlet([] {}));
      made.store(true, std::memory_order_release);
    });
    auto drop = [&](std::size_t from) {
      while (!made.load(std::memory_order_acquire)) std::this_thread::yield();
      for (std::size_t n = from; n < 6; n += 2) all[n] = greenlet();
    };
    std::thread first([&] { drop(0); }), second([&] { drop(1); });
    owner.join();
    first.join();
    second.join();
  }
  CHECK(ended == rounds * 4);
  CHECK(living_greenlets() == 0);
}

TEST_CASE("thread: its end meets drops of just those that it is about to unwind") {
  constexpr int count = 2000;
  const int rounds = support::is_instrumented() ? 2 : 20;
  for (int i = 0; i < rounds; ++i) {
    std::atomic<int> ended{0};
    std::vector<greenlet> all;
    std::atomic<bool> made{false};
    std::thread owner([&] {
      for (int n = 0; n < count; ++n) all.push_back(suspended(ended));
      made.store(true, std::memory_order_release);
    });
    while (!made.load(std::memory_order_acquire)) std::this_thread::yield();
    for (int n = 0; n < count; ++n) {
      while (ended.load(std::memory_order_relaxed) < n) {  // until its turn comes; all of them end, so this does
      }
      all[std::size_t(n)] = greenlet();
    }
    owner.join();
    CHECK(ended == count);
  }
  CHECK(living_greenlets() == 0);
}

TEST_CASE("thread: its end unwinds what is suspended, nested ones too") {
  std::atomic<int> ended{0};
  std::thread([&] {
    static thread_local std::vector<greenlet> kept;
    for (int i = 0; i < 50; ++i) kept.push_back(suspended(ended));
    std::function<void(int)> nest = [&](int depth) {
      counts_end mark(ended);
      if (depth > 0) {
        greenlet inner([&, depth] { nest(depth - 1); });
        inner.switch_to();
      } else {
        greenlet::current().parent().parent().switch_to();
      }
      greenlet::current().parent().switch_to();
    };
    // Nobody holds the inner ones but their frames, nobody the outer one but a handle that is leaked.
    auto* leaked = new greenlet([&] { nest(5); });
    leaked->switch_to();
    greenlet never_ran([&] { ++ended; });
    *leaked = greenlet(*leaked);
    kept.push_back(*leaked);
    delete leaked;
  }).join();
  CHECK(ended == 56);
  CHECK(living_greenlets() == 0);
}

TEST_CASE("thread: cleanup at its end may use greenlets") {
  std::atomic<int> ended{0}, helped{0};
  std::thread([&] {
    static thread_local greenlet kept;
    kept = greenlet([&] {
      struct uses_greenlets {
        std::atomic<int>&ended, &helped;
        ~uses_greenlets() {
          greenlet helper([this] { ++helped; });
          helper.switch_to();
          ++ended;
        }
      } at_end{ended, helped};
      greenlet::current().parent().switch_to();
    });
    kept.switch_to();
  }).join();
  CHECK(ended == 1);
  CHECK(helped == 1);
  CHECK(living_greenlets() == 0);
}

TEST_CASE("thread: many come and go with greenlets unfinished") {
  const int rounds = support::is_instrumented() ? 20 : 200;
  std::atomic<int> ended{0};
  for (int i = 0; i < rounds; ++i)
    std::thread([&] {
      std::vector<greenlet> some;
      for (int n = 0; n < 5; ++n) some.push_back(suspended(ended));
    }).join();
  CHECK(ended == rounds * 5);
  CHECK(living_greenlets() == 0);
}

TEST_CASE("process: exits in peace with fifty greenlets suspended") {
  static std::vector<greenlet>* leaked;
  static std::vector<greenlet> destroyed_late;
  static std::atomic<int> ended{0};
  if (support::child_part("exit")) {
    leaked = new std::vector<greenlet>;
    for (int i = 0; i < 50; ++i) leaked->push_back(suspended(ended));
    for (int i = 0; i < 50; ++i) destroyed_late.push_back(suspended(ended));
    std::exit(5);
  }
  if (support::child_part("exit inside")) {
    static greenlet g;
    g = greenlet([] { std::exit(6); });
    g.switch_to();
  }
  if (support::child_part("at exit")) {
    std::atexit([] {
      std::atomic<int> n{0};
      { greenlet g = suspended(n); }
      std::_Exit(n == 1 ? 8 : 9);
    });
    static greenlet g = suspended(ended);
    std::exit(0);
  }
  CHECK(support::run_this_case("exit").exit_status == 5);
  CHECK(support::run_this_case("exit inside").exit_status == 6);
  CHECK(support::run_this_case("at exit").exit_status == 8);
}
