#include "io/wait.hpp"

#include "base/assert.hpp"
#include "base/sys.hpp"

namespace ringlet::io {

call_deadline deadline_of(const fd_watch& w, direction d, deadline until) {
  const clock::duration own = w.timeouts[unsigned(d)];
  if (own == clock::duration::max()) return {until, -ETIMEDOUT};
  const deadline from_socket(own);
  return from_socket < until ? call_deadline{from_socket, -EAGAIN} : call_deadline{until, -ETIMEDOUT};
}

int park_on(fd_watch& w, direction d, deadline until, const char* what, detail::signal_effect signals) {
  hub_state& h = hub_state::here();
  if (!h.can_park()) return -EDEADLK;
  fd_waiter me;
  me.what = what;
  me.fd = w.fd;
  me.on_signal = signals;
  me.withdraw = [](waiter& late) {
    if (!late.linked()) return false;
    late.unlink();
    return true;
  };
  if (until == deadline::passed()) return -ETIME;
  if (const int failed = fd_table::of(h).arm(w, d)) {
    if (failed != -EPERM) return failed;
    // Such a file is always ready, says the kernel, and yet the call would block: let others run, then try again.
    h.yield();
    return h.interrupted() ? -ECANCELED : 0;
  }
  w.waiters[unsigned(d)].push_back(me);
  ++h.fd_waits;
  const wake_reason reason = h.wait(me, until);
  --h.fd_waits;
  switch (reason) {
    case wake_reason::timed_out: return -ETIME;
    case wake_reason::interrupted: return me.signalled ? -EINTR : -ECANCELED;
    default: return me.closed ? -EBADF : 0;
  }
}

ssize_t perform(const loop::operation& op, deadline until, const char* what, int fd, detail::signal_effect signals) {
  hub_state& h = hub_state::here();
  if (!h.can_park()) return -EDEADLK;
  struct in_flight : loop::completion, waiter {
    hub_state* hub;
  };
  in_flight me;
  me.hub = &h;
  me.fiber = h.running;
  me.what = what;
  me.fd = fd;
  me.on_signal = signals;
  // The timer and a kill do not end this wait; they only ask the kernel to.
  struct early {
    static bool cancel(waiter& w) {
      auto& mine = static_cast<in_flight&>(w);
      mine.hub->engine->cancel(mine);
      return false;
    }
  };
  me.withdraw = &early::cancel;
  static_cast<loop::completion&>(me).wake = [](loop::completion& c) {
    auto& mine = static_cast<in_flight&>(c);
    if (mine.fiber->waiting == &mine) mine.hub->wake(mine);
  };
  if (h.interrupted()) return -ECANCELED;
  h.engine->start(op, me);
  if (!me.done) h.wait(me, until);
  RINGLET_ASSERT(me.done, "an operation's stack would be left while the kernel may still write to it");
  const int result = me.result;
  if (result == -ECANCELED || result == -EINTR) {
    if (h.interrupted()) return -ECANCELED;
    if (until.has_passed()) return -ETIMEDOUT;
    if (me.signalled) return -EINTR;
  }
  return result;
}

}  // namespace ringlet::io
