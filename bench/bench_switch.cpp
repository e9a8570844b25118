// A switch: by hand between greenlets, and by the hub among so many fibers.
//
// Raw is Boost's jump_fcontext: registers and nothing else. Ours also carries errno and the exception state, and knows
// who switched to whom. Figures are per one-way switch. Among many fibers most of the cost is cache and page-table misses of
// cold stacks, which the raw ring has as well.

#include <ringlet/ringlet.hpp>

#include <memory>
#include <vector>

#include "harness.hpp"
#include "raw_context.hpp"

#include "context/context.hpp"

namespace {

// The innermost layer, errno and exceptions included, without greenlets. (make_context is not exported; this is it.)
struct bare_switch {
  ringlet::context::context here, there;
  bench::raw_stacks stacks{1};
  static inline bare_switch* self = nullptr;

  static void run(bench::transfer_t t) {
    ringlet::context::detail::land(t);
    bare_switch& s = *self;
    while (true) ringlet::context::switch_context(s.there, s.here, nullptr);
  }
  bare_switch() {
    there.sp = bench::make_fcontext(stacks.top(0), bench::raw_stacks::stride / 2, &run);
    self = this;
  }
  void there_and_back() { ringlet::context::switch_context(here, there, nullptr); }
};

void by_hand() {
  auto raw = std::make_shared<bench::raw_pair>();
  auto bare = std::make_shared<bare_switch>();
  ringlet::greenlet silent([] {
    auto parent = ringlet::greenlet::current().parent();
    while (true) parent.switch_to();
  });
  ringlet::greenlet adder([](int x) {
    auto parent = ringlet::greenlet::current().parent();
    while (true) x = parent.switch_to<int>(x + 1);
  });
  silent.switch_to();
  adder.switch_to<int>(1);

  bench::compare("switch by hand: ns of CPU per switch",
                 {
                     bench::timed("raw jump_fcontext", [raw](std::size_t n) { for (n /= 2; n; --n) raw->there_and_back(); }),
                     bench::timed("with errno and exception state", [bare](std::size_t n) { for (n /= 2; n; --n) bare->there_and_back(); }),
                     bench::timed("greenlet switch_to()", [silent](std::size_t n) { for (n /= 2; n; --n) silent.switch_to(); }),
                     bench::timed("greenlet switch_to<int>(int)",
                                  [adder](std::size_t n) {
                                    int x = 0;
                                    for (n /= 2; n; --n) x = adder.switch_to<int>(x);
                                    bench::keep(x);
                                  }),
                 },
                 {.rounds = 21});
}

// All fibers, the main one among them, do nothing but yield.
void by_the_hub(std::size_t fibers) {
  auto ring = std::make_shared<bench::raw_ring>(fibers - 1);
  bool over = false;
  std::vector<ringlet::any_fiber> crowd;
  for (std::size_t i = 1; i < fibers; ++i)
    crowd.push_back(ringlet::spawn([&over] { while (!over) ringlet::yield(); }));
  auto round_trips = [fibers](std::size_t n) { return (n + fibers - 1) / fibers; };
  const std::string count = std::to_string(fibers);
  bench::compare("yield among " + count + " fibers: ns of CPU per switch",
                 {
                     {"raw ring of " + count + " fcontexts",
                      [=](std::size_t n) {
                        const std::size_t turns = round_trips(n);
                        const double start = bench::thread_cpu_ns();
                        for (std::size_t i = 0; i < turns; ++i) ring->turn();
                        return bench::sample{bench::thread_cpu_ns() - start, double(turns * fibers)};
                      }},
                     {"yield() among " + count,
                      [=](std::size_t n) {
                        const std::size_t turns = round_trips(n);
                        const double start = bench::thread_cpu_ns();
                        for (std::size_t i = 0; i < turns; ++i) ringlet::yield();
                        return bench::sample{bench::thread_cpu_ns() - start, double(turns * fibers)};
                      }},
                 },
                 {.rounds = fibers > 20'000 ? 9 : 15});
  over = true;
  ringlet::joinall(crowd);
}

}  // namespace

int main(int argc, char** argv) {
  bench::begin(argc, argv, "bench_switch");
  by_hand();
  for (std::size_t fibers : {2, 100, 10'000, 100'000})
    if (!bench::asked().quick || fibers < 100'000) by_the_hub(fibers);
}
