// manager: dicts and lists that many processes share.

#include <algorithm>
#include <thread>

#include <ringlet/ipc/manager.hpp>

#include "on_processes.hpp"

using namespace process_test;

PROCESS_CASE("manager: a dict and a list, written by ten processes") {
  ipc::manager manager;
  auto d = manager.dict<int, int>();
  auto l = manager.list<int>();
  std::vector<process> all;
  for (int i = 0; i < 10; ++i) {
    all.emplace_back([d, l, i] {
      d.set(i, i * i);
      l.append(i);
    });
    all.back().start();
  }
  for (auto& p : all) {
    CHECK(p.join(30s));
    CHECK(p.exit_code() == 0);
  }
  CHECK(d.size() == 10);
  for (int i = 0; i < 10; ++i) CHECK(d.at(i) == i * i);
  auto items = l.items();
  std::sort(items.begin(), items.end());
  CHECK(items == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
}

PROCESS_CASE("manager: what a dict can") {
  ipc::manager manager;
  auto d = manager.dict<std::string, std::vector<int>>();
  CHECK_FALSE(d.get("a"));
  CHECK_THROWS_AS(d.at("a"), std::out_of_range);
  CHECK(d.set_new("a", {1}));
  CHECK_FALSE(d.set_new("a", {2}));
  CHECK(d.at("a") == std::vector<int>{1});
  d.set("a", {3, 4});
  CHECK(d.contains("a"));
  CHECK(d.update("a", [](auto& v) { v.push_back(5); }) == std::vector<int>{3, 4, 5});
  CHECK(d.update("b", [](auto& v) { v.push_back(9); }) == std::vector<int>{9});
  auto items = d.items();
  std::sort(items.begin(), items.end());
  CHECK(items == std::vector<std::pair<std::string, std::vector<int>>>{{"a", {3, 4, 5}}, {"b", {9}}});
  CHECK(d.erase("a"));
  CHECK_FALSE(d.erase("a"));
  d.clear();
  CHECK(d.size() == 0);
  CHECK_THROWS_AS((ipc::dict<int, int>().get(1)), std::logic_error);
}

PROCESS_CASE("manager: what a list can") {
  ipc::manager manager;
  auto l = manager.list<std::string>();
  l.append("a");
  l.append("c");
  l.insert(1, "b");
  l.set(2, "C");
  CHECK(l.items() == std::vector<std::string>{"a", "b", "C"});
  CHECK(l.update(0, [](std::string& s) { s += "!"; }) == "a!");
  CHECK(l.remove(1) == "b");
  CHECK(l.at(1) == "C");
  CHECK_THROWS_AS(l.at(2), std::out_of_range);
  CHECK_THROWS_AS(l.set(2, "x"), std::out_of_range);
  CHECK_THROWS_AS(l.insert(3, "x"), std::out_of_range);
  l.clear();
  CHECK_THROWS_AS(l.remove(0), std::out_of_range);
}

PROCESS_CASE("manager: updates from processes, fibers and threads are all counted") {
  ipc::manager manager;
  auto d = manager.dict<std::string, int>();
  const auto count = [d] {
    for (int i = 0; i < 20; ++i) d.update("n", [](int& n) { ++n; });
  };
  std::vector<process> all;
  for (int i = 0; i < 3; ++i) {
    all.emplace_back([count] {
      std::vector<any_fiber> fibers;
      for (int f = 0; f < 3; ++f) fibers.push_back(spawn(count));
      joinall(fibers, {.raise_error = true});
    });
    all.back().start();
  }
  std::thread thread(count);
  for (auto& p : all) CHECK(p.join(60s));
  thread.join();
  CHECK(d.at("n") == 200);
}

PROCESS_CASE("manager: a proxy can be the value of another") {
  ipc::manager manager;
  auto books = manager.dict<std::string, ipc::list<int>>();
  auto l = manager.list<int>();
  books.set("l", l);
  process p([books] { books.at("l").append(5); });
  p.start();
  CHECK(p.join(30s));
  CHECK(l.items() == std::vector<int>{5});
}

PROCESS_CASE("manager: when it has gone its proxies say so; a caller that is killed hurts nobody") {
  ipc::dict<int, int> left;
  {
    ipc::manager manager;
    left = manager.dict<int, int>();
    left.set(1, 1);
    auto f = spawn([&] {
      while (true) left.set(2, 2);
    });
    sleep(5ms);
    f.kill();
    CHECK(left.at(1) == 1);
    CHECK(left.at(2) == 2);
  }
  CHECK_THROWS_AS(left.get(1), ipc::manager_gone);
  ipc::manager manager;
  auto d = manager.dict<int, int>();
  ::kill(manager.pid(), SIGKILL);
  CHECK_THROWS_AS(
      [&] {
        for (int i = 0; i < 100000; ++i) d.set(i, i);
      }(),
      ipc::manager_gone);
}
