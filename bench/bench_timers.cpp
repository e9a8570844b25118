// Deadlines: the heap behind every wait, alone and through the calls that use it.
//
// Raw is what the kernel offers for the same: a timerfd armed anew, a timeout operation on a ring; and the container
// that one would take without thinking, std::multimap. The moments are random within ten seconds. Cancelling takes a random
// half; expiring takes what is left, in order.

#include <ringlet/ringlet.hpp>

#include <liburing.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "harness.hpp"

#include "loop/timers.hpp"

namespace {

using ringlet::clock;
using std::chrono::nanoseconds;

std::vector<clock::time_point> random_moments(std::size_t count) {
  std::mt19937_64 random(12345);
  std::vector<clock::time_point> result(count);
  for (auto& m : result) m = clock::time_point(nanoseconds(1'000'000'000 + random() % 10'000'000'000));
  return result;
}
std::vector<std::size_t> random_order(std::size_t count) {
  std::vector<std::size_t> result(count);
  for (std::size_t i = 0; i < count; ++i) result[i] = i;
  std::shuffle(result.begin(), result.end(), std::mt19937_64(54321));
  return result;
}

// Arms `count`, cancels a random half, expires the rest, over and over; each phase is timed for itself.
enum class phase { arm, cancel, expire };

struct heap {
  explicit heap(std::size_t count) : nodes(count) {
    for (auto& n : nodes) n.fire = [](ringlet::loop::timer&) {};
  }
  void arm(std::size_t i, clock::time_point at) { all.arm(nodes[i], at); }
  void cancel(std::size_t i) { all.cancel(nodes[i]); }
  void expire_all() { all.expire(clock::time_point::max()); }
  ringlet::loop::timers all;
  std::vector<ringlet::loop::timer> nodes;
};

struct tree {
  explicit tree(std::size_t count) : places(count) {}
  void arm(std::size_t i, clock::time_point at) { places[i] = all.emplace(at, i); }
  void cancel(std::size_t i) { all.erase(places[i]); }
  void expire_all() {
    while (!all.empty()) {
      bench::keep(all.begin()->second);
      all.erase(all.begin());
    }
  }
  std::multimap<clock::time_point, std::size_t> all;
  std::vector<std::multimap<clock::time_point, std::size_t>::iterator> places;
};

template <class Timers>
bench::candidate cycle(std::string name, std::size_t count, phase wanted) {
  struct state {
    explicit state(std::size_t n) : timers(n), moments(random_moments(n)), order(random_order(n)) {}
    Timers timers;
    std::vector<clock::time_point> moments;
    std::vector<std::size_t> order;
  };
  auto s = std::make_shared<state>(count);
  return {std::move(name), [=](std::size_t n) {
            const std::size_t half = count / 2, each = wanted == phase::arm ? count : half;
            bench::sample result;
            for (std::size_t done = 0; done < n; done += each) {
              double at[4];
              at[0] = bench::thread_cpu_ns();
              for (std::size_t i = 0; i < count; ++i) s->timers.arm(i, s->moments[i]);
              at[1] = bench::thread_cpu_ns();
              for (std::size_t i = 0; i < half; ++i) s->timers.cancel(s->order[i]);
              at[2] = bench::thread_cpu_ns();
              s->timers.expire_all();
              at[3] = bench::thread_cpu_ns();
              result.ns += at[int(wanted) + 1] - at[int(wanted)];
              result.operations += double(each);
            }
            return result;
          }};
}

// What almost every wait with a deadline does: arms one among so many, and cancels it before its time.
bench::candidate pair_among(std::size_t others) {
  struct state {
    explicit state(std::size_t n) : timers(n + 1), moments(random_moments(n + 1)) {
      for (std::size_t i = 0; i < n; ++i) timers.arm(i, moments[i]);
    }
    heap timers;
    std::vector<clock::time_point> moments;
  };
  auto s = std::make_shared<state>(others);
  return bench::timed("heap of " + std::to_string(others), [s, others](std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) {
      s->timers.arm(others, s->moments[i % (others + 1)]);
      s->timers.cancel(others);
    }
  });
}

// A ring with timeouts in the kernel. Cancelling searches a list, so the crowd is kept small.
class ring_timeouts {
 public:
  ring_timeouts() {
    io_uring_params p{};
    p.flags = IORING_SETUP_CQSIZE;
    p.cq_entries = 8192;
    works = io_uring_queue_init_params(256, &ring_, &p) == 0;
  }
  ~ring_timeouts() { if (works) io_uring_queue_exit(&ring_); }
  void arm(std::uint64_t id) {
    io_uring_sqe* sqe = next();
    io_uring_prep_timeout(sqe, &far_, 0, 0);
    sqe->user_data = id;
    ++queued_;
  }
  void cancel(std::uint64_t id) {
    io_uring_sqe* sqe = next();
    io_uring_prep_timeout_remove(sqe, id, 0);
    sqe->user_data = 0;
    ++queued_;
  }
  void submit() {
    if (queued_) io_uring_submit(&ring_);
    queued_ = 0;
    io_uring_cq_advance(&ring_, io_uring_cq_ready(&ring_));
  }
  bool works = false;

 private:
  io_uring_sqe* next() {
    if (queued_ == 128) submit();
    return io_uring_get_sqe(&ring_);
  }
  io_uring ring_{};
  unsigned queued_ = 0;
  __kernel_timespec far_{100, 0};
};

bench::candidate ring_pair(std::size_t others) {
  auto ring = std::make_shared<ring_timeouts>();
  if (ring->works)
    for (std::size_t i = 0; i < others; ++i) ring->arm(i + 10);
  if (ring->works) ring->submit();
  return bench::timed("ring timeout among " + std::to_string(others), [ring](std::size_t n) {
    for (; ring->works && n; --n) {
      ring->arm(5);
      ring->cancel(5);
      ring->submit();
    }
  });
}

bench::candidate timerfd_pair() {
  const int fd = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  return bench::timed("raw timerfd: arm and disarm", [fd](std::size_t n) {
    itimerspec far{}, never{};
    far.it_value.tv_sec = 100;
    for (; n; --n) {
      ::timerfd_settime(fd, 0, &far, nullptr);
      ::timerfd_settime(fd, 0, &never, nullptr);
    }
  });
}

std::vector<std::size_t> sizes() {
  if (bench::asked().quick) return {1'000, 10'000};
  return {1'000, 10'000, 100'000, 1'000'000};
}

void phases(phase which, const char* what) {
  std::vector<bench::candidate> rows;
  for (std::size_t n : sizes()) {
    // The raw one of a table is its first: the multimap of a thousand.
    if (n <= 100'000) rows.push_back(cycle<tree>("std::multimap of " + std::to_string(n), n, which));
    rows.push_back(cycle<heap>("heap of " + std::to_string(n), n, which));
  }
  bench::compare(std::string(what) + ": ns of CPU each", std::move(rows), {.rounds = 3, .round_ms = 4});
}

// Through the public calls: what a wait that has a deadline costs more than one that has none.
void through_the_calls() {
  bench::compare("deadlines in use: ns of CPU each",
                 {
                     timerfd_pair(),
                     bench::timed("deadline made of a duration (clock)",
                                  [](std::size_t n) {
                                    for (; n; --n) bench::keep(ringlet::deadline(std::chrono::seconds(100)));
                                  }),
                     bench::timed("timeout scope that does not fire",
                                  [](std::size_t n) {
                                    for (; n; --n) {
                                      ringlet::timeout limit(std::chrono::seconds(100));
                                      bench::keep(limit);
                                    }
                                  }),
                 },
                 {.most_operations = 1'000'000});
  // Nearly every sleep ends in a sleep of the thread, unless so many end at once.
  auto crowd = [](std::size_t fibers) {
    return [fibers](std::size_t n) {
      const std::size_t each = std::max<std::size_t>(1, n / fibers);
      std::mt19937 random(7);
      std::vector<ringlet::any_fiber> all;
      for (std::size_t i = 0; i < fibers; ++i)
        all.push_back(ringlet::spawn([each, seed = random()] {
          std::mt19937 own(seed);
          for (std::size_t j = 0; j < each; ++j) ringlet::sleep(std::chrono::microseconds(own() % 5000));
        }));
      const double start = bench::thread_cpu_ns();
      for (auto& f : all) f.join();
      return bench::sample{bench::thread_cpu_ns() - start, double(each * fibers)};
    };
  };
  bench::compare("sleep, random below 5 ms: ns of CPU each",
                 {
                     bench::timed("raw nanosleep of a thread",
                                  [](std::size_t n) {
                                    std::mt19937 random(7);
                                    for (; n; --n) {
                                      const timespec moment{0, long(random() % 5'000) * 1000};
                                      ::nanosleep(&moment, nullptr);
                                    }
                                  }),
                     bench::timed("sleep of the only fiber",
                                  [](std::size_t n) {
                                    std::mt19937 random(7);
                                    for (; n; --n) ringlet::sleep(std::chrono::microseconds(random() % 5000));
                                  }),
                     {"sleep among 1000 fibers", crowd(1000)},
                     {"sleep among 10000 fibers", crowd(10'000)},
                 },
                 {.rounds = 5, .round_ms = 1, .most_operations = 50'000});
}

}  // namespace

int main(int argc, char** argv) {
  bench::begin(argc, argv, "bench_timers");
  std::vector<bench::candidate> pairs;
  pairs.push_back(timerfd_pair());
  pairs.push_back(ring_pair(1));
  if (!bench::asked().quick) pairs.push_back(ring_pair(10'000));
  for (std::size_t n : sizes()) pairs.push_back(pair_among(n));
  bench::compare("arm and cancel one: ns of CPU a pair", std::move(pairs), {.most_operations = 1'000'000});
  through_the_calls();
  phases(phase::arm, "arm");
  phases(phase::cancel, "cancel a random half");
  phases(phase::expire, "expire in order");
}
