#pragma once
// In which order a queue gives its items back: fifo, lifo, or by priority. A queue's second parameter; its `store<T>` holds
// the items under the queue's lock, and `compares<T>` says whether it runs a program's code there to order them.
//
// Always true: an operation of a store that throws (no memory, a comparison that fails) has changed nothing, and an item
// that could not be put in is still the caller's.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace ringlet {

// First in, first out.
struct fifo {
  template <class T>
  static constexpr bool compares = false;
  // A ring that grows by doubling and allocates nothing while its size goes up and down.
  template <class T>
  class store {
   public:
    store() noexcept = default;
    store(store&& other) noexcept { swap(other); }
    ~store() { clear(); }

    bool empty() const noexcept { return size_ == 0; }
    std::size_t size() const noexcept { return size_; }
    const T& top() const noexcept { return items_[first_]; }
    void push(T& item) {
      if (size_ == room_) grow();
      std::construct_at(items_ + ((first_ + size_) & (room_ - 1)), std::move(item));
      ++size_;
    }
    T pop() {
      T& oldest = items_[first_];
      T item(std::move(oldest));
      std::destroy_at(&oldest);
      first_ = (first_ + 1) & (room_ - 1);
      --size_;
      return item;
    }
    store take_all() noexcept { return std::move(*this); }
    void swap(store& other) noexcept {
      std::swap(items_, other.items_);
      std::swap(room_, other.room_);
      std::swap(first_, other.first_);
      std::swap(size_, other.size_);
    }

   private:
    void clear() noexcept {
      for (; size_ > 0; --size_, first_ = (first_ + 1) & (room_ - 1)) std::destroy_at(items_ + first_);
      if (items_) std::allocator<T>().deallocate(items_, room_);
    }
    void grow() {
      const std::size_t wanted = room_ ? room_ * 2 : 8;
      T* larger = std::allocator<T>().allocate(wanted);
      for (std::size_t i = 0; i < size_; ++i) {
        T& item = items_[(first_ + i) & (room_ - 1)];
        std::construct_at(larger + i, std::move(item));
        std::destroy_at(&item);
      }
      if (items_) std::allocator<T>().deallocate(items_, room_);
      items_ = larger;
      room_ = wanted;
      first_ = 0;
    }
    T* items_ = nullptr;
    std::size_t room_ = 0;  // a power of two
    std::size_t first_ = 0;
    std::size_t size_ = 0;
  };
};

// Last in, first out.
struct lifo {
  template <class T>
  static constexpr bool compares = false;
  template <class T>
  class store {
   public:
    bool empty() const noexcept { return items_.empty(); }
    std::size_t size() const noexcept { return items_.size(); }
    const T& top() const noexcept { return items_.back(); }
    void push(T& item) { items_.push_back(std::move(item)); }
    T pop() {
      T item(std::move(items_.back()));
      items_.pop_back();
      return item;
    }
    std::vector<T> take_all() noexcept { return std::exchange(items_, {}); }

   private:
    std::vector<T> items_;
  };
};

// The item that comes before all others by Before (the smallest, by default); of equal ones the one put in first.
template <class Before = std::less<>>
struct by_priority {
  Before before{};
  template <class T>
  static constexpr bool compares = !std::is_scalar_v<T> || !(std::is_same_v<Before, std::less<>> || std::is_same_v<Before, std::greater<>> ||
                                                             std::is_same_v<Before, std::less<T>> || std::is_same_v<Before, std::greater<T>>);

  // A heap that looks where an item belongs before it moves any: Before may throw.
  template <class T>
  class store {
    static_assert(std::is_nothrow_move_constructible_v<T>, "an item that may throw when moved could get lost in a queue");
    static_assert(std::is_invocable_r_v<bool, const Before&, const T&, const T&>,
                  "ringlet::priority_queue<T, Before>: Before must be callable as bool(const T&, const T&)");

   public:
    store() = default;
    explicit store(by_priority order) : before_(std::move(order.before)) {}

    bool empty() const noexcept { return heap_.empty(); }
    std::size_t size() const noexcept { return heap_.size(); }
    const T& top() const noexcept { return heap_.front().item; }
    void push(T& item) {
      if (heap_.size() == heap_.capacity()) heap_.reserve(heap_.empty() ? 8 : heap_.size() * 2);
      std::size_t place = heap_.size();
      // It is the youngest, so it passes only those it really comes before.
      while (place > 0 && before_(std::as_const(item), std::as_const(heap_[parent(place)].item))) place = parent(place);
      heap_.push_back({std::move(item), next_number_++});
      if (std::size_t i = heap_.size() - 1; i != place) {
        entry youngest(std::move(heap_[i]));
        for (; i != place; i = parent(i)) put_at(i, heap_[parent(i)]);
        put_at(place, youngest);
      }
    }
    T pop() {
      // The way that the last one, put in the first one's place, sinks.
      std::size_t way[64], steps = 0, at = 0;
      const std::size_t count = heap_.size() - 1;
      while (2 * at + 1 < count) {
        std::size_t child = 2 * at + 1;
        if (child + 1 < count && comes_before(heap_[child + 1], heap_[child])) ++child;
        if (!comes_before(heap_[child], heap_[count])) break;
        way[steps++] = at = child;
      }
      T item(std::move(heap_.front().item));
      if (count > 0) {
        at = 0;
        for (std::size_t i = 0; i < steps; ++i) {
          put_at(at, heap_[way[i]]);
          at = way[i];
        }
        put_at(at, heap_[count]);
      }
      heap_.pop_back();
      return item;
    }
    auto take_all() noexcept { return std::exchange(heap_, {}); }

   private:
    struct entry {
      T item;
      std::uint64_t number;
    };
    // By its move constructor, which cannot throw; its assignment could, or be missing.
    void put_at(std::size_t place, entry& from) noexcept {
      std::destroy_at(&heap_[place]);
      std::construct_at(&heap_[place], std::move(from));
    }
    static std::size_t parent(std::size_t i) noexcept { return (i - 1) / 2; }
    bool comes_before(const entry& a, const entry& b) const {
      if (before_(a.item, b.item)) return true;
      return a.number < b.number && !before_(b.item, a.item);
    }
    Before before_{};
    std::vector<entry> heap_;
    std::uint64_t next_number_ = 0;
  };
};

}  // namespace ringlet
