#pragma once
// Timeout scopes: whatever waits inside is interrupted when the time is up, by timeout_expired in C++ calls of ringlet
// and by -1 with ECANCELED in hooked C calls. Each scope knows its own: an inner library's scope never swallows the
// outer one's.
//
//   ringlet::timeout limit(5s);
//   try { fetch(); } catch (const ringlet::timeout_expired& e) { if (!e.is(limit)) throw; give_up(); }

#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>

namespace ringlet {

class timeout;

// Thrown where the fiber waits when a scope around it has run out. Not a std::exception (see greenlet_exit).
class timeout_expired {
 public:
  explicit timeout_expired(const timeout& scope, std::uint64_t id) noexcept : scope_(&scope), id_(id) {}
  bool is(const timeout& scope) const noexcept;
  const char* what() const noexcept { return "ringlet::timeout_expired"; }

 private:
  const timeout* scope_;
  std::uint64_t id_;
};

// Runs from its construction to its destruction, on the fiber that made it; fires only while that fiber waits, at most
// once. Must be destroyed by the same fiber, inner scopes first, as automatic variables are.
class RINGLET_EXPORT timeout {
 public:
  explicit timeout(deadline until) : timeout(until, std::exception_ptr()) {}
  // The same, but `instead` is thrown in place of timeout_expired (thrown() says whether it was).
  timeout(deadline until, std::exception_ptr instead);
  template <class E>
    requires(!std::is_convertible_v<E, std::exception_ptr>)
  timeout(deadline until, E&& instead) : timeout(until, std::make_exception_ptr(std::forward<E>(instead))) {}
  ~timeout();
  timeout(const timeout&) = delete;
  timeout& operator=(const timeout&) = delete;

  // Not fired, not cancelled.
  bool pending() const noexcept;
  // Its time ran out (whether or not the fiber has noticed).
  bool expired() const noexcept;
  // It has interrupted its fiber.
  bool thrown() const noexcept;
  // Ends it early; what has not been thrown never will be (unless another fiber cancels what has already expired).
  void cancel() noexcept;
  // Begins anew, also after it has fired or was cancelled. Only on its own fiber: std::logic_error.
  void restart(deadline until);
  std::uint64_t id() const noexcept { return id_; }

 private:
  struct impl;
  alignas(8) unsigned char storage_[96];
  std::uint64_t id_;
};

// While it lives, its fiber is not interrupted: a kill is told at the first wait after it, and so are timeouts whose scopes
// were opened outside of it. Timeouts inside work as ever. For what must be finished once it was begun: a commit, a
// goodbye to a peer. Nests; destroyed by the fiber that made it.
class RINGLET_EXPORT kill_shield {
 public:
  kill_shield();
  ~kill_shield();
  kill_shield(const kill_shield&) = delete;
  kill_shield& operator=(const kill_shield&) = delete;

 private:
  struct impl;
  alignas(8) unsigned char storage_[96];
};

inline bool timeout_expired::is(const timeout& scope) const noexcept { return &scope == scope_ && scope.id() == id_; }

// f()'s result, or nothing if it was still waiting at the deadline. Other scopes' timeouts pass through.
template <class F>
auto with_timeout(deadline until, F&& f) {
  using R = std::invoke_result_t<F>;
  timeout limit(until);
  try {
    if constexpr (std::is_void_v<R>) {
      std::forward<F>(f)();
      return true;
    } else {
      return std::optional<R>(std::forward<F>(f)());
    }
  } catch (const timeout_expired& e) {
    if (!e.is(limit)) throw;
    if constexpr (std::is_void_v<R>)
      return false;
    else
      return std::optional<R>();
  }
}

}  // namespace ringlet
