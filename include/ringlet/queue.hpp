#pragma once
// Queues between fibers, bounded or not: first in, first out (queue), last in, first out (lifo_queue), by priority
// (priority_queue). Usable from fibers of any hub and from plain threads; put and get with deadline::passed(), and so
// try_put and try_get, also where nothing may wait.
//
// Items are copied and compared under the queue's lock, where nothing may wait: that is a std::logic_error. (For items' move
// constructors and destructors, too; they are not watched.)
//
// An item goes from put to get exactly once: a getter or putter whose wait ends by deadline, kill or timeout takes nothing
// with it and leaves its item with the caller. Waiting getters and putters are served in the order they came; an item
// for one who waits is handed over at once, so nobody can snatch it.
//
//   ringlet::queue<job> jobs(100);
//   auto worker = ringlet::spawn([&] { for (job& j : jobs) { j.run(); jobs.task_done(); } });
//   jobs.put(job{...});
//   jobs.join();       // all that was put has been done
//   jobs.shutdown();   // the worker's loop ends
//
// The model is Python's queue module, with results for its exceptions Full and Empty: put says whether, get gives an optional.

#include <concepts>
#include <cstddef>
#include <algorithm>
#include <exception>
#include <iterator>
#include <limits>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include <ringlet/deadline.hpp>
#include <ringlet/queue_order.hpp>
#include <ringlet/sync.hpp>
#include <ringlet/wait.hpp>

namespace ringlet {

// put on a queue or channel that was shut down, or get when nothing will come any more.
struct RINGLET_EXPORT shut_down : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {
[[noreturn]] RINGLET_EXPORT void throw_shut_down(const char* what);
[[noreturn]] RINGLET_EXPORT void throw_too_many_done();
RINGLET_EXPORT std::size_t checked_capacity(std::size_t);

// While it lives an item's own code runs, under a queue's lock: to wait there is an error (std::logic_error).
class RINGLET_EXPORT item_code {
 public:
  item_code() noexcept;
  ~item_code();
  item_code(const item_code&) = delete;

 private:
  fiber_state* running_;
};
struct no_item_code {};
template <bool runs_some>
using item_code_if = std::conditional_t<runs_some, item_code, no_item_code>;

// for (T& item : source): each item in turn, until the source's take_next leaves the slot empty.
template <class Source>
class item_iterator {
 public:
  using value_type = typename Source::value_type;
  using difference_type = std::ptrdiff_t;
  item_iterator() noexcept = default;
  explicit item_iterator(Source& of) : of_(&of) { ++*this; }
  value_type& operator*() const noexcept { return *item_; }
  item_iterator& operator++() {
    item_.reset();
    of_->take_next(item_);
    return *this;
  }
  void operator++(int) { ++*this; }
  bool operator==(std::default_sentinel_t) const noexcept { return !item_; }

 private:
  Source* of_ = nullptr;
  mutable std::optional<value_type> item_;
};
}  // namespace detail

template <class T, class Order = fifo>
class queue {
  static_assert(std::is_nothrow_move_constructible_v<T>, "an item that may throw when moved could get lost between two fibers");

 public:
  using value_type = T;
  static constexpr std::size_t unbounded = std::numeric_limits<std::size_t>::max();
  // capacity 0 is a mistake (std::invalid_argument): use 1 for the smallest queue, or a channel.
  explicit queue(std::size_t capacity = unbounded) : capacity_(detail::checked_capacity(capacity)), room_(capacity) {}
  explicit queue(Order order, std::size_t capacity = unbounded)
    requires std::constructible_from<typename Order::template store<T>, Order>
      : capacity_(detail::checked_capacity(capacity)), room_(capacity), store_(std::move(order)) {}
  ~queue() { lock_.lock(); }  // another thread whose put we have received may not have left yet

  // Puts the item in, waiting while the queue is full. False: the deadline passed first, and the item was not moved from.
  // Throws shut_down, and again the item is the caller's.
  bool put(T&& item, deadline until = never) { return put_from(item, until); }
  bool put(const T& item, deadline until = never)
    requires std::copy_constructible<T>
  {
    T copy(item);
    return put_from(copy, until);
  }
  bool try_put(T&& item) { return put_from(item, deadline::passed()); }
  bool try_put(const T& item)
    requires std::copy_constructible<T>
  {
    return put(item, deadline::passed());
  }

  // Takes the next item, waiting while there is none. Empty: the deadline passed first. Throws shut_down when the queue was
  // shut down and is empty.
  std::optional<T> get(deadline until = never) {
    std::optional<T> taken;
    if (take(taken, until) == ending::shut) detail::throw_shut_down("get");
    return taken;
  }
  std::optional<T> try_get() { return get(deadline::passed()); }

  // Copies the next item and leaves it there; otherwise as get. An item that comes is seen by all who peek before the
  // getter that takes it.
  std::optional<T> peek(deadline until = never)
    requires std::copy_constructible<T>
  {
    std::optional<T> seen;
    std::unique_lock hold(lock_);
    if (!store_.empty()) {
      [[maybe_unused]] copying here;
      seen.emplace(store_.top());
      return seen;
    }
    if (shut_) detail::throw_shut_down("peek");
    if (until == deadline::passed()) return seen;
    peeker me{{&seen, true}, nullptr};
    hold.release();
    if (getters_.wait(lock_, until, "queue::peek", this, &me) && !seen) {
      if (me.failed) std::rethrow_exception(me.failed);
      detail::throw_shut_down("peek");
    }
    return seen;
  }
  std::optional<T> try_peek()
    requires std::copy_constructible<T>
  {
    return peek(deadline::passed());
  }

  // Says that an item that was put has been dealt with. std::logic_error if that was said of all already.
  void task_done() {
    std::lock_guard hold(lock_);
    if (unfinished_ == 0) detail::throw_too_many_done();
    if (--unfinished_ == 0) joiners_.wake_all();
  }
  // Waits until all that was ever put has been dealt with: true; false when the deadline passed first.
  bool join(deadline until = never) {
    std::unique_lock hold(lock_);
    if (unfinished_ == 0 || until == deadline::passed()) return unfinished_ == 0;
    hold.release();
    return joiners_.wait(lock_, until, "queue::join", this);
  }
  std::size_t unfinished() const {
    std::lock_guard hold(lock_);
    return unfinished_;
  }

  // From now on put throws shut_down, also for those who wait in it. What is in the queue can still be taken; when it is
  // empty get throws, too. immediate: what is in it is destroyed and counts as dealt with. May be called again.
  void shutdown(bool immediate = false) {
    std::optional<decltype(store_.take_all())> dropped;  // destroyed after the lock is open
    std::lock_guard hold(lock_);
    shut_ = true;
    room_ = 0;
    putters_.wake_all();
    if (immediate) {
      unfinished_ -= std::min(unfinished_, store_.size());
      dropped.emplace(store_.take_all());
      if (unfinished_ == 0) joiners_.wake_all();
    }
    if (store_.empty()) getters_.wake_all();
    listeners_.tell_all();
  }
  bool is_shut_down() const {
    std::lock_guard hold(lock_);
    return shut_;
  }

  // At the moment of asking; with others at work, news of yesterday.
  std::size_t size() const {
    std::lock_guard hold(lock_);
    return store_.size();
  }
  bool empty() const { return size() == 0; }
  bool full() const {
    std::lock_guard hold(lock_);
    return store_.size() >= capacity_;
  }
  std::size_t capacity() const {
    std::lock_guard hold(lock_);
    return capacity_;
  }
  // Those who wait for room come in as far as there is some now; what is in the queue stays, even if it is more.
  void set_capacity(std::size_t capacity) {
    std::lock_guard hold(lock_);
    capacity_ = detail::checked_capacity(capacity);
    if (!shut_) room_ = capacity;
    admit_putters();
  }

  // wait and iwait report a queue when an item is in it that nobody waits to get, or when it is shut down; they take nothing.
  bool add_listener(detail::listener& l) noexcept {
    std::lock_guard hold(lock_);
    if (shut_ || !store_.empty()) return false;
    listeners_.add(l);
    return true;
  }
  void remove_listener(detail::listener& l) noexcept {
    std::lock_guard hold(lock_);
    listeners_.remove(l);
  }

  // for (T& item : queue): gets one after the other, waiting, until the queue was shut down and is empty.
  using iterator = detail::item_iterator<queue>;
  iterator begin() { return iterator(*this); }
  std::default_sentinel_t end() const noexcept { return {}; }

 private:
  friend iterator;
  using copying = detail::item_code_if<!std::is_trivially_copy_constructible_v<T>>;
  using comparing = detail::item_code_if<Order::template compares<T>>;
  enum class ending { taken, late, shut };
  // What those who wait give their list.
  struct getter {
    std::optional<T>* slot;
    bool peeks;
  };
  struct peeker : getter {
    std::exception_ptr failed;  // to copy
  };
  struct putter {
    T* item;
    bool taken;
    std::exception_ptr failed;  // to go in: no memory, or Before threw
  };

  void take_next(std::optional<T>& slot) { take(slot, never); }
  ending take(std::optional<T>& taken, deadline until) {
    std::unique_lock hold(lock_);
    if (!store_.empty()) {
      [[maybe_unused]] comparing here;
      taken.emplace(store_.pop());
      if (!putters_.empty()) admit_putters();
      return ending::taken;
    }
    if (shut_) return ending::shut;
    if (until == deadline::passed()) return ending::late;
    getter me{&taken, false};
    hold.release();
    if (!getters_.wait(lock_, until, "queue::get", this, &me)) return ending::late;
    return taken ? ending::taken : ending::shut;
  }

  bool put_from(T& item, deadline until) {
    std::unique_lock hold(lock_);
    if (!getters_.empty() && hand_over(item)) {
      ++unfinished_;
      return true;
    }
    if (store_.size() < room_) {
      [[maybe_unused]] comparing here;
      store_.push(item);
      ++unfinished_;
      listeners_.tell_all();
      return true;
    }
    if (shut_) detail::throw_shut_down("put");
    if (until == deadline::passed()) return false;
    putter me{&item, false, nullptr};
    hold.release();
    if (!putters_.wait(lock_, until, "queue::put", this, &me)) return false;
    if (me.failed) std::rethrow_exception(me.failed);
    if (!me.taken) detail::throw_shut_down("put");
    return true;
  }

  // To those who wait for one: all who peek, up to the first who takes it. False: nobody has.
  bool hand_over(T& item) {
    while (auto* first = static_cast<getter*>(getters_.first_gift())) {
      if (!first->peeks) {
        first->slot->emplace(std::move(item));
        getters_.wake_one();
        return true;
      }
      if constexpr (std::copy_constructible<T>) {
        try {
          [[maybe_unused]] copying here;
          first->slot->emplace(std::as_const(item));
        } catch (...) {
          static_cast<peeker*>(first)->failed = std::current_exception();
        }
      }
      getters_.wake_one();
    }
    return false;
  }

  // As far as there is room, the items of those who wait to put come in.
  void admit_putters() noexcept {
    while (store_.size() < room_) {
      auto* first = static_cast<putter*>(putters_.first_gift());
      if (!first) return;
      try {
        [[maybe_unused]] comparing here;
        store_.push(*first->item);
        first->taken = true;
        ++unfinished_;
      } catch (...) {
        first->failed = std::current_exception();
      }
      putters_.wake_one();
    }
  }

  mutable detail::wait_lock lock_;
  bool shut_ = false;
  std::size_t capacity_;
  std::size_t room_;  // the capacity; 0 once shut down
  std::size_t unfinished_ = 0;
  typename Order::template store<T> store_;
  detail::wait_list getters_;
  detail::wait_list putters_;
  detail::wait_list joiners_;
  detail::listener_list listeners_;
};

template <class T>
using lifo_queue = queue<T, lifo>;
// The smallest first (or the first by Before); equal ones in the order they were put in.
template <class T, class Before = std::less<>>
using priority_queue = queue<T, by_priority<Before>>;

// Unbounded, nothing but put and get; put never waits.
template <class T>
class simple_queue {
 public:
  using value_type = T;
  void put(T&& item) { items_.put(std::move(item)); }
  void put(const T& item)
    requires std::copy_constructible<T>
  {
    items_.put(item);
  }
  std::optional<T> get(deadline until = never) { return items_.get(until); }
  std::optional<T> try_get() { return items_.try_get(); }
  std::size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }

 private:
  queue<T> items_;
};

}  // namespace ringlet
