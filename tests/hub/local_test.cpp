// Fiber-locals: each fiber's own, gone with it, and handed down on demand.

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "on_hub.hpp"

using namespace hub_test;

HUB_CASE("fiber_local: each fiber has its own, made when it first looks") {
  int made = 0;
  fiber_local<int> local([&] { return ++made * 100; });
  CHECK(local.find() == nullptr);
  CHECK(*local == 100);
  *local = 1;
  std::vector<fiber<int>> all;
  for (int i = 0; i < 3; ++i)
    all.push_back(spawn([&] {
      *local += 1;
      yield();  // the others write theirs
      return *local;
    }));
  joinall(all);
  CHECK(all[0].get() == 201);
  CHECK(all[1].get() == 301);
  CHECK(all[2].get() == 401);
  CHECK(*local == 1);
  local.reset();
  CHECK(local.find() == nullptr);
  CHECK(*local == 500);
  local.reset();
}

HUB_CASE("fiber_local: is destroyed at its fiber's end, however it ends, before anybody is told") {
  struct counted {
    int& alive;
    explicit counted(int& a) : alive(a) { ++alive; }
    counted(const counted&) = delete;
    ~counted() { --alive; }
  };
  int alive = 0;
  fiber_local<counted> local([&] { return counted(alive); });
  auto returns = spawn([&] { *local; });
  auto fails = spawn([&] {
    *local;
    throw 1;
  });
  auto killed = spawn([&] {
    *local;
    sleep(1h);
  });
  yield();
  CHECK(alive == 1);
  killed.kill();
  CHECK(alive == 0);
  joinall({returns, fails});
  CHECK(fails.exception());
  int at_link = -1;
  auto linked = spawn([&] { *local; });
  linked.link([&](any_fiber) { at_link = alive; });
  linked.join();
  yield();
  CHECK(at_link == 0);
}

HUB_CASE("fiber_local: destructors may wait, and look at other locals") {
  std::string log;
  struct says {
    std::string& log;
    std::string text;
    fiber_local<int>& other;
    ~says() {
      sleep(1ms);
      log += text + std::to_string(++*other) + " ";
    }
  };
  fiber_local<int> number([] { return 0; });
  fiber_local<std::unique_ptr<says>> first, second;
  spawn([&] {
    first->reset(new says{log, "first", number});
    second->reset(new says{log, "second", number});
  }).join();
  CHECK(log == "second1 first2 ");  // and a number made anew by a destructor goes, too
}

HUB_CASE("fiber_local: one that is gone before its fiber leaves its value to the fiber") {
  auto alive = std::make_shared<int>(1);
  event go;
  auto f = spawn([&] {
    {
      fiber_local<std::shared_ptr<int>> brief([&] { return alive; });
      *brief;
    }
    go.wait();
  });
  yield();
  CHECK(alive.use_count() == 2);
  go.set();
  f.join();
  CHECK(alive.use_count() == 1);
}

HUB_CASE("fiber_local: belongs to the fiber, whichever greenlet it runs in") {
  fiber_local<int> local([] { return 0; });
  auto f = spawn([&] {
    *local = 1;
    greenlet inner([&] { ++*local; });
    inner.switch_to();
    return *local;
  });
  CHECK(f.get() == 2);
}

TEST_CASE("fiber_local: one for several threads, each main fiber's goes with its thread") {
  std::atomic<int> alive{0};
  struct counted {
    std::atomic<int>& alive;
    explicit counted(std::atomic<int>& a) : alive(a) { ++alive; }
    counted(const counted&) = delete;
    ~counted() { --alive; }
  };
  fiber_local<counted> local([&] { return counted(alive); });
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      *local;
      spawn([&] { *local; }).join();
    });
  for (auto& t : threads) t.join();
  CHECK(alive == 0);
}

HUB_CASE("inherited_local: a fiber begins with its spawner's value, and changes only its own and its children's") {
  inherited_local<std::string> tag("none");
  CHECK(*tag == "none");
  tag.set("main");
  event go;
  std::string of_grandchild, of_child;
  auto before = spawn([&] {
    go.wait();
    return *tag;
  });
  tag.set("changed");
  auto child = spawn([&] {
    of_child = *tag;
    tag.set("child");
    auto grandchild = spawn([&] { of_grandchild = *tag; });
    grandchild.join();
  });
  child.join();
  CHECK(of_child == "changed");
  CHECK(of_grandchild == "child");
  CHECK(*tag == "changed");
  go.set();
  CHECK(before.get() == "main");
  tag.reset();
  CHECK(*tag == "none");
  CHECK(spawn([&] { return tag->size(); }).get() == 4);
}

HUB_CASE("inherited_local: its value goes with the last fiber that has it; a pointer shares one object with all") {
  auto shared = std::make_shared<int>(0);
  {
    inherited_local<std::shared_ptr<int>> tree;
    tree.set(shared);
    auto a = spawn([&] {
      ++**tree;
      spawn([&] { ++**tree; }).join();
    });
    a.join();
    CHECK(*shared == 2);
    tree.reset();
    CHECK(shared.use_count() == 1);
    tree.set(shared);
    auto holder = spawn([] { sleep(1ms); });
    tree.reset();
    CHECK(shared.use_count() == 2);
    holder.join();
    CHECK(shared.use_count() == 1);
  }
}
