// Message queues and semaphore sets.
//
// A queue of mq_open is a descriptor that can be polled: it is tried without blocking, by a time limit that has passed long
// ago, and who must wait parks until it is ready. Those of System V are no descriptors: a helper thread waits there.

#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>

#include <cstdint>

#include "base/moments.hpp"
#include "base/sys.hpp"
#include "io/doors.hpp"
#include "io/errand.hpp"
#include "io/wait.hpp"

namespace ringlet::io {

using detail::signal_effect;

namespace {

constexpr timespec long_ago{};

// attempt(limit): the call with this limit; null: none.
template <class Attempt>
long pass_message(int queue, direction d, const timespec* limit, const char* what, Attempt attempt) noexcept try {
  // What the kernel would refuse even where it need not wait.
  if (limit && (reinterpret_cast<std::uintptr_t>(limit) < 4096 || !base::is_valid(*limit))) return attempt(limit);
  hub_state& h = hub_state::here();
  if (h.interrupted()) return -ECANCELED;
  const detail::signal_watch signals = h.watch_signals(signal_effect::ends_unless_restarted);
  // A handler that runs just now, any fiber's, ends a call that would have to wait.
  const auto try_now = [&] {
    long result;
    do result = attempt(&long_ago);
    while (result == -EINTR);
    return result;
  };
  long result = try_now();
  if (result != -ETIMEDOUT) {
    keep_fair(h);
    return result;
  }
  fd_watch& w = fd_table::of(h).get(queue);
  const deadline until = limit ? base::moment_of(CLOCK_REALTIME, *limit) : never;
  while (true) {
    w.clear_ready(d);
    const int ended = park_on(w, d, until, what, signals);
    if (ended && ended != -ETIME) return ended;
    result = try_now();
    if (result != -ETIMEDOUT) {
      pass_on(w, d);
      return result;
    }
    if (ended) return result;
  }
} catch (...) {
  return error_of_refusal();
}

bool is_interrupted() noexcept { return hub_state::here().interrupted(); }

// Of a call for which the look said that it must wait. No handler restarts these (signal(7)). What the look has not refused is
// refused now because it has been removed since.
template <class... Words>
long wait_on_helper(const char* what, long number, Words... words) noexcept {
  const long result = call_on_helper(what, signal_effect::ends, number, words...);
  return result == -EINVAL ? -EIDRM : result;
}

}  // namespace

ssize_t mq_timedreceive(int queue, char* buffer, std::size_t size, unsigned* priority, const timespec* until) noexcept {
  return pass_message(queue, direction::in, until, "mq_receive",
                      [=](const timespec* limit) {
                        return sys::call(SYS_mq_timedreceive, queue, buffer, size, priority, limit);
                      });
}
ssize_t mq_receive(int queue, char* buffer, std::size_t size, unsigned* priority) noexcept {
  return mq_timedreceive(queue, buffer, size, priority, nullptr);
}
int mq_timedsend(int queue, const char* data, std::size_t size, unsigned priority, const timespec* until) noexcept {
  return int(pass_message(queue, direction::out, until, "mq_send", [=](const timespec* limit) {
    return sys::call(SYS_mq_timedsend, queue, data, size, priority, limit);
  }));
}
int mq_send(int queue, const char* data, std::size_t size, unsigned priority) noexcept {
  return mq_timedsend(queue, data, size, priority, nullptr);
}

ssize_t msgrcv(int queue, void* message, std::size_t size, long kind, int flags) noexcept {
  if (is_interrupted()) return -ECANCELED;
  constexpr int copies = 040000;  // MSG_COPY, which the kernel refuses where it might have to wait
  const long at_once = sys::call(SYS_msgrcv, queue, message, size, kind, flags & copies ? flags : flags | IPC_NOWAIT);
  if (at_once != -ENOMSG || (flags & (IPC_NOWAIT | copies))) return at_once;
  return wait_on_helper("msgrcv", SYS_msgrcv, queue, message, size, kind, flags);
}
int msgsnd(int queue, const void* message, std::size_t size, int flags) noexcept {
  if (is_interrupted()) return -ECANCELED;
  const long at_once = sys::call(SYS_msgsnd, queue, message, size, flags | IPC_NOWAIT);
  if (at_once != -EAGAIN || (flags & IPC_NOWAIT)) return int(at_once);
  return int(wait_on_helper("msgsnd", SYS_msgsnd, queue, message, size, flags));
}

int semtimedop(int set, sembuf* steps, std::size_t count, const timespec* timeout) noexcept {
  if (is_interrupted()) return -ECANCELED;
  if (timeout && (reinterpret_cast<std::uintptr_t>(timeout) < 4096 || !base::is_valid(*timeout)))
    return int(sys::call(SYS_semtimedop, set, steps, count, timeout));
  const timespec at_once{};
  long result;
  do result = sys::call(SYS_semtimedop, set, steps, count, &at_once);
  while (result == -EINTR);
  if (result != -EAGAIN) return int(result);
  return int(wait_on_helper("semop", SYS_semtimedop, set, steps, count, timeout));
}
int semop(int set, sembuf* steps, std::size_t count) noexcept { return io::semtimedop(set, steps, count, nullptr); }

}  // namespace ringlet::io
