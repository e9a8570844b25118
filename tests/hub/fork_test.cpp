// fork: the child has the fiber that forked and nothing else, and works on; the parent notices nothing.

#include <string>
#include <sys/wait.h>
#include <unistd.h>

#include <ringlet/barrier.hpp>
#include <ringlet/io.hpp>

#include "on_hub.hpp"

using namespace hub_test;

namespace {

// What a child is asked to check; 0 is good. A child that does not come back to doctest.
int status_of(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

int works() {
  std::string log;
  const auto start = now();
  auto a = spawn([&] {
    sleep(2ms);
    log += 'a';
  });
  auto b = spawn([&] { log += 'b'; });
  joinall({a, b});
  if (log != "ba" || now() - start < 2ms) return 1;
  int ends[2];
  if (::pipe(ends) != 0) return 2;
  char c = 0;
  auto reader = spawn([&] { return io::read(ends[0], &c, 1); });
  auto writer = spawn([&] { return io::write(ends[1], "x", 1); });
  if (reader.get() != 1 || writer.get() != 1 || c != 'x') return 3;
  timeout limit(1ms);
  try {
    sleep(1h);
    return 4;
  } catch (const timeout_expired&) {
  }
  return 0;
}

}  // namespace

TEST_CASE("fork: from the main fiber: the child works on, without the others") {
  NOT_UNDER_TSAN;
  bool parents_ran_in_child = false;
  const pid_t parent = ::getpid();
  auto other = spawn([&] {
    sleep(10ms);
    parents_ran_in_child = ::getpid() != parent;
  });
  auto scheduled = spawn([&] { parents_ran_in_child = ::getpid() != parent; });
  auto later = spawn_later(5ms, [&] { parents_ran_in_child = ::getpid() != parent; });
  sleep(1ms);
  const pid_t child = ::fork();
  if (child == 0) {
    int result = hub::count().fibers == 0 && hub::count().timers == 0 ? works() : 10;
    sleep(20ms);
    if (parents_ran_in_child) result = 11;
    ::_exit(result);
  }
  CHECK(status_of(child) == 0);
  joinall({other, scheduled, later});
  CHECK(works() == 0);
}

TEST_CASE("fork: in a fiber: the child has this fiber only, and ends with it") {
  NOT_UNDER_TSAN;
  int ran = 0;
  auto f = spawn({.name = "forker"}, [&] {
    auto sibling = spawn([&] {
      sleep(5ms);
      ++ran;
    });
    yield();
    const pid_t child = ::fork();
    if (child == 0) {
      int result = hub::count().fibers == 1 ? works() : 10;
      sleep(10ms);
      if (ran) result = 11;
      if (result) ::_exit(result);
      return pid_t(0);  // the fiber ends, and with it the process: status 0
    }
    sibling.join();
    return child;
  });
  CHECK(status_of(f.get()) == 0);
  CHECK(ran == 1);
  CHECK(works() == 0);
}

TEST_CASE("fork: in a fiber: the child's children may outlive the fiber that forked") {
  NOT_UNDER_TSAN;
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  auto f = spawn([&] {
    const pid_t child = ::fork();
    if (child == 0)
      spawn([&] {
        sleep(5ms);
        (void)!::write(ends[1], "late", 4);
      });
    return child;
  });
  CHECK(status_of(f.get()) == 0);
  char text[5] = {};
  CHECK(::read(ends[0], text, 4) == 4);
  CHECK(std::string(text) == "late");
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("fork: in a fiber: what the parent's fibers wait for does not wake them in the child") {
  NOT_UNDER_TSAN;
  const pid_t parent = ::getpid();
  event e;
  semaphore s(0);
  mutex m;
  queue<int> q, full(1);
  condition c;
  full.put(0);
  int in_child = 0, in_parent = 0;
  std::vector<any_fiber> waiters;
  auto wait_for = [&](auto f) {
    waiters.push_back(spawn([&, f] {
      f();
      ++(::getpid() == parent ? in_parent : in_child);
    }));
  };
  auto f = spawn([&]() -> pid_t {
    m.lock();
    wait_for([&] { e.wait(); });
    wait_for([&] { s.acquire(); });
    wait_for([&] { std::lock_guard hold(m); });
    wait_for([&] { q.get(); });
    wait_for([&] { full.put(1); });
    wait_for([&] {
      std::lock_guard hold(m);
      c.wait(m);
    });
    yield();
    const pid_t child = ::fork();
    e.set();
    s.release();
    m.unlock();
    c.notify_all();
    q.put(5);
    if (child != 0) {
      sleep(1ms);
      c.notify_all();
      full.get();
      return child;
    }
    for (int i = 0; i < 100; ++i) yield();
    if (s.count() != 1 || !m.try_lock() || q.size() != 1 || full.get() != 0 || !full.empty()) ::_exit(12);
    m.unlock();
    ::_exit(in_child ? 13 : works());
  });
  CHECK(status_of(f.get()) == 0);
  joinall(waiters);
  CHECK(in_parent == 6);
  CHECK(in_child == 0);
}

TEST_CASE("fork: in a fiber: its links and joiners are the parent's alone") {
  NOT_UNDER_TSAN;
  const pid_t parent = ::getpid();
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  auto f = spawn([&] {
    yield();
    const pid_t child = ::fork();
    if (child == 0) spawn([] { sleep(2ms); });
    return child;
  });
  f.link([&](any_fiber) { (void)!::write(ends[1], ::getpid() == parent ? "p" : "c", 1); });
  auto joiner = spawn([&] {
    f.join();
    (void)!::write(ends[1], ::getpid() == parent ? "p" : "c", 1);
  });
  CHECK(status_of(f.get()) == 0);
  joiner.join();
  yield();
  ::close(ends[1]);
  char text[8] = {};
  CHECK(::read(ends[0], text, 7) == 2);
  CHECK(std::string(text) == "pp");
  ::close(ends[0]);
}

TEST_CASE("fork: in a fiber: an error that ends it is reported and gives status 1") {
  NOT_UNDER_TSAN;
  captured_stderr err;
  auto f = spawn({.name = "forker"}, [&] {
    const pid_t child = ::fork();
    if (child == 0) throw std::runtime_error("in the child");
    return child;
  });
  CHECK(status_of(f.get()) == 1);
  const std::string said = err.end();
  CHECK(contains(said, "'forker' failed"));
  CHECK(contains(said, "in the child"));
}

TEST_CASE("fork: in a fiber: a deadlock in the child is told to that fiber, never to the parent's main") {
  NOT_UNDER_TSAN;
  event never_set;
  auto f = spawn([&] {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        never_set.wait();
      } catch (const deadlock_error&) {
        ::_exit(3);
      }
      ::_exit(4);
    }
    return child;
  });
  const pid_t child = f.get();
  if (::getpid() == child) ::_exit(5);
  CHECK(status_of(child) == 3);
}

TEST_CASE("fork: an open timeout scope holds in the child, too") {
  NOT_UNDER_TSAN;
  timeout limit(30ms);
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      sleep(1h);
    } catch (const timeout_expired& e) {
      ::_exit(e.is(limit) ? 0 : 1);
    }
    ::_exit(2);
  }
  CHECK(status_of(child) == 0);
  CHECK_THROWS_AS(sleep(1h), timeout_expired);
}

TEST_CASE("fork: a child of a child") {
  NOT_UNDER_TSAN;
  const pid_t child = ::fork();
  if (child == 0) {
    sleep(1ms);
    auto f = spawn([] {
      const pid_t grandchild = ::fork();
      if (grandchild == 0) ::_exit(works());
      return status_of(grandchild);
    });
    ::_exit(f.get());
  }
  CHECK(status_of(child) == 0);
  CHECK(works() == 0);
}

TEST_CASE("fork: a lock that another thread holds at that moment, and a list it is at work on, are free in the child") {
  NOT_UNDER_TSAN;
  detail::wait_queue held;
  queue<int> waited_for;
  event over;
  std::atomic<bool> locked{false}, go_on{false}, waits{false};
  std::thread holder([&] {
    held.lock();
    locked = true;
    while (!go_on) std::this_thread::yield();
    held.unlock();
  });
  std::thread waiter([&] {
    auto getter = spawn([&] {
      waits = true;
      return *waited_for.get();
    });
    CHECK(getter.get() == 4);
  });
  while (!locked || !waits) std::this_thread::yield();
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    held.lock();
    held.unlock();
    held.lock();
    if (held.wake_one()) ::_exit(21);
    const bool woken = held.wait(1ms, "test", nullptr);
    if (woken) ::_exit(22);
    // The getter is the parent's: what is put stays, and is got here.
    if (!waited_for.put(3) || waited_for.size() != 1 || waited_for.get() != 3) ::_exit(23);
    ::_exit(works());
  }
  CHECK(status_of(child) == 0);
  go_on = true;
  waited_for.put(4);
  holder.join();
  waiter.join();
}

TEST_CASE("fork: while other threads use the same lock, event, semaphore and queue, the child can use them, too") {
  NOT_UNDER_TSAN;
  std::atomic<bool> stop{false};
  detail::wait_queue lock;
  event e;
  semaphore s(0);
  std::vector<std::thread> others;
  for (int i = 0; i < 2; ++i)
    others.emplace_back([&] {
      while (!stop) {
        std::lock_guard hold(lock);
        e.set();
        e.clear();
        s.release();
        s.acquire(100us);
      }
    });
  int bad = 0;
  for (int i = 0; i < 20; ++i) {
    sleep(100us);
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(20);
      std::lock_guard hold(lock);
      while (s.try_acquire()) {
      }
      s.release();
      if (!s.acquire(10s)) ::_exit(21);
      auto f = spawn([&] { return e.wait(10s) && s.acquire(10s); });
      yield();
      e.set();
      s.release();
      ::_exit(f.get() ? 0 : 22);
    }
    bad += status_of(child) != 0;
  }
  stop = true;
  for (auto& t : others) t.join();
  CHECK(bad == 0);
}

TEST_CASE("fork: while another thread posts and holds a hub") {
  NOT_UNDER_TSAN;
  std::atomic<bool> stop{false};
  std::atomic<int> under_way{0};  // the parent does not run its hub while it waits for a child
  auto h = hub::here();
  std::thread poster([&] {
    while (!stop) {
      auto copy = h;
      if (under_way < 100) {
        ++under_way;
        copy.post([&] { --under_way; });
      }
      spawn([] {}).join();
      std::this_thread::yield();
    }
  });
  int bad = 0;
  for (int i = 0; i < 10; ++i) {
    sleep(1ms);
    const pid_t child = ::fork();
    if (child == 0) {
      int result = works();
      if (!hub::here().post([] {})) result = 20;
      yield();
      ::_exit(result);
    }
    bad += status_of(child) != 0;
  }
  stop = true;
  poster.join();
  while (under_way != 0) sleep(1ms);  // what was posted last refers to it
  CHECK(bad == 0);
}

TEST_CASE("fork: what a fiber waits for with iwait is told in the child, too") {
  NOT_UNDER_TSAN;
  event a, b, set_meanwhile;
  iwait parts({a, b, set_meanwhile}, {.until = 30s});
  a.set();
  CHECK(parts.next() == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    set_meanwhile.set();  // before it is asked for again
    if (parts.next() != 2) ::_exit(1);
    spawn([&] {
      sleep(1ms);
      b.set();
    });
    if (parts.next() != 1) ::_exit(2);
    ::_exit(parts.next() ? 3 : 0);
  }
  CHECK(status_of(child) == 0);
  b.set();
  CHECK(parts.next() == 1);
}

TEST_CASE("fork: a barrier in the child has none of the parent's parties, also if its action forked") {
  NOT_UNDER_TSAN;
  barrier b(2);
  auto waits = spawn([&] { b.wait(); });
  yield();
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    if (b.waiting() != 0) ::_exit(1);
    auto other = spawn([&] { return b.wait(); });
    yield();
    if (b.waiting() != 1) ::_exit(2);
    ::_exit(b.wait() == 1 && other.get() == 0 ? 0 : 3);
  }
  CHECK(status_of(child) == 0);
  CHECK(b.wait() == 1);
  waits.join();

  pid_t of_action = -1;
  barrier forks(2, [&] {
    if (of_action < 0) of_action = ::fork();
  });
  auto first = spawn([&] { forks.wait(); });
  yield();
  const std::size_t number = forks.wait();
  if (of_action == 0) {
    ::alarm(60);
    if (number != 1 || forks.waiting() != 0) ::_exit(4);
    auto other = spawn([&] { return forks.wait(); });
    yield();
    ::_exit(forks.wait() == 1 && other.get() == 0 ? 0 : 5);
  }
  CHECK(number == 1);
  CHECK(status_of(of_action) == 0);
  first.join();
}
