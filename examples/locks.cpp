// What goes wrong without a lock, what a lock does about it, and what a recursive lock is for.
//
// Fibers of one thread take turns only where they wait, so a plain ++ needs no lock. What does is a change that waits in its
// midst: here, a deposit that asks the bank in between.
//
// Prints expected/locks.txt.

#include <chrono>
#include <cstdio>
#include <mutex>
#include <vector>

#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;

namespace {

struct account {
  int balance = 0;
  ringlet::mutex lock;

  void deposit(int amount) {
    const int before = balance;
    ringlet::sleep(1ms);  // asks the bank; meanwhile others run
    balance = before + amount;
  }
  void deposit_safely(int amount) {
    std::lock_guard hold(lock);  // ringlet's locks work with std's guards
    deposit(amount);
  }
};

// A folder and what is in it: remove locks, and calls itself.
struct tree {
  ringlet::recursive_mutex lock;
  int entries = 7;

  void remove(int depth) {
    std::lock_guard hold(lock);
    if (depth > 0) remove(depth - 1);
    entries -= 2;
    std::printf("  depth %d: held %zu times, %d entries left\n", depth, lock.depth(), entries);
  }
};

}  // namespace

int main() {
  account careless, careful;
  std::vector<ringlet::any_fiber> depositors;
  for (int i = 0; i < 10; ++i) {
    depositors.push_back(ringlet::spawn([&] { careless.deposit(10); }));
    depositors.push_back(ringlet::spawn([&] { careful.deposit_safely(10); }));
  }
  ringlet::joinall(depositors);
  std::printf("ten deposits of 10: without a lock %d, with a lock %d\n", careless.balance, careful.balance);

  tree folder;
  auto remover = ringlet::spawn([&] { folder.remove(2); });
  auto other = ringlet::spawn([&] {
    std::printf("another fiber: %s\n", folder.lock.try_lock() ? "has it" : "somebody has it");
    if (folder.lock.depth()) folder.lock.unlock();
  });
  ringlet::joinall({remover, other});
}
