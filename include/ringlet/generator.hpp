#pragma once
// Generators with a stack of their own: they may yield from functions that they call, at any depth.
//
//   ringlet::generator<int> squares([](auto& yield) { for (int i = 0; ; ++i) yield(i * i); });
//   for (int s : squares) if (s > 100) break;
//
//   ringlet::generator<int, int, std::string> sum([] {       // yields int, is sent int, returns a string
//     int total = 0;
//     while (auto more = ringlet::generator<int, int, std::string>::yield(total)) total += *more;
//     return std::to_string(total);
//   });
//   sum.next(); sum.send(5); sum.next(); sum.result();       // 0, 5, nothing more, "5"
//
// Semantics are those of Python's generators: next() runs to the next yield; send(s) makes s the value of the yield that
// waits; throw_into raises there; close() raises generator_exit there; destroying a suspended one unwinds it with
// greenlet_exit. A timeout or kill shield that the body has open across a yield counts for its consumer, and binds the generator
// to that fiber: until it is closed, to resume the generator in another one is a generator_error. An exception that
// leaves the body is thrown in whoever resumed it, and the generator is over.
//
// A generator may wait like any code of its fiber. It belongs to its thread and may be resumed by one fiber after another,
// but not by one while another is inside, nor destroyed meanwhile (which ends the process, and says so).

#include <cstddef>
#include <exception>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include <ringlet/export.hpp>
#include <ringlet/greenlet.hpp>

namespace ringlet {

// Raised at the yield of a generator that is closed. Not a std::exception (see greenlet_exit).
struct generator_exit {
  const char* what() const noexcept { return "ringlet::generator_exit"; }
};

// Misuse: a yield outside of a generator, one that resumes itself, a result that is not there, one that will not close.
struct RINGLET_EXPORT generator_error : std::logic_error {
  using std::logic_error::logic_error;
};

namespace detail {
struct generator_tag {
  const std::type_info* type = nullptr;
  any_fiber bound_to;  // its timeouts and shields are open in the body
};
// Whether the running fiber has timeouts or shields open on the stack that runs.
RINGLET_EXPORT bool has_scopes_on_this_stack() noexcept;
// A generator goes while it runs: says so and ends the process, but not where nobody ever comes back to it (a forked child, the
// process's end).
RINGLET_EXPORT void generator_destroyed_inside() noexcept;
}  // namespace detail

template <class Y, class S = void, class R = void>
class generator {
  struct nothing {};
  using kept_result = std::conditional_t<std::is_void_v<R>, nothing, R>;
  using kept_sent = std::conditional_t<std::is_void_v<S>, nothing, S>;
  enum class phase { unstarted, suspended, running, over };

  struct state : detail::generator_tag {
    phase at = phase::unstarted;
    std::optional<Y> yielded;
    std::optional<kept_sent> sent;
    std::optional<kept_result> result;
    std::exception_ptr thrown_in;  // to be raised at the yield
    std::exception_ptr failed;     // left the body
  };

 public:
  // What `yield(value)` returns: the value sent, empty if it was resumed by next(); nothing if nothing can be sent.
  using sent_type = std::conditional_t<std::is_void_v<S>, void, std::optional<kept_sent>>;

  // What a body may ask for as its argument: `yield(value)`.
  struct yielder {
    sent_type operator()(Y value) const { return generator::yield(std::move(value)); }
    // Yields all that the inner one yields, hands it what is sent and thrown, and returns its result.
    template <class R2>
    R2 from(generator<Y, S, R2>& inner) const { return generator::yield_from(inner); }
  };

  // body() or body(yielder&), returning R. Runs on its own stack from the first next() on.
  template <class F>
    requires(!std::is_same_v<std::decay_t<F>, generator> &&
             (std::is_invocable_v<std::decay_t<F>&> || std::is_invocable_v<std::decay_t<F>&, yielder&>))
  explicit generator(F&& body, std::size_t stack_size_bytes = 0) : state_(std::make_shared<state>()) {
    state_->type = &typeid(generator);
    greenlet_ = greenlet([s = state_, f = std::decay_t<F>(std::forward<F>(body))]() mutable { run(*s, f); }, greenlet::current(), stack_size_bytes);
  }
  generator(generator&&) noexcept = default;
  generator& operator=(generator&& other) {
    if (this != &other) {
      close();
      state_ = std::move(other.state_);
      greenlet_ = std::move(other.greenlet_);
    }
    return *this;
  }
  // What its cleanup throws is reported, not thrown.
  ~generator() {
    if (state_ && state_->at == phase::running) detail::generator_destroyed_inside();
  }

  // The next value that it yields, or nothing when it has returned. Throws what leaves the body.
  std::optional<Y> next() { return resume(); }
  // The same, and the waiting yield returns the value. generator_error if it has not begun: no yield is waiting.
  template <class T>
    requires(!std::is_void_v<S> && std::is_convertible_v<T, kept_sent>)
  std::optional<Y> send(T&& value) {
    check_not_running();
    if (state_->at == phase::unstarted)
      throw generator_error("ringlet: a value was sent to a generator that has not begun, so no yield could return it. Cure: call next() first.");
    if (state_->at == phase::over) return {};
    state_->sent.emplace(std::forward<T>(value));
    return resume();
  }
  // Raises the exception at the waiting yield; returns the next value yielded. One that has not begun, or is over, throws it here.
  std::optional<Y> throw_into(std::exception_ptr exception) {
    if (!exception) detail::throw_no_exception("generator::throw_into");
    check_not_running();
    if (state_->at == phase::unstarted) give_up();
    if (state_->at == phase::over) std::rethrow_exception(exception);
    state_->thrown_in = std::move(exception);
    return resume();
  }
  template <class E>
    requires(!std::is_convertible_v<E, std::exception_ptr>)
  std::optional<Y> throw_into(E&& exception) {
    return throw_into(std::make_exception_ptr(std::forward<E>(exception)));
  }
  // Ends it: raises generator_exit at the waiting yield. Throws what else leaves the body; generator_error if it yields
  // once more. Again, or on one that is over or has not begun: nothing.
  void close() {
    if (!state_ || state_->at == phase::over) return;
    check_not_running();
    if (state_->at == phase::unstarted) return give_up();
    try {
      if (throw_into(generator_exit{})) throw generator_error("ringlet: a generator that was closed went on yielding; let generator_exit pass");
    } catch (const generator_exit&) {
    }
  }

  // It has returned, failed or been closed.
  bool done() const noexcept { return !state_ || state_->at == phase::over; }
  // What it returned, for R that is not void; generator_error until then.
  std::add_lvalue_reference_t<R> result() const
    requires(!std::is_void_v<R>)
  {
    if (!state_ || !state_->result) throw generator_error("ringlet: a generator's result is asked for, but it has not returned");
    return *state_->result;
  }

  // In the body of such a generator, or in a function that it calls.
  static sent_type yield(Y value) {
    auto* tag = static_cast<detail::generator_tag*>(detail::greenlet_tag());
    if (!tag || *tag->type != typeid(generator))
      throw generator_error(tag ? "ringlet: yield of another type than the running generator's" : "ringlet: yield outside of a generator");
    state& s = *static_cast<state*>(tag);
    s.yielded.emplace(std::move(value));
    s.at = phase::suspended;
    if (detail::has_scopes_on_this_stack()) s.bound_to = ringlet::current();
    greenlet::current().parent().switch_to();
    s.at = phase::running;
    if (s.thrown_in) std::rethrow_exception(std::exchange(s.thrown_in, nullptr));
    if constexpr (!std::is_void_v<S>) return std::exchange(s.sent, std::nullopt);
  }
  template <class R2>
  static R2 yield_from(generator<Y, S, R2>& inner) {
    std::optional<Y> value = inner.next();
    while (value) {
      std::exception_ptr raised;
      try {
        if constexpr (std::is_void_v<S>) {
          yield(std::move(*value));
          value = std::nullopt;
        } else {
          auto sent = yield(std::move(*value));
          value = sent ? inner.send(std::move(*sent)) : inner.next();
          continue;
        }
      } catch (const greenlet_exit&) {  // this one is dropped
        throw;
      } catch (...) {
        raised = std::current_exception();
      }
      value = raised ? inner.throw_into(std::move(raised)) : inner.next();
    }
    if constexpr (!std::is_void_v<R2>) return std::move(inner.result());
  }

  class iterator {
   public:
    using value_type = Y;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::input_iterator_tag;
    using reference = Y&;
    using pointer = Y*;
    iterator() noexcept = default;
    explicit iterator(generator& of) : of_(&of), at_(of.next()) {}
    Y& operator*() const noexcept { return *at_; }
    Y* operator->() const noexcept { return &*at_; }
    iterator& operator++() {
      at_ = of_->next();
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const noexcept { return !at_; }

   private:
    generator* of_ = nullptr;
    mutable std::optional<Y> at_;
  };
  // Runs it to the next yield.
  iterator begin() { return iterator(*this); }
  std::default_sentinel_t end() const noexcept { return {}; }

 private:
  template <class F>
  static void run(state& s, F& body) {
    struct at_end {  // also when it is unwound by greenlet_exit
      state& s;
      ~at_end() { s.at = phase::over; }
    } mark{s};
    s.at = phase::running;
    detail::greenlet_set_tag(static_cast<detail::generator_tag*>(&s));
    try {
      if constexpr (std::is_invocable_v<F&>) {
        keep(s, body);
      } else {
        yielder y;
        keep(s, [&]() -> R { return body(y); });
      }
    } catch (const greenlet_exit&) {
      throw;
    } catch (...) {
      s.failed = std::current_exception();
    }
  }
  template <class F>
  static void keep(state& s, F&& body) {
    if constexpr (std::is_void_v<R>)
      body();
    else
      s.result.emplace(body());
  }

  void check_not_running() const {
    if (!state_) throw generator_error("ringlet: a generator that was moved from is used");
    if (state_->at == phase::running) throw generator_error("ringlet: a generator that is running, or waits inside, is resumed");
  }
  std::optional<Y> resume() {
    check_not_running();
    if (state_->at == phase::over) return {};
    if (!state_->bound_to.empty()) unbind();
    // It yields and ends to whoever resumes it.
    if (greenlet here = greenlet::current(); !(greenlet_.parent() == here)) greenlet_.set_parent(here);
    state& s = *state_;  // this may be moved from meanwhile
    greenlet_.switch_to();
    if (s.failed) std::rethrow_exception(std::exchange(s.failed, nullptr));
    return std::exchange(s.yielded, std::nullopt);
  }
  void unbind() {
    if (state_->bound_to != ringlet::current())
      throw generator_error("ringlet: a generator is resumed by another fiber than '" + state_->bound_to.name() +
                            "', in which its body has a timeout or kill shield open. Cure: close it before the yield, or resume it there.");
    state_->bound_to = any_fiber();
  }
  void give_up() {
    greenlet_ = greenlet();
    state_->at = phase::over;
  }

  std::shared_ptr<state> state_;
  greenlet greenlet_;
};

}  // namespace ringlet
