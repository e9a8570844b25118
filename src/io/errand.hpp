#pragma once
// A call made by a helper thread while the fiber that wants it is parked: for what has no operation in the kernel.
//
// It uses the caller's own memory, so its end is waited for, whatever happens. But it may be asked to end early: by a signal
// handler that ends such a call of a thread, and by a kill or a timeout. Then the kernel ends it with EINTR, unless it has
// something to tell: what has been read, or locked, is never lost. One that no helper has begun is not made at all.

#include <atomic>

#include <ringlet/deadline.hpp>

#include "base/shown.hpp"
#include "base/sys.hpp"
#include "hub/waiter.hpp"
#include "loop/early_end.hpp"
#include "loop/offload.hpp"

namespace ringlet::io {

class RINGLET_SHOWN errand : public loop::job, detail::delegated_call {
 public:
  enum class outcome { made, not_begun, no_helper };

  // make(*this) on a helper; it throws nothing. With an effect, it is a system call that may be ended. Only where a fiber
  // may park.
  outcome run_on_helper(const char* what, void (*make)(errand&), detail::signal_effect effect);
  // Why it was asked to end, which is what a call that ended with EINTR answers: -EINTR or -ECANCELED; 0: it was not.
  int asked() const noexcept { return asked_; }

 private:
  bool end_early(const char* what);
  static void end_now(detail::delegated_call&) noexcept;
  bool wait(const char* what, deadline until, bool interruptible, const detail::signal_watch& signals);

  void (*make_)(errand&) = nullptr;
  bool may_end_ = false;
  bool made_ = true;  // by the helper, until done_: it was not called off
  int asked_ = 0;
  std::atomic<bool> done_{false};
  loop::early_end end_;
};

RINGLET_SHOWN long system_call_on_helper(const char* what, detail::signal_effect effect, long number,
                                         const long (&words)[6]) noexcept;

// The system call, made so. Where no helper can be had, it is made right here, and blocks the thread.
template <class... Words>
long call_on_helper(const char* what, detail::signal_effect effect, long number, Words... words) noexcept {
  return system_call_on_helper(what, effect, number, {sys::detail::word(words)...});
}

}  // namespace ringlet::io
