// Waiting for many fds, for an epoll fd, and for time.
//
// The kernel is asked once for the state of all (a real poll that does not wait); only if nothing is ready does the
// fiber park, on the readiness of each fd, and ask again when any of them stirs. The level is always the kernel's word.

#include <poll.h>
#include <sys/epoll.h>

#include <memory>

#include <ringlet/io.hpp>

#include "base/sys.hpp"
#include "io/doors.hpp"
#include "io/wait.hpp"

namespace ringlet::io {

namespace {
int poll_for(pollfd* fds, unsigned long count, deadline until, detail::signal_effect effect) noexcept try {
  hub_state& h = hub_state::here();
  if (!h.can_park()) return -EDEADLK;
  if (h.interrupted()) return -ECANCELED;
  int found = poll_now(fds, count);
  if (found != 0) {
    keep_fair(h);
    return found;
  }
  if (until.has_passed() || until == deadline::passed()) {
    h.yield();  // a loop of polls that do not wait must not starve the others
    return poll_now(fds, count);
  }
  fd_table& table = fd_table::of(h);
  constexpr unsigned long few = 8;
  fd_waiter on_stack[few * 2];
  std::unique_ptr<fd_waiter[]> on_heap;
  fd_waiter* entries = on_stack;
  if (count > few) {
    on_heap.reset(new (std::nothrow) fd_waiter[count * 2]);
    if (!on_heap) return -ENOMEM;
    entries = on_heap.get();
  }
  const detail::signal_watch signals = h.watch_signals(effect);
  while (true) {
    waiter me;  // the one that waits; the entries on the fds' lists stand for it
    unsigned long used = 0;
    me.what = "poll";
    me.fd = count == 1 ? fds[0].fd : -1;
    me.signals = signals;
    bool missed = false;
    bool no_memory = false;
    const auto watch = [&](int fd, direction d) {
      fd_watch* known = table.get_or_null(fd);
      if (!known) {
        no_memory = true;
        return;
      }
      fd_watch& w = *known;
      if (table.arm(w, d) != 0 || w.unpollable) {
        missed = true;  // closed meanwhile, or always ready: the next look will say
        return;
      }
      fd_waiter& e = entries[used++];
      e.exclusive = false;
      e.closed = false;
      e.reason = wake_reason::none;
      e.fd = fd;
      e.fiber = h.running;
      e.stands_for = &me;
      w.waiters[unsigned(d)].push_back(e);
    };
    for (unsigned long i = 0; i < count; ++i) {
      if (fds[i].fd < 0) continue;
      const bool out = fds[i].events & (POLLOUT | POLLWRNORM | POLLWRBAND);
      if ((fds[i].events & ~(POLLOUT | POLLWRNORM | POLLWRBAND)) || !out) watch(fds[i].fd, direction::in);
      if (out) watch(fds[i].fd, direction::out);
    }
    wake_reason reason = wake_reason::woken;
    if (no_memory) {
      for (unsigned long i = 0; i < used; ++i) entries[i].unlink();
      return -ENOMEM;
    }
    if (!missed) {
      h.fd_waits += used > 0;
      reason = h.wait(me, until);
      h.fd_waits -= used > 0;
    } else {
      h.yield();
    }
    for (unsigned long i = 0; i < used; ++i) entries[i].unlink();
    // A thread's handler runs when the call has ended: what it makes ready, the call has not seen.
    if (reason == wake_reason::interrupted && me.signalled) return -EINTR;
    found = poll_now(fds, count);
    if (found != 0) return found;
    if (reason == wake_reason::interrupted) return -ECANCELED;
    if (reason == wake_reason::timed_out || until.has_passed()) return 0;
    if (h.interrupted()) return -ECANCELED;
  }
} catch (...) {
  return error_of_refusal();
}
}  // namespace

int poll(pollfd* fds, unsigned long count, deadline until) noexcept {
  return poll_for(fds, count, until, detail::signal_effect::ends);
}

int epoll_wait(int epoll_fd, epoll_event* events, int capacity, deadline until) noexcept try {
  hub_state& h = hub_state::here();
  if (!h.can_park()) return -EDEADLK;
  if (h.interrupted()) return -ECANCELED;
  const auto look_at_it = [&] { return int(sys::call(SYS_epoll_pwait, epoll_fd, events, capacity, 0, nullptr, 0)); };
  int found = look_at_it();
  if (found != 0) {
    keep_fair(h);
    return found;
  }
  if (until.has_passed() || until == deadline::passed()) {
    h.yield();
    return look_at_it();
  }
  fd_table& table = fd_table::of(h);
  fd_watch& w = table.get(epoll_fd);
  const detail::signal_watch signals = h.watch_signals(detail::signal_effect::ends);
  while (true) {
    w.clear_ready(direction::in);
    const int failed = park_on(w, direction::in, until, "epoll_wait", signals);
    if (failed == -EINTR) return failed;  // before it looks, as above
    found = look_at_it();
    if (found != 0) {
      if (!w.waiters[0].empty()) fd_table::wake_next(w, direction::in);
      return found;
    }
    if (failed == -ETIME) return 0;
    if (failed) return failed;
  }
} catch (...) {
  return error_of_refusal();
}

namespace {
int wait_for(int fd, short events, deadline until, detail::signal_effect effect = detail::signal_effect::ends) {
  if (fd < 0) return -EBADF;  // poll would pass it over and wait for nothing
  pollfd p{fd, events, 0};
  const int found = poll_for(&p, 1, until, effect);
  return found < 0 ? found : found == 0 ? -ETIMEDOUT : (p.revents & POLLNVAL) ? -EBADF : 0;
}
}  // namespace

int wait_readable(int fd, deadline until) noexcept { return wait_for(fd, POLLIN, until); }
int wait_writable(int fd, deadline until) noexcept { return wait_for(fd, POLLOUT, until); }

int wait_for_child(int pidfd) noexcept { return wait_for(pidfd, POLLIN, never, detail::signal_effect::ends_unless_restarted); }

int sleep_until(deadline moment) noexcept { return sleep_until(moment, detail::signal_effect::ends); }

int sleep_until(deadline moment, detail::signal_effect effect) noexcept try {
  hub_state& h = hub_state::here();
  if (!h.can_park()) return -EDEADLK;
  if (h.interrupted()) return -ECANCELED;
  if (moment == deadline::passed() || moment.has_passed()) {
    h.yield();
    return h.interrupted() ? -ECANCELED : 0;
  }
  waiter me;
  me.what = "sleep";
  me.signals = h.watch_signals(effect);
  switch (h.wait(me, moment)) {
    case wake_reason::timed_out: return 0;
    default: return me.signalled ? -EINTR : -ECANCELED;
  }
} catch (...) {
  return error_of_refusal();
}

}  // namespace ringlet::io
