#pragma once
// A call that a signal meets while it waits: what such a case is made of, and how the signal comes.

#include <time.h>

#include <atomic>
#include <functional>
#include <memory>

#include "conformance.hpp"
#include "one_signal.hpp"

namespace conformance {

// Tells the other flow what lets the call go, and makes the call: by what it answers it is known whether it went on.
using meanwhile_function = void (*)(trace&, std::function<void()> then);
struct interrupted {
  const char* name;
  const char* rows;
  void (*run)(trace&, meanwhile_function);
};

inline timespec far_away(clockid_t clock, long seconds = 100) {
  timespec now;
  ::clock_gettime(clock, &now);
  now.tv_sec += seconds;
  return now;
}

// The signal first; what is waited for when its handler has run. So a call that the signal ends has been ended by then, and one
// that it does not end goes on. A door may run the handler only after the call: it is not waited for for long.
//
// Where the call stops its thread, and with it the other flow, a thread lets it go, and the case has seen that.
template <class Run>
void by_a_signal_first(trace& t, int flags, Run run) {
  static std::atomic<bool> was_stopped;
  was_stopped = false;
  handler on(flags);
  run(t, [](trace& t, std::function<void()> then) {
    auto has_begun = std::make_shared<std::atomic<bool>>(false);
    std::shared_ptr<flow> rescuer = thread_beside([has_begun, then] {
      until([&] { return has_begun->load(); }, 500ms);
      if (has_begun->exchange(true)) return;
      was_stopped = true;
      then();
    });
    signal_me_meanwhile(t, [has_begun, rescuer, then] {
      if (!has_begun->exchange(true)) {
        until([] { return handled > 0; }, 500ms);
        then();
      }
      rescuer->join();
    });
  });
  t.join();
  t.saw("handled", handled);
  t.saw("the thread was stopped", was_stopped);
}

}  // namespace conformance
