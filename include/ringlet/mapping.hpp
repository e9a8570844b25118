#pragma once
// What group::map, imap and imap_unordered are made of: a function over many items, each in a fiber, and the place of each
// result. Users need of it the type `results` that imap returns.
//
// Always true: nobody who runs a batch leaves it while one of its fibers could still touch f, an item or a result; who is
// interrupted kills them and waits for their end first.

#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include <ringlet/fiber.hpp>
#include <ringlet/sync.hpp>

namespace ringlet {

class group;

namespace detail {

// Fibers whose ends are told to one owner. On the thread of its fibers only.
class RINGLET_EXPORT batch {
 public:
  batch() noexcept = default;
  batch(const batch&) = delete;
  batch& operator=(const batch&) = delete;

  // Calls ended(index, error) when the fiber is finished; at once if it is. A killed one's error is its greenlet_exit.
  void watch(const any_fiber&, std::size_t index);
  bool idle() const noexcept { return first_ == nullptr; }
  // Waits until somebody calls changed(). Throws when interrupted.
  void wait_change(const char* what);
  void changed() noexcept;
  // Waits until all are finished. Throws when interrupted.
  void wait_idle(const char* what);
  // Kills all, also those that come from now on, and waits for their end, however long it takes.
  void kill_all() noexcept;

 protected:
  // Who derives calls kill_all in its own destructor: to be watching still is a mistake.
  virtual ~batch();
  // While some fiber ends, so it must not wait.
  virtual void ended(std::size_t index, std::exception_ptr error) noexcept = 0;

 private:
  struct watched;
  watched* first_ = nullptr;
  bool killing_ = false;
  wait_queue changed_;
};

// Counts what is unfinished; any thread. Whoever brings it to zero may find it gone at once.
class RINGLET_EXPORT countdown {
 public:
  void add() noexcept;
  void done() noexcept;
  std::size_t left() const noexcept;
  // Waits for zero: true; false when the deadline passed. Throws when interrupted.
  bool wait(deadline until, const char* what);
  void wait_out(const char* what) noexcept;  // not interruptible
  void forget_all() noexcept;                // in a forked child

 private:
  std::size_t left_ = 0;
  mutable wait_queue waiting_;
};

// The place of one result: a value, a reference, or nothing but the end; or an error.
template <class R>
class outcome {
 public:
  template <class F, class... Args>
  void run(F&& f, Args&&... args) {
    if constexpr (std::is_void_v<R>)
      std::invoke(std::forward<F>(f), std::forward<Args>(args)...);
    else if constexpr (std::is_reference_v<R>)
      value_ = std::addressof(std::invoke(std::forward<F>(f), std::forward<Args>(args)...));
    else
      value_.emplace(std::invoke(std::forward<F>(f), std::forward<Args>(args)...));
  }
  void finish(std::exception_ptr error) noexcept {
    error_ = std::move(error);
    finished_ = true;
  }
  bool finished() const noexcept { return finished_; }
  // The value, moved out; or throws the error.
  R take() {
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    if constexpr (std::is_reference_v<R>)
      return static_cast<R>(*value_);
    else if constexpr (!std::is_void_v<R>)
      return std::move(*value_);
  }

 private:
  struct nothing {};
  std::conditional_t<std::is_void_v<R>, nothing,
                     std::conditional_t<std::is_reference_v<R>, std::remove_reference_t<R>*, std::optional<R>>>
      value_{};
  std::exception_ptr error_;
  bool finished_ = false;
};

// How f sees the items of a range: those that stay where they are by reference, those that an iterator makes by value.
template <class F, class Range>
struct mapped {
  using iterator = decltype(std::begin(std::declval<Range&>()));
  using reference = decltype(*std::declval<iterator&>());
  static constexpr bool stays = std::is_lvalue_reference_v<reference> && std::forward_iterator<iterator>;
  using item = std::conditional_t<stays, reference, std::remove_cvref_t<reference>>;
  static_assert(std::is_invocable_v<F&, item>, "ringlet: f cannot be called with an item of this range");
  using raw_result = std::invoke_result_t<F&, item>;
  using result = std::conditional_t<std::is_void_v<raw_result>, void, std::remove_cvref_t<raw_result>>;
};

// One item on its way into a fiber.
template <class Item>
struct carried {
  Item item;
  decltype(auto) give() {
    if constexpr (std::is_reference_v<Item>)
      return (item);
    else
      return std::move(item);
  }
};

// All of one map: the results lie in the order of the items.
template <class R>
class map_run final : public batch {
 public:
  ~map_run() override { kill_all(); }
  outcome<R>& add() { return places_.emplace_back(); }
  std::size_t count() const noexcept { return places_.size(); }
  R take(std::size_t index) { return places_[index].take(); }

 private:
  void ended(std::size_t index, std::exception_ptr error) noexcept override { places_[index].finish(std::move(error)); }
  std::deque<outcome<R>> places_;  // grows without moving what is there
};

// What the reader and the feeder of an imap share; the feeder is a fiber that begins one item after the other.
template <class R>
class imap_run : public batch {
 public:
  imap_run(bool ordered, std::size_t most_unread) : ordered_(ordered), window_(most_unread) {}
  ~imap_run() override { kill_all(); }

  static constexpr std::size_t feeder = std::numeric_limits<std::size_t>::max();

  // The feeder's: waits until one more may be begun; makes the place of its result.
  void wait_for_window() { window_.acquire(); }
  std::pair<const std::size_t, outcome<R>>& add() { return *places_.try_emplace(begun_++).first; }
  // The item could not be begun.
  void fail(std::size_t index) noexcept { ended(index, std::current_exception()); }

  // The reader's: waits for the next result and moves it out; empty at the end. Throws the item's error, and then goes on
  // with the next one.
  std::optional<R> next() {
    for (;;) {
      const auto found = places_.find(ordered_ ? next_ : ready_.empty() ? feeder : ready_.front());
      if (found != places_.end() && found->second.finished()) {
        outcome<R> out = std::move(found->second);
        places_.erase(found);
        if (ordered_)
          ++next_;
        else
          ready_.pop_front();
        window_.release();
        return out.take();
      }
      if (fed_ && places_.empty()) {
        if (feeder_error_) std::rethrow_exception(std::exchange(feeder_error_, nullptr));
        return std::nullopt;
      }
      wait_change("imap's next");
    }
  }

 private:
  void ended(std::size_t index, std::exception_ptr error) noexcept override {
    if (index == feeder) {
      fed_ = true;
      feeder_error_ = std::move(error);
    } else {
      places_.at(index).finish(std::move(error));
      if (!ordered_) ready_.push_back(index);
    }
    changed();
  }

  const bool ordered_;
  semaphore window_;
  std::size_t begun_ = 0, next_ = 0;
  std::unordered_map<std::size_t, outcome<R>> places_;  // begun and not read; they stay where they are
  std::deque<std::size_t> ready_;                       // finished and not read, in that order
  bool fed_ = false;
  std::exception_ptr feeder_error_;
};

// With what its fibers use: gone after the last of them.
template <class R, class F, class Range>
class imap_job final : public imap_run<R> {
 public:
  imap_job(bool ordered, std::size_t most_unread, F function, Range&& range)
      : imap_run<R>(ordered, most_unread), f(std::move(function)), items(std::forward<Range>(range)) {}
  ~imap_job() override { this->kill_all(); }
  F f;
  Range items;  // a reference, if it was given as an lvalue
};

}  // namespace detail

// What imap and imap_unordered return: results as they come. On the thread that made it only. Destroying it early kills
// what it has begun and waits for its end.
template <class R>
class results {
 public:
  // Waits for the next result; empty at the end. Throws what f threw for that item, or what the range threw where it was
  // read (then the end follows); later items still come with further calls.
  std::optional<R> next() { return run_->next(); }

  // For `for (auto& r : pool.imap(...))`, once. A loop that was left by an error may be begun anew for the rest.
  class iterator {
   public:
    using value_type = R;
    using difference_type = std::ptrdiff_t;
    using iterator_concept = std::input_iterator_tag;
    R& operator*() const { return *of_->current_; }
    iterator& operator++() {
      of_->current_ = of_->next();
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const { return !of_->current_; }

   private:
    friend results;
    explicit iterator(results* of) : of_(of) {}
    results* of_;
  };
  iterator begin() {
    current_ = next();
    return iterator(this);
  }
  std::default_sentinel_t end() const noexcept { return {}; }

 private:
  friend group;
  explicit results(std::unique_ptr<detail::imap_run<R>> run) : run_(std::move(run)) {}
  std::unique_ptr<detail::imap_run<R>> run_;
  std::optional<R> current_;
};

}  // namespace ringlet
