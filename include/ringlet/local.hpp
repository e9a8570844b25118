#pragma once
// Values that each fiber has for itself.
//
//   ringlet::fiber_local<std::string> request;      // each fiber's own, made when it first looks
//   ringlet::inherited_local<int> trace_id{0};      // a fiber begins with its spawner's
//
// They belong to the fiber, whichever greenlet it runs in. A fiber_local's value is destroyed at its fiber's end, on that
// fiber (the destructor may wait); those of the main fiber at their thread's end, but not the main thread's. One object may
// serve all threads; it must outlive those fibers' uses of it, but its values may outlive it.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include <ringlet/export.hpp>

namespace ringlet {

namespace detail {
RINGLET_EXPORT std::uint64_t new_local_key() noexcept;
RINGLET_EXPORT void* local_find(std::uint64_t key) noexcept;  // the running fiber's, or null
RINGLET_EXPORT void local_put(std::uint64_t key, void* value, void (*destroy)(void*) noexcept);  // replaces and destroys
RINGLET_EXPORT void local_drop(std::uint64_t key) noexcept;
RINGLET_EXPORT const void* inherited_find(std::uint64_t key) noexcept;
RINGLET_EXPORT void inherited_put(std::uint64_t key, std::shared_ptr<const void> value);  // null: forgets it
}  // namespace detail

template <class T>
class fiber_local {
 public:
  // The value is made by T(), or by `make`, for each fiber that looks at it.
  fiber_local() : fiber_local([] { return T(); }) {}
  explicit fiber_local(std::function<T()> make) : make_(std::move(make)) {}
  fiber_local(const fiber_local&) = delete;
  fiber_local& operator=(const fiber_local&) = delete;

  // The running fiber's value; made now if it has none. Throws what making it throws.
  T& operator*() const {
    if (T* there = find()) return *there;
    auto made = std::unique_ptr<T>(new T(make_()));
    detail::local_put(key_, made.get(), [](void* value) noexcept { delete static_cast<T*>(value); });
    return *made.release();
  }
  T* operator->() const { return &**this; }
  // The running fiber's value, or null if it has not looked yet.
  T* find() const noexcept { return static_cast<T*>(detail::local_find(key_)); }
  // Destroys the running fiber's value; the next look makes another.
  void reset() const noexcept { detail::local_drop(key_); }

 private:
  const std::uint64_t key_ = detail::new_local_key();
  std::function<T()> make_;
};

// A fiber's value until it sets one is the one its spawner had when it spawned it. Values are not copied from fiber to
// fiber but shared, and so are constant: to have one object for a whole tree of fibers, keep a pointer in it.
template <class T>
class inherited_local {
 public:
  inherited_local() : inherited_local(T()) {}
  explicit inherited_local(T otherwise) : otherwise_(std::move(otherwise)) {}
  inherited_local(const inherited_local&) = delete;
  inherited_local& operator=(const inherited_local&) = delete;

  // The running fiber's value, or the one given to the constructor. Valid until this fiber sets another.
  const T& get() const noexcept {
    auto* there = static_cast<const T*>(detail::inherited_find(key_));
    return there ? *there : otherwise_;
  }
  const T& operator*() const noexcept { return get(); }
  const T* operator->() const noexcept { return &get(); }
  // For this fiber and those it spawns from now on.
  void set(T value) const { detail::inherited_put(key_, std::make_shared<const T>(std::move(value))); }
  void reset() const { detail::inherited_put(key_, nullptr); }

 private:
  const std::uint64_t key_ = detail::new_local_key();
  T otherwise_;
};

}  // namespace ringlet
