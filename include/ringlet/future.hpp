#pragma once
// The result of work that is done elsewhere: on a helper thread (thread_pool), on another hub (hub_threads), or wherever
// an executor takes it.
//
// A future is a handle: copies refer to the same result, and dropping them cancels nothing. Any thread may use it: fibers
// park, a plain thread gets a hub. wait, iwait and wait_any take futures, too.

#include <atomic>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include <ringlet/async_result.hpp>
#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/fiber.hpp>
#include <ringlet/mapping.hpp>

namespace ringlet {

namespace detail {

// Work on its way to where it will be done. Destroyed without having run: it was dropped.
struct RINGLET_EXPORT errand {
  errand() = default;
  errand(const errand&) = delete;
  errand& operator=(const errand&) = delete;
  virtual ~errand();
  virtual void run() noexcept = 0;  // once
};

enum class errand_phase : unsigned char { queued, begun, cancelled };

template <class R>
struct promised {
  async_result<R> result;
  std::atomic<errand_phase> phase{errand_phase::queued};
  bool change(errand_phase to) noexcept {
    auto from = errand_phase::queued;
    return phase.compare_exchange_strong(from, to, std::memory_order_acq_rel);
  }
};

// What it captured goes before its result is announced.
template <class R, class F>
class promised_call final : public errand {
 public:
  promised_call(std::shared_ptr<promised<R>> to, F f) : to_(std::move(to)), f_(std::in_place, std::move(f)) {}
  ~promised_call() override {
    if (!f_ || !to_->change(errand_phase::cancelled)) return;
    f_.reset();
    to_->result.try_set_exception(std::make_exception_ptr(greenlet_exit{}));
  }
  void run() noexcept override {
    if (!to_->change(errand_phase::begun)) return;  // cancelled
    std::exception_ptr error;
    try {
      if constexpr (std::is_void_v<R>) {
        (*f_)();
        f_.reset();
        to_->result.set();
      } else {
        std::optional<R> value(std::in_place, (*f_)());
        f_.reset();
        to_->result.set(std::move(*value));
      }
      return;
    } catch (...) {
      error = std::current_exception();
    }
    f_.reset();
    to_->result.try_set_exception(std::move(error));  // from here on it is others' alone
  }

 private:
  std::shared_ptr<promised<R>> to_;
  std::optional<F> f_;
};

struct promise_maker;

// The results of a map that other threads make, in the order of the items. Left early, it lets no more begin and waits for
// those that have.
template <class R>
class shared_map {
 public:
  shared_map() = default;
  shared_map(const shared_map&) = delete;
  shared_map& operator=(const shared_map&) = delete;
  ~shared_map() {
    given_up_.store(true, std::memory_order_relaxed);
    unfinished_.wait_out("the end of what map began");
  }

  // call(place) leaves its result in the place.
  template <class F>
  std::unique_ptr<errand> add(F call) {
    struct one final : errand {
      shared_map& of;
      outcome<R>& place;
      F call;
      one(shared_map& m, outcome<R>& p, F f) : of(m), place(p), call(std::move(f)) { of.unfinished_.add(); }
      ~one() override {
        if (!place.finished()) place.finish(std::make_exception_ptr(greenlet_exit{}));
        of.unfinished_.done();
      }
      void run() noexcept override {
        if (of.given_up_.load(std::memory_order_relaxed)) return;
        try {
          call(place);
          place.finish(nullptr);
        } catch (...) {
          place.finish(std::current_exception());  // whoever waits is told when this errand has gone
        }
      }
    };
    return std::make_unique<one>(*this, places_.emplace_back(), std::move(call));
  }
  // Waits for all; the first error is thrown.
  auto results(const char* what) {
    unfinished_.wait(never, what);
    if constexpr (std::is_void_v<R>) {
      for (auto& each : places_) each.take();
    } else {
      std::vector<R> values;
      values.reserve(places_.size());
      for (auto& each : places_) values.push_back(each.take());
      return values;
    }
  }

 private:
  std::deque<outcome<R>> places_;  // grows without moving what is there
  countdown unfinished_;
  std::atomic<bool> given_up_{false};
};
}  // namespace detail

template <class R = void>
class future {
 public:
  using result_type = R;
  future() noexcept = default;  // of nothing; only empty() may be asked

  bool empty() const noexcept { return to_ == nullptr; }

  // Waits for the result: a reference that is valid as long as a handle lives. Throws what the work threw; greenlet_exit
  // if it was cancelled, dropped or killed; not_ready when the deadline passed first (the work goes on).
  std::add_lvalue_reference_t<R> get(deadline until = never) const { return to_->result.get(until); }
  // True: there is a result or an error; false: the deadline passed first.
  bool wait(deadline until = never) const { return to_->result.wait(until); }
  bool ready() const noexcept { return to_->result.ready(); }
  bool successful() const noexcept { return to_->result.successful(); }
  std::exception_ptr exception() const noexcept { return to_->result.exception(); }

  // Takes the work back if nobody has begun it: true, and who waits gets greenlet_exit.
  bool cancel() const noexcept {
    if (!to_->change(detail::errand_phase::cancelled)) return false;
    to_->result.try_set_exception(std::make_exception_ptr(greenlet_exit{}));
    return true;
  }

  // Calls f(*this) in a fiber of the calling thread when the result is there. One that throws is reported and disturbs nobody.
  template <class F>
  any_fiber on_done(F f) const {
    return spawn({.name = "a future's callback"}, [self = *this, f = std::move(f)]() mutable {
      self.wait();
      std::invoke(f, self);
    });
  }

  bool add_listener(detail::listener& l) const noexcept { return to_->result.add_listener(l); }
  void remove_listener(detail::listener& l) const noexcept { to_->result.remove_listener(l); }

 private:
  friend detail::promise_maker;
  explicit future(std::shared_ptr<detail::promised<R>> to) noexcept : to_(std::move(to)) {}
  std::shared_ptr<detail::promised<R>> to_;
};

namespace detail {
// f(args...) made into an errand and the future of its result. Arguments are copied or moved into it.
struct promise_maker {
  template <class F, class... Args>
  static auto make(F&& f, Args&&... args) {
    static_assert(std::is_invocable_v<std::decay_t<F>&, std::decay_t<Args>...>,
                  "ringlet: f cannot be called with these arguments (they are copied or moved; use std::ref to pass a reference)");
    auto call = [g = std::decay_t<F>(std::forward<F>(f)), ... held = std::decay_t<Args>(std::forward<Args>(args))]() mutable -> decltype(auto) {
      return std::invoke(g, std::move(held)...);
    };
    using returned = std::invoke_result_t<decltype(call)&>;
    using R = std::conditional_t<std::is_void_v<returned>, void, std::remove_cvref_t<returned>>;
    auto to = std::make_shared<promised<R>>();
    std::unique_ptr<errand> work = std::make_unique<promised_call<R, decltype(call)>>(to, std::move(call));
    return std::pair<std::unique_ptr<errand>, future<R>>(std::move(work), future<R>(std::move(to)));
  }
};
}  // namespace detail

}  // namespace ringlet
