#pragma once
// std::future and ringlet, both ways.
//
//   ringlet::future<int> mine = ringlet::from_std(their_library.begin(), helpers);   // fibers may wait for it
//   std::packaged_task<int()> task(compute);                                         // and other threads for this
//   std::future<int> theirs = task.get_future();
//   work.submit(std::move(task));                                                    // an executor, thread_pool, group
//
// A std::future tells nobody when it is ready, so somebody must wait for it: a helper of the pool, which it keeps until then.

#include <future>
#include <utility>

#include <ringlet/future.hpp>
#include <ringlet/thread_pool.hpp>

namespace ringlet {

// The future of the same result. What thread_pool::submit throws; std::future_error (no_state) for one without a state.
template <class R>
future<R> from_std(std::future<R> theirs, thread_pool& helpers) {
  if (!theirs.valid()) throw std::future_error(std::future_errc::no_state);
  return helpers.submit([f = std::move(theirs)]() mutable { return f.get(); });
}

}  // namespace ringlet
