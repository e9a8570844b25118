#include "io/wait.hpp"

#include <poll.h>

#include <new>
#include <system_error>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "loop/operation_call.hpp"

namespace ringlet::io {

// Anything else is a mistake of the program's (a variable of the environment that is not understood): std::terminate shows it.
int error_of_refusal() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  } catch (const std::system_error& e) {
    if (e.code().value() <= 0) throw;
    return -e.code().value();
  }
}

int poll_now(pollfd* fds, unsigned long count) {
  const timespec at_once{0, 0};
  for (;;)
    if (const long found = sys::call(SYS_ppoll, fds, count, &at_once, nullptr, 0); found != -EINTR) return int(found);
}

bool polled_ready(int fd, short events) {
  pollfd p{fd, events, 0};
  return poll_now(&p, 1) != 0;
}

// The kernel itself makes the difference (recvmsg of unix and UDP sockets), so only it can say what such a read gives.
// Its errors, which every poll tells, are no end: a queue of them (IP_RECVERR) stays, and a read that may wait waits.
bool is_shut_for_reading(const fd_watch& w, direction d) {
  if (d != direction::in || w.kind != file_kind::datagram) return false;
  pollfd p{w.fd, POLLRDHUP, 0};
  return poll_now(&p, 1) > 0 && (p.revents & POLLRDHUP);
}

call_deadline deadline_of(const fd_watch& w, direction d, deadline until) {
  const clock::duration own = w.timeouts[unsigned(d)];
  if (own == clock::duration::max()) return {until, -ETIMEDOUT};
  const deadline from_socket(own);
  return from_socket < until ? call_deadline{from_socket, -EAGAIN, true} : call_deadline{until, -ETIMEDOUT, true};
}

int park_on(fd_watch& w, direction d, deadline until, const char* what, const detail::signal_watch& signals) {
  hub_state& h = hub_state::here();
  if (!h.can_park()) return -EDEADLK;
  if (until == deadline::passed()) return -ETIME;
  if (const int failed = fd_table::of(h).arm(w, d)) {
    if (failed != -EPERM) return failed;
    // Such a file is always ready, says the kernel, and yet the call would block: let others run, then try again.
    const std::uint32_t generation = w.generation;
    h.yield();
    return h.interrupted() ? -ECANCELED : w.generation != generation ? -EBADF : until.has_passed() ? -ETIME : 0;
  }
  return park_in_line(w, d, until, what, signals);
}

int park_in_line(fd_watch& w, direction d, deadline until, const char* what, const detail::signal_watch& signals) {
  hub_state& h = hub_state::here();
  if (!h.can_park()) return -EDEADLK;
  fd_waiter me;
  me.what = what;
  me.fd = w.fd;
  me.signals = signals;
  me.withdraw = [](waiter& late) {
    if (!late.linked()) return false;
    late.unlink();
    return true;
  };
  const std::uint32_t generation = w.generation;
  const auto same_file = [&](int result) { return result != -ECANCELED && w.generation != generation ? -EBADF : result; };
  w.waiters[unsigned(d)].push_back(me);
  ++h.fd_waits;
  const wake_reason reason = h.wait(me, until);
  --h.fd_waits;
  switch (reason) {
    case wake_reason::timed_out: return same_file(-ETIME);
    case wake_reason::interrupted: return same_file(me.signalled ? -EINTR : -ECANCELED);
    default: return same_file(me.closed ? -EBADF : 0);  // closed after it was woken, perhaps
  }
}

namespace {
// The kernel wakes one accept operation for a connection. If that one ends otherwise, the connection is another's.
void pass_on_connection(fd_watch& w) {
  operation_waiter* next = nullptr;
  w.operations.for_each([&](waiter& o) {
    auto& op = static_cast<operation_waiter&>(o);
    if (!next && op.accepts && !op.done && !op.asked_again) next = &op;
  });
  if (!next || !polled_ready(w.fd, POLLIN)) return;
  next->asked_again = true;
  next->hub->engine->cancel(*next);
}
}  // namespace

namespace {
// Ended early although nobody asked for it: the kernel cannot make a worker for it just now (a signal came meanwhile, a
// limit on processes) and then cancels what waits for one. Nothing has been done of it, so it is begun again; where there
// will never be a worker, it is done here if it cannot wait for long.
bool may_try_again(const loop::operation& op, unsigned times_refused, int& result) {
  constexpr unsigned most_refusals = 20;
  hub_state& h = hub_state::here();
  if (times_refused < most_refusals) {
    h.yield();
    return !h.interrupted();
  }
  const bool waits = op.may_block || op.code == loop::opcode::accept || op.code == loop::opcode::connect;
  result = waits ? -EAGAIN : int(loop::call_operation(op));
  return false;
}
}  // namespace

ssize_t perform(const loop::operation& op, deadline until, const char* what, int fd, const detail::signal_watch& signals) {
  hub_state& h = hub_state::here();
  if (!h.can_park()) return -EDEADLK;
  operation_waiter me;
  me.hub = &h;
  me.fiber = h.running;
  me.what = what;
  me.fd = fd;
  me.signals = signals;
  me.accepts = op.code == loop::opcode::accept;
  me.waits_for_a_peer = me.accepts || op.code == loop::opcode::connect || op.may_block;
  // The timer and a kill do not end this wait; they only ask the kernel to.
  struct early {
    static bool cancel(waiter& w) {
      auto& mine = static_cast<operation_waiter&>(w);
      mine.hub->engine->cancel(mine);
      return false;
    }
  };
  me.withdraw = &early::cancel;
  static_cast<loop::completion&>(me).wake = [](loop::completion& c) {
    auto& mine = static_cast<operation_waiter&>(c);
    if (mine.fiber->waiting == &mine) mine.hub->wake(mine);
  };
  if (h.interrupted()) return -ECANCELED;
  fd_watch* w = fd_table::of(h).get_if_open(fd);
  if (w) w->operations.push_back(me);
  bool last_look = false;
  unsigned refused = 0;
  int result;
  while (true) {
    me.asked_again = false;
    h.engine->start(op, me);
    if (!me.done) h.wait(me, until);
    RINGLET_ASSERT(me.done, "an operation's stack would be left while the kernel may still write to it");
    constexpr int restart = 512;  // ERESTARTSYS: io_uring lets it out of an open that it has interrupted
    result = me.result == -restart ? -EINTR : me.result;
    if (result != -ECANCELED && result != -EINTR) break;
    if (h.interrupted()) {
      result = -ECANCELED;
    } else if (me.closed) {
      result = -EBADF;
    } else if (until.has_passed()) {
      // It may have been cancelled just as a connection came, and that was in time.
      if (me.accepts && !last_look && polled_ready(fd, POLLIN)) {
        last_look = true;
        continue;
      }
      result = -ETIMEDOUT;
    } else if (me.signalled) {
      result = -EINTR;
    } else if (me.asked_again || (result == -EINTR && op.may_block)) {
      continue;  // or a worker of the kernel was interrupted: once a signal, so this ends
    } else if (may_try_again(op, refused++, result)) {
      continue;
    }
    if (w && me.accepts && !me.closed) {
      me.unlink();
      pass_on_connection(*w);
    }
    break;
  }
  me.unlink();
  return result;
}

}  // namespace ringlet::io
