// Nobody is ready: sleeping until something comes, or saying that nothing ever will.
//
// With no timer, no I/O, no helper's answer and no other thread's handle to wait for, only another thread could still wake
// somebody. Whether there is one costs a look into /proc, so first comes a short sleep: between hubs that work for each
// other it hardly ever passes in silence.

#include <fcntl.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/sys.hpp"
#include "hub/hub.hpp"
#include "loop/offload.hpp"

namespace ringlet::detail {

namespace {
constexpr auto silence_before_a_look = std::chrono::milliseconds(5);
constexpr auto longest_silence = std::chrono::seconds(5);

// The kernel lists its io_uring workers among our threads, for seconds after their work is done (PF_IO_WORKER in
// /proc/PID/stat).
bool is_kernel_worker(int tasks_fd, const char* id) {
  char path[32], text[512];
  std::snprintf(path, sizeof path, "%.20s/stat", id);
  const int fd = int(sys::call(SYS_openat, tasks_fd, path, O_RDONLY | O_CLOEXEC, 0));
  if (fd < 0) return false;  // it has ended
  const long got = sys::call(SYS_read, fd, text, sizeof text - 1);
  sys::call(SYS_close, fd);
  if (got <= 0) return false;
  text[got] = 0;
  const char* after_name = std::strrchr(text, ')');
  unsigned flags = 0;
  return after_name && std::sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && (flags & 0x10);
}

// All of the process's, as the kernel counts them; 0 if it does not say.
std::size_t threads_of_process() {
  const int fd = int(sys::call(SYS_openat, AT_FDCWD, "/proc/self/stat", O_RDONLY | O_CLOEXEC, 0));
  if (fd < 0) return 0;
  char text[512];
  const long got = sys::call(SYS_read, fd, text, sizeof text - 1);
  sys::call(SYS_close, fd);
  if (got <= 0) return 0;
  text[got] = 0;
  const char* after_name = std::strrchr(text, ')');
  std::size_t threads = 0;  // the 20th field: the 18th after the name
  constexpr char fields[] = " %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %zu";
  return after_name && std::sscanf(after_name + 1, fields, &threads) == 1 ? threads : 0;
}

std::size_t kernel_workers() {
  const int fd = int(sys::call(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
  if (fd < 0) return 0;
  std::size_t workers = 0;
  alignas(8) char entries[4096];
  long got;
  while ((got = sys::call(SYS_getdents64, fd, entries, sizeof entries)) > 0)
    for (long at = 0; at < got;) {
      unsigned short length;
      std::memcpy(&length, entries + at + 16, sizeof length);
      if (entries[at + 19] != '.' && is_kernel_worker(fd, entries + at + 19)) ++workers;
      at += length;
    }
  sys::call(SYS_close, fd);
  return workers;
}

// Other threads of the process that may yet call us, our own helpers and the kernel's left out. The kernel's number is right,
// its list is not: it ends at a thread that dies while it is read, and lacks those behind. Where threads or helpers come or go
// during the look, somebody is at work.
bool foreign_threads_exist() {
  const std::size_t changes = loop::quiet_helpers_changes(), threads = threads_of_process();
  if (threads == 0) return true;
  const std::size_t known = 1 + loop::quiet_helpers() + silent_threads.load(std::memory_order_relaxed);
  if (threads > known && threads > known + kernel_workers()) return true;
  return threads_of_process() != threads || loop::quiet_helpers_changes() != changes;
}
}  // namespace

void hub_state::wait_for_anything() {
  const bool expected = timers.size() || engine->operations_in_flight() || fd_waits || foreign_work || never_in_deadlock ||
                        handle.load(std::memory_order_relaxed) || deadlock_reported || inbox.load(std::memory_order_relaxed);
  if (expected) return engine->wait(std::min(timers.earliest(), look_again_at));
  if (switches != switches_at_silence) {
    switches_at_silence = switches;
    next_silence = silence_before_a_look;
  } else if (!look_for_deadlock()) {
    return engine->wait(ready_count > 0 ? clock::time_point::min() : clock::time_point::max());
  }
  // A thread that could wake us ends without a word: it is looked for again, ever more seldom. (Simulated time would not wait.)
  const auto silence = std::exchange(next_silence, std::min<clock::duration>(next_silence * 4, longest_silence));
  engine->wait(silence > silence_before_a_look && engine->name() == "simulated" ? clock::time_point::max() : engine->now() + silence);
}

// Nobody is ready; can anybody ever be? If surely not (false), the main fiber is told; where it cannot be told, stderr is.
bool hub_state::look_for_deadlock() {
  if (foreign_threads_exist()) return true;
  // The last of them may have sent us something and ended since we looked.
  if (inbox.load(std::memory_order_acquire)) return true;
  waiter* w = chief->waiting;
  std::string text = "ringlet: deadlock: this operation would block forever. Nothing is left that could wake the main fiber: no "
                     "timer, no I/O, no other thread. Likely cause: everybody waits for an event, lock, queue or fiber that "
                     "nobody is left to set, release, fill or end. The fibers:\n" +
                     describe_all(*this);
  if (w && w->interruptible && (!w->withdraw || w->withdraw(*w))) {
    text.pop_back();
    chief->kill_pending = std::make_exception_ptr(deadlock_error(text));
    wake(*w, wake_reason::interrupted);
  } else {
    deadlock_reported = true;
    std::fputs(text.c_str(), stderr);
  }
  return false;
}

}  // namespace ringlet::detail
