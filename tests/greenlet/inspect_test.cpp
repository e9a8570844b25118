// What is seen of a greenlet or fiber from outside: weak handles, stacks, backtraces, descriptions.

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "hub/on_hub.hpp"

using namespace hub_test;

namespace {

// Two frames that a backtrace must show. Each has a section of its own, whose end the linker tells: a function's size is
// what the compiler and its sanitizers make of it.
extern "C" char __start_code_of_parks[], __stop_code_of_parks[], __start_code_of_calls[], __stop_code_of_calls[];
[[gnu::noinline, gnu::section("code_of_parks")]] void parks(bool by_hand) {
  if (by_hand)
    greenlet::current().parent().switch_to();
  else
    sleep(1h);
  asm volatile("" ::: "memory");  // no tail call
}
[[gnu::noinline, gnu::section("code_of_calls")]] void calls(bool by_hand) {
  parks(by_hand);
  asm volatile("" ::: "memory");
}

bool any_between(const std::vector<void*>& frames, const char* begin, const char* end) {
  return std::ranges::any_of(frames, [=](void* f) { return f > begin && f <= end; });
}
bool in_parks(const std::vector<void*>& frames) { return any_between(frames, __start_code_of_parks, __stop_code_of_parks); }
bool in_calls(const std::vector<void*>& frames) { return any_between(frames, __start_code_of_calls, __stop_code_of_calls); }

[[gnu::noinline]] int deep(int depth) {
  volatile char page[2048];
  page[0] = char(depth);
  const int below = depth > 0 ? deep(depth - 1) : 0;
  return below + page[0];
}

}  // namespace

TEST_CASE("weak: locks while a handle lives, and keeps nothing") {
  weak_greenlet weak, copy;
  CHECK(weak.lock().empty());
  bool unwound = false;
  {
    greenlet g([&] {
      struct at_end {
        bool& flag;
        ~at_end() { flag = true; }
      } mark{unwound};
      greenlet::current().parent().switch_to();
    });
    weak = g;
    CHECK(weak.lock() == g);
    g.switch_to();
    copy = weak;
    CHECK(copy.lock() == g);
    CHECK_FALSE(unwound);
  }
  CHECK(unwound);
  CHECK(weak.lock().empty());
  CHECK(copy.lock().empty());
  {
    greenlet dead([] {});
    weak = dead;
    dead.switch_to();
    CHECK(weak.lock().dead());
  }
  CHECK(weak.lock().empty());
  const weak_greenlet main(greenlet::current());
  CHECK(main.lock() == greenlet::current());
}

TEST_CASE("weak: a parent link and handles that parent() gives do not keep it") {
  weak_greenlet weak;
  greenlet child;
  {
    greenlet parent([] {});
    child = greenlet([] {}, parent);
    weak = parent;
  }
  CHECK(weak.lock().empty());
  child = {};
}

TEST_CASE("weak: on another thread it is empty, may be dropped there, and is made on the own thread only") {
  greenlet g([] {});
  weak_greenlet weak(g);
  std::thread([moved = weak, &g] {
    CHECK(moved.lock().empty());
    CHECK_THROWS_AS(weak_greenlet{g}, wrong_thread);
  }).join();
  CHECK(weak.lock() == g);
  weak_greenlet orphan;
  std::thread([&] {
    greenlet theirs([] { greenlet::current().parent().switch_to(); });
    theirs.switch_to();
    orphan = theirs;
  }).join();
  CHECK(orphan.lock().empty());
}

HUB_CASE("weak: of a fiber, expires when it has finished and its last handle has gone") {
  weak_fiber weak;
  {
    auto f = spawn([] { sleep(1ms); });
    weak = f;
    CHECK(weak.lock() == f);
  }
  CHECK_FALSE(weak.lock().empty());  // it runs on without a handle
  weak.lock().join();
  yield();
  CHECK(weak.lock().empty());
  CHECK(weak_fiber(current()).lock() == current());
}

HUB_CASE("stack: a suspended one uses some, a dead one none; what was touched stays told") {
  greenlet g([] {
    deep(8);
    greenlet::current().parent().switch_to();
  });
  CHECK(g.stack().used_bytes == 0);
  CHECK(g.stack().size_bytes > 32 * 1024);
  g.switch_to();
  const stack_use use = g.stack();
  CHECK(use.used_bytes > 0);
  CHECK(use.used_bytes < 8 * 1024);
  CHECK(use.touched_bytes >= 16 * 1024);
  CHECK(use.touched_bytes <= use.size_bytes);
  g.switch_to();
  CHECK(g.stack().used_bytes == 0);
  CHECK(g.stack().touched_bytes == 0);
  auto f = spawn({.stack_size_bytes = 256 * 1024}, [] {
    const auto mine = current().stack();
    sleep(1ms);
    return mine;
  });
  yield();
  CHECK(f.stack().used_bytes > 0);
  CHECK(f.stack().size_bytes > 128 * 1024);
  CHECK(f.get().used_bytes > 0);
  CHECK(greenlet::current().stack().size_bytes == 0);  // main's is not ours
}

HUB_CASE("backtrace: of a suspended greenlet and a parked fiber shows where they are, and disturbs nothing") {
  greenlet g([] { calls(true); });
  CHECK(g.backtrace().empty());
  g.switch_to();
  auto f = spawn([] { calls(false); });
  CHECK(f.backtrace().empty());
  yield();
  for (int again = 0; again < 3; ++again) {
    CHECK(in_parks(g.backtrace()));
    CHECK(in_calls(g.backtrace()));
    CHECK(in_parks(f.backtrace()));
    CHECK(in_calls(f.backtrace()));
  }
  CHECK_FALSE(in_parks(greenlet::current().backtrace()));
  CHECK(greenlet::current().backtrace().size() > 2);
  auto inside = spawn([&] {
    greenlet inner([] { calls(false); });
    inner.switch_to();
  });
  yield();
  CHECK(in_parks(inside.backtrace()));  // in the greenlet in which it is parked
  auto looks = spawn([&] { return f.backtrace().size() + current().backtrace().size(); });
  CHECK(looks.get() > 4);
  g.switch_to();
  CHECK(g.dead());
  CHECK(g.backtrace().empty());
  f.kill();
  inside.kill();
  CHECK(f.backtrace().empty());
}

HUB_CASE("backtrace: is told in words, a line a frame") {
  auto f = spawn({.name = "sleeper"}, [] { calls(false); });
  yield();
  const auto frames = f.backtrace();
  const std::string text = describe_backtrace(frames);
  CHECK(times_in(text, "\n") == frames.size());
  CHECK(contains(text, " + 0x"));
  const std::string all = hub::describe_fibers({.backtraces = true});
  CHECK(contains(all, "'sleeper': parked in sleep"));
  CHECK(times_in(all, "\n") > frames.size());
  f.kill();
}

HUB_CASE("describe: what a fiber does, in every state") {
  event e;
  auto f = spawn({.name = "worker"}, [&] { e.wait(); });
  auto later = spawn_later(1h, [] {});
  CHECK(contains(f.describe(), "'worker': not begun"));
  CHECK(contains(later.describe(), "to begin later"));
  CHECK(contains(current().describe(), "running"));
  yield();
  CHECK(contains(f.describe(), "'worker': parked in event on 0x"));
  e.set();
  CHECK(contains(f.describe(), "ready"));
  f.join();
  CHECK(contains(f.describe(), "finished"));
  later.kill();
  CHECK(any_fiber().describe() == "no fiber");
}
