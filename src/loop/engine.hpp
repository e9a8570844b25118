#pragma once
// The engine: the kernel's side of a hub, in one interface with three implementations that pass the same tests.
//
// A hub needs two things from the kernel: tell me when this fd is ready, and do this operation. Besides, it sleeps here
// (and nowhere else) to the earliest deadline, and other threads wake it here. An engine knows completions and
// readiness and calls a function pointer; what fibers are, it does not know.
//
//   uring      one ring, one enter a turn: readiness by persistent multishot polls, operations as ring operations
//   epoll      where io_uring is refused: readiness by epoll (edge-triggered), operations on helper threads
//   simulated  tests: real fds, seeded order and delays, a clock that jumps
//
// One engine per hub, used on that hub's thread only, except wake(). All results are kernel dialect (-errno).
//
// Always true: a completion that was started is completed exactly once, even if cancelled, and until then its owner
// keeps it and its buffers alive. A readiness that is armed stays where it is until disarm returned.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <sys/types.h>

#include <ringlet/deadline.hpp>

struct iovec;
struct sockaddr;

namespace ringlet::loop {

enum class direction : unsigned { in = 0, out = 1 };

// One fd's readiness as seen by one engine. Edge-triggered: notify is called for each new event (and once at arming if
// there is something already), possibly spuriously, from inside wait() or disarm(), with poll(2) bits for its
// direction (POLLIN POLLPRI POLLRDHUP POLLHUP POLLERR | POLLOUT POLLHUP POLLERR).
struct readiness {
  int fd = -1;
  std::uint8_t armed = 0;    // bit 1 << direction: a poll of it is in the kernel
  std::uint8_t leaving = 0;  // same bits: being removed (engine's own)
  void (*notify)(readiness&, unsigned poll_events) = nullptr;
  readiness* before = nullptr;  // the engine's own
  readiness* after = nullptr;
  bool is_armed(direction d) const { return armed & (1u << unsigned(d)); }
};

struct completion {
  void (*wake)(completion&) = nullptr;  // called once, from inside wait() (or cancel()), after result and done are set
  int result = 0;                       // what the system call would return, or -errno
  bool done = false;
  void* engine_data = nullptr;
  completion* engine_next = nullptr;
  completion* engine_before = nullptr;
};

enum class opcode : std::uint8_t { nop, readv, writev, fsync, fdatasync, openat, accept, connect };

// An operation whose own completion is the point. Everything it points to lives until its completion is done.
struct operation {
  opcode code = opcode::nop;
  int fd = -1;                    // openat: the directory
  const iovec* parts = nullptr;
  unsigned count = 0;
  std::int64_t offset = -1;       // -1: the file's own position
  const char* path = nullptr;
  int flags = 0;
  unsigned mode = 0;
  bool may_block = false;           // even where a poll says ready: never to be tried on this thread
  sockaddr* address = nullptr;      // accept, connect
  unsigned* address_length = nullptr;
};

class engine {
 public:
  // A wait() was ended by a signal handler; set by the engine, cleared by who looks.
  bool signal_seen = false;
  // The signals to be blocked while it sleeps, instead of the thread's; null: the thread's. Looked at anew each time.
  const std::uint64_t* sleep_mask = nullptr;

  virtual ~engine() = default;
  virtual std::string_view name() const = 0;      // "uring", "epoll", "simulated"
  virtual std::string describe() const = 0;       // one line: setup flags, queue sizes; for `ringlet info`

  // Watches one direction until disarm, or until a notify after which it is no longer armed (an overflow: arm again).
  // 0; -EPERM if such a file cannot be waited for (it is always ready); -EBADF, -ENOMEM … The ring learns of an error
  // only later: there such a file notifies once, as ready (POLLNVAL if it is not open), and is not armed any more.
  virtual int arm(readiness&, direction) = 0;
  // Forgets both directions; on return the kernel holds no reference to the file on our behalf and notify will not be
  // called again. Other completions and notifications may be delivered meanwhile.
  virtual void disarm(readiness&) = 0;

  // Where there is no memory for it, its completion may be done with -ENOMEM when this returns, and was woken in here.
  virtual void start(const operation&, completion&) = 0;
  // Asks for an early end; the completion still arrives, with -ECANCELED or the result that was faster.
  virtual void cancel(completion&) = 0;
  // The number of its fd is about to mean another file. On return the operation has a hold on the file it was meant for,
  // or is done; with `end` it has been cancelled and is done. Others may be delivered meanwhile, as by disarm.
  virtual void settle(completion&, bool end) = 0;
  virtual unsigned operations_in_flight() const = 0;
  // accept and connect have no way to be tried without blocking: they are operations only where the kernel itself waits
  // for them (uring); elsewhere io does without.
  virtual bool waits_for_sockets() const { return false; }
  // Its notifications tell POLLPRI only where there is something urgent; else they never tell it.
  virtual bool tells_urgent() const { return true; }

  // One turn: hands over what was queued, waits to the moment (not at all if it has passed: time_point::min()), delivers
  // what happened. May return early with nothing.
  virtual void wait(clock::time_point until) = 0;
  // Something may be waiting to be delivered; cheap (no system call). Lets a busy hub skip a turn's wait(). Where only
  // a system call could tell (epoll), true whenever something is armed.
  virtual bool has_news() const = 0;
  // Ends or prevents the next sleep. Any thread; async-signal-safe.
  virtual void wake() noexcept = 0;

  virtual clock::time_point now() const noexcept = 0;
  // In the child after fork: drops the kernel side without touching what the parent shares; then only destroyed.
  virtual void abandon_after_fork() noexcept = 0;
};

struct engine_choice {
  std::unique_ptr<engine> made;
  std::string reason;  // why this one: "io_uring works", "io_uring_setup: EPERM (seccomp filter …)", "RINGLET_ENGINE=epoll"
};

// By RINGLET_ENGINE (uring, epoll; unset or auto: uring if a ring can really be set up, else epoll with one line on
// stderr, once per process, that names the cause). Throws std::runtime_error with cause and cure if none can be made.
engine_choice make_engine();
std::unique_ptr<engine> make_uring_engine(std::string* why_not);  // null and the reason if it cannot be
std::unique_ptr<engine> make_epoll_engine();
// Seeded: the same seed and the same calls give the same order. Virtual clock from 1 s on; while it lives, clock::now()
// on the thread that made it is that clock.
std::unique_ptr<engine> make_simulated_engine(std::uint64_t seed);

}  // namespace ringlet::loop
