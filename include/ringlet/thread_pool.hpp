#pragma once
// thread_pool: work that must block a thread, or compute for long, done on helper threads while the fiber waits.
//
//   ringlet::thread_pool helpers(4);
//   auto digest = helpers.apply(hash_file, path);          // this fiber parks, the others run on
//   auto later = helpers.submit(hash_file, other_path);    // a future
//
// Threads are made when work waits and none is idle, at most `size` of them, and leave when they have been idle for a while.
// On them, libc's calls block as they do anywhere (hooks leave helpers alone); what is waited for by ringlet's own calls waits
// on a hub that the helper gets. Fibers that work leaves behind there run to their end (daemons only while there is other work),
// while another helper takes its place; the pool's join waits for them, its destructor kills them. A running call cannot be killed. Any thread, of any hub or none, may use a pool;
// each pool has its own threads, so its work keeps nobody else's waiting. Semantics: gevent.threadpool.

#include <chrono>
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
#include <ringlet/mapping.hpp>

namespace ringlet {

class RINGLET_EXPORT thread_pool {
 public:
  // At most so many threads; negative: std::invalid_argument. 0: work is kept until the pool is resized.
  template <std::integral N>
  explicit thread_pool(N size, std::chrono::nanoseconds idle_time = std::chrono::seconds(5)) : thread_pool(private_tag{}, checked(size), idle_time) {}
  // Drops what has not begun (its futures give greenlet_exit) and waits for what has.
  ~thread_pool();
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;

  // Queues f(args...): first in, first out. std::runtime_error after close; std::system_error if no thread at all can be made.
  template <class F, class... Args>
  auto submit(F&& f, Args&&... args) {
    auto [work, result] = detail::promise_maker::make(std::forward<F>(f), std::forward<Args>(args)...);
    queue(std::move(work));
    return std::move(result);
  }
  // The same; done(result&) or failed(exception_ptr) runs afterwards in a fiber of the calling thread.
  template <class F, class Done>
  auto apply_async(F&& f, Done done) {
    return apply_async(std::forward<F>(f), std::move(done), nullptr);
  }
  template <class F, class Done, class Failed>
  auto apply_async(F&& f, Done done, Failed failed) {
    auto result = submit(std::forward<F>(f));
    using R = typename decltype(result)::result_type;
    result.on_done([done = std::move(done), failed = std::move(failed)](const future<R>& ended) mutable {
      if (auto error = ended.exception()) {
        if constexpr (!std::is_null_pointer_v<Failed>) std::invoke(failed, std::move(error));
      } else if constexpr (std::is_void_v<R>) {
        std::invoke(done);
      } else {
        std::invoke(done, ended.get());
      }
    });
    return result;
  }

  // f(args...) on a helper; its result or error. Right here, if a helper of this pool calls it. An interrupted caller takes it
  // back if it has not begun, else waits for its end: so it may be given references.
  template <class F, class... Args>
  auto apply(F&& f, Args&&... args) -> std::invoke_result_t<F, Args...> {
    using R = std::invoke_result_t<F, Args...>;
    if (is_inside()) return std::invoke(std::forward<F>(f), std::forward<Args>(args)...);
    detail::outcome<R> place;
    auto call = [&] {
      try {
        place.run(std::forward<F>(f), std::forward<Args>(args)...);
        place.finish(nullptr);
      } catch (...) {
        place.finish(std::current_exception());
      }
    };
    run_and_wait(&call, [](void* c) { (*static_cast<decltype(call)*>(c))(); });
    return place.take();
  }

  // f(item) for each item, on helpers; the results in the order of the items. All are called; then the error of the first that
  // failed is thrown. The items of an lvalue range are not copied; f is shared by the threads.
  template <class F, class Range>
  auto map(F&& f, Range&& items) {
    using how = detail::mapped<std::remove_reference_t<F>, std::remove_reference_t<Range>>;
    using R = typename how::result;
    detail::shared_map<R> all;
    const bool inside = is_inside();
    for (auto&& item : items) {
      auto call = [&f, held = detail::carried<typename how::item>{std::forward<decltype(item)>(item)}](auto& place) mutable {
        place.run(f, held.give());
      };
      auto work = all.add(std::move(call));
      if (inside)
        work->run();
      else
        queue(std::move(work));
    }
    return all.results("thread_pool::map");
  }

  // The most threads from now on. What runs goes on; threads too many leave when they are done.
  template <std::integral N>
  void resize(N size) { set_size(checked(size)); }
  std::size_t size() const noexcept;
  std::size_t threads() const noexcept;     // that exist now
  std::size_t unfinished() const noexcept;  // calls queued or running

  // Waits until nothing is queued or running. False: the deadline passed first.
  bool join(deadline until = never);
  // Lets no more work in.
  void close() noexcept;
  // Drops what has not begun; how many. Who waits for it gets greenlet_exit.
  std::size_t drop_queued() noexcept;

 private:
  struct impl;
  struct private_tag {};
  thread_pool(private_tag, std::size_t size, std::chrono::nanoseconds idle_time);
  template <std::integral N>
  static std::size_t checked(N size) {
    if (std::cmp_less(size, 0)) throw std::invalid_argument("ringlet: a thread pool's size must not be negative (0 keeps work until it is resized)");
    return static_cast<std::size_t>(size);
  }
  void set_size(std::size_t);
  void queue(std::unique_ptr<detail::errand>);
  void run_and_wait(void* call, void (*run)(void*));
  bool is_inside() const noexcept;
  std::shared_ptr<impl> impl_;
};

}  // namespace ringlet
