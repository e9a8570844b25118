#include "sync/address_wait.hpp"

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <new>

#include "base/intrusive_list.hpp"
#include "base/lock.hpp"
#include "hub/hub.hpp"

namespace ringlet::sync {

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

std::atomic<std::size_t> parked_count{0};

// This thread is inside a bucket; what a signal handler could not wake meanwhile. Two are remembered, then all.
thread_local int inside = 0;
thread_local const void* left_over[2];
thread_local int left_over_count = 0;

void forget_in_forked_child();

bucket* buckets() {
  // Never destroyed: locks are used to the very end. Nor allocated: a lock cannot say that there is no memory.
  alignas(bucket) static char memory[bucket_count * sizeof(bucket)];
  static bucket* const all = [] {
    ::pthread_atfork(nullptr, nullptr, &forget_in_forked_child);
    for (std::size_t i = 1; i < bucket_count; ++i) ::new (memory + i * sizeof(bucket)) bucket;
    return ::new (memory) bucket;
  }();
  return all;
}

// Who was parked lives on in the parent only; and a lock may have been held by a thread that the child does not have.
void forget_in_forked_child() {
  for (std::size_t i = 0; i < bucket_count; ++i) {
    buckets()[i].waiting.forget_all();
    ::new (&buckets()[i].lock) base::lock;
  }
  parked_count.store(0, std::memory_order_relaxed);
  inside = left_over_count = 0;
}
bucket& bucket_of(const void* address) {
  const auto key = reinterpret_cast<std::uintptr_t>(address) * 0x9e3779b97f4a7c15ull;
  return buckets()[key >> 56];
}

void wake_left_over() noexcept;

struct section {
  explicit section(bucket& b) noexcept : b_(b) {
    ++inside;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    b_.lock.acquire();
  }
  ~section() {
    b_.lock.release();
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (--inside == 0 && __builtin_expect(left_over_count > 0, false)) wake_left_over();
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
std::size_t wake_in(bucket& b, const void* address, std::size_t count, bool by_message) noexcept {
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

void wake_left_over() noexcept {
  while (left_over_count > 0) {
    const int n = left_over_count;
    const void* first = left_over[0];
    const void* second = left_over[1];
    left_over_count = 0;
    if (n > 2) {
      for (std::size_t i = 0; i < bucket_count; ++i) wake_in(buckets()[i], nullptr, all_waiters, true);
    } else {
      wake_in(bucket_of(first), first, all_waiters, true);
      if (n > 1) wake_in(bucket_of(second), second, all_waiters, true);
    }
  }
}

// A hub ends with fibers that would not: nobody may find them here any more.
void leave(detail::hub_state& h) {
  for (std::size_t i = 0; i < bucket_count; ++i) {
    section hold(buckets()[i]);
    buckets()[i].waiting.for_each([&](parked& p) {
      if (p.fiber->hub != &h) return;
      p.unlink();
      parked_count.fetch_sub(1, std::memory_order_relaxed);
    });
  }
}

bool nobody_parked() noexcept {
  // Pairs with the count's increment before the check in wait_on_address: either they see our change, or we see them.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return parked_count.load(std::memory_order_relaxed) == 0;
}

}  // namespace

address_result wait_on_address(const void* address, deadline until, const char* what, bool interruptible,
                               bool (*still_blocked)(const void* argument), const void* argument,
                               const detail::signal_watch& signals) {
  auto& hub = detail::hub_state::here();
  bucket& b = bucket_of(address);
  hub.let_go[1] = [](detail::hub_state& h) { if (!h.forked) leave(h); };
  parked me;
  me.in = &b;
  me.interruptible = interruptible;
  me.signals = signals;
  me.what = what;
  me.whom = address;
  me.withdraw = &withdraw;
  me.fiber = hub.running;
  parked_count.fetch_add(1, std::memory_order_seq_cst);
  bool must_wait;
  {
    section hold(b);
    must_wait = !still_blocked || still_blocked(argument ? argument : address);
    if (must_wait) b.waiting.push_back(me);
  }
  auto reason = detail::wake_reason::woken;
  if (must_wait) reason = hub.wait(me, until);
  parked_count.fetch_sub(1, std::memory_order_relaxed);
  if (__builtin_expect(me.signalled, 0) && reason == detail::wake_reason::woken) {
    wake_address(address, 1);
    reason = detail::wake_reason::interrupted;
  }
  return reason == detail::wake_reason::timed_out     ? address_result::timed_out
         : reason == detail::wake_reason::interrupted ? address_result::interrupted
                                                      : address_result::woken;
}

std::size_t wake_address(const void* address, std::size_t count) noexcept {
  if (nobody_parked()) return 0;
  return wake_in(bucket_of(address), address, count, false);
}

std::size_t wake_address_from_anywhere(const void* address, std::size_t count) noexcept {
  if (nobody_parked()) return 0;
  if (inside > 0) {
    if (left_over_count < 2) left_over[left_over_count] = address;
    if (left_over_count < 3) ++left_over_count;
    return 0;
  }
  return wake_in(bucket_of(address), address, count, true);
}

}  // namespace ringlet::sync
