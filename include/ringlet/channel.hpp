#pragma once
// A channel hands items from one fiber to another without keeping any: send waits until somebody receives, receive until
// somebody sends. select waits on several channels at once, to send on some and receive on others, and exactly one of them
// happens. Usable from fibers of any hub and from plain threads; with deadline::passed() also where nothing may wait. Items are
// moved under the channels' locks: their move constructors and destructors must not wait.
//
// An item is handed over exactly once: a wait that ends by deadline, kill or timeout has taken nothing and leaves its item
// with the caller. Those who wait on a channel are served in the order they came; of several cases of a select that could
// happen at once each has the same chance.
//
//   ringlet::channel<int> numbers;
//   ringlet::channel<std::string> words;
//   std::optional<int> n;
//   auto happened = ringlet::select({receiving(numbers, n), sending(words, std::string("x"))}, 5ms);
//   if (!happened) ...         // 5 ms have passed
//   else if (*happened == 0)   // n has come
//
// The models are Go's unbuffered channels and gevent's Channel.

#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include <ringlet/deadline.hpp>
#include <ringlet/queue.hpp>
#include <ringlet/sync.hpp>
#include <ringlet/wait.hpp>

namespace ringlet {

namespace detail {
struct offer;
struct offer_links;

// Who waits to send or to receive; guarded by the channel's lock.
struct offer_list {
  offer* first = nullptr;
  offer* last = nullptr;
  std::uint32_t tag = 0;  // as in wait_list
};

// A channel whatever it carries.
class RINGLET_EXPORT channel_core {
 public:
  // `move` constructs the receiver's optional from the sender's item, `empty` empties it.
  using mover = void (*)(void* item, void* slot) noexcept;
  using emptier = void (*)(void* slot) noexcept;
  channel_core(mover move, emptier empty) noexcept : move_(move), empty_(empty) {}
  ~channel_core();
  channel_core(const channel_core&) = delete;
  channel_core& operator=(const channel_core&) = delete;

  // From now on nothing is handed over. Those who wait to send, and all who try to, get shut_down; so do receivers, in a
  // select that case happens and its slot is empty. May be called again.
  void shutdown() noexcept;
  bool is_shut_down() const noexcept;
  // Senders that wait less receivers that wait, at the moment of asking.
  std::ptrdiff_t balance() const noexcept;

  // wait and iwait report a channel when somebody waits to send, or when it is shut down; they take nothing.
  bool add_listener(listener&) noexcept;
  void remove_listener(listener&) noexcept;

 private:
  friend struct offer_links;
  mutable wait_lock lock_;
  bool shut_ = false;
  const mover move_;
  const emptier empty_;
  mutable offer_list senders_, receivers_;
  listener_list listeners_;
};
}  // namespace detail

// One thing that a select may do; made by sending and receiving.
struct select_case {
  detail::channel_core* on;
  bool sends;
  void* item;  // the sender's item, or the receiver's std::optional
};

// Waits until one of the cases can happen and does it. Its index; empty: the deadline passed first (with deadline::passed():
// none could happen at once). A case that receives from a channel that is shut down happens and leaves its slot empty; one
// that sends on it throws shut_down. std::invalid_argument without any case.
RINGLET_EXPORT std::optional<std::size_t> select(std::span<const select_case> cases, deadline until = never);
inline std::optional<std::size_t> select(std::initializer_list<select_case> cases, deadline until = never) {
  return select(std::span<const select_case>(cases.begin(), cases.size()), until);
}

template <class T>
class channel : public detail::channel_core {
  static_assert(std::is_nothrow_move_constructible_v<T>, "an item that may throw when moved could get lost between two fibers");
  static_assert(std::is_nothrow_destructible_v<T>, "an item whose destructor throws cannot be received into a slot");

 public:
  using value_type = T;
  channel() noexcept
      : channel_core([](void* item, void* slot) noexcept {
          static_cast<std::optional<T>*>(slot)->emplace(std::move(*static_cast<T*>(item)));
        }, [](void* slot) noexcept { static_cast<std::optional<T>*>(slot)->reset(); }) {}

  // Waits until somebody has received the item. False: the deadline passed first, and the item was not moved from. Throws
  // shut_down, and again the item is the caller's.
  bool send(T&& item, deadline until = never) { return send_from(item, until); }
  bool send(const T& item, deadline until = never)
    requires std::copy_constructible<T>
  {
    T copy(item);
    return send_from(copy, until);
  }
  bool try_send(T&& item) { return send_from(item, deadline::passed()); }

  // Waits for an item. Empty: the deadline passed first. Throws shut_down.
  std::optional<T> receive(deadline until = never) {
    std::optional<T> received;
    if (receive_into(received, until) && !received) detail::throw_shut_down("receive");
    return received;
  }
  std::optional<T> try_receive() { return receive(deadline::passed()); }

  // for (T& item : channel): receives one after the other until the channel is shut down.
  using iterator = detail::item_iterator<channel>;
  iterator begin() { return iterator(*this); }
  std::default_sentinel_t end() const noexcept { return {}; }

 private:
  friend iterator;
  void take_next(std::optional<T>& slot) { receive_into(slot, never); }
  bool send_from(T& item, deadline until) { return select({{this, true, &item}}, until).has_value(); }
  bool receive_into(std::optional<T>& slot, deadline until) { return select({{this, false, &slot}}, until).has_value(); }
};

// The case that sends this item, which is moved from only if the case happens.
template <class T>
select_case sending(channel<T>& on, std::type_identity_t<T>&& item) noexcept {
  return {&on, true, &item};
}
// The case that receives an item into this slot, which select empties first: a case may be used again.
template <class T>
select_case receiving(channel<T>& from, std::optional<T>& slot) noexcept {
  return {&from, false, &slot};
}

}  // namespace ringlet
