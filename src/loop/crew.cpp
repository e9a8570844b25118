#include "loop/crew.hpp"

#include <linux/futex.h>
#include <sys/prctl.h>
#include <time.h>

#include <cerrno>
#include <climits>
#include <new>
#include <utility>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "loop/native_thread.hpp"

namespace ringlet::loop {

namespace {
constexpr std::size_t helper_stack_bytes = 1 << 20;  // name service modules are not written for small stacks

constinit std::atomic<std::size_t> quiet{0}, quiet_changes{0}, of_all_crews{0};
constinit std::atomic<unsigned> forks{0};
constinit base::lock renewal;  // of any crew: two threads of a child may use one first at the same time
}  // namespace

std::size_t quiet_helpers() noexcept { return quiet.load(std::memory_order_acquire); }
std::size_t helpers() noexcept { return of_all_crews.load(std::memory_order_acquire); }
std::size_t quiet_helpers_changes() noexcept { return quiet_changes.load(std::memory_order_acquire); }

void forget_crews_after_fork() noexcept {
  forks.fetch_add(1, std::memory_order_relaxed);
  quiet.store(0, std::memory_order_relaxed);
  of_all_crews.store(0, std::memory_order_relaxed);
  new (&renewal) base::lock;
}

// Takes the lock; in a forked child, where another thread may have held it at the fork, everything is new first.
void crew::enter() noexcept {
  const unsigned now = forks.load(std::memory_order_relaxed);
  if (__builtin_expect(generation_.load(std::memory_order_acquire) != now, 0)) {
    base::lock_guard hold(renewal);
    if (generation_.load(std::memory_order_relaxed) != now) {
      new (&lock_) base::lock;
      first_ = last_ = nullptr;
      queued_ = idle_ = threads_ = unborn_ = told_ = told_threads_ = 0;
      generation_.store(now, std::memory_order_release);
    }
  }
  lock_.acquire();
}

// Tells how many are no sign of life, and lets go of the lock. An idle thread that a queued job waits for is one.
void crew::leave_lock() noexcept {
  if (threads_ != told_threads_) of_all_crews.fetch_add(threads_ - std::exchange(told_threads_, threads_), std::memory_order_acq_rel);
  const std::size_t now = whom_ == works_for::runtime ? threads_ - unborn_ : idle_ > queued_ ? idle_ - queued_ : 0;
  if (now != told_) {
    quiet_changes.fetch_add(1, std::memory_order_acq_rel);
    quiet.fetch_add(now - told_, std::memory_order_acq_rel);
    told_ = now;
  }
  lock_.release();
}

job* crew::pop() noexcept {
  job* taken = first_;
  first_ = taken->next;
  if (!first_) last_ = nullptr;
  --queued_;
  taken->next = nullptr;
  return taken;
}

void* crew::work(void* self) {
  crew& c = *static_cast<crew*>(self);
  sys::call(SYS_prctl, PR_SET_NAME, "ringlet-helper");
  const timespec idle_time{time_t(c.idle_time_.count() / 1'000'000'000), long(c.idle_time_.count() % 1'000'000'000)};
  c.enter();
  --c.unborn_;
  for (;;) {
    bool waited_out = false;
    while (!c.first_ && !waited_out && c.threads_ <= c.limit_ && !c.disbanded_) {
      const std::uint32_t heard = c.bell_.load(std::memory_order_relaxed);
      ++c.idle_;
      c.leave_lock();
      waited_out = sys::call(SYS_futex, &c.bell_, FUTEX_WAIT_PRIVATE, heard, &idle_time) == -ETIMEDOUT;
      c.enter();
      --c.idle_;
    }
    if (!c.first_ || c.threads_ > c.limit_) break;
    job* taken = c.pop();
    c.leave_lock();
    taken->run(*taken);
    c.enter();
  }
  const bool last = --c.threads_ == 0 && c.disbanded_;
  c.leave_lock();
  if (last) delete &c;
  return nullptr;
}

// With the lock held; lets go of it. Makes as many threads as the queue lacks.
int crew::make_threads() noexcept {
  std::size_t wanted = queued_ > idle_ ? queued_ - idle_ : 0;
  const std::size_t room = limit_ > threads_ ? limit_ - threads_ : 0;
  if (wanted > room) wanted = room;
  threads_ += wanted;
  unborn_ += wanted;
  leave_lock();
  for (std::size_t made = 0; made < wanted; ++made)
    if (const int error = make_native_thread(&work, this, helper_stack_bytes, true)) {
      enter();
      threads_ -= wanted - made;
      unborn_ -= wanted - made;
      const bool others = threads_ > 0;
      leave_lock();
      return others ? 0 : -error;
    }
  return 0;
}

int crew::submit(job& j) noexcept {
  RINGLET_ASSERT(j.run, "a job without a function is offloaded");
  enter();
  j.next = nullptr;
  (last_ ? last_->next : first_) = &j;
  last_ = &j;
  ++queued_;
  const bool somebody_comes = queued_ <= idle_;
  bell_.fetch_add(1, std::memory_order_relaxed);
  if (somebody_comes) {
    leave_lock();
    sys::call(SYS_futex, &bell_, FUTEX_WAKE_PRIVATE, 1);
    return 0;
  }
  const int error = make_threads();
  // It may still have been taken by one that has left since.
  return error != 0 && take_back(j) ? error : 0;
}

bool crew::take_back(job& j) noexcept {
  enter();
  job* before = nullptr;
  for (job* at = first_; at; before = at, at = at->next) {
    if (at != &j) continue;
    (before ? before->next : first_) = j.next;
    if (last_ == &j) last_ = before;
    --queued_;
    j.next = nullptr;
    leave_lock();
    return true;
  }
  leave_lock();
  return false;
}

job* crew::take_back_all() noexcept {
  enter();
  job* all = first_;
  first_ = last_ = nullptr;
  queued_ = 0;
  leave_lock();
  return all;
}

void crew::set_limit(unsigned limit) noexcept {
  enter();
  limit_ = limit;
  bell_.fetch_add(1, std::memory_order_relaxed);  // those too many leave
  make_threads();
  sys::call(SYS_futex, &bell_, FUTEX_WAKE_PRIVATE, INT_MAX);
}

unsigned crew::limit() noexcept {
  enter();
  const unsigned limit = limit_;
  leave_lock();
  return limit;
}

std::size_t crew::threads() noexcept {
  enter();
  const std::size_t n = threads_;
  leave_lock();
  return n;
}

std::size_t crew::queued() noexcept {
  enter();
  const std::size_t n = queued_;
  leave_lock();
  return n;
}

void crew::step_aside() noexcept {
  enter();
  --threads_;
  make_threads();
}

void crew::step_back() noexcept {
  enter();
  ++threads_;
  leave_lock();
}

void crew::disband() noexcept {
  enter();
  RINGLET_ASSERT(!first_, "a crew with work is disbanded");
  disbanded_ = true;
  bell_.fetch_add(1, std::memory_order_relaxed);
  const bool nobody = threads_ == 0;
  leave_lock();
  if (nobody) {
    delete this;
    return;
  }
  sys::call(SYS_futex, &bell_, FUTEX_WAKE_PRIVATE, INT_MAX);
}

}  // namespace ringlet::loop
