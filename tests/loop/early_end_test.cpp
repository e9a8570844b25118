// A helper's system call, ended from elsewhere: it and no other, with nothing lost, and nothing left of the means.

#include "loop/early_end.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/sys.hpp"
#include "engines.hpp"
#include "loop/offload.hpp"
#include "support/thread_state.hpp"
#include "support/unused_signal.hpp"

using namespace loop_test;
using place = early_end::place;
using support::unused_signal;
namespace sys = ringlet::sys;

namespace {

// Reads one byte, on a helper.
struct reading : job {
  early_end end;
  int fd;
  std::atomic<int> thread{0};
  long result = 0;
  bool blocks_it_again = false;
  std::atomic<bool> done{false};
  explicit reading(int fd) : fd(fd) {
    run = [](job& base) {
      auto& mine = static_cast<reading&>(base);
      mine.end.arrive();
      mine.thread = int(sys::call(SYS_gettid));
      char c;
      mine.result = sys::call(SYS_read, mine.fd, &c, 1);
      mine.end.leave();
      sigset_t blocked;
      ::pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
      mine.blocks_it_again = ::sigismember(&blocked, SIGURG) == 1;
      mine.done = true;
    };
    REQUIRE(offload(*this) == 0);
  }
  bool ends(std::chrono::milliseconds at_most = 20s) const {
    const auto give_up = real_now() + at_most;
    while (!done && real_now() < give_up) std::this_thread::yield();
    return done;
  }
  bool waits() const {
    const auto give_up = real_now() + 20s;
    while (real_now() < give_up)
      if (thread != 0 && support::state_of(thread) == 'S') return true;
    return false;
  }
};
struct one_pipe {
  support::fd out, in;
  one_pipe() {
    auto p = support::make_pipe();
    out = std::move(p.first);
    in = std::move(p.second);
  }
  void put() const { REQUIRE(::write(in, "x", 1) == 1); }
};
bool is_default(int number) {
  struct sigaction now;
  ::sigaction(number, nullptr, &now);
  return now.sa_handler == SIG_DFL;
}
// As often as can be, so that some come late; but the helper must get its turn between two.
bool ask_until_done(reading& r) {
  const early_end::means means(place::anywhere);
  REQUIRE(means);
  const auto give_up = real_now() + 20s;
  while (!r.done && real_now() < give_up) {
    r.end.ask(place::anywhere);
    std::this_thread::sleep_for(10us);
  }
  return r.done;
}
bool ended_early(reading& r) { return ask_until_done(r) && r.result == -EINTR; }

}  // namespace

TEST_CASE("early end: a call that waits ends with EINTR, and nothing of the means is left") {
  unused_signal none;
  one_pipe p;
  REQUIRE(is_default(SIGURG));
  reading r(p.out);
  CHECK(ended_early(r));
  CHECK(r.blocks_it_again);
  CHECK(is_default(SIGURG));
  CHECK_FALSE(r.end.ask(place::anywhere));
}

TEST_CASE("early end: what is meant for one call never ends the next of the same helper") {
  unused_signal none;
  one_pipe p;
  for (int i = 0; i < 300; ++i) {
    reading ended(p.out);
    REQUIRE(ended_early(ended));
    reading goes_on(p.out);
    const early_end::means of_somebody_elses(place::anywhere);
    REQUIRE(goes_on.waits());
    p.put();
    REQUIRE(goes_on.ends());
    REQUIRE(goes_on.result == 1);
  }
}

TEST_CASE("early end: a call that has something to tell tells it") {
  unused_signal none;
  one_pipe p;
  for (int i = 0; i < 300; ++i) {
    reading r(p.out);
    std::thread writer([&] { p.put(); });
    const bool is_done = ask_until_done(r);
    writer.join();
    REQUIRE(is_done);
    if (r.result == 1) continue;
    CHECK(r.result == -EINTR);
    char c;
    REQUIRE(::read(p.out, &c, 1) == 1);  // not lost
  }
}

TEST_CASE("early end: a program that handles the signal keeps it, and the call comes to its own end") {
  unused_signal none;
  static std::atomic<int> heard{0};
  struct sigaction mine {}, before;
  mine.sa_handler = [](int) { ++heard; };
  ::sigaction(SIGURG, &mine, &before);
  one_pipe p;
  reading r(p.out);
  REQUIRE(r.waits());
  {
    const early_end::means means(place::anywhere);
    CHECK_FALSE(means);
    CHECK_FALSE(r.end.ask(place::anywhere));
  }
  CHECK(r.waits());
  ::raise(SIGURG);
  CHECK(heard == 1);
  p.put();
  CHECK(r.ends());
  CHECK(r.result == 1);
  ::sigaction(SIGURG, &before, nullptr);
}

TEST_CASE("early end: a handler that the program installs meanwhile stays") {
  unused_signal none;
  struct sigaction mine {}, before, now;
  mine.sa_handler = [](int) {};
  {
    const early_end::means means(place::anywhere);
    REQUIRE(means);
    ::sigaction(SIGURG, &mine, &before);
  }
  ::sigaction(SIGURG, nullptr, &now);
  CHECK((now.sa_handler == mine.sa_handler));
  before.sa_handler = SIG_DFL;
  ::sigaction(SIGURG, &before, nullptr);
}

TEST_CASE("early end: a signal that the program ignores is ignored again") {
  unused_signal none;
  ::signal(SIGURG, SIG_IGN);
  one_pipe p;
  reading r(p.out);
  CHECK(ended_early(r));
  CHECK((::signal(SIGURG, SIG_DFL) == SIG_IGN));
}

TEST_CASE("early end: a child that is forked meanwhile has no handler, and ends calls of its own") {
#ifdef __SANITIZE_THREAD__
  RINGLET_SKIP("ThreadSanitizer loses its order of events in the child of a process with threads");
#endif
  unused_signal none;
  const early_end::means means(place::anywhere);
  REQUIRE_FALSE(is_default(SIGURG));
  const pid_t child = ::fork();
  if (child == 0) {
    offload_forget_after_fork();
    if (!is_default(SIGURG)) ::_exit(1);
    one_pipe p;
    reading r(p.out);
    if (!ended_early(r)) ::_exit(2);
    ::_exit(is_default(SIGURG) ? 0 : 3);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("early end: a call that no helper has begun is called off, and is then begun by none") {
  std::thread([] {  // whose mask the calls change
    for (const place where : {place::anywhere, place::signal_handler}) {
      early_end before, after;
      CHECK(before.call_off(where));
      CHECK(before.call_off(where));
      CHECK(!before.arrive());
      CHECK(!before.ask(where));
      CHECK(after.arrive());
      CHECK(!after.call_off(where));
      after.leave();
      CHECK(!after.call_off(where));
    }
  }).join();
}
