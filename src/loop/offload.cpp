// The pool of helper threads. A job in a queue and no idle thread to take it makes a thread; a thread that stays idle
// for five seconds leaves: so a program that resolves one name at start does not keep a crowd.
//
// Locks and sleeps are our own (base::lock, futex by system call): pthread's are names that hooks replace, and a
// helper must never find itself in the runtime it helps. Threads are made by pthread_create, because what runs on them
// (getaddrinfo and what it loads) needs a thread with all its libc state.
//
// Always true, under the lock: every queued job has an idle thread of its own coming for it, or the pool is full, or
// no more threads can be made.

#include "loop/offload.hpp"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <exception>
#include <new>

#include "base/assert.hpp"
#include "base/lock.hpp"
#include "base/sys.hpp"
#include "loop/refusal.hpp"

namespace ringlet::loop {
namespace {

constexpr unsigned default_thread_limit = 64;
constexpr timespec idle_time{5, 0};
constexpr std::size_t helper_stack_bytes = 1 << 20;  // name service modules are not written for small stacks

struct pool {
  base::lock lock;
  job* first = nullptr;
  job* last = nullptr;
  std::size_t queued = 0;
  std::size_t idle = 0;  // threads at the bell or on their way from it, that hold no job
  std::size_t threads = 0;
  std::atomic<std::uint32_t> bell{0};
};

// Never destroyed: helpers may outlive static destruction.
constinit union storage {
  constexpr storage() : it() {}
  constexpr ~storage() {}
  pool it;
} the_pool;

constinit thread_local bool making_thread = false;

unsigned thread_limit() {
  static const unsigned limit =
      number_from_environment("RINGLET_OFFLOAD_THREADS", 1, 4096).value_or(default_thread_limit);
  return limit;
}

unsigned thread_limit_or_default() noexcept {
  try {
    return thread_limit();
  } catch (const std::exception&) {
    return default_thread_limit;  // make_engine has told, or will: check_offload_settings
  }
}

// All but the two that glibc itself sends to every thread (cancel, setuid): blocked, setuid() would hang.
std::uint64_t all_signals() {
  constexpr int sigcancel = 32, sigsetxid = 33;
  return ~((std::uint64_t(1) << (sigcancel - 1)) | (std::uint64_t(1) << (sigsetxid - 1)));
}

job* pop(pool& p) {
  job* taken = p.first;
  p.first = taken->next;
  if (!p.first) p.last = nullptr;
  --p.queued;
  taken->next = nullptr;
  return taken;
}

void* helper(void*) {
  pool& p = the_pool.it;
  sys::call(SYS_prctl, PR_SET_NAME, "ringlet-helper");
  p.lock.acquire();
  for (;;) {
    bool waited_out = false;
    while (!p.first && !waited_out) {
      const std::uint32_t heard = p.bell.load(std::memory_order_relaxed);
      ++p.idle;
      p.lock.release();
      waited_out = sys::call(SYS_futex, &p.bell, FUTEX_WAIT_PRIVATE, heard, &idle_time) == -ETIMEDOUT;
      p.lock.acquire();
      --p.idle;
    }
    if (!p.first) break;
    job* taken = pop(p);
    p.lock.release();
    taken->run(*taken);
    p.lock.acquire();
  }
  --p.threads;
  p.lock.release();
  return nullptr;
}

int make_thread() noexcept {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, helper_stack_bytes);
  // The new thread inherits the mask, so there is no moment at which a program's handler could run on it.
  const std::uint64_t blocked = all_signals();
  std::uint64_t before = 0;
  sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, &before, sizeof before);
  making_thread = true;
  pthread_t id;
  const int error = pthread_create(&id, &attributes, helper, nullptr);
  making_thread = false;
  sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &before, nullptr, sizeof before);
  pthread_attr_destroy(&attributes);
  return error;
}

// Takes back a job that nobody has started; false if somebody has.
bool unqueue(pool& p, job& j) {
  job* before = nullptr;
  for (job* at = p.first; at; before = at, at = at->next) {
    if (at != &j) continue;
    (before ? before->next : p.first) = j.next;
    if (p.last == &j) p.last = before;
    --p.queued;
    j.next = nullptr;
    return true;
  }
  return false;
}

}  // namespace

int offload(job& j) noexcept {
  RINGLET_ASSERT(j.run, "a job without a function is offloaded");
  pool& p = the_pool.it;
  const unsigned limit = thread_limit_or_default();
  p.lock.acquire();
  j.next = nullptr;
  (p.last ? p.last->next : p.first) = &j;
  p.last = &j;
  ++p.queued;
  const bool somebody_comes = p.queued <= p.idle;
  const bool make = !somebody_comes && p.threads < limit;
  if (make) ++p.threads;
  p.bell.fetch_add(1, std::memory_order_relaxed);
  p.lock.release();

  if (somebody_comes) sys::call(SYS_futex, &p.bell, FUTEX_WAKE_PRIVATE, 1);
  if (!make) return 0;
  const int error = make_thread();
  if (error == 0) return 0;
  base::lock_guard hold(p.lock);
  --p.threads;
  // Others will come to it, if there are any. If not, it may still have been taken by one that has left since.
  if (p.threads > 0 || !unqueue(p, j)) return 0;
  return -error;
}

std::size_t offload_threads() noexcept {
  base::lock_guard hold(the_pool.it.lock);
  return the_pool.it.threads;
}

void offload_forget_after_fork() noexcept { new (&the_pool.it) pool; }

void check_offload_settings() { thread_limit(); }

bool offload_is_making_thread() noexcept { return making_thread; }

}  // namespace ringlet::loop
