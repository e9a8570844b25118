// The sleepers: how long, what is left, what is refused.

#include "conformance.hpp"
#include "one_signal.hpp"

#include <csignal>
#include <poll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

namespace {

using conformance::one_signal;
using conformance::trace;

timespec in_ms(clockid_t clock, long ms) {
  timespec now;
  ::clock_gettime(clock, &now);
  now.tv_nsec += ms * 1000000;
  now.tv_sec += now.tv_nsec / 1000000000;
  now.tv_nsec %= 1000000000;
  return now;
}

}  // namespace

CONFORMANCE("nanosleep: sleeps as long as it is told", "nanosleep") {
  const timespec wanted{0, 60000000};
  timespec left{7, 7};
  t.waits(60ms, [&] { t.did("nanosleep", ::nanosleep(&wanted, &left)); });
  t.saw("left is untouched", left.tv_sec * 10 + left.tv_nsec);
}

CONFORMANCE("nanosleep: nothing at all comes back at once", "nanosleep usleep sleep") {
  const timespec none{0, 0};
  t.at_once([&] { t.did("nanosleep", ::nanosleep(&none, nullptr)); });
  t.at_once([&] { t.did("usleep", ::usleep(0)); });
  t.at_once([&] { t.saw("sleep", ::sleep(0)); });
}

CONFORMANCE("nanosleep: bad times and pointers", "nanosleep") {
  const timespec negative{-1, 0}, too_many{0, 1000000000}, minus{0, -1};
  t.did("negative", ::nanosleep(&negative, nullptr));
  t.did("too many", ::nanosleep(&too_many, nullptr));
  t.did("minus", ::nanosleep(&minus, nullptr));
  t.did("null", ::nanosleep(nullptr, nullptr));
}

CONFORMANCE("usleep: more than a second's worth is allowed", "usleep") {
  t.waits(60ms, [&] { t.did("usleep", ::usleep(60000)); });
}

CONFORMANCE("sleep: a second", "sleep") {
  t.waits(1000ms, [&] { t.saw("left", ::sleep(1)); });
}

CONFORMANCE("clock_nanosleep: relative, on each clock", "clock_nanosleep") {
  const timespec wanted{0, 60000000};
  for (clockid_t clock : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI})
    t.waits(60ms, [&] { t.said("clock_nanosleep", ::clock_nanosleep(clock, 0, &wanted, nullptr)); });
}

CONFORMANCE("clock_nanosleep: absolute, on each clock", "clock_nanosleep") {
  for (clockid_t clock : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI}) {
    const timespec moment = in_ms(clock, 60);
    t.waits(58ms, [&] { t.said("clock_nanosleep", ::clock_nanosleep(clock, TIMER_ABSTIME, &moment, nullptr)); });
  }
}

CONFORMANCE("clock_nanosleep: a moment that has passed comes back at once", "clock_nanosleep") {
  const timespec past{1, 0}, zero{0, 0};
  t.at_once([&] { t.said("past", ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &past, nullptr)); });
  t.at_once([&] { t.said("zero", ::clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &zero, nullptr)); });
}

CONFORMANCE("clock_nanosleep: bad times, clocks and pointers are results, not errno", "clock_nanosleep") {
  const timespec bad{0, 1000000000}, negative{-5, 0}, fine{0, 1};
  errno = ENOTTY;
  t.said("bad", ::clock_nanosleep(CLOCK_MONOTONIC, 0, &bad, nullptr));
  t.said("negative", ::clock_nanosleep(CLOCK_REALTIME, 0, &negative, nullptr));
  t.said("negative moment", ::clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &negative, nullptr));
  t.said("null", ::clock_nanosleep(CLOCK_MONOTONIC, 0, nullptr, nullptr));
  t.said("own CPU clock", ::clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &fine, nullptr));
  t.said("coarse", ::clock_nanosleep(CLOCK_MONOTONIC_COARSE, 0, &fine, nullptr));
  t.said("raw", ::clock_nanosleep(CLOCK_MONOTONIC_RAW, 0, &fine, nullptr));
  t.said("unknown", ::clock_nanosleep(99, 0, &fine, nullptr));
  t.saw("errno", errno);
}

CONFORMANCE("thrd_sleep: sleeps, and refuses", "thrd_sleep") {
  const timespec wanted{0, 60000000}, bad{0, -1};
  t.waits(60ms, [&] { t.saw("thrd_sleep", ::thrd_sleep(&wanted, nullptr)); });
  t.saw("bad", ::thrd_sleep(&bad, nullptr));
}

CONFORMANCE_ON_MAIN("nanosleep: a signal handler ends it with EINTR and what is left", "nanosleep") {
  one_signal soon(t);
  const timespec wanted{100, 0};
  timespec left{};
  t.did("nanosleep", ::nanosleep(&wanted, &left));
  t.saw("most is left", left.tv_sec == 99);
}

CONFORMANCE_ON_MAIN("clock_nanosleep: a signal handler ends it; an absolute one leaves nothing behind", "clock_nanosleep") {
  timespec left{5, 5};
  {
    one_signal soon(t);
    const timespec wanted{100, 0};
    t.said("relative", ::clock_nanosleep(CLOCK_MONOTONIC, 0, &wanted, &left));
    t.saw("most is left", left.tv_sec == 99);
  }
  left = {5, 5};
  one_signal soon(t);
  const timespec moment = in_ms(CLOCK_MONOTONIC, 100000);
  t.said("absolute", ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &moment, &left));
  t.saw("untouched", left.tv_sec * 10 + left.tv_nsec);
}

CONFORMANCE_ON_MAIN("sleep: a signal handler ends it with the seconds left", "sleep usleep") {
  {
    one_signal soon(t);
    t.saw("left", ::sleep(100));
    t.saw("errno", errno);
  }
  one_signal soon(t);
  t.did("usleep", ::usleep(100000000));
}

CONFORMANCE_ON_MAIN("sleep: SA_RESTART does not lengthen it", "sleep") {
  one_signal soon(t, SA_RESTART);
  t.saw("left", ::sleep(100));
}

CONFORMANCE_ON_MAIN("send: a signal handler ends a big blocking send with what was sent", "send write sendmsg") {
  auto s = t.stream();
  std::vector<char> much(4000000);
  {
    one_signal soon(t);
    const ssize_t n = ::send(s.a, much.data(), much.size(), 0);
    t.saw("partial", n > 0 && n < 4000000);
  }
  {
    one_signal soon(t);
    t.did("then", ::send(s.a, much.data(), much.size(), 0));
  }
  auto p = t.pipe();
  one_signal soon(t);
  t.did("write", ::write(p.b, much.data(), much.size()));
}
