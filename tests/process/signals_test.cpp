// Signals in fibers: who gets them, for how long, and how Ctrl-C ends a program.

#include "ringlet/signals.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <ringlet/io.hpp>
#include <ringlet/subprocess.hpp>

#include "hub/on_hub.hpp"
#include "io/io_support.hpp"

using namespace hub_test;
using io_test::turn_until;

namespace {
void* action_of(int number) {
  struct sigaction now;
  ::sigaction(number, nullptr, &now);
  return reinterpret_cast<void*>(now.sa_handler);
}
void send(int number) { ::kill(::getpid(), number); }
}  // namespace

TEST_CASE("signals: one that comes while nobody waits is kept, with who sent it") {
  void* const before = action_of(SIGUSR1);
  {
    signals wanted({SIGUSR1, SIGUSR2});
    CHECK(wanted.wait(deadline::passed()) == std::nullopt);
    send(SIGUSR2);
    send(SIGUSR1);
    const auto first = wanted.wait(10s), second = wanted.wait(10s);
    REQUIRE(first);
    REQUIRE(second);
    CHECK(first->number == SIGUSR2);
    CHECK(first->name() == "SIGUSR2");
    CHECK(first->sender == ::getpid());
    CHECK(first->user == ::getuid());
    CHECK(second->number == SIGUSR1);
    CHECK(wanted.wait(1ms) == std::nullopt);
  }
  CHECK(action_of(SIGUSR1) == before);
}

TEST_CASE("signals: a fiber waits for one while others run, whichever thread it comes to") {
  signals wanted({SIGUSR1});
  auto waiting = spawn([&] { return wanted.wait(20s)->number; });
  int turns = 0;
  auto other = spawn([&] {
    for (; turns < 5; ++turns) yield();
    send(SIGUSR1);
  });
  CHECK(waiting.get() == SIGUSR1);
  CHECK(turns == 5);
  other.join();
  std::thread([] { ::pthread_kill(::pthread_self(), SIGUSR1); }).join();
  CHECK(wanted.wait(20s)->number == SIGUSR1);
  // From the signal's point of view the hub sleeps.
  subprocess sender(shell("sleep 0.02; kill -USR1 " + std::to_string(::getpid())));
  const auto found = wanted.wait(20s);
  REQUIRE(found);
  CHECK(found->sender == sender.pid());
}

TEST_CASE("signals: each listener gets each, of any hub; values come along") {
  signals a({SIGRTMIN + 3}), b({SIGRTMIN + 3, SIGUSR1});
  auto elsewhere = hub_threads(1);
  auto third = elsewhere.spawn([] {
    signals c({SIGRTMIN + 3});
    ::sigqueue(::getpid(), SIGRTMIN + 3, sigval{.sival_int = 77});
    return c.wait(20s)->value;
  });
  CHECK(third.get() == 77);
  CHECK(a.wait(20s)->value == 77);
  const auto of_b = b.wait(20s);
  CHECK(of_b->value == 77);
  CHECK(of_b->name() == "SIGRTMIN+3");
  CHECK(of_b->code == SI_QUEUE);
}

TEST_CASE("signals: a flood leaves at least one of each number") {
  signals wanted({SIGRTMIN + 1, SIGUSR1, SIGUSR2});
  send(SIGUSR1);
  for (int i = 0; i < 1000; ++i) ::sigqueue(::getpid(), SIGRTMIN + 1, sigval{.sival_int = i});
  std::vector<int> counts(65);
  while (auto s = wanted.wait(1ms)) ++counts[std::size_t(s->number)];
  CHECK(counts[SIGUSR1] == 1);
  CHECK(counts[std::size_t(SIGRTMIN + 1)] >= 1);
  CHECK(counts[SIGUSR2] == 0);
  send(SIGUSR2);
  CHECK(wanted.wait(20s)->number == SIGUSR2);
}

TEST_CASE("signals: one that comes while a listener is made is not told again after a flood") {
  NOT_UNDER_TSAN;
  signals keeps({SIGRTMAX, SIGUSR2});  // so that the signal has a handler before the other listens
  std::vector<int> many{SIGUSR2};
  for (int number = SIGRTMIN; number <= SIGRTMAX; ++number) many.push_back(number);
  for (int round = 0; round < 300; ++round) {
    std::atomic<bool> begun{false}, made{false};
    const pthread_t here = ::pthread_self();
    std::thread sender([&] {
      for (int i = 0; i < 100 && !made; ++i) {
        ::pthread_kill(here, SIGRTMAX);
        begun = true;
      }
    });
    while (!begun) {
    }
    signals wanted(many);
    made = true;
    sender.join();
    while (wanted.wait(deadline::passed())) {
    }
    for (int i = 0; i < 300; ++i) send(SIGUSR2);
    std::vector<int> told;
    while (auto s = wanted.wait(deadline::passed())) told.push_back(s->number);
    CHECK(told == std::vector<int>{SIGUSR2});
  }
}

TEST_CASE("signals: what cannot be listened for is refused") {
  for (int number : {SIGKILL, SIGSTOP, SIGSEGV, 0, -1, 65, 1000}) CHECK_THROWS_AS(signals({number}), std::invalid_argument);
  CHECK_THROWS_AS(signals({}), std::invalid_argument);
}

TEST_CASE("signal_handler: runs in a fiber each time, may wait and throw, and stays until its object goes") {
  ::signal(SIGUSR1, SIG_IGN);
  std::vector<int> seen;
  std::string told;
  hub::set_error_handler([&](const hub::failure& f) { told += f.fiber + ";"; });
  {
    signal_handler h({SIGUSR1}, [&](const signal_info& s) {
      sleep(1ms);
      seen.push_back(s.number);
      if (seen.size() == 2) throw std::runtime_error("the second");
    });
    for (std::size_t i = 1; i <= 3; ++i) {
      send(SIGUSR1);
      CHECK(turn_until([&] {
        sleep(1ms);
        return seen.size() == i;
      }));
    }
  }
  hub::set_error_handler({});
  CHECK(told == "SIGUSR1;");
  send(SIGUSR1);  // ignored again
  sleep(2ms);
  CHECK(seen.size() == 3);
  ::signal(SIGUSR1, SIG_DFL);
}

TEST_CASE("signal_handler: who waits for what only it can do is no deadlock") {
  event stop;
  signal_handler h({SIGUSR2}, [&](const signal_info&) { stop.set(); });
  subprocess sender(shell("sleep 0.05; kill -USR2 " + std::to_string(::getpid())));
  CHECK(stop.wait(20s));
}

TEST_CASE("signal_handler: its function is not called after its end, also for a signal that came before") {
  int called = 0;
  {
    signal_handler h({SIGUSR1}, [&](const signal_info&) { ++called; });
    send(SIGUSR1);
  }
  for (int i = 0; i < 100; ++i) yield();
  CHECK(called == 0);
  // Nor where its fiber was on its way.
  std::optional<signal_handler> h(std::in_place, std::vector<int>{SIGUSR1}, [&](const signal_info&) { ++called; });
  signals also({SIGUSR1});
  yield();
  send(SIGUSR1);
  CHECK(also.wait(20s));
  h.reset();
  for (int i = 0; i < 100; ++i) yield();
  CHECK(called <= 1);
}

TEST_CASE("signal_handler: a program's own handler is put aside and comes back") {
  static int called;
  called = 0;
  ::signal(SIGCHLD, [](int) { ++called; });
  {
    int ended = 0;
    signal_handler h({SIGCHLD}, [&](const signal_info& s) { ended = s.sender; });
    subprocess p({"true"});
    p.wait();
    CHECK(turn_until([&] { return ended == p.pid(); }));
  }
  CHECK(called == 0);
  run({"true"});
  CHECK(called == 1);
  ::signal(SIGCHLD, SIG_DFL);
}

TEST_CASE("interrupt_on_signal: throws in its fiber where it waits, whatever it waits for") {
  event never_set;
  mutex held;
  auto holder = spawn([&] {
    held.lock();
    sleep(never);
  });
  auto ends = io_test::pipe_pair();
  char byte;
  const std::function<void()> waits[] = {
      [] { sleep(never); },
      [&] { never_set.wait(); },
      [&] { held.lock(); },
      [&] { holder.join(); },
      [&] { run({"sleep", "1000"}); },
      [&] {
        CHECK(io::read(ends.a, &byte, 1) == -ECANCELED);
        yield();
      },
  };
  for (const auto& wait : waits) {
    interrupt_on_signal ctrl_c({SIGUSR1});
    auto sender = spawn([] {
      sleep(1ms);
      send(SIGUSR1);
    });
    try {
      wait();
      FAIL_CHECK("it came back");
    } catch (const signal_interrupt& e) {
      CHECK(e.number == SIGUSR1);
    }
    sender.join();
    CHECK(action_of(SIGUSR1) == nullptr);  // the second would be the end
  }
  holder.kill();
}

TEST_CASE("interrupt_on_signal: what came too late to be thrown within it does what it did before") {
  static int called;
  called = 0;
  ::signal(SIGUSR1, [](int) { ++called; });
  {
    interrupt_on_signal ctrl_c({SIGUSR1});
    yield();
    send(SIGUSR1);
    CHECK(called == 0);
  }
  CHECK(called == 1);
  for (int i = 0; i < 100; ++i) yield();
  // Its fiber was told, but could not be thrown at.
  {
    interrupt_on_signal ctrl_c({SIGUSR1});
    const kill_shield meanwhile;
    void* const during = action_of(SIGUSR1);
    send(SIGUSR1);
    CHECK(turn_until([&] { return action_of(SIGUSR1) != during; }));
    CHECK(called == 1);
  }
  CHECK(called == 2);
  for (int i = 0; i < 100; ++i) yield();
  {  // the shield is outside
    const kill_shield meanwhile;
    interrupt_on_signal ctrl_c({SIGUSR1});
    void* const during = action_of(SIGUSR1);
    send(SIGUSR1);
    CHECK(turn_until([&] { return action_of(SIGUSR1) != during; }));
  }
  CHECK(called == 3);
  for (int i = 0; i < 100; ++i) yield();
  // Another one who listens has had it.
  signals also({SIGUSR1});
  {
    interrupt_on_signal ctrl_c({SIGUSR1});
    send(SIGUSR1);
  }
  CHECK(also.wait(20s));
  for (int i = 0; i < 100; ++i) yield();
  CHECK(also.wait(deadline::passed()) == std::nullopt);
  CHECK(called == 3);
  ::signal(SIGUSR1, SIG_DFL);
}

TEST_CASE("interrupt_on_signal: Ctrl-C unwinds a program; the second one ends it") {
  NOT_UNDER_TSAN;
  for (const bool stubborn : {false, true}) {
    CAPTURE(stubborn);
    auto ends = support::make_pipe();
    const pid_t child = ::fork();
    if (child == 0) {
      int status = 1;
      try {
        interrupt_on_signal ctrl_c;
        struct at_end {
          int fd;
          bool stubborn;
          ~at_end() {
            io::write(fd, "unwinding\n", 10);
            if (stubborn) sleep(1h);
          }
        } mark{ends.second, stubborn};
        io::write(ends.second, "ready\n", 6);
        sleep(1h);
      } catch (const signal_interrupt& e) {
        status = 128 + e.number;
      }
      ::_exit(status);
    }
    ends.second.reset();
    auto from_child = file::adopt(ends.first.release());  // closed as what fibers have waited on is
    CHECK(from_child.read_line(20s) == "ready");
    ::kill(child, SIGINT);
    CHECK(from_child.read_line(20s) == "unwinding");
    if (stubborn) ::kill(child, SIGINT);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    if (stubborn)
      CHECK(WTERMSIG(status) == SIGINT);
    else
      CHECK(WEXITSTATUS(status) == 128 + SIGINT);
  }
}

TEST_CASE("signals: a forked child begins with the actions of before, and may listen anew") {
  NOT_UNDER_TSAN;
  signals wanted({SIGUSR1});
  signal_handler h({SIGUSR2}, [](const signal_info&) {});
  const pid_t child = ::fork();
  if (child == 0) {
    int failed = 0;
    if (action_of(SIGUSR1) != nullptr || action_of(SIGUSR2) != nullptr) failed = 1;
    if (wanted.wait(deadline::passed())) failed = 2;  // listens from here on
    send(SIGUSR1);
    const auto found = wanted.wait(10s);
    if (!found || found->number != SIGUSR1) failed = 3;
    if (failed) ::_exit(failed);
    send(SIGUSR2);
    ::_exit(4);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGUSR2);
  CHECK(wanted.wait(deadline::passed()) == std::nullopt);
}
