#pragma once
// Structured scopes: fibers that do not outlive the block that spawned them.
//
//   {
//     ringlet::fiber_scope scope;
//     auto a = scope.spawn(fetch, "http://localhost/a");
//     auto b = scope.spawn(fetch, "http://localhost/b");
//     scope.join();            // throws the first error; the others have been cancelled then
//     use(a.get(), b.get());
//   }                          // nobody is left here, however the block was left
//
// The first child that fails cancels the others, and its error is thrown in the block: at the wait where the block is, in
// join, or at the block's end. Further errors are reported as those that nobody asked for. A child that ends by
// greenlet_exit has not failed. If the block is left by an exception, the children are cancelled; in any case they have
// ended when the scope has. Their cleanup may take its time: the scope waits for it, and while it does, its own fiber is not
// interrupted.
//
// Only on the fiber that made the scope, but for spawn, adopt, cancel and the questions: those are for the scope's
// children, too.

#include <cstddef>
#include <memory>
#include <stop_token>
#include <type_traits>
#include <utility>

#include <ringlet/export.hpp>
#include <ringlet/fiber.hpp>

namespace ringlet {

class RINGLET_EXPORT fiber_scope {
 public:
  fiber_scope();
  // Is cancelled when a stop is requested of the token, on any thread.
  explicit fiber_scope(std::stop_token outer);
  // Joins if join was not called, and throws what it throws, unless an exception is leaving the block already.
  ~fiber_scope() noexcept(false);
  fiber_scope(const fiber_scope&) = delete;
  fiber_scope& operator=(const fiber_scope&) = delete;

  // As ringlet::spawn. An f that can be called with a std::stop_token before the arguments is given the scope's, as
  // std::jthread has it: for children that compute and seldom wait. In a cancelled scope the child never runs.
  template <detail::not_options F, class... Args>
  auto spawn(F&& f, Args&&... args) {
    return spawn(spawn_options{}, std::forward<F>(f), std::forward<Args>(args)...);
  }
  template <class F, class... Args>
  auto spawn(const spawn_options& how, F&& f, Args&&... args) {
    if constexpr (std::is_invocable_v<std::decay_t<F>&, std::stop_token, std::decay_t<Args>...>) {
      auto child = ringlet::spawn(how, std::forward<F>(f), stop_token(), std::forward<Args>(args)...);
      adopt(child);
      return child;
    } else {
      auto child = ringlet::spawn(how, std::forward<F>(f), std::forward<Args>(args)...);
      adopt(child);
      return child;
    }
  }
  // Makes a fiber that was spawned elsewhere a child.
  void adopt(const any_fiber& child);

  // Waits until all children have ended, also those that are spawned meanwhile; rethrows the first error. If it is
  // interrupted, the children are cancelled, and it throws when they have ended.
  void join();
  // Kills the children and requests a stop of the token. Does not wait.
  void cancel() noexcept;
  bool cancelled() const noexcept;
  std::size_t size() const noexcept;  // children that have not ended
  std::stop_token stop_token() const noexcept;

 private:
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace ringlet
