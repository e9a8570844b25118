#pragma once
// Moments and deadlines.
//
// A deadline is an absolute moment, made at the edge (from a duration a caller gave) and passed down as it is: no
// duration travels downward, so a call that waits twice never waits twice as long. The clock is CLOCK_MONOTONIC, or
// the simulated clock of a hub that runs on the simulated engine.

#include <chrono>
#include <compare>
#include <cstdint>

#include <ringlet/export.hpp>

namespace ringlet {

// The clock that deadlines are read on. Steady; nanoseconds. now() may be called on any thread.
struct RINGLET_EXPORT clock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<clock>;
  static constexpr bool is_steady = true;
  static time_point now() noexcept;
};

// An absolute moment, or never. Converts from any std::chrono duration ("this long from now"; negative counts as
// zero, and a sum that would overflow counts as never), so `f.join(5s)` reads as it should.
class deadline {
 public:
  constexpr deadline() noexcept = default;
  constexpr explicit deadline(clock::time_point at) noexcept : at_(at) {}

  template <class Rep, class Period>
  deadline(std::chrono::duration<Rep, Period> from_now) : at_(moment_after(saturate(from_now))) {}

  static constexpr deadline never() noexcept { return deadline{}; }
  // Already passed: a call with it tries once and does not wait.
  static constexpr deadline passed() noexcept { return deadline{clock::time_point::min()}; }

  constexpr bool is_never() const noexcept { return at_ == clock::time_point::max(); }
  bool has_passed() const noexcept { return at_ == passed().at_ || (!is_never() && at_ <= clock::now()); }
  constexpr clock::time_point at() const noexcept { return at_; }
  constexpr auto operator<=>(const deadline&) const noexcept = default;

 private:
  template <class Rep, class Period>
  static constexpr clock::duration saturate(std::chrono::duration<Rep, Period> d) noexcept {
    using seconds = std::chrono::duration<double>;
    if (std::chrono::duration_cast<seconds>(d) > seconds(9e9)) return clock::duration::max();
    if (d < d.zero()) return clock::duration::zero();
    return std::chrono::ceil<clock::duration>(d);
  }
  static clock::time_point moment_after(clock::duration d) noexcept {
    const auto now = clock::now();
    return d > clock::time_point::max() - now ? clock::time_point::max() : now + d;
  }

  clock::time_point at_ = clock::time_point::max();
};

inline constexpr deadline never = deadline::never();

}  // namespace ringlet
