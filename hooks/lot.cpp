#include "lot.hpp"

#include <atomic>
#include <cstdint>
#include <limits>

#include "base/intrusive_list.hpp"
#include "base/lock.hpp"
#include "hub/hub.hpp"

namespace ringlet::hooks::lot {

namespace {

struct bucket;

struct parked : detail::waiter {
  bucket* in = nullptr;
};

struct alignas(64) bucket {
  base::lock lock;
  base::intrusive_list<parked> waiting;
};

constexpr std::size_t bucket_count = 256;

bucket* buckets() {
  static bucket* const all = new bucket[bucket_count];  // never destroyed: locks are used to the very end
  return all;
}
bucket& bucket_of(const void* address) {
  const auto key = reinterpret_cast<std::uintptr_t>(address) * 0x9e3779b97f4a7c15ull;
  return buckets()[key >> 56];
}

std::atomic<std::size_t> parked_count{0};

// This thread is inside a bucket; what a signal handler could not unpark meanwhile. Two are remembered, then all.
thread_local int inside = 0;
thread_local const void* left_over[2];
thread_local int left_over_count = 0;

void unpark_left_over() noexcept;

struct section {
  explicit section(bucket& b) noexcept : b_(b) {
    ++inside;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    b_.lock.acquire();
  }
  ~section() {
    b_.lock.release();
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (--inside == 0 && __builtin_expect(left_over_count > 0, false)) unpark_left_over();
  }
  section(const section&) = delete;
  bucket& b_;
};

bool withdraw(detail::waiter& w) {
  auto& p = static_cast<parked&>(w);
  section hold(*p.in);
  if (!p.linked()) return false;
  p.unlink();
  return true;
}

void deliver(detail::message& m) {
  auto& woken = static_cast<detail::waiter&>(m);
  woken.fiber->hub->wake(woken, detail::wake_reason::woken);
}

// A null address means everybody.
std::size_t unpark_in(bucket& b, const void* address, std::size_t count, bool by_message) noexcept {
  std::size_t done = 0;
  section hold(b);
  b.waiting.for_each([&](parked& p) {
    if (done == count || (address && p.whom != address)) return;
    p.unlink();
    ++done;
    if (by_message) {
      p.deliver = &deliver;
      p.fiber->hub->send(p);
    } else {
      detail::hub_state::wake_anywhere(p);
    }
  });
  return done;
}

void unpark_left_over() noexcept {
  constexpr auto all = std::numeric_limits<std::size_t>::max();
  while (left_over_count > 0) {
    const int n = left_over_count;
    const void* first = left_over[0];
    const void* second = left_over[1];
    left_over_count = 0;
    if (n > 2) {
      for (std::size_t i = 0; i < bucket_count; ++i) unpark_in(buckets()[i], nullptr, all, true);
    } else {
      unpark_in(bucket_of(first), first, all, true);
      if (n > 1) unpark_in(bucket_of(second), second, all, true);
    }
  }
}

bool nobody_parked() noexcept {
  // Pairs with the count's increment before the check in wait(): either they see our change, or we see them.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return parked_count.load(std::memory_order_relaxed) == 0;
}

}  // namespace

outcome wait(const void* address, bool (*blocked)(void*), void* argument, deadline until, const char* what) {
  auto& hub = detail::hub_state::here();
  bucket& b = bucket_of(address);
  parked me;
  me.in = &b;
  me.interruptible = false;
  me.what = what;
  me.whom = address;
  me.withdraw = &withdraw;
  me.fiber = hub.running;
  parked_count.fetch_add(1, std::memory_order_seq_cst);
  bool must_wait;
  {
    section hold(b);
    must_wait = blocked(argument);
    if (must_wait) b.waiting.push_back(me);
  }
  auto reason = detail::wake_reason::woken;
  if (must_wait) reason = hub.wait(me, until);
  parked_count.fetch_sub(1, std::memory_order_relaxed);
  return reason == detail::wake_reason::timed_out ? outcome::timed_out : outcome::changed;
}

std::size_t unpark(const void* address, std::size_t count) noexcept {
  if (nobody_parked()) return 0;
  return unpark_in(bucket_of(address), address, count, false);
}

std::size_t unpark_from_anywhere(const void* address, std::size_t count) noexcept {
  if (nobody_parked()) return 0;
  if (inside > 0) {
    if (left_over_count < 2) left_over[left_over_count] = address;
    if (left_over_count < 3) ++left_over_count;
    return 0;
  }
  return unpark_in(bucket_of(address), address, count, true);
}

const void* running_fiber() noexcept {
  auto* hub = detail::hub_state::here_or_null();
  return hub ? hub->running : nullptr;
}

bool on_main_fiber() noexcept {
  auto* hub = detail::hub_state::here_or_null();
  return !hub || hub->running == &hub->main_fiber;
}

bool alone() noexcept {
  auto* hub = detail::hub_state::here_or_null();
  return !hub || (hub->fiber_count == 0 && hub->running == &hub->main_fiber && hub->timers.size() == 0 && !hub->handle);
}

expecting::expecting() noexcept { ++detail::hub_state::here().foreign_work; }
expecting::~expecting() { --detail::hub_state::here().foreign_work; }

}  // namespace ringlet::hooks::lot
