#pragma once
// A queue between fibers: first in, first out, bounded or not. Usable from fibers of any hub and from plain threads.
//
// An item goes from put to get exactly once: a getter or putter whose wait ends by deadline, kill or timeout takes nothing
// with it and leaves its item with the caller. Waiting getters and putters are served in the order they came.

#include <cstddef>
#include <deque>
#include <limits>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include <ringlet/deadline.hpp>
#include <ringlet/sync.hpp>

namespace ringlet {

template <class T>
class queue {
  static_assert(std::is_nothrow_move_constructible_v<T>, "an item that may throw when moved could get lost between two fibers");

 public:
  static constexpr std::size_t unbounded = std::numeric_limits<std::size_t>::max();
  // capacity 0 is a mistake: use 1 for the smallest queue.
  explicit queue(std::size_t capacity = unbounded) : capacity_(capacity) {
    if (capacity == 0) throw std::invalid_argument("ringlet: a queue's capacity must be at least 1");
  }
  ~queue() { std::lock_guard hold(getters_); }  // another thread whose put we have received may not have left yet

  // Puts the item in, waiting while the queue is full. False: the deadline passed first, and the item was not moved from.
  bool put(T&& item, deadline until = never) { return put_from(item, until); }
  bool put(const T& item, deadline until = never) {
    T copy(item);
    return put_from(copy, until);
  }
  bool try_put(T&& item) { return put_from(item, deadline::passed()); }

  // Takes the oldest item, waiting while there is none. Empty: the deadline passed first.
  std::optional<T> get(deadline until = never) {
    std::optional<T> taken;
    getters_.lock();  // the one lock of the queue
    if (!items_.empty()) {
      taken.emplace(std::move(items_.front()));
      items_.pop_front();
      admit_putter();
      getters_.unlock();
      return taken;
    }
    if (until == deadline::passed()) {
      getters_.unlock();
      return taken;
    }
    getters_.wait(until, "queue::get", this, &taken);
    return taken;
  }
  std::optional<T> try_get() { return get(deadline::passed()); }

  std::size_t size() const {
    std::lock_guard hold(getters_);
    return items_.size();
  }
  bool empty() const { return size() == 0; }
  bool full() const { return size() >= capacity_; }
  std::size_t capacity() const noexcept { return capacity_; }

 private:
  bool put_from(T& item, deadline until) {
    getters_.lock();
    if (void* slot = getters_.first_gift()) {  // handed over, not queued: nobody can overtake the one who waited
      static_cast<std::optional<T>*>(slot)->emplace(std::move(item));
      getters_.wake_one();
      getters_.unlock();
      return true;
    }
    if (items_.size() < capacity_) {
      try {
        items_.push_back(std::move(item));
      } catch (...) {
        getters_.unlock();
        throw;
      }
      getters_.unlock();
      return true;
    }
    if (until == deadline::passed()) {
      getters_.unlock();
      return false;
    }
    putters_.lock();
    getters_.unlock();
    return putters_.wait(until, "queue::put", this, &item);
  }
  // There is room: the first waiting putter's item comes in.
  void admit_putter() {
    std::lock_guard hold(putters_);
    auto* first = static_cast<T*>(putters_.first_gift());
    if (!first) return;
    try {
      items_.push_back(std::move(*first));
    } catch (...) {
      return;  // no memory now: it goes on waiting for the next room
    }
    putters_.wake_one();
  }

  const std::size_t capacity_;
  std::deque<T> items_;
  mutable detail::wait_queue getters_;
  detail::wait_queue putters_;
};

}  // namespace ringlet
