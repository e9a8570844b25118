// What the system-call door costs: a call that is answered, one that is passed on in each of the two ways, and looking
// at libc before any of it.
//
// Raw is the same libc function, unpatched. What is added to a passed call is the difference to raw, which a mitigated
// kernel makes look small: so the difference stands beside the ratio.

#include <gnu/libc-version.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "harness.hpp"
#include "patch/patch.hpp"

namespace patch = ringlet::patch;

namespace {

const void* in_libc() { return reinterpret_cast<const void*>(&::gnu_get_libc_version); }

patch::number_set wanted_numbers() {
  patch::number_set set;
  set.add(SYS_getppid);
  return set;
}

patch::plan& plan() {
  static patch::plan p = patch::make_plan(in_libc(), wanted_numbers());
  return p;
}

void answer(patch::registers& r) {
  if (r.rax == SYS_getppid) r.rax = 4711;
  else patch::pass_at_site(r);
}

// libc is patched only while its row is measured.
bench::candidate row(std::string name, patch::dispatcher d) {
  return {std::move(name), [=](std::size_t n) {
            if (d)
              if (const auto why = patch::apply(plan(), d); !why.empty()) {
                std::fprintf(stderr, "bench_door: %s\n", why.c_str());
                std::exit(2);
              }
            const double start = bench::thread_cpu_ns();
            for (std::size_t i = 0; i < n; ++i) bench::keep(::getppid());
            const double ns = bench::thread_cpu_ns() - start;
            if (d) patch::restore(plan());
            return bench::sample{ns, double(n)};
          }};
}

// What a way of passing adds, as the median of differences within one round.
double added_ns(patch::dispatcher d) {
  constexpr std::size_t calls = 20'000;
  const int rounds = bench::asked().quick ? 11 : 101;
  const auto raw = row("", nullptr), through = row("", d);
  std::vector<double> added;
  for (int i = 0; i < rounds; ++i) {
    const double a = raw.run(calls).ns, b = through.run(calls).ns;
    added.push_back((b - a) / double(calls));
  }
  std::nth_element(added.begin(), added.begin() + rounds / 2, added.end());
  return added[std::size_t(rounds / 2)];
}

}  // namespace

int main(int argc, char** argv) {
  bench::begin(argc, argv, "bench_door");
  bench::compare("getppid(): ns of CPU a call",
                 {
                     row("libc's, unpatched", nullptr),
                     row("answered by a dispatcher", answer),
                     row("passed through", patch::pass_through),
                     row("passed at its site", patch::pass_at_site),
                 },
                 {.rounds = 21, .round_ms = 4});
  if (bench::asked().operations == 0) {
    std::printf("\nadded to a call that is passed through: %.1f ns; at its site: %.1f ns (goal: at most 10)\n", added_ns(patch::pass_through), added_ns(patch::pass_at_site));
  }
  bench::compare("looking at libc and patching it: us of CPU",
                 {
                     {"make_plan", [](std::size_t n) {
                        const double start = bench::thread_cpu_ns();
                        for (std::size_t i = 0; i < n; ++i) bench::keep(patch::make_plan(in_libc(), wanted_numbers()).sites.size());
                        return bench::sample{(bench::thread_cpu_ns() - start) / 1000, double(n)};
                      }},
                     {"apply and restore", [](std::size_t n) {
                        const double start = bench::thread_cpu_ns();
                        for (std::size_t i = 0; i < n; ++i) patch::apply(plan(), answer), patch::restore(plan());
                        return bench::sample{(bench::thread_cpu_ns() - start) / 1000, double(n)};
                      }},
                 },
                 {.unit = "us", .rounds = 5, .round_ms = 40, .most_operations = 4});
  return 0;
}
