#pragma once
// Signals, met by fibers: no code of yours runs inside a signal, so it may do what any fiber may.
//
//   ringlet::signal_handler reload({SIGHUP}, [&](const ringlet::signal_info&) { read_settings(); });   // in a fiber, each time
//
//   ringlet::signals wanted({SIGTERM, SIGUSR1});
//   if (auto s = wanted.wait(5s)) log(s->name());
//
//   int main() {
//     ringlet::interrupt_on_signal ctrl_c({SIGINT, SIGTERM});
//     try { serve(); } catch (const ringlet::signal_interrupt& e) { return 128 + e.number; }  // everything is unwound by now
//   }
//
// While somebody listens for a signal, the process has a handler of ringlet's for it (SA_RESTART); when the last one has gone, the
// action of before comes back. Each listener gets each signal, whichever thread the kernel has given it to; if a flood of more than
// 256 comes before it looks, at least one of each number. A program started by subprocess, and a forked child, begin with the
// action of before. Not for SIGKILL, SIGSTOP and the signals of faults: std::invalid_argument.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <csignal>
#include <sys/types.h>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>

namespace ringlet {

struct RINGLET_EXPORT signal_info {
  int number = 0;
  int code = 0;     // si_code: SI_USER, SI_QUEUE, SI_KERNEL, CLD_EXITED …
  pid_t sender = 0; // 0: unknown
  uid_t user = 0;
  int value = 0;    // of sigqueue(3)
  std::string name() const;  // "SIGTERM"
};

// Listens from its making on. One fiber waits at a time; usable on any thread.
class RINGLET_EXPORT signals {
 public:
  explicit signals(std::vector<int> numbers);
  ~signals();
  signals(const signals&) = delete;
  signals& operator=(const signals&) = delete;
  // The next one, in the order they came; nothing: the deadline passed first.
  std::optional<signal_info> wait(deadline until = never);

 private:
  friend class signal_handler;
  friend class interrupt_on_signal;
  struct impl;
  std::shared_ptr<impl> impl_;
};

// Calls f in a fiber of the thread that made it, a new one each time; as long as the object lives (a call that has begun goes on).
class RINGLET_EXPORT signal_handler {
 public:
  signal_handler(std::vector<int> numbers, std::function<void(const signal_info&)> f);
  ~signal_handler();
  signal_handler(const signal_handler&) = delete;
  signal_handler& operator=(const signal_handler&) = delete;

 private:
  std::shared_ptr<signals::impl> impl_;
};

// What interrupt_on_signal throws. Not a std::exception (see greenlet_exit).
struct signal_interrupt {
  int number = 0;
  const char* what() const noexcept { return "ringlet::signal_interrupt"; }
};

// The first of these signals is thrown as signal_interrupt in the fiber that made this object (main, as a rule), where it waits or
// will wait next; hooked C calls end with ECANCELED until then. One that finds no such wait before this object's end (which is in
// that fiber) is raised again then. After that one, and after this object, the signals do what they
// did before: a second Ctrl-C ends a program that does not come to its end. A main fiber that nothing else could wake is told of its
// deadlock all the same; who waits for signals, or has a signal_handler, is not.
class RINGLET_EXPORT interrupt_on_signal {
 public:
  explicit interrupt_on_signal(std::vector<int> numbers = {SIGINT, SIGTERM});
  ~interrupt_on_signal();
  interrupt_on_signal(const interrupt_on_signal&) = delete;
  interrupt_on_signal& operator=(const interrupt_on_signal&) = delete;

 private:
  std::shared_ptr<signals::impl> impl_;
};

}  // namespace ringlet
