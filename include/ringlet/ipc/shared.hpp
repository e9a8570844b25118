#pragma once
// Memory that processes share, and values and arrays in it.
//
//   ringlet::ipc::value<int> sum(0);
//   ringlet::ipc::array<double> row(1000);
//   ringlet::process p([&] { sum.update([](int& n) { n += 5; }); row[3] = 0.5; });
//
// Made before the process is started and used in it by reference: a child of a fork sees the same memory at the same address
// (so here, unlike with the ends of pipes, capturing by reference is right). The memory is a memfd, mapped shared: it has no
// name that a crash could leave behind, grows no file, and its fd can be passed to a process that is no child. Boost.
// Interprocess would give named segments and allocators in them; nothing here needs an allocator, and a name is a leak
// waiting for a kill -9.
//
// T is trivially copyable and holds no pointers (they would point into another process's memory). Reading and writing take no
// lock; update and locked do, a recursive one of the value's own.

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include <ringlet/export.hpp>
#include <ringlet/ipc/sync.hpp>

namespace ringlet::ipc {

namespace detail {
class RINGLET_EXPORT shared_memory {
 public:
  explicit shared_memory(std::size_t size_bytes);  // zeroed; std::system_error if there is none
  ~shared_memory();
  shared_memory(const shared_memory&) = delete;
  shared_memory& operator=(const shared_memory&) = delete;
  void* at() const noexcept { return at_; }
  std::size_t size_bytes() const noexcept { return size_; }
  int fd() const noexcept { return fd_; }

 private:
  void* at_ = nullptr;
  std::size_t size_;
  int fd_ = -1;
};
}  // namespace detail

template <class T>
class array {
  static_assert(std::is_trivially_copyable_v<T>, "ringlet::ipc: only what is trivially copyable can lie in shared memory");

 public:
  using value_type = T;
  explicit array(std::size_t size, const T& each = T{}) : memory_(size * sizeof(T)), size_(size) { std::fill(begin(), end(), each); }
  array(std::initializer_list<T> values) : memory_(values.size() * sizeof(T)), size_(values.size()) { std::copy(values.begin(), values.end(), begin()); }

  T* data() const noexcept { return static_cast<T*>(memory_.at()); }
  std::size_t size() const noexcept { return size_; }
  T* begin() const noexcept { return data(); }
  T* end() const noexcept { return data() + size_; }
  T& operator[](std::size_t i) const noexcept { return data()[i]; }
  T& at(std::size_t i) const {
    if (i >= size_) throw std::out_of_range("ringlet::ipc::array: there is no element " + std::to_string(i) + " of " + std::to_string(size_));
    return data()[i];
  }
  recursive_mutex& lock() { return lock_; }

 private:
  detail::shared_memory memory_;
  std::size_t size_;
  recursive_mutex lock_;
};

template <class T>
class value {
 public:
  explicit value(const T& initial = T{}) : one_(1, initial) {}
  // Without the lock: what is written meanwhile may be seen half, if T is more than a word.
  T get() const noexcept { return one_[0]; }
  void set(const T& to) noexcept { one_[0] = to; }
  T& raw() noexcept { return one_[0]; }
  // f(value) with the lock held; its result. No other update comes between: as `v.value += 1` under Python's get_lock().
  template <class F>
  decltype(auto) update(F&& f) {
    std::lock_guard hold(one_.lock());
    return std::forward<F>(f)(one_[0]);
  }
  recursive_mutex& lock() { return one_.lock(); }

 private:
  array<T> one_;
};

}  // namespace ringlet::ipc
