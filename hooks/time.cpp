// The sleepers. A sleep is a deadline made here and one wait; what is left over is computed from the same moment.
//
// What the kernel would refuse (bad nanoseconds, unknown clocks, no pointer) is given to the original to refuse. So are
// clocks that do not run with the wall (CPU time, alarms): the thread sleeps on them. A signal handler ends the main
// fiber's sleep (EINTR), a kill or a timeout scope anybody's (ECANCELED).

#include "libc.hpp"

#include <algorithm>

#include <ringlet/io.hpp>

#include "base/moments.hpp"
#include "dialect.hpp"
#include "real.hpp"
#include "shaped.hpp"

namespace ringlet::hooks::shaped {

using base::is_valid, base::to_duration, base::after, base::remaining;

namespace {

// 0, or EINTR or ECANCELED with what was left.
int sleep_for(const timespec& wanted, timespec* left) {
  const deadline until = after(wanted);
  const int answer = io::sleep_until(until);
  if (answer == 0) return 0;
  if (left) *left = remaining(until);
  return -answer;
}

// An absolute moment on a clock that may be set: look again at least once a second.
int sleep_to(clockid_t clock, const timespec& moment) {
  while (true) {
    timespec now;
    if (::clock_gettime(clock, &now) != 0) return errno;
    const auto left = to_duration(moment) - to_duration(now);
    if (left <= left.zero()) return 0;
    const bool may_be_set = clock != CLOCK_MONOTONIC;
    const int answer = io::sleep_until(may_be_set ? std::min<clock::duration>(left, std::chrono::seconds(1)) : left);
    if (answer != 0) return -answer;
  }
}

bool runs_with_the_wall(clockid_t clock) {
  return clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME || clock == CLOCK_TAI;
}

bool plain(const timespec* t) { return !no_pointer(t) && is_valid(*t); }

}  // namespace

int clock_nanosleep(clockid_t clock, int flags, const timespec* wanted, timespec* left) {
  if (!runs_with_the_wall(clock) || !plain(wanted)) return real::clock_nanosleep(clock, flags, wanted, left);
  if (flags & TIMER_ABSTIME) {
    const timespec moment = *wanted;
    timespec now;
    // One that has passed still lets the others run, as every call that may wait does.
    if (::clock_gettime(clock, &now) == 0 && to_duration(now) >= to_duration(moment))
      return -io::sleep_until(deadline::passed());
    return sleep_to(clock, moment);
  }
  return sleep_for(*wanted, left);
}

int nanosleep(const timespec* wanted, timespec* left) {
  if (!plain(wanted)) return real::nanosleep(wanted, left);
  return to_libc<int>(-sleep_for(*wanted, left));
}

int usleep(useconds_t microseconds) {
  const timespec wanted{time_t(microseconds / 1000000), long(microseconds % 1000000) * 1000};
  return to_libc<int>(-sleep_for(wanted, nullptr));
}

unsigned sleep(unsigned seconds) {
  timespec left{};
  const int error = sleep_for({time_t(seconds), 0}, &left);
  if (error == 0) return 0;
  errno = error;
  return unsigned(left.tv_sec);
}

int thrd_sleep(const timespec* wanted, timespec* left) {
  if (!plain(wanted)) return real::thrd_sleep(wanted, left);
  return sleep_for(*wanted, left) == 0 ? 0 : -1;  // "-1 if interrupted by a signal"
}

}  // namespace ringlet::hooks::shaped
