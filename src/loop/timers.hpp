#pragma once
// Deadlines of one hub: a 4-ary heap of nodes that live on their waiters' stacks. Arm and cancel are O(log n) with no
// system call; equal moments expire in the order they were armed. Owner thread only, but for due().
//
// A wait that has begun cannot be refused any more, so whoever will arm a timer reserves its place in the heap when it
// may still fail: with a fiber comes the place for its wait, with a scope its own.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <ringlet/deadline.hpp>

namespace ringlet::loop {

struct timer {
  void (*fire)(timer&) = nullptr;
  std::size_t place = npos;  // in the heap; npos: not armed
  static constexpr std::size_t npos = ~std::size_t(0);
  bool armed() const { return place != npos; }
};

class timers {
 public:
  // Room for one more than now; std::bad_alloc. Given back when it will not be armed again.
  void reserve_place();
  void give_place_back() noexcept { --places_; }
  void arm(timer&, clock::time_point at);   // must not be armed; std::bad_alloc without a place
  void cancel(timer&) noexcept;             // idempotent
  // Fires, in order, all whose moment is not after now; a fire function may arm and cancel timers. Returns how many.
  std::size_t expire(clock::time_point now);
  clock::time_point earliest() const noexcept;  // time_point::max() if none
  // The same, as of a moment ago. Any thread, a signal handler.
  clock::time_point due() const noexcept { return due_.load(std::memory_order_relaxed); }
  std::size_t size() const noexcept { return heap_.size(); }
  void forget_all() noexcept;  // after fork

 private:
  struct entry {
    clock::time_point at;
    std::uint64_t order;
    timer* node;
    bool before(const entry& other) const { return at != other.at ? at < other.at : order < other.order; }
  };
  void sift_up(std::size_t);
  void sift_down(std::size_t);
  void place(std::size_t, const entry&);
  std::vector<entry> heap_;
  std::size_t places_ = 0;  // reserved; the heap has the capacity
  std::uint64_t next_order_ = 0;
  std::atomic<clock::time_point> due_{clock::time_point::max()};
};

}  // namespace ringlet::loop
