// Waiting for several things at once: a listener in each, and one list of those that have become ready.
//
// Locks are taken in one order: a thing's own, then the wait's. Who tells holds both, so a thing's listener is told at most
// once, and when the waiter has seen it in the list the teller no longer touches it. A thing that has told may be gone
// before the wait is: it is not asked again.

#include <ringlet/sync.hpp>
#include <ringlet/wait.hpp>

#include <algorithm>
#include <mutex>

#include "hub/hub.hpp"

namespace ringlet {

struct iwait::state {
  struct entry : detail::listener {
    state* owner = nullptr;
    entry* next_ready = nullptr;
    bool is_ready = false;
  };

  state(std::vector<waitable> given, const wait_options& how)
      : things(std::move(given)), entries(things.size()), until(how.until), left(std::min(how.count, things.size())) {
    if (left == 0) return;
    for (; listening < things.size(); ++listening) {
      entry& e = entries[listening];
      e.owner = this;
      e.told = [](detail::listener& l) noexcept {
        entry& ready = static_cast<entry&>(l);
        std::lock_guard hold(ready.owner->queue);
        ready.owner->append(ready);
        ready.owner->queue.wake_one();
      };
      try {
        if (!things[listening].add_listener(e)) {
          std::lock_guard hold(queue);
          append(e);
        }
      } catch (...) {
        leave();
        throw;
      }
    }
  }
  ~state() { leave(); }

  // After fork, in the child: nobody has our listeners any more.
  void listen_again() {
    generation = detail::fork_generation.load(std::memory_order_relaxed);
    for (std::size_t i = 0; i < listening; ++i) {
      entry& e = entries[i];
      if (e.is_ready) continue;
      things[i].remove_listener(e);
      if (things[i].add_listener(e)) continue;
      std::lock_guard hold(queue);
      append(e);
    }
  }

  void append(entry& e) noexcept {
    e.is_ready = true;
    (last_ready ? last_ready->next_ready : first_ready) = &e;
    last_ready = &e;
  }
  void leave() noexcept {
    for (; listening > 0; --listening) {
      entry& e = entries[listening - 1];
      queue.lock();
      const bool has_told = e.is_ready;
      queue.unlock();
      if (!has_told) things[listening - 1].remove_listener(e);
    }
  }

  std::vector<waitable> things;
  std::vector<entry> entries;  // the same places
  std::size_t listening = 0;   // so many of them have been added
  unsigned generation = detail::fork_generation.load(std::memory_order_relaxed);
  detail::wait_queue queue;    // the waiter, and the lock over the list
  entry* first_ready = nullptr;
  entry* last_ready = nullptr;
  const deadline until;
  std::size_t left;
};

iwait::iwait(std::vector<waitable> things, const wait_options& how) : state_(std::make_unique<state>(std::move(things), how)) {}
iwait::~iwait() = default;

std::optional<std::size_t> iwait::next() {
  state& s = *state_;
  if (s.left == 0) return {};
  if (__builtin_expect(s.generation != detail::fork_generation.load(std::memory_order_relaxed), 0)) s.listen_again();
  s.queue.lock();
  while (!s.first_ready) {
    const bool in_time = s.until != deadline::passed();
    if (!in_time) {
      s.queue.unlock();
      return {};
    }
    const bool woken = s.queue.wait(s.until, "wait", nullptr);
    s.queue.lock();
    if (!woken && !s.first_ready) {
      s.queue.unlock();
      return {};
    }
  }
  state::entry& first = *s.first_ready;
  s.first_ready = first.next_ready;
  if (!s.first_ready) s.last_ready = nullptr;
  s.queue.unlock();
  --s.left;
  return std::size_t(&first - s.entries.data());
}

std::vector<std::size_t> wait(std::vector<waitable> things, const wait_options& how) {
  std::vector<std::size_t> result;
  for (std::size_t i : iwait(std::move(things), how)) result.push_back(i);
  return result;
}

}  // namespace ringlet
