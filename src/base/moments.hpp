#pragma once
// libc's and the kernel's ways to write time, and ours: durations end where this is used, below there are only deadlines.

#include <algorithm>
#include <chrono>
#include <ctime>
#include <limits>
#include <sys/time.h>

#include <ringlet/deadline.hpp>

namespace ringlet::base {

inline bool is_valid(const timespec& t) noexcept { return t.tv_sec >= 0 && t.tv_nsec >= 0 && t.tv_nsec < 1000000000; }

// Saturates: 292 years are for ever.
inline clock::duration to_duration(const timespec& t) noexcept {
  using std::chrono::nanoseconds, std::chrono::seconds;
  constexpr time_t most = clock::duration::max().count() / 1000000000 - 1;
  if (t.tv_sec > most) return clock::duration::max();
  if (t.tv_sec < -most) return -clock::duration::max();
  return seconds(t.tv_sec) + nanoseconds(t.tv_nsec);
}

inline timespec to_timespec(clock::duration d) noexcept {
  const auto whole = std::chrono::floor<std::chrono::seconds>(d);
  return {time_t(whole.count()), long((d - whole).count())};
}

inline deadline after(const timespec& t) { return deadline(to_duration(t)); }
// poll's way: negative is never.
inline deadline after_milliseconds(int ms) { return ms < 0 ? never : deadline(std::chrono::milliseconds(ms)); }

// What is left until then, rounded up to zero.
inline timespec remaining(deadline until) noexcept {
  if (until.is_never()) return {std::numeric_limits<time_t>::max(), 0};
  return to_timespec(std::max(until.at() - clock::now(), clock::duration::zero()));
}

// An absolute moment of another clock, as ours. For CLOCK_REALTIME this is right until the clock is set.
inline deadline moment_of(clockid_t which, const timespec& moment) {
  timespec now;
  if (::clock_gettime(which, &now) != 0) return deadline::passed();
  const auto left = to_duration(moment) - to_duration(now);
  return left <= left.zero() ? deadline::passed() : deadline(left);
}

}  // namespace ringlet::base
