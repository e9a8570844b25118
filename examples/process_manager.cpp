// A manager: a dict and a list that ten processes share, and a count that none of them loses.
//
// Prints expected/process_manager.txt.

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <ringlet/ipc/manager.hpp>
#include <ringlet/process.hpp>

int main() {
  ringlet::ipc::manager manager;
  auto squares = manager.dict<int, int>();
  auto words = manager.dict<std::string, int>();
  auto names = manager.list<std::string>();

  std::vector<ringlet::process> workers;
  for (int i = 0; i < 10; ++i) {
    workers.emplace_back([=] {  // proxies are copied
      squares.set(i, i * i);
      names.append("process " + std::to_string(i));
      for (int n = 0; n < 5; ++n) words.update("count", [](int& count) { ++count; });  // reads, adds and writes as one step
    });
    workers.back().start();
  }
  for (auto& worker : workers) worker.join();

  auto pairs = squares.items();
  std::sort(pairs.begin(), pairs.end());
  for (const auto& [n, square] : pairs) std::printf("%d: %d\n", n, square);
  auto all = names.items();
  std::sort(all.begin(), all.end());
  std::printf("%zu names, from %s to %s\n", all.size(), all.front().c_str(), all.back().c_str());
  std::printf("counted: %d\n", words.at("count"));
}
