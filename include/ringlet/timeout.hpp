#pragma once
// Timeout scopes: whatever waits inside is interrupted when the time is up, by timeout_expired in C++ calls of ringlet
// and by -1 with ECANCELED in hooked C calls. Each scope knows its own: an inner library's scope never swallows the
// outer one's.
//
//   ringlet::timeout limit(5s);
//   try { fetch(); } catch (const ringlet::timeout_expired& e) { if (!e.is(limit)) throw; give_up(); }

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
  explicit timeout(deadline until);
  ~timeout();
  timeout(const timeout&) = delete;
  timeout& operator=(const timeout&) = delete;

  // Not fired, not cancelled.
  bool pending() const noexcept;
  // Its time ran out (whether or not the fiber has noticed).
  bool expired() const noexcept;
  // Ends it early; what has not been thrown never will be (unless another fiber cancels what has already expired).
  void cancel() noexcept;
  std::uint64_t id() const noexcept { return id_; }

 private:
  struct impl;
  alignas(8) unsigned char storage_[96];
  std::uint64_t id_;
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
