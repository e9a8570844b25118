#pragma once
// A call made by a helper thread while the fiber waits: for what has no operation in the kernel, or none that is cheaper.
//
// Unlike an operation it may be left: whatever the call needs and gives lies on the heap, shared by both sides, and the last one
// frees it. So a deadline or a kill ends the wait at once, and the call comes to its end for nobody.
//
// Always true: a waiter that is linked has not been claimed; who unlinks it, under the lock, ends the wait.

#include <memory>
#include <new>
#include <optional>
#include <type_traits>

#include "base/lock.hpp"
#include "hub/hub.hpp"
#include "loop/offload.hpp"

namespace ringlet::io {

template <class Call>
struct helped_call : loop::job {
  using result_type = std::invoke_result_t<Call&>;
  explicit helped_call(Call c) : call(std::move(c)) {}
  struct asker : detail::waiter {
    helped_call* of = nullptr;
    bool in_line = false;
  };
  Call call;
  std::optional<result_type> result;
  std::shared_ptr<helped_call> self;  // the helper's share
  base::lock lock;
  bool done = false;
  bool left = false;
  asker* who = nullptr;
};

// call() on a helper; it owns all it needs and throws nothing. Its result through `result`, and 0; or -ETIMEDOUT, -ECANCELED or -EINTR, and
// nobody will know what became of it: unwanted(result) gets it, on the helper. Where no helper can be had, the call is made right
// here.
template <class Call, class Unwanted>
int on_helper(const char* what, deadline until, Call call, std::invoke_result_t<Call&>& result, Unwanted,
              detail::signal_effect effect = detail::signal_effect::none) {
  detail::hub_state& h = detail::hub_state::here();
  if (!h.can_park()) {
    result = call();
    return 0;
  }
  if (h.interrupted()) return -ECANCELED;
  using block = helped_call<Call>;
  std::shared_ptr<block> mine;
  try {
    mine = std::make_shared<block>(std::move(call));
  } catch (const std::bad_alloc&) {  // before anything was moved
    result = call();
    return 0;
  }
  mine->self = mine;
  mine->run = [](loop::job& j) {
    auto& b = static_cast<block&>(j);
    const auto keep = std::move(b.self);
    b.result.emplace(b.call());
    bool left;
    {
      base::lock_guard hold(b.lock);
      b.done = true;
      left = b.left;
      if (auto* w = std::exchange(b.who, nullptr)) {
        w->in_line = false;
        detail::hub_state::wake_anywhere(*w);
      }
    }
    if (left) Unwanted()(*b.result);
  };
  if (loop::offload(*mine) != 0) {
    mine->self.reset();
    result = mine->call();
    return 0;
  }
  typename block::asker me;
  me.what = what;
  me.fiber = h.running;
  me.of = mine.get();
  me.signals = h.watch_signals(effect);
  me.withdraw = [](detail::waiter& w) {
    auto& a = static_cast<typename block::asker&>(w);
    base::lock_guard hold(a.of->lock);
    if (!std::exchange(a.in_line, false)) return false;
    a.of->who = nullptr;
    a.of->left = true;
    return true;
  };
  bool waits;
  {
    base::lock_guard hold(mine->lock);
    waits = !mine->done;
    if (waits) {
      mine->who = &me;
      me.in_line = true;
    }
  }
  if (waits) {
    ++h.foreign_work;
    const auto reason = h.wait(me, until);
    --h.foreign_work;
    if (reason == detail::wake_reason::timed_out) return -ETIMEDOUT;
    if (reason == detail::wake_reason::interrupted) return me.signalled ? -EINTR : -ECANCELED;
  }
  result = std::move(*mine->result);
  return 0;
}

template <class Call>
int on_helper(const char* what, deadline until, Call call, std::invoke_result_t<Call&>& result) {
  struct forget {
    void operator()(std::invoke_result_t<Call&>&) const noexcept {}
  };
  return on_helper(what, until, std::move(call), result, forget());
}

}  // namespace ringlet::io
