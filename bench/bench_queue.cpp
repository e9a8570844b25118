// Handing something over: between two fibers of a hub, and between two hubs on two threads.
//
// Raw on one thread is two jumps of fcontext (there and back); raw between threads is two futex calls or an eventfd each way.
// Between threads the CPU time of the process counts, on one core for both, and again on two: there most of it, and of the
// wall clock, is the sleep and wake of an idle core, which in a virtual machine is an exit to its host. Where the kernel
// may choose it puts some pairs on one core and others on two, and so compares these.

#include <ringlet/ringlet.hpp>

#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "harness.hpp"
#include "peers/process.hpp"
#include "raw_context.hpp"

namespace {

// A fiber that answers; ended by the table's end.
struct answerer {
  ringlet::any_fiber who;
  ~answerer() { who.kill(); }
};

void on_one_thread() {
  auto raw = std::make_shared<bench::raw_pair>();

  struct queues {
    ringlet::queue<int> there{1}, back{1};
    answerer a{ringlet::spawn([this] { while (true) back.put(*there.get()); })};
  };
  auto q = std::make_shared<queues>();

  struct events {
    ringlet::event there, back;
    answerer a{ringlet::spawn([this] {
      while (true) {
        there.wait();
        there.clear();
        back.set();
      }
    })};
  };
  auto e = std::make_shared<events>();

  struct semaphores {
    ringlet::semaphore there{0}, back{0};
    answerer a{ringlet::spawn([this] {
      while (true) {
        there.acquire();
        back.release();
      }
    })};
  };
  auto s = std::make_shared<semaphores>();

  auto free_queue = std::make_shared<ringlet::queue<int>>();
  auto free_mutex = std::make_shared<ringlet::mutex>();

  bench::compare("between two fibers: ns of CPU there and back",
                 {
                     bench::timed("raw: two fcontext jumps", [raw](std::size_t n) { for (; n; --n) raw->there_and_back(); }),
                     bench::timed("two yields",
                                  [](std::size_t n) {
                                    bool over = false;
                                    auto other = ringlet::spawn([&over] { while (!over) ringlet::yield(); });
                                    for (; n; --n) ringlet::yield();
                                    over = true;
                                    other.join();
                                  }),
                     bench::timed("queue: put, get",
                                  [q](std::size_t n) {
                                    for (; n; --n) {
                                      q->there.put(1);
                                      bench::keep(q->back.get());
                                    }
                                  }),
                     bench::timed("event: set, wait",
                                  [e](std::size_t n) {
                                    for (; n; --n) {
                                      e->there.set();
                                      e->back.wait();
                                      e->back.clear();
                                    }
                                  }),
                     bench::timed("semaphore: release, acquire",
                                  [s](std::size_t n) {
                                    for (; n; --n) {
                                      s->there.release();
                                      s->back.acquire();
                                    }
                                  }),
                     // Each unlock hands it over, each yield lets the other run.
                     bench::timed("mutex that both want, held over a yield",
                                  [](std::size_t n) {
                                    ringlet::mutex m;
                                    bool over = false;
                                    auto turn = [&m] {
                                      std::lock_guard hold(m);
                                      ringlet::yield();
                                    };
                                    auto other = ringlet::spawn([&] { while (!over) turn(); });
                                    for (; n; --n) turn();
                                    over = true;
                                    other.join();
                                  }),
                     bench::timed("queue that nobody waits for: put, get",
                                  [free_queue](std::size_t n) {
                                    for (; n; --n) {
                                      free_queue->put(1);
                                      bench::keep(free_queue->get());
                                    }
                                  }),
                     bench::timed("mutex that nobody wants: lock, unlock",
                                  [free_mutex](std::size_t n) {
                                    for (; n; --n) {
                                      free_mutex->lock();
                                      free_mutex->unlock();
                                    }
                                  }),
                 });
}

// --- threads ---------------------------------------------------------------------------------------------------------

struct futex_word {
  std::atomic<std::uint32_t> value{0};
  void post() {
    value.store(1, std::memory_order_release);
    ::syscall(SYS_futex, &value, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  }
  void wait() {
    while (value.exchange(0, std::memory_order_acquire) == 0) ::syscall(SYS_futex, &value, FUTEX_WAIT_PRIVATE, 0, nullptr, nullptr, 0);
  }
};

enum class placed { on_one_core, on_two_cores };

void between_threads(placed where) {
  const bench::cores cores;
  bench::pin_to(where == placed::on_one_core ? cores.driver : cores.peers);  // those who answer
  struct by_eventfd {
    int there = ::eventfd(0, 0), back = ::eventfd(0, 0);
    static void ring(int fd, std::uint64_t n = 1) { bench::keep(::write(fd, &n, sizeof n)); }
    static std::uint64_t hear(int fd) {
      std::uint64_t n = 0;
      bench::keep(::read(fd, &n, sizeof n));
      return n;
    }
    std::thread other{[this] { while (hear(there) == 1) ring(back); }};
    ~by_eventfd() {
      ring(there, 2);
      other.join();
      ::close(there);
      ::close(back);
    }
  };
  auto eventfds = std::make_shared<by_eventfd>();

  struct by_futex {
    futex_word there, back;
    std::atomic<bool> over{false};
    std::thread other{[this] {
      while (true) {
        there.wait();
        if (over) return;
        back.post();
      }
    }};
    ~by_futex() {
      over = true;
      there.post();
      other.join();
    }
  };
  auto futexes = std::make_shared<by_futex>();

  struct by_queue {
    ringlet::queue<int> there, back;
    std::thread other{[this] {
      while (*there.get() == 1) back.put(1);
    }};
    ~by_queue() {
      there.put(2);
      other.join();
    }
  };
  auto queues = std::make_shared<by_queue>();

  struct by_event {
    ringlet::event there, back;
    std::atomic<bool> over{false};
    std::thread other{[this] {
      while (true) {
        there.wait();
        there.clear();
        if (over) return;
        back.set();
      }
    }};
    ~by_event() {
      over = true;
      there.set();
      other.join();
    }
  };
  auto events = std::make_shared<by_event>();

  bench::pin_to(cores.driver);
  bench::compare(where == placed::on_one_core ? "between two threads on one core: ns of CPU of both, there and back"
                                              : "between two threads on two cores: ns of CPU of both, there and back",
                 {
                     bench::timed_process("raw: eventfd each way",
                                          [eventfds](std::size_t n) {
                                            for (; n; --n) {
                                              by_eventfd::ring(eventfds->there);
                                              by_eventfd::hear(eventfds->back);
                                            }
                                          }),
                     bench::timed_process("raw: futex each way",
                                          [futexes](std::size_t n) {
                                            for (; n; --n) {
                                              futexes->there.post();
                                              futexes->back.wait();
                                            }
                                          }),
                     bench::timed_process("queue between two hubs",
                                          [queues](std::size_t n) {
                                            for (; n; --n) {
                                              queues->there.put(1);
                                              bench::keep(queues->back.get());
                                            }
                                          }),
                     bench::timed_process("event between two hubs",
                                          [events](std::size_t n) {
                                            for (; n; --n) {
                                              events->there.set();
                                              events->back.wait();
                                              events->back.clear();
                                            }
                                          }),
                 },
                 {.rounds = 15, .round_ms = 20});
}

// Many at a time: the sleep and the wake are shared by all that come meanwhile.
void one_way_between_threads() {
  const bench::cores cores;
  bench::pin_to(cores.peers);  // those who take
  struct stream {
    ringlet::queue<int> items;
    std::atomic<std::size_t> taken{0};
    std::thread other{[this] { while (*items.get() == 1) taken.fetch_add(1, std::memory_order_relaxed); }};
    ~stream() {
      items.put(2);
      other.join();
    }
  };
  auto one_way = std::make_shared<stream>();
  // What a program of threads would write.
  struct locked_stream {
    std::mutex m;
    std::condition_variable filled;
    std::deque<int> items;
    std::atomic<std::size_t> taken{0};
    std::thread other{[this] { while (get() == 1) taken.fetch_add(1, std::memory_order_relaxed); }};
    void put(int item) {
      {
        std::lock_guard hold(m);
        items.push_back(item);
      }
      filled.notify_one();
    }
    int get() {
      std::unique_lock hold(m);
      filled.wait(hold, [this] { return !items.empty(); });
      const int item = items.front();
      items.pop_front();
      return item;
    }
    ~locked_stream() {
      put(2);
      other.join();
    }
  };
  auto locked = std::make_shared<locked_stream>();
  auto thousand = [](auto taken, auto put) {
    return [=](std::size_t n) {
      const std::size_t rounds = (n + 999) / 1000;
      const double start = bench::process_cpu_ns(), wall = bench::wall_ns();
      for (std::size_t i = 0; i < rounds; ++i) {
        const std::size_t wanted = taken->load() + 1000;
        for (int j = 0; j < 1000; ++j) put();
        while (taken->load(std::memory_order_relaxed) < wanted) std::this_thread::yield();
      }
      return bench::sample{bench::process_cpu_ns() - start, double(rounds * 1000), bench::wall_ns() - wall};
    };
  };
  bench::pin_to(cores.driver);
  bench::compare("one way, from thread to thread, 1000 at a time: ns of CPU of both, each",
                 {
                     {"raw: deque, std::mutex and condition", thousand(&locked->taken, [locked] { locked->put(1); })},
                     {"queue between two hubs", thousand(&one_way->taken, [one_way] { one_way->items.put(1); })},
                 },
                 {.rounds = 7});
}

}  // namespace

int main(int argc, char** argv) {
  bench::begin(argc, argv, "bench_queue");
  on_one_thread();
  between_threads(placed::on_one_core);
  between_threads(placed::on_two_cores);
  one_way_between_threads();
}
