// executor: the same work in three places, and what shutdown waits for.

#include "ringlet/executor.hpp"

#include <atomic>
#include <stdexcept>
#include <sys/syscall.h>
#include <unistd.h>

#include "hub/on_hub.hpp"

using namespace hub_test;

namespace {
long thread_id() { return ::syscall(SYS_gettid); }

void use(executor& e, bool elsewhere) {
  CHECK(e.submit([](int a, int b) { return a * b; }, 6, 7).get() == 42);
  CHECK((e.submit([] { return thread_id(); }).get() != thread_id()) == elsewhere);
  auto failing = e.submit([] { throw std::runtime_error("work failed"); });  // kept: ThreadSanitizer knows no exception's count
  CHECK(error_of([&] { failing.get(); }) == "work failed");
  CHECK(e.map([](int i) { return i + 1; }, std::vector{1, 2, 3}) == std::vector{2, 3, 4});
  auto a = e.submit([] { return 1; }), b = e.submit([] { return 2; });
  CHECK(wait({a, b}).size() == 2);
  CHECK(e.shutdown());
  CHECK_THROWS_AS(e.submit([] {}), std::runtime_error);
}
}  // namespace

TEST_CASE("executor: on threads of its own, on a thread_pool, on other hubs, in fibers: the same results") {
  {
    executor e(2);
    use(e, true);
  }
  {
    thread_pool threads(2);
    executor e(threads);
    use(e, true);
    CHECK(threads.apply([] { return 1; }) == 1);
  }
  {
    hub_threads hubs(2);
    executor e(hubs);
    use(e, true);
  }
  {
    pool fibers(2);
    executor e(fibers);
    use(e, false);
  }
}

TEST_CASE("executor: its end waits for all that was submitted") {
  std::atomic<int> ran{0};
  {
    executor e(2);
    for (int i = 0; i < 20; ++i)
      e.submit([&] {
        ::usleep(500);  // so that its end comes, most often, before theirs
        ++ran;
      });
  }
  CHECK(ran == 20);
}

TEST_CASE("executor: a shutdown that cancels lets nothing begin that has not") {
  std::atomic<bool> begun{false}, go{false};
  std::atomic<int> ran{0};
  executor e(1);
  auto first = e.submit([&] {
    begun = true;
    begun.notify_all();
    go.wait(false);
    ++ran;
  });
  std::vector<future<>> rest;
  for (int i = 0; i < 5; ++i) rest.push_back(e.submit([&] { ++ran; }));
  begun.wait(false);
  CHECK_FALSE(e.shutdown(2ms, true));
  go = true;
  go.notify_all();
  CHECK(e.shutdown());
  CHECK(ran == 1);
  first.get();
  for (auto& f : rest) CHECK(error_of([&] { f.get(); }) == "ringlet::greenlet_exit");
}
