// The C face, from a C11 file beside this one.

#include <sys/resource.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <thread>

#include <ringlet/ringlet.h>

#include "hub/on_hub.hpp"

using namespace hub_test;

extern "C" {
const char* c_fibers();
const char* c_kill();
const char* c_greenlets();
int c_switch_to_foreign();
int c_join_foreign();
void c_make_foreign();
void c_drop_foreign();
}

namespace {
std::string said(const char* wrong) { return wrong ? wrong : ""; }
}  // namespace

HUB_CASE("C: spawn, join, sleep and yield") { CHECK(said(c_fibers()) == ""); }
HUB_CASE("C: a kill makes the call in which the fiber waits return -ECANCELED") { CHECK(said(c_kill()) == ""); }
HUB_CASE("C: greenlets switch with a pointer, and are thrown out of their frames") {
  // In a fiber the outermost greenlet has the hub as its parent; on main it has none.
  if (current().id() == 0) CHECK(said(c_greenlets()) == "");
}

HUB_CASE("C: another thread's greenlet or fiber is -EPERM") {
  c_make_foreign();
  int switched = 0, joined = 0;
  std::thread([&] {
    switched = c_switch_to_foreign();
    joined = c_join_foreign();
  }).join();
  CHECK(switched == -EPERM);
  CHECK(joined == -EPERM);
  c_drop_foreign();
}

HUB_CASE("C: a timeout around a C frame makes its call return -ECANCELED, and is told to nobody else") {
  auto f = spawn([] {
    timeout limit(1ms);
    const int result = ringlet_sleep(-1);
    return std::pair(result, limit.thrown());
  });
  CHECK(f.get() == std::pair(-ECANCELED, true));
}

TEST_CASE("C: a deadlock is -EDEADLK") {
  if (has_background_thread()) RINGLET_SKIP("ThreadSanitizer has a thread of its own");
  CHECK(ringlet_sleep(-1) == -EDEADLK);
}

TEST_CASE("C: a thread that can have no hub is told why, and not that it was killed") {
  if (support::child_part("no fds")) {
    rlimit none{3, 3};
    ::setrlimit(RLIMIT_NOFILE, &none);
    errno = 0;
    const bool refused = !ringlet_spawn([](void* argument) { return argument; }, nullptr, nullptr) && errno == EMFILE;
    std::exit(refused && ringlet_sleep(1000) == -EMFILE && ringlet_yield() == -EMFILE && !ringlet_current_fiber() ? 0 : 1);
  }
  const auto seen = support::run_this_case("no fds");
  INFO(seen.err);
  CHECK(seen.exit_status == 0);
}
