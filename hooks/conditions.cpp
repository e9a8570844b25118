// Condition variables between fibers, and between fibers and threads.
//
// A fiber that waits is queued here, not in the object: its place is taken before it lets go of the mutex, so a signal
// by whoever locks the mutex next finds it. A signal wakes a fiber if one waits, else it is libc's and wakes a thread;
// a broadcast is both. A thread's own wait stays libc's. The wait itself ends only by a signal or its deadline: a kill
// is noticed by the next call that can fail (a condition loop would only wait again).
//
// A process-shared condition is left to libc, and so blocks the thread: other processes cannot signal our queue.

#include "libc.hpp"

#include <atomic>
#include <limits>
#include <new>

#include "base/intrusive_list.hpp"
#include "base/lock.hpp"
#include "base/moments.hpp"
#include "locks.hpp"
#include "lot.hpp"
#include "offloaded.hpp"
#include "real.hpp"
#include "shaped.hpp"

namespace ringlet::hooks {

using base::moment_of;

namespace {

// One waiting fiber; on its stack.
struct place : base::list_link {
  const void* condition = nullptr;
  std::atomic<bool> signalled{false};
};

constinit base::lock places_lock;
std::atomic<std::size_t> taken{0};

base::intrusive_list<place>& places() {
  // Never destroyed, nor allocated: pthread_cond_wait cannot say that there is no memory.
  alignas(base::intrusive_list<place>) static char memory[sizeof(base::intrusive_list<place>)];
  static auto* const all = ::new (memory) base::intrusive_list<place>;
  return *all;
}

// Wakes up to `count` fibers that wait on it; how many.
std::size_t signal_fibers(const void* condition, std::size_t count) {
  if (taken.load(std::memory_order_seq_cst) == 0) return 0;
  std::size_t done = 0;
  base::lock_guard hold(places_lock);
  places().for_each([&](place& p) {
    if (done == count || p.condition != condition) return;
    p.unlink();
    ++done;
    p.signalled.store(true, std::memory_order_release);
    lot::unpark(&p, 1);
  });
  return done;
}

bool shared_between_processes(const pthread_cond_t* c) noexcept { return c->__data.__wrefs & 1; }
clockid_t clock_of(const pthread_cond_t* c) noexcept { return c->__data.__wrefs & 2 ? CLOCK_MONOTONIC : CLOCK_REALTIME; }

int wait_on(pthread_cond_t* c, pthread_mutex_t* m, deadline until) {
  place mine;
  mine.condition = c;
  taken.fetch_add(1, std::memory_order_seq_cst);
  {
    base::lock_guard hold(places_lock);
    places().push_back(mine);
  }
  int result = unlock_mutex(m);
  if (result == 0) {
    while (!mine.signalled.load(std::memory_order_acquire)) {
      const auto ended = lot::wait(&mine, [&] { return !mine.signalled.load(std::memory_order_acquire); }, until, "pthread_cond_wait");
      if (ended == lot::outcome::timed_out) break;
    }
  }
  {
    base::lock_guard hold(places_lock);  // a signaller may still be at our place
    mine.unlink();
  }
  taken.fetch_sub(1, std::memory_order_relaxed);
  if (result != 0) return result;
  // One that was signalled at the last moment has consumed the signal: it is no timeout.
  const bool timed_out = !mine.signalled.load(std::memory_order_acquire);
  result = lock_mutex(m, never, "pthread_cond_wait (mutex)");
  return result != 0 ? result : timed_out ? ETIMEDOUT : 0;
}

int wait_on(pthread_cond_t* c, pthread_mutex_t* m, clockid_t clock, const timespec* until) {
  if (until->tv_nsec < 0 || until->tv_nsec >= 1000000000) return EINVAL;
  return wait_on(c, m, moment_of(clock, *until));
}

}  // namespace

namespace shaped {

int pthread_cond_wait(pthread_cond_t* c, pthread_mutex_t* m) {
  if (shared_between_processes(c)) return real::pthread_cond_wait(c, m);
  return wait_on(c, m, never);
}
int pthread_cond_timedwait(pthread_cond_t* c, pthread_mutex_t* m, const timespec* until) {
  if (shared_between_processes(c)) return real::pthread_cond_timedwait(c, m, until);
  return wait_on(c, m, clock_of(c), until);
}
int pthread_cond_clockwait(pthread_cond_t* c, pthread_mutex_t* m, clockid_t clock, const timespec* until) {
  if (shared_between_processes(c) || (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC))
    return real::pthread_cond_clockwait(c, m, clock, until);
  return wait_on(c, m, clock, until);
}
int pthread_cond_signal(pthread_cond_t* c) {
  if (signal_fibers(c, 1) > 0) return 0;
  return real::pthread_cond_signal(c);
}
int pthread_cond_broadcast(pthread_cond_t* c) {
  signal_fibers(c, std::numeric_limits<std::size_t>::max());
  return real::pthread_cond_broadcast(c);
}

// --- the end of a thread ---------------------------------------------------------------------------------------------

int pthread_join(pthread_t thread, void** result) {
  if (::pthread_equal(thread, ::pthread_self())) return real::pthread_join(thread, result);  // EDEADLK
  if (const int at_once = ::pthread_tryjoin_np(thread, result); at_once != EBUSY) return at_once;
  return offloaded("pthread_join", detail::signal_effect::none, [=] { return real::pthread_join(thread, result); });
}

// --- the same in C11's words -----------------------------------------------------------------------------------------

namespace {
int in_c11(int error) noexcept {
  switch (error) {
    case 0: return thrd_success;
    case ENOMEM: return thrd_nomem;
    case ETIMEDOUT: return thrd_timedout;
    case EBUSY: return thrd_busy;
    default: return thrd_error;
  }
}
// glibc's own objects under other names (nptl/thrd_priv.h).
pthread_mutex_t* mutex_in(mtx_t* m) noexcept { return reinterpret_cast<pthread_mutex_t*>(m); }
pthread_cond_t* condition_in(cnd_t* c) noexcept { return reinterpret_cast<pthread_cond_t*>(c); }
}  // namespace

int mtx_lock(mtx_t* m) { return in_c11(shaped::pthread_mutex_lock(mutex_in(m))); }
int mtx_trylock(mtx_t* m) { return in_c11(shaped::pthread_mutex_trylock(mutex_in(m))); }
int mtx_timedlock(mtx_t* m, const timespec* until) { return in_c11(shaped::pthread_mutex_timedlock(mutex_in(m), until)); }
int mtx_unlock(mtx_t* m) { return in_c11(shaped::pthread_mutex_unlock(mutex_in(m))); }
int cnd_wait(cnd_t* c, mtx_t* m) { return in_c11(shaped::pthread_cond_wait(condition_in(c), mutex_in(m))); }
int cnd_timedwait(cnd_t* c, mtx_t* m, const timespec* until) {
  return in_c11(shaped::pthread_cond_timedwait(condition_in(c), mutex_in(m), until));
}
int cnd_signal(cnd_t* c) { return in_c11(shaped::pthread_cond_signal(condition_in(c))); }
int cnd_broadcast(cnd_t* c) { return in_c11(shaped::pthread_cond_broadcast(condition_in(c))); }
int thrd_join(thrd_t thread, int* result) {
  void* ended = nullptr;
  const int error = shaped::pthread_join(thread, &ended);
  if (result) *result = int(reinterpret_cast<long>(ended));
  return in_c11(error);
}

}  // namespace shaped
}  // namespace ringlet::hooks
