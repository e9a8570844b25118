#pragma once
// What the primitives between processes stand on: a page that all see, and an eventfd that wakes.
//
// The page says what is so (who owns the lock, how many are left); it is changed by single atomic steps, so no process can die
// in the midst of a change. The eventfd (EFD_SEMAPHORE) only says that it is worth looking again: who makes a change puts
// one token in for each that may go on, who waits takes a token before it sleeps again. Readiness of an fd is what every
// engine can wait for, which a futex is not (the ring's futex operations are Linux 6.7, epoll has none).
//
// A token can be lost: taken by a process that is killed before it acts on it, or by one whose deadline passes just then. So
// nobody sleeps longer than a slice without looking at the page again.

#include <algorithm>
#include <atomic>
#include <cstdint>

#include <ringlet/io.hpp>
#include <ringlet/ipc/sync.hpp>

#include "process/failures.hpp"

namespace ringlet::ipc::detail {

constexpr auto slice = std::chrono::milliseconds(100);

struct shared_state {
  struct page {
    std::atomic<std::uint64_t> owner{0};  // of locks: process << 32 | birth; 0: free
    std::atomic<std::uint64_t> fiber{0};  // the owner's
    std::uint64_t depth = 0;              // the owner's
    std::atomic<std::int64_t> count{0};   // of semaphores; of what is in a queue
    std::atomic<std::int64_t> unfinished{0};  // of queues
    std::atomic<std::uint32_t> flag{0}, changes{0};
    std::atomic<std::uint32_t> waiters{0};
  };
  page* at = nullptr;
  int wakes = -1;

  void wake(std::uint64_t most) noexcept {
    const std::uint64_t tokens = std::min<std::uint64_t>(most, at->waiters.load(std::memory_order_seq_cst));
    if (tokens) sys::call(SYS_write, wakes, &tokens, sizeof tokens);
  }
  enum class woken { by_token, without, late };
  // Sleeps until there may be news, at most a slice.
  woken sleep(deadline until, const char* what) {
    const deadline end = std::min(until, deadline(slice));
    if (process_detail::waited(io::wait_readable(wakes, end), what)) {
      std::uint64_t token;
      return sys::call(SYS_read, wakes, &token, sizeof token) > 0 ? woken::by_token : woken::without;
    }
    return until.has_passed() ? woken::late : woken::without;
  }
  struct waiting {
    page& p;
    explicit waiting(page& at) noexcept : p(at) { p.waiters.fetch_add(1, std::memory_order_seq_cst); }
    ~waiting() { p.waiters.fetch_sub(1, std::memory_order_seq_cst); }
  };
  // Until done() is true: true; or the deadline: false. `by_change`: tokens were given to those who waited when something
  // changed, and so one that does not help us is another's: it is put back, and we let the other come (a few times; then
  // it was left by somebody who waits no more).
  template <class Done>
  bool wait(deadline until, const char* what, Done done, bool by_change = false) {
    if (done()) return true;
    if (until == deadline::passed()) return false;
    ringlet::detail::require_can_park(what);
    waiting counted(*at);
    unsigned put_back = 0;
    while (!done()) {
      const woken how = sleep(until, what);
      if (how == woken::late) return done();
      if (!by_change || how != woken::by_token || done()) continue;
      if (++put_back > 5) continue;
      const std::uint64_t token = 1;
      sys::call(SYS_write, wakes, &token, sizeof token);
      const int slept = io::sleep_until(std::min(until, deadline(std::chrono::microseconds(20u << put_back))));
      if (slept < 0) process_detail::waited(slept, what);
    }
    return true;
  }
};

}  // namespace ringlet::ipc::detail
