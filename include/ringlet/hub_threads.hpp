#pragma once
// hub_threads: several hubs, each on a thread of its own, so that fibers use all processors.
//
//   ringlet::hub_threads hubs;                                  // one for each processor we may use
//   auto sum = hubs.spawn([] { return add_up(); });             // a fiber of the hub with the least to do
//   auto there = hubs.spawn_on(2, [] { return count(); });      // of a chosen one
//   use(sum.get() + there.get());                               // the results come back to the caller's hub
//
// A fiber stays on the hub where it was spawned; what it spawns with ringlet::spawn stays there, too. Between hubs go futures,
// queues, events and all else of sync.hpp. A server spreads its connections by SO_REUSEPORT (spawn_on_each, a listening
// socket each) or by handing accepted sockets on (spawn): examples/hub_server.cpp. All members may be called on any
// thread but where it says otherwise.

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/future.hpp>
#include <ringlet/hub.hpp>

namespace ringlet {

// Processors that this process may run on (sched_getaffinity(2)), or as many as the quota of its control groups allows, rounded up,
// if that is less; at least 1.
RINGLET_EXPORT std::size_t usable_processors() noexcept;

struct hub_threads_options {
  std::function<void(std::size_t index)> at_start = {};  // on each hub's main fiber, before anything else there
  // Of errors that nobody asks for; on the hub in question, as hub::set_error_handler has it.
  std::function<void(std::size_t index, const hub::failure&)> on_error = {};
};

class RINGLET_EXPORT hub_threads {
 public:
  // One for each usable processor.
  hub_threads() : hub_threads(usable_processors()) {}
  // So many (at least 1). Returns when all run. std::runtime_error if a hub cannot be made, with the reason;
  // std::system_error if a thread cannot; what at_start throws.
  template <std::integral N>
  explicit hub_threads(N count, hub_threads_options how = {}) : hub_threads(private_tag{}, checked(count), std::move(how)) {}
  // shutdown(), however long it takes.
  ~hub_threads();
  hub_threads(const hub_threads&) = delete;
  hub_threads& operator=(const hub_threads&) = delete;

  std::size_t size() const noexcept;
  // A hub as others may hold it, to post to.
  hub::handle hub(std::size_t index) const;
  // Unfinished fibers there that came by spawn or spawn_on (those that they spawned themselves are not counted).
  std::size_t load(std::size_t index) const;
  // The index of the calling thread's hub, or size() if it is none of these.
  std::size_t here() const noexcept;

  // f(args...) as a fiber of that hub; arguments are copied or moved. std::out_of_range; std::runtime_error after shutdown.
  template <class F, class... Args>
  auto spawn_on(std::size_t index, F&& f, Args&&... args) {
    auto [work, result] = detail::promise_maker::make(std::forward<F>(f), std::forward<Args>(args)...);
    send(index, std::move(work));
    return std::move(result);
  }
  // The same on the hub with the smallest load, in turns if several have it.
  template <class F, class... Args>
  auto spawn(F&& f, Args&&... args) {
    return spawn_on(least_loaded(), std::forward<F>(f), std::forward<Args>(args)...);
  }
  // f(index) on each hub, from a copy of f each; the futures by index.
  template <class F>
  auto spawn_on_each(const F& f) {
    std::vector<decltype(spawn_on(0, f, std::size_t()))> all;
    for (std::size_t i = 0; i < size(); ++i) all.push_back(spawn_on(i, f, i));
    return all;
  }
  std::size_t least_loaded() const noexcept;

  // Waits until no hub has a fiber left (one after the other, so others should not go on spawning meanwhile). False: the
  // deadline passed first. std::logic_error on a fiber of one of these hubs: it would wait for itself.
  bool join(deadline until = never);
  // Lets no more in, kills all fibers of all hubs, waits for their end, the hubs' and the threads', whose thread_locals are
  // gone then. False: the deadline passed first; they go on ending. May be called again. std::logic_error on one of these hubs.
  bool shutdown(deadline until = never);

 private:
  struct impl;
  struct private_tag {};
  hub_threads(private_tag, std::size_t count, hub_threads_options);
  template <std::integral N>
  static std::size_t checked(N count) {
    if (std::cmp_less(count, 1)) throw std::invalid_argument("ringlet: hub_threads of fewer than one hub");
    return static_cast<std::size_t>(count);
  }
  void send(std::size_t index, std::unique_ptr<detail::errand>);
  std::shared_ptr<impl> impl_;
};

}  // namespace ringlet
