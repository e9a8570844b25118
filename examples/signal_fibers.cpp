// Signals, met by fibers: a handler that may do anything, waiting for one with a deadline, and Ctrl-C that unwinds the program.
//
// The program sends the signals to itself. Prints expected/signal_fibers.txt and exits with 130, as one that Ctrl-C has ended.

#include <cstdio>

#include <signal.h>
#include <unistd.h>

#include <ringlet/ringlet.hpp>
#include <ringlet/signals.hpp>

using namespace std::chrono_literals;

int main() {
  ringlet::interrupt_on_signal ctrl_c;  // SIGINT and SIGTERM
  try {
    ringlet::event reloaded;
    ringlet::signal_handler on_hup({SIGHUP}, [&](const ringlet::signal_info& s) {
      ringlet::sleep(1ms);  // a fiber: it may wait
      std::printf("%s: settings are read again\n", s.name().c_str());
      reloaded.set();
    });
    kill(getpid(), SIGHUP);
    reloaded.wait();

    ringlet::signals wanted({SIGUSR1, SIGUSR2});
    kill(getpid(), SIGUSR2);
    if (auto s = wanted.wait(5s)) std::printf("%s came, from %s\n", s->name().c_str(), s->sender == getpid() ? "ourselves" : "elsewhere");
    std::printf("another one within 10 ms: %s\n", wanted.wait(10ms) ? "yes" : "no");

    struct at_the_end {
      ~at_the_end() { std::puts("cleaned up"); }
    } tidy;
    ringlet::spawn([] { kill(getpid(), SIGINT); });  // somebody presses Ctrl-C
    ringlet::sleep(1h);
  } catch (const ringlet::signal_interrupt& e) {
    std::printf("interrupted by signal %d\n", e.number);
    return 128 + e.number;
  }
}
