#pragma once
// The two ways of all I/O: try and wait until the fd is ready, or hand the kernel an operation and wait for its end.
//
// until_ready tries the call without blocking (no flag of the fd is touched); what would block parks on the fd's
// readiness and tries again. perform puts a completion on this stack; if the deadline or a kill comes first it cancels
// and stays parked until the kernel lets go of the buffer.
//
// Results are kernel dialect. -ETIMEDOUT: the caller's deadline; -EAGAIN: O_NONBLOCK, or SO_RCVTIMEO/SO_SNDTIMEO passed;
// -ECANCELED: interrupted; -EBADF: closed meanwhile; -EINTR: a signal handler ran (main fiber only).

#include <sys/types.h>

#include "io/fd_table.hpp"

struct pollfd;

namespace ringlet::io {

// What one wait on a direction ended with: 0 (try again), or the error for the caller.
int park_on(fd_watch&, direction, deadline until, const char* what,
            const detail::signal_watch& signals);

// The same without asking the engine to watch: somebody of this hub will wake it (fd_table::wake_next).
int park_in_line(fd_watch&, direction d, deadline until, const char* what, const detail::signal_watch& signals);

// The deadline of a call on this fd: the caller's, or the socket's own timeout if that is nearer.
struct call_deadline {
  deadline until;
  int when_passed;  // -ETIMEDOUT or -EAGAIN
  bool by_socket = false;  // has SO_RCVTIMEO or SO_SNDTIMEO, and so is never restarted (signal(7))
  detail::signal_effect effect() const {
    return by_socket ? detail::signal_effect::ends : detail::signal_effect::ends_unless_restarted;
  }
};
call_deadline deadline_of(const fd_watch&, direction, deadline until);

// In a handler of everything: what the runtime itself was refused (memory, a hub's descriptors), as the call's error.
int error_of_refusal();

// ppoll(2) that does not wait. A handler that runs meanwhile, the watcher's for one, makes it no EINTR: it is asked again.
int poll_now(pollfd*, unsigned long count);
// Does the kernel say so at this moment?
bool polled_ready(int fd, short events);

// Whether this one, which has just said EAGAIN, would give one who may wait the end of what is to read.
bool is_shut_for_reading(const fd_watch&, direction);

// The attempt there. It asks as one who may wait, which it won't; only this one does, for others might.
template <class Attempt>
ssize_t attempt_at_end(fd_watch& w, Attempt attempt) {
  w.reads_end = true;
  const ssize_t result = attempt();
  w.reads_end = false;
  return result;
}

// A fiber whose calls all return at once, with something or with EAGAIN, gives the others a turn now and then.
inline void keep_fair(hub_state& h) {
  constexpr unsigned longest_streak = 64;
  if (__builtin_expect(++h.io_streak >= longest_streak, 0)) {
    h.io_streak = 0;
    if (h.can_park()) h.yield();
  }
}

// One readiness wakes one waiter; what that one has left is the next one's.
inline void pass_on(fd_watch& w, direction d) {
  if (w.maybe_ready(d) && !w.waiters[unsigned(d)].empty()) fd_table::wake_next(w, d);
}

// `attempt(watch or null)` makes the call without blocking: a result, or -EAGAIN. What is known to be empty is not tried in
// vain, unless `refuses`: the kernel looks at some of the arguments (a vector, a message) before it waits.
template <class Attempt>
ssize_t until_ready(int fd, direction d, deadline until, const char* what, Attempt attempt, bool refuses = false) {
  hub_state& h = hub_state::here();
  if (__builtin_expect(h.can_park() && h.interrupted(), 0)) return -ECANCELED;
  fd_table& table = fd_table::of(h);
  fd_watch* known = table.find(fd);
  const bool tries = refuses || !known || known->maybe_ready(d) || !known->is_armed(d);
  if (tries) {
    const ssize_t result = attempt(known);
    if (result != -EAGAIN) {
      keep_fair(h);
      return result;
    }
  }
  if (fd < 0) return -EBADF;
  fd_watch& w = table.get(fd);  // nothing has been transferred yet
  table.refresh(w);
  if (w.nonblocking) {
    // Who does not wait may know more than we (from an epoll of its own): only the kernel may tell it to come again.
    const ssize_t result = tries ? -EAGAIN : attempt(&w);
    keep_fair(h);
    return result;
  }
  const call_deadline limit = deadline_of(w, d, until);
  const detail::signal_watch signals = h.watch_signals(limit.effect());
  while (true) {
    if (__builtin_expect(w.hung_up, 0) && is_shut_for_reading(w, d))
      return attempt_at_end(w, [&] { return attempt(&w); });
    w.clear_ready(d);
    const int ended = park_on(w, d, limit.until, what, signals);
    if (ended && ended != -ETIME) return ended;
    const ssize_t result = attempt(&w);  // also when it is late: what is there wins over the deadline
    if (result != -EAGAIN) {
      pass_on(w, d);
      return result;
    }
    if (ended) return limit.when_passed;
  }
}

// A pause in a call that looks again and again; what a handler does to it is what it does to the call.
int sleep_until(deadline moment, detail::signal_effect) noexcept;

ssize_t perform(const loop::operation&, deadline until, const char* what, int fd = -1,
                const detail::signal_watch& signals = {});

}  // namespace ringlet::io
