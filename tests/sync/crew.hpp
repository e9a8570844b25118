#pragma once
// Workers who meet at a sync object, of any kind: fibers of this hub, fibers of other hubs, plain threads, or all of these.
// What a sync object promises it promises to all of them, so its cases run with each.

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "hub/on_hub.hpp"

namespace sync_test {

using namespace hub_test;

enum class kind { fibers, hubs, threads, mixed };
inline constexpr kind all_kinds[] = {kind::fibers, kind::hubs, kind::threads, kind::mixed};
inline const char* name_of(kind k) {
  return k == kind::fibers ? "fibers" : k == kind::hubs ? "fibers of three hubs" : k == kind::threads ? "plain threads" : "mixed";
}

// Waits until it is so, letting others run; false after half a minute.
template <class Fact>
bool comes_true(Fact fact) {
  const auto begun = std::chrono::steady_clock::now();
  while (!fact()) {
    if (std::chrono::steady_clock::now() - begun > 30s) return false;
    is_simulated() ? yield() : sleep(100us);
  }
  return true;
}

// Gives those who should not have done it the occasion to do it.
inline void let_others_run() {
  for (int i = 0; i < 5; ++i) is_simulated() ? yield() : sleep(1ms);
}

// n workers, each running work(i); made and joined by one fiber.
class crew {
 public:
  crew(kind who, int n, std::function<void(int)> work) : work_(std::move(work)) {
    std::vector<int> local, remote[2], alone;
    for (int i = 0; i < n; ++i) {
      const int where = who == kind::fibers ? 0 : who == kind::threads ? 3 : who == kind::hubs ? i % 3 : i % 4;
      (where == 0 ? local : where == 3 ? alone : remote[where - 1]).push_back(i);
    }
    for (int i : local) here_.push_back(spawn([this, i] { run(i); }));
    for (auto& some : remote)
      if (!some.empty())
        threads_.emplace_back([this, some] {
          std::vector<any_fiber> theirs;
          for (int i : some) theirs.push_back(spawn([this, i] { run(i); }));
          joinall(theirs);
        });
    for (int i : alone) threads_.emplace_back([this, i] { run(i); });
  }
  ~crew() { join(); }
  crew(const crew&) = delete;

  void join() {
    joinall(here_);
    for (auto& t : threads_) t.join();
    threads_.clear();
    here_.clear();
  }
  int started() const { return started_; }
  int finished() const { return finished_; }
  // All are at work, so that those of them who wait now are on the way there.
  bool all_started(int n) const { return comes_true([&] { return started_ == n; }); }

 private:
  void run(int i) {
    ++started_;
    work_(i);
    ++finished_;
  }
  std::function<void(int)> work_;
  std::atomic<int> started_{0}, finished_{0};
  std::vector<any_fiber> here_;
  std::vector<std::thread> threads_;
};

// Runs the body with each kind of workers.
template <class Body>
void with_each_kind(Body body) {
  for (kind k : all_kinds) {
    INFO("with ", std::string(name_of(k)));
    body(k);
  }
}

}  // namespace sync_test
