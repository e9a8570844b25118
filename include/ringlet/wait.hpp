#pragma once
// Waiting for the first of several, or for all, of things of any kind: fibers, events, semaphores, and whatever else can
// tell a listener.
//
//   ringlet::event stop;
//   auto a = ringlet::spawn(fetch), b = ringlet::spawn(fetch);
//   for (std::size_t i : ringlet::iwait({a, b, stop}, {.until = 5s}))   // in the order in which they became ready
//     if (i == 2) break;                                              // what is left is no longer listened to
//   ringlet::wait({a, b}, {.count = 1});                                // the index of the first
//
// Things are named by their place in the list; each place is reported once, so one that stands in it twice is reported
// twice. Those that are ready at the beginning come first, in the order of the list. Waiting takes nothing: a semaphore is
// reported when it could be acquired, an event when it was set, even if it has been cleared since.
//
// Fibers are kept by the wait; other things must outlive it. Fibers must be of this thread, other things may be shared with
// others.
//
// What can be waited for has two members, that are called on the waiting thread: `bool add_listener(detail::listener&)`
// (false, and nothing is added: it is ready now) and `void remove_listener(detail::listener&) noexcept`. It keeps a
// detail::listener_list under a lock of its own, and under that lock tells all when it becomes ready.

#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/fiber.hpp>

namespace ringlet {

namespace detail {

// One wait's interest in one thing; lives with whoever waits.
struct listener {
  listener* before = nullptr;
  listener* after = nullptr;
  bool linked = false;  // in a list; it is taken out before it is told
  unsigned generation = 0;
  void (*told)(listener&) noexcept = nullptr;  // on the thread that made the thing ready, under its lock; must not wait
};

// Who wants to know, in the order they came. Its owner's lock guards it.
class RINGLET_EXPORT listener_list {
 public:
  listener_list() noexcept = default;
  ~listener_list() { if (first_) check_none_left(); }
  listener_list(const listener_list&) = delete;
  listener_list& operator=(const listener_list&) = delete;
  void add(listener&) noexcept;
  void remove(listener&) noexcept;  // does nothing with one that is in no list
  void tell_all() noexcept {
    if (first_) tell_those();
  }
  bool empty() const noexcept { return first_ == nullptr; }  // but for those that a fork has left here

 private:
  void tell_those() noexcept;
  void check_none_left() noexcept;
  listener* first_ = nullptr;
  listener* last_ = nullptr;
  unsigned generation_ = 0;  // of the process whose listeners these are
};

template <class T>
concept listenable = requires(T& thing, listener& l) {
  { thing.add_listener(l) } -> std::same_as<bool>;
  thing.remove_listener(l);
};

RINGLET_EXPORT bool fiber_add_listener(fiber_state*, listener&);
RINGLET_EXPORT void fiber_remove_listener(fiber_state*, listener&) noexcept;
}  // namespace detail

// Refers to a fiber (and keeps it), or to something else that can be waited for.
class waitable {
 public:
  waitable(const any_fiber& f) : fiber_(f) {}
  template <detail::listenable T>
  waitable(T& thing) noexcept : thing_(&thing), how_(&verbs_of<T>) {}
  template <detail::listenable T>
  waitable(T* thing) noexcept : waitable(*thing) {}

  bool add_listener(detail::listener& l) const {
    return how_ ? how_->add(thing_, l) : detail::fiber_add_listener(detail::fiber_state_of(fiber_), l);
  }
  void remove_listener(detail::listener& l) const noexcept {
    how_ ? how_->remove(thing_, l) : detail::fiber_remove_listener(detail::fiber_state_of(fiber_), l);
  }

 private:
  struct verbs {
    bool (*add)(void*, detail::listener&);
    void (*remove)(void*, detail::listener&) noexcept;
  };
  template <class T>
  static constexpr verbs verbs_of{[](void* thing, detail::listener& l) { return static_cast<T*>(thing)->add_listener(l); },
                                  [](void* thing, detail::listener& l) noexcept { static_cast<T*>(thing)->remove_listener(l); }};
  any_fiber fiber_;
  void* thing_ = nullptr;
  const verbs* how_ = nullptr;
};

namespace detail {
template <class Range>
concept waitable_range = requires(Range& r) { waitable(*std::begin(r)); std::end(r); };
template <waitable_range Range>
std::vector<waitable> waitables_of(Range&& range) {
  std::vector<waitable> result;
  for (auto& each : range) result.push_back(waitable(each));
  return result;
}
}  // namespace detail

struct wait_options {
  deadline until = never;
  std::size_t count = std::numeric_limits<std::size_t>::max();  // stop after so many
};

// The indices of what becomes ready, as it becomes ready; ends after `count`, after all, or at the deadline. To leave it
// early is to leave no listener behind. Used and destroyed by the fiber that made it. Throws in next() when the fiber is
// killed or a timeout around it runs out; a deadlock that only this wait is caught in is told there, too.
class RINGLET_EXPORT iwait {
 public:
  explicit iwait(std::vector<waitable> things, const wait_options& how = {});
  explicit iwait(std::initializer_list<waitable> things, const wait_options& how = {}) : iwait(std::vector<waitable>(things), how) {}
  template <detail::waitable_range Range>
  explicit iwait(Range&& things, const wait_options& how = {}) : iwait(detail::waitables_of(things), how) {}
  ~iwait();
  iwait(const iwait&) = delete;
  iwait& operator=(const iwait&) = delete;

  // The next one's index; waits for it. Empty at the end.
  std::optional<std::size_t> next();

  class iterator {
   public:
    using value_type = std::size_t;
    using difference_type = std::ptrdiff_t;
    iterator() noexcept = default;
    explicit iterator(iwait& of) : of_(&of), at_(of.next()) {}
    std::size_t operator*() const { return *at_; }
    iterator& operator++() {
      at_ = of_->next();
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const noexcept { return !at_; }

   private:
    iwait* of_ = nullptr;
    std::optional<std::size_t> at_;
  };
  iterator begin() { return iterator(*this); }
  std::default_sentinel_t end() const noexcept { return {}; }

 private:
  struct state;
  std::unique_ptr<state> state_;
};

// The same at once: the indices of those that became ready, in that order.
RINGLET_EXPORT std::vector<std::size_t> wait(std::vector<waitable> things, const wait_options& how = {});
inline std::vector<std::size_t> wait(std::initializer_list<waitable> things, const wait_options& how = {}) {
  return wait(std::vector<waitable>(things), how);
}
template <detail::waitable_range Range>
std::vector<std::size_t> wait(Range&& things, const wait_options& how = {}) {
  return wait(detail::waitables_of(things), how);
}
// The index of the first; empty if the deadline passed before (or there is nothing to wait for).
inline std::optional<std::size_t> wait_any(std::vector<waitable> things, deadline until = never) {
  return iwait(std::move(things), {.until = until, .count = 1}).next();
}
inline std::optional<std::size_t> wait_any(std::initializer_list<waitable> things, deadline until = never) {
  return wait_any(std::vector<waitable>(things), until);
}

}  // namespace ringlet
