// A switch: by hand between greenlets, and by the hub among so many fibers.
//
// Raw is Boost's jump_fcontext: registers and nothing else. Ours also carries errno and the exception state, and knows
// who switched to whom (bench_context has the former alone). Figures are per one-way switch. Among many fibers most of the cost is cache and page-table misses of
// cold stacks, which the raw ring has as well.

#include <ringlet/ringlet.hpp>

#include <memory>
#include <vector>

#include "harness.hpp"
#include "raw_context.hpp"

namespace {

void by_hand() {
  auto raw = std::make_shared<bench::raw_pair>();
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
  if (!bench::wanted({"raw ring of " + std::to_string(fibers) + " fcontexts", "yield() among " + std::to_string(fibers)})) return;
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
