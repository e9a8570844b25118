// Who has kept the others waiting longest, and where: what the report at exit tells.
//
// The watcher sees that no thread has switched for a while; its signal's handler, which runs where the hub's OS thread
// stands (at the end of a system call, if the kernel held it), notes the stack. A delay that goes on is noted again, longer.
// Asked for by the report only: it makes the watcher look into the runtime, too, and so may end the kernel's calls with EINTR.
//
// Who may call: note_delay, the handler; each_delay, any thread when the program ends.

#include <unwind.h>

#include <utility>

#include "threads/state.hpp"

namespace ringlet::threads {

bool notes_delays = false;

namespace {

constexpr int most_delays = 5;
constinit delay delays[most_delays];  // longest first

_Unwind_Reason_Code note_frame(_Unwind_Context* at, void* to) {
  auto& d = *static_cast<delay*>(to);
  if (d.frame_count == std::size(d.frames)) return _URC_END_OF_STACK;
  if (const auto ip = _Unwind_GetIP(at)) d.frames[d.frame_count++] = reinterpret_cast<void*>(ip);
  return _URC_NO_REASON;
}

// The same place: where the program stands, whatever of ours is above.
bool same_place(const delay& a, const delay& b) noexcept {
  if (a.thread != b.thread) return false;
  const std::size_t least = a.frame_count < b.frame_count ? a.frame_count : b.frame_count;
  constexpr std::size_t outer = 6;
  for (std::size_t i = 1; i <= outer && i <= least; ++i)
    if (a.frames[a.frame_count - i] != b.frames[b.frame_count - i]) return false;
  return true;
}

}  // namespace

void note_delay(long long nanoseconds) noexcept {
  delay now;
  now.nanoseconds = nanoseconds;
  if (the_mode.hub->running) {
    const thread_block& who = current();
    now.thread = who.id;
    __builtin_memcpy(now.name, who.name, sizeof now.name);
  }
  if (nanoseconds <= delays[most_delays - 1].nanoseconds) return;
  _Unwind_Backtrace(&note_frame, &now);
  delay* place = &delays[most_delays - 1];
  for (delay& each : delays)
    if (each.nanoseconds > 0 && same_place(each, now)) {
      if (each.nanoseconds >= nanoseconds) return;
      place = &each;
      break;
    }
  *place = now;
  for (; place != delays && place->nanoseconds > place[-1].nanoseconds; --place) std::swap(*place, place[-1]);
}

void each_delay(void (*each)(const delay&, void*), void* with) {
  for (const delay& d : delays)
    if (d.nanoseconds > 0) each(d, with);
}

}  // namespace ringlet::threads
