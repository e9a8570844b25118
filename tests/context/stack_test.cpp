// Stacks: sizes, colours, reuse, guards and their price, and what a full stack or a full address space says.

#include <fstream>
#include <set>
#include <signal.h>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <thread>
#include <vector>

#include <ringlet/ringlet.hpp>

#include "child.hpp"
#include "context/stack.hpp"

using namespace ringlet;
using context::guard_kind;
using context::stack;
using context::stack_pool;
using support::child_part;
using support::contains;
using support::run_this_case;

namespace {

struct pool_owner {
  stack_pool* pool = new stack_pool;
  ~pool_owner() { stack_pool::retire(pool); }
  stack_pool* operator->() const { return pool; }
};

std::size_t mappings() {
  std::ifstream maps("/proc/self/maps");
  std::size_t lines = 0;
  for (std::string line; std::getline(maps, line);) ++lines;
  return lines;
}

// Eats `depth` kilobytes of stack; not optimized into a loop.
[[gnu::noinline]] int eat(int depth) {
  volatile char room[1000];
  room[0] = char(depth);
  room[999] = 1;
  return depth <= 0 ? room[0] : eat(depth - 1) + room[999];
}

[[noreturn]] void leave(int status) {
  std::fflush(nullptr);
  ::_exit(status);
}

}  // namespace

TEST_CASE("stack: a given-back stack is the next to be taken") {
  pool_owner pool;
  const stack first = pool->take(0), second = pool->take(0);
  CHECK(first.base != second.base);
  CHECK(pool->in_use() == 2);
  pool->give_back(second);
  pool->give_back(first);
  CHECK(pool->take(0).base == first.base);
  CHECK(pool->take(0).base == second.base);
  pool->give_back(first);
  pool->give_back(second);
  CHECK(pool->in_use() == 0);
}

TEST_CASE("stack: sizes are rounded up to powers of two from 16 KiB to 1 GiB") {
  pool_owner pool;
  struct row {
    std::size_t asked, stride;
  };
  for (const row r : {row{1, 16 << 10}, {16 << 10, 16 << 10}, {(16 << 10) + 1, 32 << 10}, {100'000, 128 << 10}, {8 << 20, 8 << 20},
                      {(8 << 20) + 1, 16 << 20}, {std::size_t(1) << 30, std::size_t(1) << 30}}) {
    CAPTURE(r.asked);
    const stack s = pool->take(r.asked);
    CHECK(s.stride == r.stride);
    CHECK(s.low() > s.base);
    CHECK(s.top() > s.low() + r.stride / 2);
    CHECK(s.top() <= s.base + s.stride);
    s.low()[0] = 1;  // both ends can be used
    s.top()[-1] = 1;
    pool->give_back(s);
  }
  CHECK_THROWS_AS(pool->take((std::size_t(1) << 30) + 1), std::bad_alloc);
}

TEST_CASE("stack: tops are staggered by cache lines, in sixteen colours") {
  pool_owner pool;
  std::vector<stack> taken;
  std::set<std::size_t> colours;
  for (int i = 0; i < 64; ++i) {
    taken.push_back(pool->take(0));
    const auto top = reinterpret_cast<std::uintptr_t>(taken.back().top());
    CHECK(top % 64 == 0);
    colours.insert(top % taken.back().stride);
  }
  CHECK(colours.size() == 16);
  for (const stack& s : taken) pool->give_back(s);
}

TEST_CASE("stack: many given-back stacks give their memory back") {
  pool_owner pool;
  auto resident = [] {
    long pages = 0;
    std::ifstream("/proc/self/statm").ignore(64, ' ') >> pages;
    return pages;
  };
  std::vector<stack> taken;
  const int count = support::is_instrumented() ? 1500 : 3000;
  for (int i = 0; i < count; ++i) {
    taken.push_back(pool->take(0));
    for (char* at = taken.back().low(); at < taken.back().top(); at += 4096) *at = 1;
  }
  const long full = resident();
  for (const stack& s : taken) pool->give_back(s);
  if (!support::is_instrumented()) CHECK(full - resident() > (count - 1024) * 12);
  // and they are usable afterwards
  const stack again = pool->take(0);
  again.low()[0] = 1;
  pool->give_back(again);
}

TEST_CASE("stack: a hundred thousand guarded stacks are few mappings") {
  if (context::guards() != guard_kind::regions) RINGLET_SKIP("this kernel has no guard regions (Linux 6.13)");
  pool_owner pool;
  const std::size_t count = support::is_instrumented() ? 10'000 : 100'000, before = mappings();
  std::vector<stack> taken;
  taken.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    taken.push_back(pool->take(0));
    taken.back().top()[-1] = 1;
  }
  const std::size_t added = mappings() - before;
  std::printf("  %zu stacks of 64 KiB: %zu mappings more\n", count, added);
  CHECK(added < 400);
  for (const stack& s : taken) pool->give_back(s);
}

TEST_CASE("stack: the guard of each slot knows its owner") {
  pool_owner pool;
  const stack s = pool->take(0), t = pool->take(0);
  int owner = 0;
  s.set_owner(&owner);
  const void* found = nullptr;
  std::size_t stride = 0;
  CHECK(context::find_guard(s.base, &found, &stride));
  CHECK(found == &owner);
  CHECK(stride == s.stride);
  CHECK(context::find_guard(s.base + 4095, &found, &stride));
  CHECK_FALSE(context::find_guard(s.base + 4096, &found, &stride));
  CHECK_FALSE(context::find_guard(&owner, &found, &stride));
  CHECK_FALSE(context::find_guard(nullptr, &found, &stride));
  pool->give_back(s);
  pool->give_back(t);
  CHECK(context::find_guard(s.base, &found, &stride));
  CHECK(found == nullptr);
}

TEST_CASE("stack: RINGLET_STACK_SIZE is bytes, k or M, from 16k to 1024M") {
  struct row {
    const char* text;
    std::size_t bytes;  // 0: refused
  };
  const char* before = std::getenv("RINGLET_STACK_SIZE");
  const std::string kept = before ? before : "";
  for (const row r : {row{"", 64 << 10}, {"16384", 16384}, {"256k", 256 << 10}, {"256K", 256 << 10}, {"8M", 8 << 20}, {"1024M", std::size_t(1) << 30},
                      {"20000", 20000}, {"16383", 0}, {"15k", 0}, {"1025M", 0}, {"0", 0}, {"-65536", 0}, {"64kb", 0}, {"64 k", 0}, {"lots", 0},
                      {" 65536", 0}, {"0x10000", 0}, {"99999999999999999999", 0}, {"18014398509482000k", 0}}) {
    CAPTURE(r.text);
    ::setenv("RINGLET_STACK_SIZE", r.text, 1);
    if (r.bytes) {
      CHECK(context::configured_stack_bytes() == r.bytes);
    } else {
      std::string why;
      try {
        context::configured_stack_bytes();
      } catch (const std::runtime_error& e) {
        why = e.what();
      }
      CHECK(contains(why, "RINGLET_STACK_SIZE=" + std::string(r.text)));
      CHECK(contains(why, "16384 (16k)"));
    }
  }
  before ? ::setenv("RINGLET_STACK_SIZE", kept.c_str(), 1) : ::unsetenv("RINGLET_STACK_SIZE");
}

TEST_CASE("stack: RINGLET_STACK_SIZE sets how deep a fiber may go") {
  if (child_part("deep")) {
    spawn([] { eat(700); }).join();
    leave(0);
  }
  CHECK(run_this_case("deep", {"RINGLET_STACK_SIZE=4M"}).exit_status == 0);
  const auto small = run_this_case("deep", {"RINGLET_STACK_SIZE=128k"});
  if (!support::is_instrumented()) CHECK(small.signal == SIGSEGV);
  CHECK(contains(small.err, "its 128 KiB stack is full"));
}

TEST_CASE("stack: a bad RINGLET_STACK_SIZE is told by the first spawn") {
  if (child_part("bad")) {
    try {
      spawn([] {}).join();
    } catch (const std::runtime_error& e) {
      std::fputs(e.what(), stderr);
      leave(3);
    }
    leave(0);
  }
  const auto r = run_this_case("bad", {"RINGLET_STACK_SIZE=many"});
  CHECK(r.exit_status == 3);
  CHECK(contains(r.err, "RINGLET_STACK_SIZE=many is not a stack size"));
}

TEST_CASE("stack: a fiber with an 8 MB stack uses what it was given") {
  int result = 0;
  spawn({.name = "deep", .stack_size_bytes = 8 << 20}, [&] { result = eat(6000); }).join();
  CHECK(result != 0);
  greenlet g([] { return eat(6000); }, greenlet::current(), 8 << 20);
  CHECK(g.switch_to<int>() == result);
}

TEST_CASE("stack: what was captured may be larger than a small stack, and then says so") {
  struct big {
    char bytes[60'000];
  };
  auto much = std::make_unique<big>();
  CHECK_THROWS_AS(spawn([b = *much] { return b.bytes[0]; }), std::bad_alloc);
  const std::size_t before = living_greenlets();
  CHECK_THROWS_AS(greenlet([b = *much] { return b.bytes[0]; }), std::bad_alloc);
  CHECK(living_greenlets() == before);
  much->bytes[59'999] = 7;
  CHECK(spawn({.stack_size_bytes = 256 << 10}, [b = *much] { return b.bytes[59'999]; }).get() == 7);
}

TEST_CASE("overflow: is reported with the fiber's name and dies of SIGSEGV") {
  if (child_part("named")) {
    spawn({.name = "the greedy one"}, [] { eat(100'000); }).join();
    leave(0);
  }
  if (child_part("unnamed")) {
    spawn([] { yield(); });
    spawn([] { eat(100'000); }).join();
    leave(0);
  }
  if (child_part("greenlet")) {
    greenlet first([] {});
    greenlet second([] { eat(100'000); });
    second.switch_to();
    leave(0);
  }
  if (child_part("thread")) {
    std::thread([] { spawn({.name = "elsewhere"}, [] { eat(100'000); }).join(); }).join();
    leave(0);
  }
  struct row {
    const char *part, *name;
  };
  for (const row r : {row{"named", "stack overflow in fiber 'the greedy one': its 64 KiB stack is full"},
                      {"unnamed", "stack overflow in fiber 'fiber-2'"},
                      {"greenlet", "stack overflow in greenlet 2:"},
                      {"thread", "stack overflow in fiber 'elsewhere'"}}) {
    CAPTURE(r.part);
    const auto result = run_this_case(r.part);
    CAPTURE(result.err);
    // The sanitizers see the signal first or handle it after us; the report must be there in any case.
    if (support::is_instrumented()) CHECK(result.exit_status != 0);
    else CHECK(result.signal == SIGSEGV);
    CHECK(contains(result.err, r.name));
    CHECK(contains(result.err, "cure: spawn it with a larger stack_size_bytes"));
  }
}

TEST_CASE("overflow: a program's own SIGSEGV handler still gets other faults") {
  if (child_part("own handler")) {
    static void* volatile wanted = ::mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sigaction own {};
    own.sa_flags = SA_SIGINFO;
    own.sa_sigaction = [](int, siginfo_t* info, void*) { ::_exit(info->si_addr == wanted ? 42 : 43); };
    ::sigaction(SIGSEGV, &own, nullptr);
    spawn([] { *static_cast<volatile char*>(wanted) = 1; }).join();
    leave(0);
  }
  if (child_part("plain handler")) {
    ::signal(SIGSEGV, [](int) { ::_exit(44); });
    spawn([] { *static_cast<volatile char*>(nullptr) = 1; }).join();
    leave(0);
  }
  if (child_part("own handler, overflow")) {
    struct sigaction own {};
    own.sa_flags = SA_ONSTACK;
    own.sa_handler = [](int) { ::_exit(45); };
    ::sigaction(SIGSEGV, &own, nullptr);
    spawn([] { eat(100'000); }).join();
    leave(0);
  }
  if (child_part("no handler")) {
    spawn([] { *static_cast<volatile char*>(nullptr) = 1; }).join();
    leave(0);
  }
  if (child_part("sent")) {
    spawn([] { yield(); }).join();
    ::kill(::getpid(), SIGSEGV);
    leave(0);
  }
  CHECK(run_this_case("own handler").exit_status == 42);
  if (support::is_instrumented()) return;  // null dereferences and dying of signals are the sanitizer's there
  CHECK(run_this_case("plain handler").exit_status == 44);
  const auto full = run_this_case("own handler, overflow");
  CHECK(full.exit_status == 45);
  CHECK(contains(full.err, "stack overflow in fiber 'fiber-1'"));
  const auto none = run_this_case("no handler");
  CHECK(none.signal == SIGSEGV);
  CHECK_FALSE(contains(none.err, "overflow"));
  CHECK(run_this_case("sent").signal == SIGSEGV);
}

TEST_CASE("stack: without guard regions stacks are guarded by mprotect, and their end is told in words") {
  if (child_part("few")) {
    if (context::guards() != guard_kind::mprotect) leave(9);
    spawn([] { eat(100'000); }).join();
    leave(0);
  }
  if (child_part("all")) {
    pool_owner pool;
    std::size_t count = 0;
    try {
      for (; count < 200'000; ++count) pool->take(0);
    } catch (const std::bad_alloc& e) {
      std::fprintf(stderr, "%zu stacks: %s\n", count, e.what());
    }
    leave(0);
  }
  const auto few = run_this_case("few", {"RINGLET_GUARDS=mprotect"});
  CHECK(contains(few.err, "stack overflow in fiber 'fiber-1'"));
  if (support::is_instrumented()) return;
  const auto all = run_this_case("all", {"RINGLET_GUARDS=mprotect"});
  CHECK(contains(all.err, "vm.max_map_count"));
  CHECK(contains(all.err, "RINGLET_GUARDS=mprotect"));
  const int count = std::atoi(all.err.c_str());
  std::printf("  guards by mprotect: %d stacks\n", count);
  CHECK(count > 20'000);
}

TEST_CASE("stack: RINGLET_GUARDS allows auto, regions and mprotect") {
  if (child_part("bad")) {
    try {
      greenlet([] {}).switch_to();
    } catch (const std::runtime_error& e) {
      std::fputs(e.what(), stderr);
      leave(3);
    }
    leave(0);
  }
  const auto r = run_this_case("bad", {"RINGLET_GUARDS=none"});
  CHECK(r.exit_status == 3);
  CHECK(contains(r.err, "RINGLET_GUARDS=none"));
  CHECK(contains(r.err, "auto, regions"));
}

TEST_CASE("stack: a limit on address space is named with its cure") {
  if (support::is_instrumented()) RINGLET_SKIP("sanitizers need the address space");
  if (child_part("limited")) {
    const rlimit limit{1 << 30, 1 << 30};
    ::setrlimit(RLIMIT_AS, &limit);
    std::vector<fiber<>> all;
    // The stacks will take all there is; what comes after needs a little for itself.
    constexpr std::size_t ballast_bytes = 32 << 20;
    void* ballast = ::mmap(nullptr, ballast_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    try {
      for (int i = 0; i < 100'000; ++i) all.push_back(spawn({.stack_size_bytes = 1 << 20}, [] {}));
    } catch (const std::bad_alloc& e) {
      ::munmap(ballast, ballast_bytes);
      std::fputs(e.what(), stderr);
      const auto made = all.size();
      joinall(all);
      all.clear();
      spawn({.stack_size_bytes = 1 << 20}, [] {}).join();  // and life goes on
      leave(made > 100 ? 4 : 5);
    }
    leave(0);
  }
  const auto r = run_this_case("limited");
  CHECK(r.exit_status == 4);
  CHECK(contains(r.err, "ulimit -v"));
}

TEST_CASE("stack: stacks outlive their thread while somebody holds them") {
  greenlet kept;
  std::thread([&] {
    kept = greenlet([] { return 5; });
    kept.switch_to<int>();
  }).join();
  CHECK(kept.dead());
  kept = greenlet();
}
