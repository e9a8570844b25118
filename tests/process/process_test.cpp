// process: a function in a child; its life as its parent sees it, and what a child has and has not.

#include <atomic>
#include <fcntl.h>
#include <netdb.h>
#include <sys/prctl.h>
#include <thread>

#include <ringlet/io.hpp>
#include <ringlet/ipc/pipe.hpp>

#include "on_processes.hpp"

using namespace process_test;

namespace {
int exit_of(process& p) {
  CHECK(p.join(20s));
  return p.exit_code().value_or(-1000);
}
bool is_gone(int pid) { return ::kill(pid, 0) != 0 && errno == ESRCH; }
}  // namespace

PROCESS_CASE("process: a function's int is the exit status; other results are dropped") {
  process seven([] { return 7; }), text([] { return std::string("x"); }), nothing([] {});
  for (process* p : {&seven, &text, &nothing}) p->start();
  CHECK(exit_of(seven) == 7);
  CHECK(exit_of(text) == 0);
  CHECK(exit_of(nothing) == 0);
}

PROCESS_CASE("process: arguments are copied or moved into it") {
  auto sum = std::make_unique<int>(3);
  process p([](int a, const std::string& b, std::unique_ptr<int> c) { return a + int(b.size()) + *c; }, 1, "four", std::move(sum));
  p.start();
  CHECK(exit_of(p) == 8);
}

PROCESS_CASE("process: a class that derives from it runs its run") {
  struct adder : process {
    int a, b;
    adder(int x, int y) : process({.name = "adder"}), a(x), b(y) {}
    int run() override { return a + b; }
  } p(20, 22);
  CHECK(p.name() == "adder");
  p.start();
  CHECK(exit_of(p) == 42);
}

PROCESS_CASE("process: its globals are its own") {
  static int global;
  global = 1;
  process p([] {
    global = 2;
    return global;
  });
  p.start();
  CHECK(exit_of(p) == 2);
  CHECK(global == 1);
}

PROCESS_CASE("process: knows its parent, its number and its name") {
  const int parent = ::getpid();
  process p({.name = "known"}, [parent] {
    const process_info self = current_process();
    char shown[16] = {};
    ::prctl(PR_GET_NAME, shown);
    return ::getppid() == parent && self.pid == ::getpid() && self.name == "known" && std::string(shown) == "known" ? 0 : 1;
  });
  CHECK(p.pid() == 0);
  p.start();
  CHECK(p.pid() > 0);
  CHECK(exit_of(p) == 0);
  CHECK(current_process().name == "main");
  CHECK(process([] {}).name() != process([] {}).name());
}

PROCESS_CASE("process: an exception that nobody catches is told, and the status is 1; process_exit sets it; a killed flow is 0") {
  captured_stderr said;
  process fails({.name = "unlucky"}, [] { throw std::runtime_error("no luck"); });
  process leaves([] { throw process_exit{3}; });
  process dies([] { throw greenlet_exit{}; });
  for (process* p : {&fails, &leaves, &dies}) p->start();
  CHECK(exit_of(fails) == 1);
  CHECK(exit_of(leaves) == 3);
  CHECK(exit_of(dies) == 0);
  const std::string text = said.end();
  CHECK(contains(text, "unlucky"));
  CHECK(contains(text, "no luck"));
}

PROCESS_CASE("process: exit_code is empty while it lives, -15 after terminate, -9 after kill") {
  process a([] { sleep(1h); }), b([] { sleep(1h); });
  CHECK_FALSE(a.is_alive());
  CHECK_FALSE(a.exit_code());
  a.start();
  b.start();
  CHECK(a.is_alive());
  CHECK_FALSE(a.exit_code());
  CHECK(a.terminate());
  CHECK(b.kill());
  CHECK(exit_of(a) == -SIGTERM);
  CHECK(exit_of(b) == -SIGKILL);
  CHECK_FALSE(a.is_alive());
  CHECK_FALSE(a.terminate());
}

PROCESS_CASE("process: join gives up at its deadline, and parks the fiber only") {
  process p([] { sleep(1h); });
  p.start();
  int turns = 0;
  auto other = spawn([&] {
    for (; turns < 5; ++turns) sleep(1ms);
  });
  CHECK_FALSE(p.join(deadline::passed()));
  for (int times = 0; times < 1000 && turns < 5; ++times) CHECK_FALSE(p.join(20ms));
  CHECK(turns == 5);
  auto waits = spawn([&] { p.join(); });
  sleep(1ms);
  CHECK(waits.kill());  // who is killed in it leaves the process alone
  CHECK(p.is_alive());
  p.kill();
  CHECK(exit_of(p) == -SIGKILL);
}

PROCESS_CASE("process: many may join, from fibers and from threads") {
  process p([] { sleep(20ms); return 5; });
  p.start();
  std::atomic<int> seen{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      if (p.join(20s) && p.exit_code() == 5) ++seen;
    });
  std::vector<any_fiber> fibers;
  for (int i = 0; i < 3; ++i)
    fibers.push_back(spawn([&] {
      if (p.join(20s) && p.exit_code() == 5) ++seen;
    }));
  joinall(fibers);
  for (auto& t : threads) t.join();
  CHECK(seen == 6);
}

PROCESS_CASE("process: what makes no sense is an error that says so") {
  process p([] {});
  CHECK_THROWS_AS(p.join(), std::logic_error);
  CHECK_THROWS_AS(p.terminate(), std::logic_error);
  p.set_name("late");
  p.start();
  CHECK_THROWS_AS(p.start(), std::logic_error);
  CHECK_THROWS_AS(p.set_daemon(true), std::logic_error);
  CHECK_THROWS_AS(p.set_name("x"), std::logic_error);
  CHECK(exit_of(p) == 0);
  process q([&p] {
    try {
      p.join();
      return 1;
    } catch (const std::logic_error& e) {
      return contains(e.what(), "another process") ? 0 : 2;
    }
  });
  q.start();
  CHECK(exit_of(q) == 0);
  CHECK(contains(error_of([] { process none{process_options{}, [] {}}; none.exit_code(); none.join(); }), "before start"));
}

PROCESS_CASE("process: a child waited for by somebody else has a lost status, and join does not hang") {
  process p([] { return 3; });
  p.start();
  int status;
  while (::waitpid(p.pid(), &status, 0) < 0 && errno == EINTR) {
  }
  CHECK(p.join(10s));
  CHECK(p.exit_code() == process::lost_status);
}

PROCESS_CASE("process: the destructor waits for its end; a daemon's terminates it") {
  seen_by_both<std::atomic<int>> done;
  *done = 0;
  {
    process p([&] {
      sleep(20ms);
      *done = 1;
    });
    p.start();
  }
  CHECK(*done == 1);
  int pid;
  {
    process p({.daemon = true}, [] { sleep(1h); });
    p.start();
    pid = p.pid();
  }
  CHECK(is_gone(pid));
}

PROCESS_CASE("process: a daemon that ignores SIGTERM is killed by the destructor") {
  seen_by_both<std::atomic<int>> deaf;
  *deaf = 0;
  int pid;
  {
    process p({.daemon = true}, [&] {
      ::signal(SIGTERM, SIG_IGN);
      *deaf = 1;
      sleep(1h);
    });
    p.start();
    pid = p.pid();
    while (*deaf == 0) sleep(1ms);
  }
  CHECK(is_gone(pid));
}

PROCESS_CASE("process: a daemon ends with its parent, though that was killed with -9") {
  seen_by_both<std::atomic<int>> daemon;
  *daemon = 0;
  auto [reader, writer] = ipc::byte_pipe();
  process parent([&](ipc::byte_end end) {
    process child({.daemon = true},
                  [&](ipc::byte_end held) {
                    *daemon = ::getpid();
                    while (true) {
                    }  // busy: nothing but a signal reaches it
                    held.close();
                  },
                  std::move(end));
    child.start();
    while (*daemon == 0) sleep(1ms);
    ::kill(::getpid(), SIGKILL);
  }, std::move(writer));
  parent.start();
  CHECK(exit_of(parent) == -SIGKILL);
  CHECK_THROWS_AS(reader.receive_bytes(20s), ipc::end_of_pipe);  // the daemon had the last writing end
}

PROCESS_CASE("process: starts with the default actions of signals, none blocked, and no fiber but its own") {
  ::signal(SIGUSR1, [](int) {});
  sigset_t blocked, before;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &blocked, &before);
  bool ran = false;
  auto other = spawn([&] {
    sleep(5ms);
    ran = true;
  });
  process p([&] {
    struct sigaction now;
    ::sigaction(SIGUSR1, nullptr, &now);
    sigset_t mask;
    ::sigprocmask(SIG_SETMASK, nullptr, &mask);
    if (now.sa_handler != SIG_DFL) return 1;
    if (::sigismember(&mask, SIGTERM)) return 2;
    sleep(20ms);
    if (ran) return 3;
    return 0;
  });
  p.start();
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  ::signal(SIGUSR1, SIG_DFL);
  CHECK(exit_of(p) == 0);
  other.join();
  CHECK(ran);
}

PROCESS_CASE("process: timeouts and kills around start are the parent's affair") {
  process p([] {
    sleep(50ms);
    return 4;
  });
  try {
    timeout limit(5ms);
    p.start();
    sleep(1h);
  } catch (const timeout_expired&) {
  }
  CHECK(exit_of(p) == 4);
}

PROCESS_CASE("process: has a stack that deep work fits on, and a deadlock in it is told") {
  process deep([] {
    volatile char much[2 << 20];
    for (std::size_t i = 0; i < sizeof much; i += 4096) much[i] = 1;
    return int(much[4096]);
  });
  deep.start();
  CHECK(exit_of(deep) == 1);
  captured_stderr said;
  process stuck({.name = "stuck"}, [] { event().wait(); });
  stuck.start();
  CHECK(exit_of(stuck) == 1);
  CHECK(contains(said.end(), "stuck"));
}

PROCESS_CASE("process: what was printed but not flushed before start is printed once") {
  auto file = support::temporary_directory();
  const std::string path = file.path() / "out";
  std::fflush(stdout);
  const int before = ::dup(1);
  const int out = ::open(path.c_str(), O_CREAT | O_RDWR | O_APPEND | O_CLOEXEC, 0600);
  ::dup2(out, 1);
  std::printf("parent;");
  process p([] { std::printf("child;"); });
  p.start();
  const int status = exit_of(p);
  std::fflush(stdout);
  ::dup2(before, 1);
  ::close(before);
  char text[64] = {};
  const auto got = ::pread(out, text, sizeof text - 1, 0);
  ::close(out);
  CHECK(status == 0);
  CHECK(std::string(text, std::size_t(std::max<ssize_t>(got, 0))) == "parent;child;");
}

PROCESS_CASE("process: a child's children, three deep") {
  process first([] {
    process second([] {
      process third([] { return 3; });
      third.start();
      third.join();
      return *third.exit_code() + 10;
    });
    second.start();
    second.join();
    return *second.exit_code() + 100;
  });
  first.start();
  CHECK(exit_of(first) == 113);
}

PROCESS_CASE("process: started from a fiber, from a thread, and while operations are in flight") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  char c = 0;
  auto reads = spawn([&] { return io::read(ends[0], &c, 1); });
  auto naps = spawn([] { sleep(5ms); });
  yield();
  auto in_fiber = spawn([&] {
    process p([] {
      sleep(1ms);
      return 8;
    });
    p.start();
    return exit_of(p);
  });
  int in_thread = 0;
  std::thread([&] {
    process p([] {
      sleep(1ms);
      return spawn([] { return 9; }).get();
    });
    p.start();
    in_thread = exit_of(p);
  }).join();
  CHECK(in_fiber.get() == 8);
  CHECK(in_thread == 9);
  CHECK(io::write(ends[1], "x", 1) == 1);
  CHECK(reads.get() == 1);
  naps.join();
  io::close(ends[0]);
  io::close(ends[1]);
}

PROCESS_CASE("process: look-ups and helper threads work in it, also while the parent's are at work") {
  thread_pool helpers(2);
  event ready;
  std::atomic<bool> go{false};
  auto ours = helpers.submit([&] {
    ready.set();
    go.wait(false);
    return 1;
  });
  ready.wait();
  process p([&] {
    thread_pool own(2);
    if (own.apply([] { return 5; }) != 5) return 1;
    addrinfo hints{}, *found = nullptr;
    hints.ai_flags = AI_NUMERICHOST;
    if (io::getaddrinfo("127.0.0.1", "80", &hints, &found) != 0) return 2;
    ::freeaddrinfo(found);
    return 0;
  });
  p.start();
  CHECK(exit_of(p) == 0);
  go = true;
  go.notify_all();
  CHECK(ours.get(20s) == 1);
}

PROCESS_CASE("process: active_children are those that run; a child has none of its parent's") {
  process a({.name = "a"}, [] { sleep(1h); }), b({.name = "b"}, [] { return active_children().empty() ? 0 : 1; });
  a.start();
  b.start();
  CHECK(exit_of(b) == 0);
  const auto children = active_children();
  REQUIRE(children.size() == 1);
  CHECK(children[0].name == "a");
  CHECK(children[0].pid == a.pid());
  a.kill();
  exit_of(a);
}

PROCESS_CASE("process: a hundred, one after the other and together, leave nothing") {
  int sum = 0;
  for (int i = 0; i < 20; ++i) {
    process p([i] { return i; });
    p.start();
    sum += exit_of(p);
  }
  CHECK(sum == 190);
  std::vector<process> many;
  for (int i = 0; i < 30; ++i) {
    many.emplace_back([i] { return i; });
    many.back().start();
  }
  sum = 0;
  for (auto& p : many) sum += exit_of(p);
  CHECK(sum == 435);
}

TEST_CASE("processors: there are some, and we may use no more than there are") {
  CHECK(usable_cpu_count() >= 1);
  CHECK(usable_cpu_count() <= cpu_count());
}
