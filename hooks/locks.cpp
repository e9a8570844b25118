// Mutexes, rwlocks and semaphores between fibers, and between fibers and threads.
//
// Nothing of pthreads is re-implemented: the object is taken and given back by libc's own functions, so a thread that
// knows nothing of us may share it. Only the waiting is ours: where libc's would block the thread, the fiber tries
// again each time the object is announced as changed (lot.hpp), by the hooked unlock or post on whatever thread.
// What changes without announcement is looked at from time to time: a mutex that another thread holds (libc lets go
// of it inside pthread_cond_wait), robust and process-shared ones.
//
// A wait here is not ended by a kill or a timeout scope: pthread_mutex_lock cannot fail, and callers know it. Fairness:
// one that unlocks and locks again at once, while a fiber has been woken for it, lets that fiber go first; else a loop
// that sleeps with the lock held would keep it for ever, as fibers, unlike threads, are never preempted between the two.

#include "locks.hpp"

#include <atomic>
#include <limits>

#include <ringlet/io.hpp>

#include "base/moments.hpp"
#include "base/sys.hpp"
#include "owners.hpp"
#include "real.hpp"
#include "shaped.hpp"

namespace ringlet::hooks {

using base::moment_of;

namespace {
thread_local pid_t thread_number = 0;
// The last object whose unlock woke a fiber here that has not run yet.
thread_local const void* promised = nullptr;

[[gnu::constructor]] void forget_number_in_children() {
  ::pthread_atfork(nullptr, nullptr, [] {
    thread_number = 0;
    promised = nullptr;
  });
}

void announce(const void* address, std::size_t count) noexcept {
  if (lot::unpark(address, count) > 0) promised = address;
}

void let_the_woken_go_first(const void* address) noexcept {
  if (__builtin_expect(promised != address, true)) return;
  promised = nullptr;
  io::sleep_until(deadline::passed());
}

// attempt() gives EBUSY while it must be waited; what it gives else is the result. silent() says whether the change we
// wait for may come unannounced.
template <class Attempt, class Silent>
int acquire(const void* address, deadline until, const char* what, Attempt attempt, Silent silent,
            const detail::signal_watch& signals = {}) {
  let_the_woken_go_first(address);
  int result = attempt();
  patience careful;
  while (result == EBUSY) {
    if (until.has_passed()) return ETIMEDOUT;
    const deadline look = silent() ? careful.next(until) : until;
    const auto ended = lot::wait(address, [&] { return (result = attempt()) == EBUSY; }, look, what, signals);
    if (ended == lot::outcome::signalled) return EINTR;
    if (promised == address) promised = nullptr;
    if (result == EBUSY) result = attempt();
  }
  return result;
}

bool bad_moment(const timespec* until) noexcept { return until->tv_nsec < 0 || until->tv_nsec >= 1000000000; }
bool bad_clock(clockid_t clock) noexcept { return clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC; }

}  // namespace

pid_t own_thread() noexcept {
  if (thread_number == 0) thread_number = pid_t(sys::call(SYS_gettid));
  return thread_number;
}

// --- mutexes ---------------------------------------------------------------------------------------------------------

namespace {

// Owned by the running fiber, so that locking it once more does not wait: it counts, or is EDEADLK.
bool again(const pthread_mutex_t* m, int kind) noexcept {
  return owners::is_noted(kind) && owners::on_this_thread(m) && owners::is_mine(m);
}

// One of libc's functions that lock, called where nothing is in its way but other threads.
template <class Lock>
int lock_and_note(pthread_mutex_t* m, int kind, Lock lock) {
  const int result = lock();
  if (result == 0 && owners::is_noted(kind)) owners::note(m, lot::running_fiber());
  return result;
}

int try_mutex(pthread_mutex_t* m, int kind) {
  if (owners::is_noted(kind) && owners::on_this_thread(m) && !owners::is_mine(m)) return EBUSY;
  return lock_and_note(m, kind, [m] { return real::pthread_mutex_trylock(m); });
}

}  // namespace

int lock_mutex(pthread_mutex_t* m, deadline until, const char* what) {
  const int kind = owners::kind(m);
  if (again(m, kind)) return real::pthread_mutex_lock(m);
  return acquire(
      m, until, what, [m, kind] { return try_mutex(m, kind); },
      [m, kind] { return owners::changes_silently(kind) || !owners::on_this_thread(m); });
}

int unlock_mutex(pthread_mutex_t* m) {
  const int kind = owners::kind(m);
  // A thread without a hub has nobody but itself.
  if (owners::is_noted(kind) && lot::running_fiber() && owners::on_this_thread(m)) {
    if (!owners::is_mine(m)) return EPERM;
    if ((kind & 3) == PTHREAD_MUTEX_ERRORCHECK || m->__data.__count == 1) owners::note(m, nullptr);
  }
  const int result = real::pthread_mutex_unlock(m);
  if (result == 0) announce(m, 1);
  return result;
}

namespace shaped {

int pthread_mutex_lock(pthread_mutex_t* m) {
  if (parking(row::pthread_mutex_lock)) return lock_mutex(m, never, "pthread_mutex_lock");
  return lock_and_note(m, owners::kind(m), [m] { return real::pthread_mutex_lock(m); });
}
int pthread_mutex_trylock(pthread_mutex_t* m) { return try_mutex(m, owners::kind(m)); }
int pthread_mutex_unlock(pthread_mutex_t* m) { return unlock_mutex(m); }

int pthread_mutex_timedlock(pthread_mutex_t* m, const timespec* until) {
  return shaped::pthread_mutex_clocklock(m, CLOCK_REALTIME, until);
}
int pthread_mutex_clocklock(pthread_mutex_t* m, clockid_t clock, const timespec* until) {
  const int kind = owners::kind(m);
  if (!parking(row::pthread_mutex_timedlock) || again(m, kind))
    return lock_and_note(m, kind, [=] { return real::pthread_mutex_clocklock(m, clock, until); });
  if (bad_clock(clock)) return EINVAL;
  // A bad moment is EINVAL only for those who would have to wait.
  if (const int at_once = try_mutex(m, kind); at_once != EBUSY) return at_once;
  if (bad_moment(until)) return EINVAL;
  return lock_mutex(m, moment_of(clock, *until), "pthread_mutex_timedlock");
}

// --- rwlocks ---------------------------------------------------------------------------------------------------------

namespace {

int read_lock(pthread_rwlock_t* l, deadline until) {
  if (owners::written_by_this_thread(l) && owners::is_mine(l)) return EDEADLK;
  return acquire(
      l, until, "pthread_rwlock_rdlock", [l] { return ::pthread_rwlock_tryrdlock(l); },
      [l] { return l->__data.__shared != 0; });
}

int write_lock(pthread_rwlock_t* l, deadline until) {
  if (owners::written_by_this_thread(l) && owners::is_mine(l)) return EDEADLK;
  const int result = acquire(
      l, until, "pthread_rwlock_wrlock", [l] { return real::pthread_rwlock_trywrlock(l); },
      [l] { return l->__data.__shared != 0; });
  if (result == 0) owners::note(l, lot::running_fiber());
  return result;
}

}  // namespace

int pthread_rwlock_rdlock(pthread_rwlock_t* l) { return read_lock(l, never); }
int pthread_rwlock_wrlock(pthread_rwlock_t* l) { return write_lock(l, never); }

int pthread_rwlock_timedrdlock(pthread_rwlock_t* l, const timespec* until) {
  return shaped::pthread_rwlock_clockrdlock(l, CLOCK_REALTIME, until);
}
int pthread_rwlock_timedwrlock(pthread_rwlock_t* l, const timespec* until) {
  return shaped::pthread_rwlock_clockwrlock(l, CLOCK_REALTIME, until);
}
// Unlike mutexes, rwlocks refuse a bad moment even if they need not wait.
int pthread_rwlock_clockrdlock(pthread_rwlock_t* l, clockid_t clock, const timespec* until) {
  if (bad_clock(clock) || bad_moment(until)) return EINVAL;
  return read_lock(l, moment_of(clock, *until));
}
int pthread_rwlock_clockwrlock(pthread_rwlock_t* l, clockid_t clock, const timespec* until) {
  if (bad_clock(clock) || bad_moment(until)) return EINVAL;
  return write_lock(l, moment_of(clock, *until));
}
int pthread_rwlock_trywrlock(pthread_rwlock_t* l) {
  const int result = real::pthread_rwlock_trywrlock(l);
  if (result == 0) owners::note(l, lot::running_fiber());
  return result;
}
int pthread_rwlock_unlock(pthread_rwlock_t* l) {
  if (owners::written_by_this_thread(l)) owners::note(l, nullptr);
  const int result = real::pthread_rwlock_unlock(l);
  if (result == 0) announce(l, std::numeric_limits<std::size_t>::max());
  return result;
}

// --- semaphores ------------------------------------------------------------------------------------------------------

namespace {

int take(sem_t* s, deadline until) {
  // glibc's struct new_sem: 8 bytes of value and waiters, then whether other processes share it.
  const bool shared = reinterpret_cast<const int*>(s)[2] != 0;
  const int saved = errno;
  lot::expecting a_signal_handler;  // may post: silence is no deadlock
  // As signal(7) has it: only a wait without a limit is restarted.
  using detail::signal_effect;
  const auto signals = lot::watch_signals(until.is_never() ? signal_effect::ends_unless_restarted : signal_effect::ends);
  const int result = acquire(
      s, until, "sem_wait",
      [&] {
        if (::sem_trywait(s) == 0) return 0;
        const int error = errno;
        return error == EAGAIN ? EBUSY : error;
      },
      [shared] { return shared; }, signals);
  errno = result == 0 ? saved : result;
  return result == 0 ? 0 : -1;
}

}  // namespace

int sem_wait(sem_t* s) { return take(s, never); }
int sem_timedwait(sem_t* s, const timespec* until) { return shaped::sem_clockwait(s, CLOCK_REALTIME, until); }

int sem_clockwait(sem_t* s, clockid_t clock, const timespec* until) {
  if (bad_clock(clock) || bad_moment(until)) return real::sem_clockwait(s, clock, until);
  return take(s, moment_of(clock, *until));
}

int sem_post(sem_t* s) {
  const int result = real::sem_post(s);
  if (result == 0) lot::unpark_from_anywhere(s, 1);
  return result;
}

}  // namespace shaped
}  // namespace ringlet::hooks
