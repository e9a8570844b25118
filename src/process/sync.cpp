// Locks, semaphores, events and conditions between processes; how they wait: shared_wait.hpp.
//
// The owner of a lock is a process (number and birth, so that a recycled number is not taken for it) and a fiber of it. Who finds
// that the owner of half a slice ago still has it asks the system whether that process lives.

#include <ringlet/ipc/sync.hpp>

#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <ringlet/fiber.hpp>
#include <ringlet/io.hpp>
#include <ringlet/timeout.hpp>

#include "io/doors.hpp"
#include "process/failures.hpp"
#include "process/shared_wait.hpp"

namespace ringlet::ipc {

namespace {

// When a process began, in the kernel's ticks: /proc/PID/stat, field 22; 0 if it has ended.
std::uint64_t birth_of(int pid) noexcept {
  char path[32], text[1024];
  std::snprintf(path, sizeof path, "/proc/%d/stat", pid);
  const long fd = sys::call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0L);
  if (fd < 0) return 0;
  const long got = sys::call(SYS_read, fd, text, sizeof text - 1);
  sys::call(SYS_close, fd);
  if (got <= 0) return 0;
  text[got] = 0;
  const char* at = std::strrchr(text, ')');  // the name before it may hold anything
  if (!at || at[1] == 0 || at[2] == 'Z' || at[2] == 'X') return 0;
  for (int field = 2; at && field < 22; ++field) at = std::strchr(at + 1, ' ');
  return at ? std::strtoull(at + 1, nullptr, 10) : 0;
}

int own_pid() noexcept { return int(sys::call(SYS_getpid)); }

std::uint64_t own_birth(int pid) noexcept {
  static std::atomic<std::uint64_t> known{0};  // the number above, the birth below; a fork's child asks anew
  const std::uint64_t seen = known.load(std::memory_order_relaxed);
  if (seen >> 32 == std::uint64_t(pid)) return seen & 0xffffffff;
  const std::uint64_t birth = birth_of(pid) & 0xffffffff;
  known.store(std::uint64_t(pid) << 32 | birth, std::memory_order_relaxed);
  return birth;
}

}  // namespace

namespace detail {

shared_thing::shared_thing() : state_(new shared_state) {
  const long at = sys::call(SYS_mmap, nullptr, sizeof(shared_state::page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0L);
  const long fd = sys::call(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
  if (fd < 0 || (at < 0 && at > -4096)) {
    if (fd >= 0) sys::call(SYS_close, fd);
    delete state_;
    process_detail::fail(fd < 0 ? fd : at, "what processes wait on needs an fd and a page (a limit on open files? see ulimit -n)");
  }
  state_->at = new (reinterpret_cast<void*>(at)) shared_state::page;
  state_->wakes = int(fd);
  io::fd_opened(state_->wakes);
}

shared_thing::~shared_thing() {
  io::close(state_->wakes);
  sys::call(SYS_munmap, state_->at, sizeof(shared_state::page));
  delete state_;
}

namespace {

struct identity {
  std::uint64_t process, fiber;
  static identity mine() {
    const int pid = own_pid();
    // The running fiber; without a hub the thread.
    const void* running = hub::running_fiber();
    return {std::uint64_t(pid) << 32 | own_birth(pid), running ? reinterpret_cast<std::uint64_t>(running) : std::uint64_t(sys::call(SYS_gettid))};
  }
};

bool owns(const shared_state::page& p, const identity& me) noexcept {
  return p.owner.load(std::memory_order_relaxed) == me.process && p.fiber.load(std::memory_order_relaxed) == me.fiber;
}

bool lives(std::uint64_t owner) noexcept { return (birth_of(int(owner >> 32)) & 0xffffffff) == (owner & 0xffffffff); }

// False: the deadline passed. Throws owner_died with the lock held.
bool take(shared_state& s, const identity& me, deadline until, const char* what) {
  shared_state::page& p = *s.at;
  bool from_dead = false;
  std::uint64_t in_the_way = 0;
  clock::time_point since{};
  const auto attempt = [&] {
    std::uint64_t owner = 0;
    if (p.owner.compare_exchange_strong(owner, me.process, std::memory_order_acq_rel)) return true;
    // Asking the system costs more than the lock: only of an owner of whom nothing was heard for half a slice.
    const clock::time_point now = clock::now();
    if (owner != in_the_way) {
      in_the_way = owner;
      since = now;
    }
    if ((until == deadline::passed() || now - since > slice / 2) && owner != me.process && !lives(owner)) {
      if (p.owner.compare_exchange_strong(owner, me.process, std::memory_order_acq_rel)) {
        from_dead = true;
        return true;
      }
    }
    return false;
  };
  if (!s.wait(until, what, attempt)) return false;
  p.fiber.store(me.fiber, std::memory_order_relaxed);
  p.depth = 1;
  if (from_dead)
    throw owner_died("ringlet: the process that had this lock has ended without unlocking it; it is yours now, and what it guards may be half done");
  return true;
}

void give(shared_state& s, const char* what) {
  shared_state::page& p = *s.at;
  if (!owns(p, identity::mine())) throw std::logic_error(std::string("ringlet: ") + what + ": unlock by another fiber or process than the one that has it");
  if (--p.depth > 0) return;
  p.fiber.store(0, std::memory_order_relaxed);
  p.owner.store(0, std::memory_order_seq_cst);
  s.wake(1);
}

std::size_t give_all(shared_state& s, const char* what) {
  const auto depth = std::size_t(s.at->depth);
  if (owns(*s.at, identity::mine())) s.at->depth = 1;
  give(s, what);
  return depth;
}

// What a condition does with it nothing interrupts.
void take_again(shared_state& s, std::size_t depth, const char* what) {
  struct at_end {
    shared_state& s;
    std::size_t depth;
    ~at_end() { s.at->depth = depth; }
  } deep{s, depth};
  kill_shield shield;
  take(s, identity::mine(), never, what);
}

}  // namespace
}  // namespace detail

bool recursive_mutex::lock_until(deadline until) {
  const auto me = detail::identity::mine();
  if (detail::owns(*state_->at, me)) {
    ++state_->at->depth;
    return true;
  }
  return detail::take(*state_, me, until, "ipc::recursive_mutex::lock");
}
void recursive_mutex::unlock() { detail::give(*state_, "ipc::recursive_mutex"); }
bool recursive_mutex::is_locked() const noexcept { return state_->at->owner.load(std::memory_order_relaxed) != 0; }
std::size_t recursive_mutex::unlock_all() { return detail::give_all(*state_, "ipc::recursive_mutex"); }
void recursive_mutex::lock_again(std::size_t depth) { detail::take_again(*state_, depth, "ipc::recursive_mutex::lock"); }

bool mutex::lock_until(deadline until) {
  const auto me = detail::identity::mine();
  if (detail::owns(*state_->at, me)) {
    if (until == deadline::passed()) return false;
    throw std::logic_error("ringlet: ipc::mutex::lock by the fiber that has it; it would wait for ever (recursive_mutex may be locked again)");
  }
  return detail::take(*state_, me, until, "ipc::mutex::lock");
}
void mutex::unlock() { detail::give(*state_, "ipc::mutex"); }
bool mutex::is_locked() const noexcept { return state_->at->owner.load(std::memory_order_relaxed) != 0; }
std::size_t mutex::unlock_all() { return detail::give_all(*state_, "ipc::mutex"); }
void mutex::lock_again(std::size_t depth) { detail::take_again(*state_, depth, "ipc::mutex::lock"); }

semaphore::semaphore(std::size_t initial) { state_->at->count.store(std::int64_t(initial), std::memory_order_relaxed); }
bool semaphore::acquire(deadline until) {
  auto& count = state_->at->count;
  return state_->wait(until, "ipc::semaphore::acquire", [&] {
    std::int64_t left = count.load(std::memory_order_seq_cst);
    while (left > 0)
      if (count.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel)) return true;
    return false;
  });
}
void semaphore::release(std::size_t n) {
  state_->at->count.fetch_add(std::int64_t(n), std::memory_order_seq_cst);
  state_->wake(n);
}
std::size_t semaphore::count() const noexcept { return std::size_t(state_->at->count.load(std::memory_order_relaxed)); }

void event::set() {
  state_->at->flag.store(1, std::memory_order_seq_cst);
  state_->at->changes.fetch_add(1, std::memory_order_seq_cst);
  state_->wake(~std::uint64_t(0));
}
void event::clear() noexcept { state_->at->flag.store(0, std::memory_order_seq_cst); }
bool event::is_set() const noexcept { return state_->at->flag.load(std::memory_order_acquire) != 0; }
bool event::wait(deadline until) {
  const std::uint32_t seen = state_->at->changes.load(std::memory_order_acquire);
  return state_->wait(until, "ipc::event::wait",
                      [&] { return state_->at->flag.load(std::memory_order_seq_cst) != 0 || state_->at->changes.load(std::memory_order_seq_cst) != seen; }, true);
}

std::uint32_t condition::prepare(bool locked) {
  if (!locked) throw std::logic_error("ringlet: ipc::condition::wait without the lock");
  return state_->at->changes.load(std::memory_order_seq_cst);
}
bool condition::wait_change(std::uint32_t seen, deadline until) {
  return state_->wait(until, "ipc::condition::wait", [&] { return state_->at->changes.load(std::memory_order_seq_cst) != seen; }, true);
}
void condition::notify_one() {
  state_->at->changes.fetch_add(1, std::memory_order_seq_cst);
  state_->wake(1);
}
void condition::notify_all() {
  state_->at->changes.fetch_add(1, std::memory_order_seq_cst);
  state_->wake(~std::uint64_t(0));
}

}  // namespace ringlet::ipc
