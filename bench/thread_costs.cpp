#include "thread_costs.hpp"

#include <semaphore.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>
#include <vector>

namespace bench {
namespace {

double now_ns() { return double(std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count()); }

// The best of some rounds: each takes a hundredth of a second or so.
double best_of_ns = 0;

template <class Round>
double best_of(Round round) {
  double best = round();
  for (const double end = now_ns() + best_of_ns; now_ns() < end;) best = std::min(best, round());
  return best;
}

double foreign_call() {
  constexpr int calls = 20'000;
  const double begin = now_ns();
  for (int i = 0; i < calls; ++i) syscall(SYS_getppid);
  return (now_ns() - begin) / calls;
}

double creation() {
  constexpr int threads = 500;
  const double begin = now_ns();
  for (int i = 0; i < threads; ++i) std::thread([] {}).join();
  return (now_ns() - begin) / threads;
}

double creation_of_many() {
  constexpr int at_once = 100, times = 5;
  const double begin = now_ns();
  for (int i = 0; i < times; ++i) {
    std::vector<std::thread> all;
    for (int k = 0; k < at_once; ++k) all.emplace_back([] {});
    for (auto& t : all) t.join();
  }
  return (now_ns() - begin) / (at_once * times);
}

double condition_hand_off() {
  constexpr int turns = 2'000;
  std::mutex lock;
  std::condition_variable changed;
  int turn = 0;
  const auto play = [&](int side) {
    std::unique_lock hold(lock);
    for (int i = 0; i < turns; ++i) {
      changed.wait(hold, [&] { return turn % 2 == side; });
      ++turn;
      changed.notify_one();
    }
  };
  const double begin = now_ns();
  std::thread other(play, 1);
  play(0);
  other.join();
  return (now_ns() - begin) / (2 * turns);
}

double semaphore_hand_off() {
  constexpr int turns = 2'000;
  sem_t here, there;
  sem_init(&here, 0, 0);
  sem_init(&there, 0, 0);
  const double begin = now_ns();
  std::thread other([&] {
    for (int i = 0; i < turns; ++i) sem_wait(&there), sem_post(&here);
  });
  for (int i = 0; i < turns; ++i) sem_post(&there), sem_wait(&here);
  other.join();
  return (now_ns() - begin) / (2 * turns);
}

double foreign_call_beside_a_thread() {
  std::atomic<bool> ends{false};
  std::thread idle([&] { ends.wait(false); });
  const double with = best_of(foreign_call);
  ends = true;
  ends.notify_one();
  idle.join();
  return with;
}

}  // namespace

void tell_thread_costs(std::chrono::milliseconds measured) {
  best_of_ns = double(std::chrono::nanoseconds(measured).count()) / 4;
  // The door is opened at the first thread: before, the call is bare. So the order matters.
  const double alone = best_of(foreign_call);
  const double told[thread_costs_count] = {best_of(creation),           best_of(creation_of_many), best_of(condition_hand_off),
                                           best_of(semaphore_hand_off), alone,                     foreign_call_beside_a_thread()};
  for (const double each : told) std::printf("%.2f\n", each);
}

}  // namespace bench
