#pragma once
// A crew: helper threads that take jobs from one queue, first in, first out.
//
// Elastic: a thread is made when a job waits and none is idle, up to a limit that may change at any time (0: nothing is
// begun, what comes is kept); a thread that stays idle for a while, or is one too many, leaves. So who has one job at
// start does not keep a crowd. Any thread may submit.
//
// Locks and sleeps are our own (base::lock, futex by system call): pthread's are names that hooks replace, and a helper
// must never find itself in the runtime it helps. Threads are made by pthread_create, because what runs on them needs a
// thread with all its libc state.
//
// Always true, under the lock: every queued job has an idle thread of its own coming for it, or the crew is full, or no
// more threads can be made.

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "base/lock.hpp"

namespace ringlet::loop {

struct job {
  void (*run)(job&) = nullptr;  // on a helper thread; the job may be gone afterwards, so run must not be touched after
  job* next = nullptr;          // the crew's own
};

class crew {
 public:
  // Whether somebody at work is a sign of life when the hub looks for a deadlock: it is, if it does a program's work.
  enum class works_for { runtime, program };

  constexpr crew(unsigned limit, works_for whom, std::chrono::nanoseconds idle_time) noexcept : limit_(limit), whom_(whom), idle_time_(idle_time) {}
  crew(const crew&) = delete;

  // Queues it. 0, or -errno if no thread at all can be made.
  int submit(job&) noexcept;
  // Takes back a job that nobody has begun; false if somebody has.
  bool take_back(job&) noexcept;
  // Takes back all that nobody has begun, as a list.
  job* take_back_all() noexcept;
  void set_limit(unsigned) noexcept;
  unsigned limit() noexcept;
  std::size_t threads() noexcept;
  std::size_t queued() noexcept;
  // On one of its threads, in a job: until step_back it does something else, and another may be made in its stead.
  void step_aside() noexcept;
  void step_back() noexcept;
  // It has no user any more: it is deleted when its last thread, which finds no more work, has left. Only one made by new,
  // with nothing queued and nobody aside.
  void disband() noexcept;

 private:
  static void* work(void* self);
  int make_threads() noexcept;
  void enter() noexcept;
  void leave_lock() noexcept;
  job* pop() noexcept;

  base::lock lock_;
  job* first_ = nullptr;
  job* last_ = nullptr;
  std::size_t queued_ = 0;
  std::size_t idle_ = 0;  // threads at the bell or on their way from it, that hold no job
  std::size_t threads_ = 0;
  std::size_t unborn_ = 0;  // of these: those that the kernel may not list yet
  std::size_t told_ = 0;  // of the threads that are no sign of life
  std::size_t told_threads_ = 0;  // of all of them
  unsigned limit_;
  bool disbanded_ = false;
  const works_for whom_;
  const std::chrono::nanoseconds idle_time_;
  std::atomic<unsigned> generation_{0};  // forks that it has heard of
  std::atomic<std::uint32_t> bell_{0};
};

// Threads of all crews, those included that the kernel has not made yet. Takes no lock.
std::size_t helpers() noexcept;
// Threads of all crews that are no sign of life: those of the runtime's own, and others that have nothing to do.
std::size_t quiet_helpers() noexcept;
// How often that number has changed.
std::size_t quiet_helpers_changes() noexcept;
// In a forked child, which has none of the threads: every crew begins anew at its next use, with nothing queued.
void forget_crews_after_fork() noexcept;

}  // namespace ringlet::loop
