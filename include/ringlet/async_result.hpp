#pragma once
// A value or an error that is set once and got by many. Usable from fibers of any hub and from plain threads. The model is
// gevent's AsyncResult.
//
//   ringlet::async_result<int> answer;
//   auto asker = ringlet::spawn([&] { return answer.get(5s) + 1; });
//   answer.set(41);

#include <atomic>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include <ringlet/deadline.hpp>
#include <ringlet/fiber.hpp>
#include <ringlet/sync.hpp>

namespace ringlet {

namespace detail {
// What of a result does not depend on its type.
class RINGLET_EXPORT result_core {
 public:
  // Fails all who get it, now and later, with this very exception. std::logic_error if the result is set already;
  // std::invalid_argument if it is null.
  void set_exception(std::exception_ptr error) {
    if (!try_set_exception(std::move(error))) throw_already_set();
  }
  template <class E>
    requires(!std::is_same_v<std::decay_t<E>, std::exception_ptr>)
  void set_exception(E&& error) {
    set_exception(std::make_exception_ptr(std::forward<E>(error)));
  }
  // The same, but false if it is set already.
  bool try_set_exception(std::exception_ptr error);

  // Waits until it is set: true; false when the deadline passed first.
  bool wait(deadline until = never) const { return set_.wait(until); }
  bool ready() const noexcept { return set_.is_set(); }
  bool successful() const noexcept { return ready() && !error_; }
  // What it was failed with; null if it has a value or is not set.
  std::exception_ptr exception() const noexcept { return ready() ? error_ : nullptr; }
  // For wait and iwait.
  bool add_listener(listener& l) noexcept { return set_.add_listener(l); }
  void remove_listener(listener& l) noexcept { set_.remove_listener(l); }

 protected:
  result_core() noexcept = default;
  ~result_core() = default;
  // Only one setter gets past this; it says at its end that the result is there, or gives the place free again.
  bool claim() noexcept { return !claimed_.exchange(true, std::memory_order_acq_rel); }
  void disclaim() noexcept { claimed_.store(false, std::memory_order_release); }
  void announce() noexcept { set_.set(); }
  void require_value(deadline until) const;  // waits; throws not_ready or the error
  [[noreturn]] static void throw_already_set();
  [[noreturn]] static void throw_unfinished();

 private:
  std::atomic<bool> claimed_{false};
  std::exception_ptr error_;
  mutable event set_;
};
}  // namespace detail

template <class T = void>
class async_result : public detail::result_core {
  static_assert(std::is_void_v<T> || std::is_object_v<T>, "ringlet::async_result<T>: T is a type of object or void; for a reference use a pointer");
  struct nothing {};
  using value_type = std::conditional_t<std::is_void_v<T>, nothing, T>;

 public:
  async_result() noexcept = default;
  async_result(const async_result&) = delete;
  async_result& operator=(const async_result&) = delete;

  // Sets the value, made from these arguments, and wakes all who wait for it. std::logic_error if it is set already.
  template <class... Args>
    requires std::is_constructible_v<value_type, Args...>
  void set(Args&&... args) {
    if (!try_set(std::forward<Args>(args)...)) throw_already_set();
  }
  // The same, but false (and nothing moved from) if it is set already.
  template <class... Args>
    requires std::is_constructible_v<value_type, Args...>
  bool try_set(Args&&... args) {
    if (!claim()) return false;
    try {
      value_.emplace(std::forward<Args>(args)...);
    } catch (...) {
      disclaim();
      throw;
    }
    announce();
    return true;
  }

  // The value, waiting for it: a reference that is valid as long as this lives (many may get it; one may move from it).
  // Throws what it was failed with; not_ready when the deadline passed first.
  std::add_lvalue_reference_t<T> get(deadline until = never) {
    require_value(until);
    if constexpr (!std::is_void_v<T>) return *value_;
  }
  std::add_lvalue_reference_t<const T> get(deadline until = never) const {
    require_value(until);
    if constexpr (!std::is_void_v<T>) return *value_;
  }
  std::add_lvalue_reference_t<T> get_nowait() { return get(deadline::passed()); }

  // Takes over the result of a finished fiber: a copy, or moved out of it if it cannot be copied; or its error (greenlet_exit
  // if it was killed). std::logic_error if this is set already, or the fiber has not finished.
  void set_from(const fiber<T>& finished) {
    if (!finished.ready()) throw_unfinished();
    std::exception_ptr error;
    try {
      if constexpr (std::is_void_v<T>) {
        finished.get(deadline::passed());
        set();
      } else if constexpr (std::is_copy_constructible_v<T>) {
        set(std::as_const(finished.get(deadline::passed())));
      } else {
        set(std::move(finished.get(deadline::passed())));
      }
      return;
    } catch (...) {
      error = std::current_exception();
    }
    set_exception(std::move(error));
  }
  // The same when the fiber has finished, by a link. This must live until then.
  void follow(const fiber<T>& source) {
    source.link([this, source](any_fiber) { set_from(source); });
  }

 private:
  std::optional<value_type> value_;
};

}  // namespace ringlet
