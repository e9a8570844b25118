#pragma once
// Fibers: functions that run on their own stacks, one at a time on a thread, scheduled by that thread's hub.
//
// spawn only queues (first in, first out); nothing runs until the spawner itself waits: in sleep, join, get, a queue, an
// event, or a hooked libc call. A fiber stays on the thread that spawned it. The thread's own flow of control is its
// main fiber, and waits like any other.
//
//   auto a = ringlet::spawn([] { return fetch("http://localhost/a"); });
//   auto b = ringlet::spawn([] { return fetch("http://localhost/b"); });
//   ringlet::joinall({a, b});
//   use(a.get(), b.get());
//
// Handles are counted references; dropping the last one detaches the fiber, which runs on. Unless a declaration says
// otherwise, call only on the fiber's own thread: elsewhere it is an error, ringlet::wrong_thread.

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>

namespace ringlet {

// What a killed fiber or greenlet unwinds with. Not a std::exception, so that `catch (std::exception&)` lets it pass;
// `catch (...)` must rethrow it.
struct greenlet_exit {
  const char* what() const noexcept { return "ringlet::greenlet_exit"; }
};

// Used from a thread it does not belong to.
struct RINGLET_EXPORT wrong_thread : std::logic_error {
  using std::logic_error::logic_error;
};
// The main fiber waits and nothing is left that could ever wake it. what() names every parked fiber, what it waits on
// and since when.
struct RINGLET_EXPORT deadlock_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// get() or with a deadline: the fiber was not finished in time.
struct RINGLET_EXPORT not_ready : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct spawn_options {
  std::string_view name = {};           // shown in reports; "fiber-7" if empty
  bool daemon = false;                  // hub::join does not wait for it
  std::size_t stack_size_bytes = 0;     // 0: RINGLET_STACK_SIZE, or 64 KiB. Untouched pages cost nothing.
};

// What a stack has been used for. Its pages are touched once and stay: `touched_bytes` is the most that was ever used, in
// whole pages, by whoever has run on this stack.
struct stack_use {
  std::size_t size_bytes = 0;
  std::size_t used_bytes = 0;     // now
  std::size_t touched_bytes = 0;
};
// One line a frame: function, offset, file. Functions that their program does not export (-rdynamic) are told by the file's
// offset, for addr2line.
RINGLET_EXPORT std::string describe_backtrace(const std::vector<void*>& frames, const char* indent = "  ");

class any_fiber;

namespace detail {
struct fiber_state;
struct greenlet_state;
struct weak_block;
RINGLET_EXPORT stack_use greenlet_stack_use(const greenlet_state*) noexcept;
RINGLET_EXPORT std::vector<void*> greenlet_backtrace(const greenlet_state*);
RINGLET_EXPORT greenlet_state* fiber_greenlet(fiber_state*) noexcept;      // its own one
RINGLET_EXPORT greenlet_state* fiber_resting_place(fiber_state*) noexcept; // the one in which it is parked or runs
RINGLET_EXPORT fiber_state* fiber_weak_lock(weak_block*) noexcept;
RINGLET_EXPORT weak_block* fiber_weak(fiber_state*);
RINGLET_EXPORT void greenlet_weak_retain(weak_block*) noexcept;
RINGLET_EXPORT void greenlet_weak_release(weak_block*) noexcept;
struct spawner;
fiber_state* fiber_state_of(const any_fiber&) noexcept;

// A spawned function and the place of its result; lives at the top of the fiber's own stack.
struct body {
  virtual void run() = 0;
  virtual void* result() noexcept { return nullptr; }
  virtual void forget() noexcept {}  // it will never run: what it captured goes
  virtual ~body() = default;
};

// Makes a fiber whose stack has room for a body of this size; the caller constructs the body there.
RINGLET_EXPORT fiber_state* fiber_create(const spawn_options& how, std::size_t body_size, std::size_t body_alignment);
RINGLET_EXPORT void* fiber_body_storage(fiber_state*) noexcept;
// Queues it: now, or when the moment has come. The body is owned by the fiber from here on.
RINGLET_EXPORT void fiber_start(fiber_state*, body*, const deadline* later);
RINGLET_EXPORT void fiber_discard(fiber_state*) noexcept;  // the body's constructor threw
RINGLET_EXPORT void fiber_retain(fiber_state*) noexcept;
RINGLET_EXPORT void fiber_release(fiber_state*) noexcept;
RINGLET_EXPORT body* fiber_result(fiber_state*, deadline until);  // waits; rethrows the fiber's exception

template <class R, class F>
struct typed_body final : body {
  template <class G>
  explicit typed_body(std::in_place_t, G&& f) : function(std::in_place, std::forward<G>(f)) {}
  void run() override {
    struct at_end {  // what it captured goes with the run, not with the last handle, even if it throws
      std::optional<F>& function;
      ~at_end() { function.reset(); }
    } forget{function};
    if constexpr (std::is_void_v<R>)
      (*function)();
    else if constexpr (std::is_reference_v<R>)
      value = std::addressof((*function)());
    else
      value.emplace((*function)());
  }
  void forget() noexcept override { function.reset(); }
  void* result() noexcept override {
    if constexpr (std::is_void_v<R>)
      return nullptr;
    else if constexpr (std::is_reference_v<R>)
      return const_cast<void*>(static_cast<const volatile void*>(value));
    else
      return &*value;
  }
  struct nothing {};
  std::optional<F> function;
  std::conditional_t<std::is_void_v<R>, nothing,
                     std::conditional_t<std::is_reference_v<R>, std::remove_reference_t<R>*, std::optional<R>>>
      value{};
};
}  // namespace detail

// A fiber whatever it returns. Copies refer to the same fiber. A default-made one refers to none: empty().
class RINGLET_EXPORT any_fiber {
 public:
  any_fiber() noexcept = default;
  any_fiber(const any_fiber& other) noexcept : state_(other.state_) { if (state_) detail::fiber_retain(state_); }
  any_fiber(any_fiber&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  any_fiber& operator=(any_fiber other) noexcept { std::swap(state_, other.state_); return *this; }
  ~any_fiber() { if (state_) detail::fiber_release(state_); }

  bool empty() const noexcept { return state_ == nullptr; }
  bool operator==(const any_fiber&) const noexcept = default;

  // Waits until the fiber is finished: true, or false when the deadline passed. Never throws the fiber's own error.
  bool join(deadline until = never) const;

  // Finished: it returned, threw, or was killed.
  bool ready() const noexcept;
  // Finished by returning, or by greenlet_exit (as gevent has it).
  bool successful() const noexcept;
  // Has begun to run and is not finished.
  bool started() const noexcept;
  // What it failed with, or null. greenlet_exit is no failure.
  std::exception_ptr exception() const noexcept;

  // Throws `reason` into the fiber where it waits, or at its next wait (see sync.hpp). One that has not begun never runs, and what
  // it captured is destroyed here. Returns at once if the fiber is
  // finished; else waits for its end until the deadline (deadline::passed() does not wait). True: it is finished.
  // The fiber may catch the exception and live on. Killing the running fiber throws here.
  bool kill(deadline until = never) const;
  bool kill(std::exception_ptr reason, deadline until = never) const;

  // Calls `f` with this fiber from a fiber of its own when this one is finished (soon, if it already is), in the order
  // of linking; one that throws is reported and does not stop the others. Returns an id for unlink.
  std::uint64_t link(std::function<void(any_fiber)> f) const;
  std::uint64_t link_value(std::function<void(any_fiber)> f) const;      // only if successful
  std::uint64_t link_exception(std::function<void(any_fiber)> f) const;  // only if not
  void unlink(std::uint64_t id) const noexcept;
  void unlink_all() const noexcept;
  bool has_links() const noexcept;

  std::string name() const;
  void set_name(std::string_view) const;
  std::uint64_t id() const noexcept;  // from 1, in order of spawning on its thread; main is 0
  // A small number that no other living fiber of the thread has; from 1, given when first asked for, used again afterwards.
  std::uint32_t slot() const;
  // The id of the fiber that spawned it.
  std::uint64_t spawned_by() const noexcept;
  // What it does: name, parked in what on what and since when.
  std::string describe() const;
  stack_use stack() const noexcept { return state_ ? detail::greenlet_stack_use(detail::fiber_greenlet(state_)) : stack_use(); }
  // Return addresses, innermost first, of a parked or the running fiber of this thread; else empty.
  std::vector<void*> backtrace() const {
    return state_ ? detail::greenlet_backtrace(detail::fiber_resting_place(state_)) : std::vector<void*>();
  }

 protected:
  explicit any_fiber(detail::fiber_state* adopted) noexcept : state_(adopted) {}
  detail::fiber_state* state_ = nullptr;
  friend struct fiber_access;
  friend class weak_fiber;
  friend detail::fiber_state* detail::fiber_state_of(const any_fiber&) noexcept;
};

namespace detail {
inline fiber_state* fiber_state_of(const any_fiber& f) noexcept { return f.state_; }
}  // namespace detail

// Knows a fiber without keeping its result: expired when it is finished and the last handle has gone. Any thread may copy and
// drop it.
class weak_fiber {
 public:
  weak_fiber() noexcept = default;
  // On the fiber's own thread; else wrong_thread.
  weak_fiber(const any_fiber& f) : block_(f.state_ ? detail::fiber_weak(f.state_) : nullptr) {}
  weak_fiber(const weak_fiber& other) noexcept : block_(other.block_) {
    if (block_) detail::greenlet_weak_retain(block_);
  }
  weak_fiber(weak_fiber&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  weak_fiber& operator=(weak_fiber other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~weak_fiber() {
    if (block_) detail::greenlet_weak_release(block_);
  }
  // A handle; empty if there is none any more, and on other threads than the fiber's.
  any_fiber lock() const noexcept { return any_fiber(detail::fiber_weak_lock(block_)); }

 private:
  detail::weak_block* block_ = nullptr;
};

template <class R = void>
class fiber : public any_fiber {
 public:
  using result_type = R;
  fiber() noexcept = default;

  // Waits for the result: a reference to it, valid while a handle of the fiber lives (many may get it). Rethrows what
  // the fiber threw; greenlet_exit if it was killed; not_ready if the deadline passes first.
  std::add_lvalue_reference_t<R> get(deadline until = never) const {
    auto* done = detail::fiber_result(state_, until);
    if constexpr (!std::is_void_v<R>) return *static_cast<std::remove_reference_t<R>*>(done->result());
  }

 private:
  explicit fiber(detail::fiber_state* adopted) noexcept : any_fiber(adopted) {}
  friend struct detail::spawner;
};

namespace detail {
struct spawner {
  template <class F, class... Args>
  static auto spawn(const spawn_options& how, const deadline* later, F&& f, Args&&... args) {
    static_assert(std::is_invocable_v<std::decay_t<F>&, std::decay_t<Args>...>,
                  "ringlet::spawn(f, args...): f cannot be called with these arguments (they are copied or moved into the "
                  "fiber; use std::ref to pass a reference)");
    auto call = [g = std::decay_t<F>(std::forward<F>(f)),
                 ... held = std::decay_t<Args>(std::forward<Args>(args))]() mutable -> decltype(auto) {
      return std::invoke(g, std::move(held)...);
    };
    using call_type = decltype(call);
    using R = std::invoke_result_t<call_type&>;
    using body_type = typed_body<R, call_type>;
    fiber_state* state = fiber_create(how, sizeof(body_type), alignof(body_type));
    body* made = nullptr;
    try {
      made = ::new (fiber_body_storage(state)) body_type(std::in_place, std::move(call));
    } catch (...) {
      fiber_discard(state);
      throw;
    }
    fiber_start(state, made, later);
    return fiber<R>(state);
  }
};
template <class F>
concept not_options = !std::is_convertible_v<F, spawn_options>;
}  // namespace detail

// Queues f(args...) as a new fiber of this thread; arguments are copied or moved into it. Throws std::bad_alloc
// (with the cause on what()) when no stack can be had.
template <detail::not_options F, class... Args>
auto spawn(F&& f, Args&&... args) {
  return detail::spawner::spawn({}, nullptr, std::forward<F>(f), std::forward<Args>(args)...);
}
template <class F, class... Args>
auto spawn(const spawn_options& how, F&& f, Args&&... args) {
  return detail::spawner::spawn(how, nullptr, std::forward<F>(f), std::forward<Args>(args)...);
}
// The same, but it begins only when the moment has come. Killing it before then cancels it.
template <class F, class... Args>
auto spawn_later(deadline when, F&& f, Args&&... args) {
  return detail::spawner::spawn({}, &when, std::forward<F>(f), std::forward<Args>(args)...);
}

struct joinall_options {
  deadline until = never;
  bool raise_error = false;  // rethrow the error of the first to finish with one, at once
  std::size_t count = std::numeric_limits<std::size_t>::max();  // stop when so many are finished
};
// Waits for the fibers; returns those that are finished, in the order they finished.
RINGLET_EXPORT std::vector<any_fiber> joinall(std::vector<any_fiber> fibers, const joinall_options& how = {});
inline std::vector<any_fiber> joinall(std::initializer_list<any_fiber> fibers, const joinall_options& how = {}) {
  return joinall(std::vector<any_fiber>(fibers), how);
}
template <class Range>
  requires requires(const Range& r) { any_fiber(*std::begin(r)); }
std::vector<any_fiber> joinall(const Range& fibers, const joinall_options& how = {}) {
  return joinall(std::vector<any_fiber>(std::begin(fibers), std::end(fibers)), how);
}
// Kills them all, each once, then waits until they are finished. True: all are; false: the deadline passed first.
RINGLET_EXPORT bool killall(std::vector<any_fiber> fibers, deadline until = never);
RINGLET_EXPORT bool killall(std::vector<any_fiber> fibers, std::exception_ptr reason, deadline until = never);

// The running fiber (the thread's main fiber outside any other). Makes the thread's hub if there is none.
RINGLET_EXPORT any_fiber current();

// Parks the running fiber until the moment; zero and less let all that are ready run first. Throws when the fiber is
// killed or a timeout around it runs out.
RINGLET_EXPORT void sleep(deadline until);
RINGLET_EXPORT void yield();

}  // namespace ringlet
