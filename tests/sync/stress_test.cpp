// Crowds at the sync objects. A normal run does a small form of each; RINGLET_STRESS=full (./dev test --all sets it) the
// whole one.

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "context/stack.hpp"
#include "hub/on_hub.hpp"

using namespace hub_test;

namespace {

bool is_full() {
  const char* wanted = std::getenv("RINGLET_STRESS");
  return wanted && std::strcmp(wanted, "full") == 0;
}

// So many for the three ways of running: full, normal, under a sanitizer.
long sized(long full, long normal, long instrumented) {
  if (support::is_instrumented()) return instrumented;
  return is_full() ? full : normal;
}

}  // namespace

TEST_CASE("stress: fibers of four hubs and plain threads put and get, and each item arrives once") {
  // Half of the fibers put their numbers into one of a few small queues, the other half get; of every kind there are some
  // that give up and try again. Two threads without a fiber of their own do the same.
  support::allow_seconds(600);
  constexpr int hubs = 4, queues = 4;
  const long fibers = sized(10'000, 1'000, 200), operations = sized(1'000, 100, 20);
  const long per_hub = fibers / hubs;
  std::vector<std::unique_ptr<queue<long>>> all_queues;
  for (int i = 0; i < queues; ++i) all_queues.push_back(std::make_unique<queue<long>>(i == 0 ? queue<long>::unbounded : std::size_t(1) << (3 * (i - 1))));  // 1, 8, 64
  std::atomic<long> put_sum{0}, got_sum{0}, put_count{0}, got_count{0}, late{0};
  auto put = [&](long who) {
    auto& q = *all_queues[std::size_t(who / 2 % queues)];
    long sum = 0;
    for (long i = 0; i < operations; ++i) {
      const long item = who * operations + i;
      while (!q.put(item, (i & 15) == 0 ? deadline(50us) : never)) ++late;
      sum += item;
    }
    put_sum += sum;
    put_count += operations;
  };
  auto get = [&](long who) {
    auto& q = *all_queues[std::size_t(who / 2 % queues)];
    long sum = 0;
    for (long i = 0; i < operations; ++i) {
      std::optional<long> item;
      while (!(item = q.get((i & 15) == 0 ? deadline(50us) : never))) ++late;
      sum += *item;
    }
    got_sum += sum;
    got_count += operations;
  };
  const auto begun = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (int h = 0; h < hubs; ++h)
    threads.emplace_back([&, h] {
      std::vector<any_fiber> mine;
      for (long f = 0; f < per_hub; ++f) {
        const long who = h * per_hub + f;
        mine.push_back(who % 2 == 0 ? any_fiber(spawn(put, who)) : any_fiber(spawn(get, who)));
      }
      joinall(mine);
    });
  // One that puts and one that gets at each queue, so that in the end all is taken.
  for (long who = fibers; who < fibers + 2 * queues; ++who) threads.emplace_back([&, who] { who % 2 == 0 ? put(who) : get(who); });
  for (auto& t : threads) t.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  CHECK(put_count == got_count);
  CHECK(put_sum == got_sum);
  CHECK(put_count + got_count == (per_hub * hubs + 2 * queues) * operations);
  for (auto& q : all_queues) {
    CHECK(q->empty());
    CHECK(q->unfinished() * 2 == std::size_t((per_hub * hubs / queues + 2) * operations));
  }
  std::printf("stress: %ld queue operations by %ld fibers of %d hubs and %d threads in %.1f s; %ld waits given up\n",
              long(put_count + got_count), fibers, hubs, 2 * queues, seconds, long(late));
}

TEST_CASE("stress: a thousand waiters of four hubs all wake when an event is set and cleared at once") {
  constexpr int hubs = 4, waiters = 250;
  const int rounds = int(sized(100, 10, 3));
  for (int r = 0; r < rounds; ++r) {
    event e;
    std::atomic<int> woken{0}, ready{0};
    std::vector<std::thread> threads;
    for (int h = 0; h < hubs; ++h)
      threads.emplace_back([&] {
        int waiting = 0;
        std::vector<any_fiber> mine;
        for (int i = 0; i < waiters; ++i)
          mine.push_back(spawn([&] {
            ++waiting;
            if (e.wait()) ++woken;
          }));
        while (waiting < waiters) yield();
        ++ready;  // all of them are parked: none runs on while we do
        joinall(mine);
      });
    while (ready < hubs) std::this_thread::yield();
    e.set();
    e.clear();
    for (auto& t : threads) t.join();
    CHECK(woken == hubs * waiters);
  }
}

TEST_CASE("stress: a hundred thousand fibers that wait in sync objects are killed") {
  if (ringlet::context::guards() != ringlet::context::guard_kind::regions && is_full())
    RINGLET_SKIP("no guard regions here (Linux 6.13): mprotect guards end at about 32,700 stacks");
  support::allow_seconds(240);
  const long count = sized(100'000, 10'000, 1'000);
  event e;
  semaphore s(0);
  mutex m;
  shared_mutex rw;
  condition c;
  recursive_mutex of_c;
  queue<int> empty, full(1);
  channel<int> a, b;
  barrier never_met(std::size_t(count + 1));
  async_result<int> result;
  full.put(0);
  m.lock();
  rw.lock();
  long waiting = 0, unwound = 0;
  struct at_end {
    long& n;
    ~at_end() { ++n; }
  };
  std::vector<any_fiber> all;
  for (long i = 0; i < count; ++i)
    all.push_back(spawn([&, i] {
      at_end guard{unwound};
      ++waiting;
      std::optional<int> x, y;
      switch (i % 12) {
        case 0: e.wait(); break;
        case 1: s.acquire(); break;
        case 2: m.lock(); break;
        case 3: rw.lock_shared(); break;
        case 4: rw.lock(); break;
        case 5: {
          std::unique_lock hold(of_c);
          c.wait(hold);
          break;
        }
        case 6: empty.get(); break;
        case 7: full.put(1); break;
        case 8: select({receiving(a, x), receiving(b, y)}); break;
        case 9: a.receive(); break;
        case 10: result.get(1h); break;
        case 11: full.join(); break;
      }
      waiting = -1'000'000;
    }));
  for (int turns = 0; turns < 1'000'000 && waiting < count; ++turns) yield();
  CHECK(waiting == count);
  CHECK(killall(all, 120s));
  CHECK(unwound == count);
  CHECK(waiting == count);
  // Nothing was taken along: each is as it would be without them.
  e.set();
  s.release();
  CHECK(s.count() == 1);
  m.unlock();
  CHECK(m.try_lock());
  m.unlock();
  rw.unlock();
  CHECK(rw.try_lock());
  rw.unlock();
  CHECK(of_c.try_lock());
  of_c.unlock();
  c.notify_all();
  CHECK(empty.try_put(1));
  CHECK(full.try_get() == 0);
  CHECK(full.empty());
  CHECK(a.balance() == 0);
  CHECK(b.balance() == 0);
  CHECK(hub::count().timers == 0);
}

TEST_CASE("stress: many barriers' parties, killed or in time, all get an answer") {
  const long rounds = sized(2'000, 200, 30);
  long passed = 0, broken = 0, killed = 0;
  for (long r = 0; r < rounds; ++r) {
    constexpr int n = 20;
    const long passed_before = passed;
    barrier b(n);
    std::vector<any_fiber> all;
    for (int i = 0; i < n; ++i)
      all.push_back(spawn([&, i] {
        for (long j = 0; j < (i * 7 + r) % 5; ++j) yield();
        try {
          b.wait(i % 3 == 0 ? deadline(std::chrono::microseconds(r % 50)) : never);
          ++passed;
        } catch (const broken_barrier&) {
          ++broken;
        } catch (const greenlet_exit&) {
          ++killed;
          throw;
        }
      }));
    if (r % 2 == 0) {
      for (long j = 0; j < r % 6; ++j) yield();
      all[std::size_t(r % n)].kill(deadline::passed());
    }
    joinall(all);
    CHECK(b.waiting() == 0);
    const long this_round = passed - passed_before;
    CHECK((this_round == 0 || this_round >= n - 1));  // one that was killed in the moment the last one came may be missing
  }
  CHECK(passed + broken + killed >= rounds * 20 - rounds / 2);  // one that is killed before it has begun counts nowhere
}

TEST_CASE("stress: selects over channels between four hubs: as many items sent as received") {
  support::allow_seconds(240);
  constexpr int hubs = 4, channels = 8;
  const long fibers = sized(200, 40, 12), operations = sized(2'000, 200, 30);
  std::vector<std::unique_ptr<channel<long>>> c;
  for (int i = 0; i < channels; ++i) c.push_back(std::make_unique<channel<long>>());
  std::atomic<long> sent{0}, received{0}, sent_sum{0}, received_sum{0};
  std::vector<std::thread> threads;
  for (int h = 0; h < hubs; ++h)
    threads.emplace_back([&, h] {
      std::vector<any_fiber> mine;
      for (long f = 0; f < fibers / hubs; ++f)
        mine.push_back(spawn([&, f] {
          for (long i = 0; i < operations; ++i) {
            long item = (h * fibers + f) * operations + i;
            std::optional<long> x, y;
            const auto at = std::size_t(h + f + i);
            const auto happened = select({sending(*c[at % channels], std::move(item)), receiving(*c[(at + 1) % channels], x), receiving(*c[(at * 5) % channels], y)},
                                         std::chrono::microseconds(i % 4 * 50));
            if (!happened) continue;
            if (*happened == 0) {
              ++sent;
              sent_sum += item;
            } else {
              ++received;
              received_sum += *(*happened == 1 ? x : y);
            }
          }
        }));
      joinall(mine);
    });
  for (auto& t : threads) t.join();
  CHECK(sent > 0);
  CHECK(sent == received);
  CHECK(sent_sum == received_sum);
  for (auto& each : c) CHECK(each->balance() == 0);
}
