#pragma once
// What the cases of the battery share: how one is added, how it tells what is not so, and how it waits for facts.
//
// Rules: the output of a case is the same in every run; a case waits for facts, with a limit that only failure meets.
// Where a usleep is left, it is a wait that the case is about, or it lets others have their turn and nothing depends on
// how many had it; then it says so. Nothing in here knows of ringlet: what is true of a thread must be true of it in
// either run.

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>

#define CHECK(condition)                                                                                    \
  do {                                                                                                      \
    if (!(condition)) std::printf("%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
  } while (false)

// A function without arguments that prints what it saw; it is found by its name.
#define CASE(name)                                      \
  void name();                                          \
  const ::battery::added name##_is_added{#name, &name}; \
  void name()

namespace battery {

using namespace std::chrono_literals;

struct added {
  added(const char* name, void (*run)());
};

// Polls until the fact holds; false after 20 s without.
template <class Fact>
bool until(Fact fact) {
  const auto end = std::chrono::steady_clock::now() + 20s;
  while (!fact()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

// Another thread of this process waits in the kernel or, where threads share a kernel's, in whatever that one stands
// for. Where one of ours computes, this tells nothing.
bool asleep(pid_t tid);

void* in_thread(void* (*run)(void*), void* with = nullptr);

void install(int signal, void (*handler)(int), int flags = 0);
// A handler, and what it counts: all signals, and those that ran on this thread.
void count_signal(int);
inline std::atomic<int> handled{0};
inline constinit thread_local int handled_here = 0;

}  // namespace battery
