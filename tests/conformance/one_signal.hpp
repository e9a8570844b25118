#pragma once
// One signal to the calling thread, while it waits, from another flow of control: bare another thread, hooked another
// fiber of the same thread, so that the handler runs where the caller is not.

#include <pthread.h>
#include <signal.h>

#include <functional>

#include "conformance.hpp"

namespace conformance {

inline volatile sig_atomic_t handled;
inline void count(int) { handled = handled + 1; }

// `call` as the handler of a signal, for a while.
struct handler {
  int number;
  struct sigaction before {};
  explicit handler(int flags, int number = SIGUSR2, void (*call)(int) = count) : number(number) {
    struct sigaction now {};
    now.sa_handler = call;
    now.sa_flags = flags;
    ::sigaction(number, &now, &before);
    handled = 0;
  }
  ~handler() { ::sigaction(number, &before, nullptr); }
  handler(const handler&) = delete;
};

inline void signal_me_meanwhile(trace& t, std::function<void()> then = {}) {
  t.meanwhile([me = ::pthread_self(), then] {
    ::pthread_kill(me, SIGUSR2);
    if (then) then();
  });
}

struct one_signal {
  trace& t;
  handler on;
  explicit one_signal(trace& t, int flags = 0) : t(t), on(flags) { signal_me_meanwhile(t); }
  ~one_signal() { t.join(); }
};

}  // namespace conformance
