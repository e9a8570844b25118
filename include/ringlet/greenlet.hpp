#pragma once
// Greenlets: stacks that switch to each other by hand, as Python's greenlet has them. Usable alone: no hub, no I/O.
//
// A greenlet runs a function on a stack of its own. switch_to runs it until it switches away, sends values with the
// switch, and returns what somebody sends back, who need not be the one it switched to. A function's return value goes to
// the greenlet's parent, an exception is rethrown there. The thread's own flow is its main greenlet, parent of all.
//
//   ringlet::greenlet doubler([](int x) {
//     auto parent = ringlet::greenlet::current().parent();
//     while (true) x = parent.switch_to<int>(2 * x);
//   });
//   doubler.switch_to<int>(1);   // 2
//   doubler.switch_to<int>(21);  // 42
//
// What travels: nothing, one value, or several as one std::tuple, by their decayed types (a string literal travels as const
// char*). The receiver names the type it expects: switch_to<int>, switch_to<std::tuple<int, std::string>>; switch_to<>
// takes and drops anything; switch_to<std::optional<T>> is empty when nothing or greenlet_exit came. Another type than the
// one expected is a greenlet_error at the receiver. Values are moved once, from the sender's stack; move-only ones travel.
//
// A greenlet belongs to the thread that made it: switching from another throws wrong_thread. Handles are counted
// references and may be dropped anywhere. Dropping the last handle of a suspended greenlet throws greenlet_exit into it
// at once (on its own thread, at that thread's next use of greenlets), so that its locals are destroyed. Handles that
// parent() gives do not keep a greenlet from that, nor do its children: a greenlet that has a generator in its frame, in
// whose frame is a handle of its parent, ends when it is dropped.

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include <ringlet/export.hpp>
#include <ringlet/fiber.hpp>

namespace ringlet {

// Misuse of a greenlet: a cycle of parents, an unexpected type, a switch to one that waits in the hub.
struct RINGLET_EXPORT greenlet_error : std::logic_error {
  using std::logic_error::logic_error;
};

namespace detail {
struct greenlet_state;

// What travels in a switch. `object` lies on the sender's stack (or in the dead one's body) until the receiver, who
// takes it at once, has moved it out.
struct packet {
  void* object = nullptr;
  const std::type_info* type = nullptr;  // null with no exception: nothing was sent
  std::exception_ptr exception;
  bool exit = false;  // a greenlet_exit that arrives as a value
};

struct greenlet_body {
  virtual packet run(packet& first) = 0;  // the result's object lies in the body
  virtual ~greenlet_body() = default;
};

RINGLET_EXPORT greenlet_state* greenlet_create(std::size_t body_size, std::size_t body_alignment, std::size_t stack_size_bytes);
RINGLET_EXPORT void* greenlet_body_storage(greenlet_state*) noexcept;
RINGLET_EXPORT void greenlet_adopt_body(greenlet_state*, greenlet_body*, greenlet_state* parent);
RINGLET_EXPORT void greenlet_discard(greenlet_state*) noexcept;
RINGLET_EXPORT void greenlet_retain(greenlet_state*) noexcept;
RINGLET_EXPORT void greenlet_release(greenlet_state*) noexcept;
RINGLET_EXPORT void greenlet_borrow(greenlet_state*) noexcept;
RINGLET_EXPORT void greenlet_give_back(greenlet_state*) noexcept;
RINGLET_EXPORT greenlet_state* greenlet_current();
// Sends the packet, waits, leaves what arrived in its place; rethrows an exception that arrived.
RINGLET_EXPORT void greenlet_exchange(greenlet_state* target, packet& sent_then_came);
RINGLET_EXPORT weak_block* greenlet_weak(greenlet_state*);
RINGLET_EXPORT greenlet_state* greenlet_weak_lock(weak_block*) noexcept;
RINGLET_EXPORT void* greenlet_tag() noexcept;
RINGLET_EXPORT void greenlet_set_tag(void*) noexcept;
[[noreturn]] RINGLET_EXPORT void throw_no_exception(const char* what);
[[noreturn]] RINGLET_EXPORT void greenlet_unexpected(const packet& came, const std::type_info& wanted);

template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};

// Moves the value out of a packet.
template <class R>
R take(packet& p) {
  if constexpr (std::is_void_v<R>) {
    return;
  } else {
    static_assert(std::is_same_v<R, std::decay_t<R>>, "values travel by value: name a plain type in switch_to<T>");
    if (p.type && *p.type == typeid(R)) return std::move(*static_cast<R*>(p.object));
    if constexpr (is_optional<R>::value) {
      using V = typename R::value_type;
      if (!p.type || p.exit) return R();
      if (*p.type == typeid(V)) return R(std::move(*static_cast<V*>(p.object)));
    }
    if constexpr (std::is_same_v<R, greenlet_exit>)
      if (p.exit) return greenlet_exit{};
    greenlet_unexpected(p, typeid(R));
  }
}

template <class... Args>
using payload = std::conditional_t<sizeof...(Args) == 0, std::tuple<>,
                                   std::conditional_t<sizeof...(Args) == 1, std::tuple_element_t<0, std::tuple<std::decay_t<Args>..., int>>,
                                                      std::tuple<std::decay_t<Args>...>>>;

// Empty for what has no call operator, or several: clang wants the question itself to be well-formed.
template <class F>
struct signature {};
template <class F>
  requires requires { &F::operator(); }
struct signature<F> : signature<decltype(&F::operator())> {};
template <class R, class... Args>
struct signature<R(Args...)> {
  using result = R;
  static constexpr std::size_t count = sizeof...(Args);
  using arguments = std::tuple<std::decay_t<Args>...>;
};
template <class R, class... Args>
struct signature<R (*)(Args...)> : signature<R(Args...)> {};
template <class R, class... Args>
struct signature<R (*)(Args...) noexcept> : signature<R(Args...)> {};
#define RINGLET_SIGNATURE(qualifiers)                                 \
  template <class C, class R, class... Args>                          \
  struct signature<R (C::*)(Args...) qualifiers> : signature<R(Args...)> {};
RINGLET_SIGNATURE()
RINGLET_SIGNATURE(const)
RINGLET_SIGNATURE(noexcept)
RINGLET_SIGNATURE(const noexcept)
#undef RINGLET_SIGNATURE

template <class F>
concept has_signature = requires { typename signature<std::decay_t<F>>::result; };

template <class F>
struct typed_greenlet_body final : greenlet_body {
  using sig = signature<F>;
  using R = std::decay_t<typename sig::result>;
  template <class G>
  explicit typed_greenlet_body(std::in_place_t, G&& f) : function(std::in_place, std::forward<G>(f)) {}
  packet run(packet& first) override {
    struct at_end {  // what it captured goes with the run, not with the last handle, even if it throws
      std::optional<F>& function;
      ~at_end() { function.reset(); }
    } forget{function};
    if constexpr (std::is_void_v<R>) {
      call(first);
      return {};
    } else {
      value.emplace(call(first));
      return packet{&*value, &typeid(R), nullptr, false};
    }
  }
  decltype(auto) call(packet& first) {
    if constexpr (sig::count == 0) {
      return (*function)();
    } else if constexpr (sig::count == 1) {
      return (*function)(take<std::tuple_element_t<0, typename sig::arguments>>(first));
    } else {
      return std::apply(*function, take<typename sig::arguments>(first));
    }
  }
  struct nothing {};
  std::optional<F> function;
  std::conditional_t<std::is_void_v<R>, nothing, std::optional<R>> value{};
};
}  // namespace detail

class RINGLET_EXPORT greenlet {
 public:
  // No greenlet; switching to it is a greenlet_error.
  greenlet() noexcept = default;
  // Will run f(values of the first switch) on a stack of its own. The parent is the current greenlet unless given. The
  // types of f's parameters are those the first switch must send, so f is a function or a lambda with plain parameters.
  template <class F>
    requires(!std::is_same_v<std::decay_t<F>, greenlet> && detail::has_signature<F>)
  explicit greenlet(F&& f) : greenlet(std::forward<F>(f), current()) {}
  template <class F>
    requires(!std::is_same_v<std::decay_t<F>, greenlet> && detail::has_signature<F>)
  greenlet(F&& f, const greenlet& parent, std::size_t stack_size_bytes = 0) {
    using body_type = detail::typed_greenlet_body<std::decay_t<F>>;
    state_ = detail::greenlet_create(sizeof(body_type), alignof(body_type), stack_size_bytes);
    try {
      detail::greenlet_adopt_body(
          state_, ::new (detail::greenlet_body_storage(state_)) body_type(std::in_place, std::forward<F>(f)), parent.state_);
    } catch (...) {
      detail::greenlet_discard(std::exchange(state_, nullptr));
      throw;
    }
  }

  greenlet(const greenlet& other) noexcept : state_(other.state_), borrowed_(other.borrowed_) {
    if (state_) borrowed_ ? detail::greenlet_borrow(state_) : detail::greenlet_retain(state_);
  }
  greenlet(greenlet&& other) noexcept : state_(std::exchange(other.state_, nullptr)), borrowed_(other.borrowed_) {}
  greenlet& operator=(greenlet other) noexcept {
    std::swap(state_, other.state_);
    std::swap(borrowed_, other.borrowed_);
    return *this;
  }
  ~greenlet() {
    if (state_) borrowed_ ? detail::greenlet_give_back(state_) : detail::greenlet_release(state_);
  }

  // The greenlet that runs on this thread.
  static greenlet current() { return greenlet(detail::greenlet_current()); }

  // Sends the values, runs this greenlet, and returns what arrives here next. To itself: returns its own values. To a dead
  // one: they go to its nearest living ancestor. Throws what is thrown into the caller, or arrives from a child that failed.
  template <class R = void, class... Args>
  R switch_to(Args&&... args) const {
    if constexpr (sizeof...(Args) == 0) {
      detail::packet p;
      detail::greenlet_exchange(state_, p);
      return detail::take<R>(p);
    } else {
      detail::payload<Args...> sent(std::forward<Args>(args)...);
      detail::packet p{std::addressof(sent), &typeid(sent), nullptr, false};
      detail::greenlet_exchange(state_, p);
      return detail::take<R>(p);
    }
  }

  // Throws into this greenlet where it waits; one that never ran dies of it, and a dead one's parent gets it.
  // greenlet_exit that ends a greenlet arrives at the parent as a value. std::invalid_argument for a null exception_ptr.
  template <class R = void>
  R throw_into(std::exception_ptr exception) const {
    if (!exception) detail::throw_no_exception("greenlet::throw_into");
    detail::packet p{nullptr, nullptr, std::move(exception), false};
    detail::greenlet_exchange(state_, p);
    return detail::take<R>(p);
  }
  template <class R = void, class E = greenlet_exit>
    requires(!std::is_same_v<std::decay_t<E>, std::exception_ptr>)
  R throw_into(E&& exception = {}) const {
    return throw_into<R>(std::make_exception_ptr(std::forward<E>(exception)));
  }

  // The parent now; empty for the main greenlet. The handle does not keep a suspended parent from being unwound when its
  // last other handle goes. Setting: greenlet_error for a cycle, for the main greenlet and for none.
  greenlet parent() const&;
  // The same of a temporary, which lets go of its greenlet: in `current().parent().switch_to()` the greenlet must not keep
  // itself alive by a handle on its own stack.
  greenlet parent() && {
    greenlet result = static_cast<const greenlet&>(*this).parent();
    *this = greenlet();
    return result;
  }
  void set_parent(const greenlet& parent) const;

  bool empty() const noexcept { return state_ == nullptr; }
  bool dead() const noexcept;     // finished or killed
  bool started() const noexcept;  // begun and not dead (suspended or running)
  explicit operator bool() const noexcept { return started(); }
  bool operator==(const greenlet& other) const noexcept { return state_ == other.state_; }
  std::string describe() const;  // "greenlet 5, suspended" and the like
  // Nothing of main greenlets and of the dead.
  stack_use stack() const noexcept { return detail::greenlet_stack_use(state_); }
  // Return addresses, innermost first, of a suspended or the running greenlet of this thread; else empty.
  std::vector<void*> backtrace() const { return detail::greenlet_backtrace(state_); }

 private:
  friend class weak_greenlet;
  friend struct trace_access;
  explicit greenlet(detail::greenlet_state* adopted, bool borrowed = false) noexcept : state_(adopted), borrowed_(borrowed) {}
  detail::greenlet_state* state_ = nullptr;
  bool borrowed_ = false;  // from parent()
};

// Knows a greenlet without keeping it: dropping the last handle unwinds it all the same. Any thread may copy and drop it.
class weak_greenlet {
 public:
  weak_greenlet() noexcept = default;
  // On the greenlet's own thread; else wrong_thread.
  weak_greenlet(const greenlet& g) : block_(detail::greenlet_weak(g.state_)) {}
  weak_greenlet(const weak_greenlet& other) noexcept : block_(other.block_) {
    if (block_) detail::greenlet_weak_retain(block_);
  }
  weak_greenlet(weak_greenlet&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  weak_greenlet& operator=(weak_greenlet other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~weak_greenlet() {
    if (block_) detail::greenlet_weak_release(block_);
  }
  // A handle; empty if there is none any more, and on other threads than the greenlet's.
  greenlet lock() const noexcept { return greenlet(detail::greenlet_weak_lock(block_)); }

 private:
  detail::weak_block* block_ = nullptr;
};

// Greenlets of the process that are not dead, main ones left out (for leak tests).
RINGLET_EXPORT std::size_t living_greenlets() noexcept;

}  // namespace ringlet
