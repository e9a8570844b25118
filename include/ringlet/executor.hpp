#pragma once
// executor: a place where functions are run and futures of their results are got, whatever the place is.
//
//   ringlet::executor work(4);                       // four helper threads of its own
//   auto a = work.submit(compress, data);
//   a.on_done([](auto& ended) { send(ended.get()); });  // or get, wait, iwait
//
// The same program may run its work on helper threads (thread_pool), in fibers (pool, on the pool's thread only), or in fibers of
// other hubs (hub_threads). The model is concurrent.futures.

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/future.hpp>
#include <ringlet/hub_threads.hpp>
#include <ringlet/pool.hpp>
#include <ringlet/thread_pool.hpp>

namespace ringlet {

class RINGLET_EXPORT executor {
 public:
  // On at most so many helper threads of its own.
  template <std::integral N>
  explicit executor(N threads) : executor(std::make_unique<thread_pool>(threads)) {}
  // On these, which must outlive it.
  explicit executor(thread_pool& threads);
  explicit executor(group& fibers);
  explicit executor(hub_threads& hubs);
  // shutdown(): waits for all that was submitted.
  ~executor();
  executor(const executor&) = delete;
  executor& operator=(const executor&) = delete;

  // Queues f(args...). std::runtime_error after shutdown.
  template <class F, class... Args>
  auto submit(F&& f, Args&&... args) {
    auto [work, result] = detail::promise_maker::make(std::forward<F>(f), std::forward<Args>(args)...);
    send(std::move(work));
    return std::move(result);
  }

  // f(item) for each item; the results in the order of the items. All are called; then the first error is thrown. Work of this
  // executor that calls it does all of it itself.
  template <class F, class Range>
  auto map(F&& f, Range&& items) {
    using how = detail::mapped<std::remove_reference_t<F>, std::remove_reference_t<Range>>;
    detail::shared_map<typename how::result> all;
    const bool inside = is_inside();
    for (auto&& item : items) {
      auto work = all.add([&f, held = detail::carried<typename how::item>{std::forward<decltype(item)>(item)}](auto& place) mutable {
        place.run(f, held.give());
      });
      if (inside)
        work->run();
      else
        send(std::move(work));
    }
    return all.results("executor::map");
  }

  // Lets no more in, and waits until all that was submitted is done. False: the deadline passed first (it goes on).
  // cancel: what has not begun never will, and who waits for it gets greenlet_exit. std::logic_error in work of this executor.
  bool shutdown(deadline until = never, bool cancel = false);

 private:
  struct impl;
  explicit executor(std::unique_ptr<thread_pool> own);
  void send(std::unique_ptr<detail::errand>);
  bool is_inside() const noexcept;
  std::unique_ptr<thread_pool> own_;  // ends with the executor, not with the last work, which is on its threads
  std::shared_ptr<impl> impl_;
};

}  // namespace ringlet
