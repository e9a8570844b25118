#pragma once
// Who waits for a word, in lists by its address.

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "base/lock.hpp"
#include "hub/waiter.hpp"

namespace ringlet::threads {

struct bucket;
struct futex_group;  // futex_vector.cpp

struct futex_waiter : detail::waiter {
  const std::uint32_t* word = nullptr;
  std::uint32_t bits = 0;
  bucket* in = nullptr;  // null: taken off
  futex_waiter* before = nullptr;
  futex_waiter* after = nullptr;
  futex_group* group = nullptr;  // it is one of several that stand for one who waits (futex_waitv)
};

// All zero at first, so that the untouched ones of many cost nothing.
struct bucket {
  base::lock lock;
  futex_waiter* first = nullptr;
  futex_waiter* last = nullptr;

  void append(futex_waiter& w) noexcept {
    __atomic_store_n(&w.in, this, __ATOMIC_RELEASE);
    w.before = last;
    w.after = nullptr;
    (last ? last->after : first) = &w;
    last = &w;
  }
  void remove(futex_waiter& w) noexcept {
    (w.before ? w.before->after : first) = w.after;
    (w.after ? w.after->before : last) = w.before;
    __atomic_store_n(&w.in, nullptr, __ATOMIC_RELEASE);
  }
};

bucket& bucket_of(const std::uint32_t* word) noexcept;
// It has been taken off its list. By message: from inside a signal handler.
void ready(futex_waiter&, bool by_message) noexcept;
// Takes it off whichever list it is on; false: a wake has been faster.
bool take_off(futex_waiter&) noexcept;
// A wake has taken off one of a group's.
void ready_group(futex_waiter&, bool by_message) noexcept;
// How long one waits for a word that another process may change, before it is looked at again.
inline constexpr auto longest_shared_slice = std::chrono::milliseconds(5);

}  // namespace ringlet::threads
