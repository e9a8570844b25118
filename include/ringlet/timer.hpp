#pragma once
// A function to be called later, unless it is cancelled before. The model is Python's threading.Timer.
//
//   ringlet::timer reminder(5s, [] { remind(); });
//   if (!reminder.cancel()) reminder.join();   // too late to cancel: it runs, or has run

#include <functional>
#include <memory>
#include <string>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/wait.hpp>

namespace ringlet {

// Copies refer to the same timer; dropping the last one lets it go on. A default-made one refers to none, and has finished.
// All members may be called from any thread.
class RINGLET_EXPORT timer {
 public:
  timer() noexcept = default;
  // Calls f in a fiber of this thread's hub when the moment has come. What f throws is reported as any fiber's error.
  timer(deadline when, std::function<void()> f);

  // True: f has not been called and will not be (asked again: still true). False: it has begun.
  bool cancel() noexcept;
  // Waits until f has returned or the timer was cancelled: true; false when the deadline passed first. std::logic_error in f.
  bool join(deadline until = never) const;
  bool finished() const noexcept;
  bool cancelled() const noexcept;
  // For wait and iwait: ready when finished.
  bool add_listener(detail::listener&) noexcept;
  void remove_listener(detail::listener&) noexcept;

 private:
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace ringlet
