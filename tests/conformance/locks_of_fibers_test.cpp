// pthread locks where only fibers can get them wrong: a lock held over a switch, by one of two fibers of the same thread.

#include "support/support.hpp"

#include <condition_variable>
#include <csignal>
#include <mutex>
#include <pthread.h>
#include <semaphore.h>
#include <shared_mutex>
#include <thread>
#include <unistd.h>

#include <doctest/doctest.h>

#include <ringlet/fiber.hpp>
#include <ringlet/hooks.hpp>

using namespace std::chrono_literals;

namespace {

// Hooks on for a test that is not a comparison.
struct hooked {
  hooked() { ringlet::hooks::enable(); }
  ~hooked() { ringlet::hooks::disable(); }
};

}  // namespace

TEST_CASE("std::mutex: held over a switch, another fiber of the thread waits") {
  hooked on;
  std::mutex m;
  int inside = 0, most = 0, turns = 0;
  auto work = [&] {
    for (int i = 0; i < 20; ++i) {
      std::lock_guard hold(m);
      most = std::max(most, ++inside);
      ::usleep(100);  // the switch over which it is held
      --inside;
      ++turns;
    }
  };
  std::vector<ringlet::any_fiber> all;
  for (int i = 0; i < 5; ++i) all.push_back(ringlet::spawn(work));
  ringlet::joinall(all);
  CHECK(most == 1);
  CHECK(turns == 100);
}

TEST_CASE("std::recursive_mutex: belongs to a fiber, not to its thread") {
  hooked on;
  std::recursive_mutex m;
  std::string order;
  bool other_waits = false;
  auto a = ringlet::spawn([&] {
    m.lock();
    m.lock();
    order += 'a';
    while (!other_waits) ringlet::yield();
    m.unlock();
    for (int i = 0; i < 100; ++i) ringlet::yield();  // who could have it now would take it
    order += 'A';
    m.unlock();
  });
  auto b = ringlet::spawn([&] {
    CHECK_FALSE(m.try_lock());
    other_waits = true;
    m.lock();
    order += 'b';
    m.unlock();
  });
  ringlet::joinall({a, b});
  CHECK(order == "aAb");
}

TEST_CASE("std::mutex: one that sleeps with it held again and again lets others in") {
  hooked on;
  std::mutex m;
  bool other_had_it = false;
  int rounds = 0;
  auto greedy = ringlet::spawn([&] {
    for (; rounds < 1000 && !other_had_it; ++rounds) {
      std::lock_guard hold(m);
      ::usleep(10);  // the switch over which it is held
    }
  });
  auto modest = ringlet::spawn([&] {
    std::lock_guard hold(m);
    other_had_it = true;
  });
  ringlet::joinall({greedy, modest});
  CHECK(rounds < 10);
}

TEST_CASE("std::condition_variable: between fibers") {
  hooked on;
  std::mutex m;
  std::condition_variable c;
  int turn = 0;
  auto player = [&](int mine) {
    for (int i = 0; i < 50; ++i) {
      std::unique_lock hold(m);
      c.wait(hold, [&] { return turn % 2 == mine; });
      ++turn;
      c.notify_all();
    }
  };
  ringlet::joinall({ringlet::any_fiber(ringlet::spawn(player, 0)), ringlet::any_fiber(ringlet::spawn(player, 1))});
  CHECK(turn == 100);
}

TEST_CASE("std::condition_variable: a fiber and a thread, both ways") {
  hooked on;
  std::mutex m;
  std::condition_variable c;
  int turn = 0;
  auto player = [&](int mine) {
    for (int i = 0; i < 300; ++i) {
      std::unique_lock hold(m);
      c.wait(hold, [&] { return turn % 2 == mine; });
      ++turn;
      c.notify_all();
    }
  };
  int ticks = 0;
  bool done = false;
  auto ticker = ringlet::spawn([&] {
    while (!done) ::usleep(500), ++ticks;  // keeps the hub turning while the two wait
  });
  std::thread thread(player, 0);
  auto fiber = ringlet::spawn(player, 1);
  fiber.join();
  thread.join();
  done = true;
  ticker.join();
  CHECK(turn == 600);
}

TEST_CASE("std::mutex: threads and fibers of several hubs take turns") {
  hooked on;
  std::mutex m;
  long counter = 0;
  auto work = [&](int sleeps) {
    for (int i = 0; i < 200; ++i) {
      std::lock_guard hold(m);
      const long seen = counter;
      if (sleeps && i % 20 == 0) ::usleep(50);  // a switch with it held
      counter = seen + 1;
    }
  };
  std::thread plain(work, 0);
  std::thread with_hub([&] {
    std::vector<ringlet::any_fiber> all;
    for (int i = 0; i < 3; ++i) all.push_back(ringlet::spawn(work, 1));
    ringlet::joinall(all);
  });
  std::vector<ringlet::any_fiber> all;
  for (int i = 0; i < 3; ++i) all.push_back(ringlet::spawn(work, 1));
  ringlet::joinall(all);
  plain.join();
  with_hub.join();
  CHECK(counter == 1400);
}

TEST_CASE("std::shared_mutex: fibers read together and write alone") {
  hooked on;
  std::shared_mutex m;
  int readers = 0, most_readers = 0, writers = 0;
  bool mixed = false;
  std::vector<ringlet::any_fiber> all;
  for (int i = 0; i < 4; ++i)
    all.push_back(ringlet::spawn([&] {
      for (int n = 0; n < 10; ++n) {
        std::shared_lock hold(m);
        most_readers = std::max(most_readers, ++readers);
        mixed |= writers > 0;
        ::usleep(100);  // the switch over which it is held
        --readers;
      }
    }));
  for (int i = 0; i < 2; ++i)
    all.push_back(ringlet::spawn([&] {
      for (int n = 0; n < 10; ++n) {
        std::unique_lock hold(m);
        ++writers;
        mixed |= readers > 0 || writers > 1;
        ::usleep(100);
        --writers;
      }
    }));
  ringlet::joinall(all);
  CHECK_FALSE(mixed);
  CHECK(most_readers > 1);
}

TEST_CASE("sem_t: fibers and a thread pass tokens") {
  hooked on;
  sem_t to_thread, to_fiber;
  ::sem_init(&to_thread, 0, 0);
  ::sem_init(&to_fiber, 0, 0);
  int rounds = 0;
  std::thread thread([&] {
    for (int i = 0; i < 300; ++i) {
      ::sem_wait(&to_thread);
      ::sem_post(&to_fiber);
    }
  });
  auto fiber = ringlet::spawn([&] {
    for (int i = 0; i < 300; ++i) {
      ::sem_post(&to_thread);
      ::sem_wait(&to_fiber);
      ++rounds;
    }
  });
  fiber.join();
  thread.join();
  CHECK(rounds == 300);
}

TEST_CASE("sem_post: from a signal handler wakes a fiber") {
  hooked on;
  static sem_t s;
  ::sem_init(&s, 0, 0);
  struct sigaction before {}, now {};
  now.sa_handler = [](int) { ::sem_post(&s); };
  now.sa_flags = SA_RESTART;
  ::sigaction(SIGUSR1, &now, &before);
  int woken = 0;
  auto waiter = ringlet::spawn([&] {
    for (int i = 0; i < 50; ++i) {
      ::sem_wait(&s);
      ++woken;
    }
  });
  auto sender = ringlet::spawn([&] {
    for (int i = 0; i < 50; ++i) {
      ::raise(SIGUSR1);
      ::usleep(i % 3 == 0 ? 0 : 50);  // the waiter waits by then, or not: no post is lost
    }
  });
  ringlet::joinall({waiter, sender});
  CHECK(woken == 50);
  ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_CASE("mutex: a thread that lets go of it inside pthread_cond_wait is noticed") {
  hooked on;
  std::mutex m;
  std::condition_variable c;
  bool in = false, done = false;
  std::thread thread([&] {
    std::unique_lock hold(m);
    in = true;
    c.wait(hold, [&] { return done; });
  });
  auto fiber = ringlet::spawn([&] {
    while (true) {
      std::unique_lock hold(m);
      if (in) {
        done = true;
        c.notify_one();
        return;
      }
      hold.unlock();
      ::usleep(100);  // and looks again
    }
  });
  fiber.join();
  thread.join();
  CHECK(done);
}

TEST_CASE("locks: a kill does not end the wait for a mutex, only the next call that can fail") {
  hooked on;
  std::mutex m;
  m.lock();
  bool had_it = false;
  int error = 0;
  auto victim = ringlet::spawn([&] {
    m.lock();
    had_it = true;
    m.unlock();
    if (::usleep(1000000) != 0) error = errno;  // the call that the kill ends
  });
  ringlet::yield();
  victim.kill(ringlet::deadline::passed());
  ringlet::yield();
  CHECK_FALSE(had_it);
  m.unlock();
  CHECK(victim.join(5s));
  CHECK(had_it);
  CHECK(error == ECANCELED);
}
