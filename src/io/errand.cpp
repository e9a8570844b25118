#include "io/errand.hpp"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <iterator>
#include <utility>

#include "base/sys.hpp"
#include "hub/hub.hpp"
#include "sync/address_wait.hpp"

namespace ringlet::io {

using detail::hub_state, detail::signal_effect;
using place = loop::early_end::place;

errand::outcome errand::run_on_helper(const char* what, void (*make)(errand&), signal_effect effect) {
  hub_state& h = hub_state::here();
  const detail::signal_watch signals = h.watch_signals(effect);
  make_ = make;
  may_end_ = effect != signal_effect::none;
  if (may_end_ && h.interrupted()) {
    asked_ = -ECANCELED;
    return outcome::not_begun;
  }
  run = [](loop::job& j) {
    auto& mine = static_cast<errand&>(j);
    mine.made_ = !mine.may_end_ || mine.end_.arrive();
    if (mine.made_) {
      mine.make_(mine);
      if (mine.may_end_) mine.end_.leave();
    }
    const void* address = &mine;
    mine.done_.store(true, std::memory_order_release);
    sync::wake_address(address, 1);  // only the address from here on: the errand may be gone
  };
  if (loop::offload(*this) != 0) return outcome::no_helper;
  ++h.foreign_work;
  const bool is_main = may_end_ && h.running == &h.main_fiber;
  end_in_handler = &end_now;
  if (is_main) h.main_delegated.store(this, std::memory_order_relaxed);
  auto ended = outcome::made;
  while (!done_.load(std::memory_order_acquire)) {
    if (wait(what, never, may_end_, signals)) continue;
    if (is_main) h.main_delegated.store(nullptr, std::memory_order_relaxed);
    asked_ = h.interrupted() ? -ECANCELED : -EINTR;
    if (end_early(what)) ended = outcome::not_begun;
    break;
  }
  if (is_main) h.main_delegated.store(nullptr, std::memory_order_relaxed);
  --h.foreign_work;
  if (made_ || ended == outcome::not_begun) return ended;
  if (asked_ == 0) asked_ = -EINTR;  // by the wrapper, and the helper was quicker than we
  return outcome::not_begun;
}

// False: it was interrupted.
bool errand::wait(const char* what, deadline until, bool interruptible, const detail::signal_watch& signals) {
  return sync::wait_on_address(
             this, until, what, interruptible,
             [](const void* of) { return !static_cast<const errand*>(of)->done_.load(std::memory_order_acquire); }, this,
             signals) != sync::address_result::interrupted;
}

// True: it is still in the crew's queue, and taken out of it. A signal that comes before the call has entered the kernel is
// lost, so it is asked again.
bool errand::end_early(const char* what) {
  if (loop::take_back(*this)) return true;
  end_.call_off(place::anywhere);
  constexpr auto ask_again = std::chrono::milliseconds(1);
  const loop::early_end::means means(place::anywhere);
  while (!done_.load(std::memory_order_acquire)) {
    if (means) end_.ask(place::anywhere);
    wait(what, means ? deadline(ask_again) : never, false, {});
  }
  return false;
}

// Returns when it has ended, for that takes no longer than it takes the helper to run; or at once, if no helper has begun
// it: none will. One that no signal ends just now is left to the fiber.
void errand::end_now(detail::delegated_call& call) noexcept {
  auto& mine = static_cast<errand&>(call);
  if (mine.end_.call_off(place::signal_handler)) return;
  const loop::early_end::means means(place::signal_handler);
  constexpr long shortest = 20'000, longest = 1'000'000, to_end = 100'000'000;
  long pause = shortest;
  for (long spent = 0; means && spent < to_end && !mine.done_.load(std::memory_order_acquire);) {
    mine.end_.ask(place::signal_handler);
    const timespec moment{0, pause};
    sys::call(SYS_nanosleep, &moment, nullptr);
    spent += std::exchange(pause, std::min(pause * 2, longest));
  }
}

long system_call_on_helper(const char* what, signal_effect effect, long number, const long (&words)[6]) noexcept {
  struct system_call : errand {
    long number, words[6], result = 0;
  } call;
  call.number = number;
  std::copy(std::begin(words), std::end(words), call.words);
  const auto make = [](errand& of) {
    auto& mine = static_cast<system_call&>(of);
    const long* w = mine.words;
    mine.result = sys::call(mine.number, w[0], w[1], w[2], w[3], w[4], w[5]);
  };
  switch (call.run_on_helper(what, make, effect)) {
    case errand::outcome::no_helper: make(call); break;
    case errand::outcome::not_begun: return call.asked();
    case errand::outcome::made: break;
  }
  return call.result == -EINTR && call.asked() ? call.asked() : call.result;
}

}  // namespace ringlet::io
