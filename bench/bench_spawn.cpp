// Beginning and ending a fiber, and a million of them at rest.
//
// Raw, warm: make_fcontext on a stack that is there, jump in, jump back, forget it. Raw, cold: the page fault of a
// stack's first page, which no runtime can avoid. The million waits for one event, each with a deadline (a timer) as a sleep has
// one; it lives in a child process, so that its memory is counted alone.

#include <ringlet/ringlet.hpp>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "harness.hpp"
#include "raw_context.hpp"

namespace {

void once_and_back(bench::transfer_t t) { bench::jump_fcontext(t.fctx, nullptr); }

void warm() {
  auto stacks = std::make_shared<bench::raw_stacks>(1);
  bench::compare(
      "begin, run and end: ns of CPU each, on warm stacks",
      {
          bench::timed("raw make_fcontext, jump, back",
                       [stacks](std::size_t n) {
                         for (; n; --n)
                           bench::jump_fcontext(bench::make_fcontext(stacks->top(0), bench::raw_stacks::stride / 2, &once_and_back), nullptr);
                       }),
          bench::timed("spawn and join", [](std::size_t n) { for (; n; --n) ringlet::spawn([] {}).join(); }),
          bench::timed("spawn and get an int",
                       [](std::size_t n) {
                         int sum = 0;
                         for (; n; --n) sum += ringlet::spawn([n] { return int(n); }).get();
                         bench::keep(sum);
                       }),
          {"spawn 100, then join each",
           [](std::size_t n) {
             std::vector<ringlet::any_fiber> all;
             all.reserve(100);
             const std::size_t rounds = (n + 99) / 100;
             const double start = bench::thread_cpu_ns();
             for (std::size_t i = 0; i < rounds; ++i) {
               for (int j = 0; j < 100; ++j) all.push_back(ringlet::spawn([] {}));
               for (auto& f : all) f.join();
               all.clear();
             }
             return bench::sample{bench::thread_cpu_ns() - start, double(rounds * 100)};
           }},
          {"spawn 100, joinall",
           [](std::size_t n) {
             std::vector<ringlet::any_fiber> all;
             const std::size_t rounds = (n + 99) / 100;
             const double start = bench::thread_cpu_ns();
             for (std::size_t i = 0; i < rounds; ++i) {
               for (int j = 0; j < 100; ++j) all.push_back(ringlet::spawn([] {}));
               ringlet::joinall(all);
               all.clear();
             }
             return bench::sample{bench::thread_cpu_ns() - start, double(rounds * 100)};
           }},
          bench::timed("greenlet: make, switch_to, ended", [](std::size_t n) { for (; n; --n) ringlet::greenlet([] {}).switch_to(); }),
          bench::timed_process("std::thread: start and join (process CPU)",
                               [](std::size_t n) { for (; n; --n) std::thread([] {}).join(); }),
      });
}

// Kilobytes of a line of /proc/self/status.
double status_kb(const char* name) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.compare(0, std::strlen(name), name) == 0) return std::atof(line.c_str() + std::strlen(name) + 1);
  return 0;
}
double mappings() {
  std::ifstream in("/proc/self/maps");
  double count = 0;
  for (std::string line; std::getline(in, line);) ++count;
  return count;
}
double available_kb() {
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("MemAvailable:", 0) == 0) return std::atof(line.c_str() + 13);
  return 0;
}

// A page a stride, as stacks are touched. The second time counts: in a virtual machine the first also makes the host find
// the memory, and what comes later would be spared that.
double fault_ns(std::size_t count) {
  bench::raw_stacks memory(count);
  const double start = bench::thread_cpu_ns();
  for (std::size_t i = 0; i < count; ++i) *static_cast<volatile char*>(memory.top(i) - 1) = 1;
  return (bench::thread_cpu_ns() - start) / double(count);
}

void parked(std::size_t count) {
  const std::string table = std::to_string(count) + " fibers parked";
  fault_ns(count);
  const double fault = fault_ns(count);
  ringlet::spawn([] { ringlet::sleep(std::chrono::microseconds(1)); }).join();
  const double resident = status_kb("VmRSS:"), tables = status_kb("VmPTE:"), maps = mappings();

  ringlet::event morning;
  const ringlet::deadline far(std::chrono::hours(1));
  std::size_t asleep = 0, awake = 0;
  double start = bench::thread_cpu_ns();
  for (std::size_t i = 0; i < count; ++i)
    ringlet::spawn([&asleep, &awake, &morning, far] {
      ++asleep;
      morning.wait(far);
      ++awake;
    });
  while (asleep < count) ringlet::yield();
  const double created = (bench::thread_cpu_ns() - start) / double(count);
  const double n = double(count);

  std::printf("\n%s  (once)\n", table.c_str());
  bench::value(table, "raw: page fault of a stack's first page", fault, "ns", fault);
  bench::value(table, "spawn, run and park", created, "ns", fault);
  bench::value(table, "resident memory of each", (status_kb("VmRSS:") - resident) * 1024 / n, "bytes", 4096);
  bench::value(table, "page tables of each", (status_kb("VmPTE:") - tables) * 1024 / n, "bytes");
  bench::value(table, "mappings of all (VMAs)", mappings() - maps, "");

  start = bench::thread_cpu_ns();
  morning.set();
  while (awake < count) ringlet::yield();
  bench::value(table, "wake, cancel its timer, run and end", (bench::thread_cpu_ns() - start) / n, "ns", fault);
  const std::size_t left = ringlet::hub::count().fibers;
  if (left) std::printf("  (%zu fibers are left)\n", left);
}

void in_a_child(void (*work)(std::size_t), std::size_t argument) {
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child == 0) {
    work(argument);
    std::fflush(stdout);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (status != 0) {
    std::fprintf(stderr, "bench_spawn: the child with %zu fibers ended with status %d\n", argument, status);
    std::exit(1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  bench::begin(argc, argv, "bench_spawn");
  if (bench::asked().only.empty() && !bench::asked().operations) {
    // 4.2 KB each, and as much again for the raw faults before.
    const bool room = available_kb() > 6e6;
    if (!room) std::printf("only 100,000 fibers instead of a million: less than 6 GB of memory are free\n");
    in_a_child(&parked, bench::asked().quick ? 20'000 : room ? 1'000'000 : 100'000);
  }
  warm();
}
