// Plain threaded programs, one a case: `battery NAME` runs one and prints what it saw; `battery` lists the names.
// Nothing in here knows of ringlet. battery_test.py runs each bare and under `ringlet run --threads=fibers` and
// compares.

#include <sys/resource.h>
#include <sys/syscall.h>

#include <cstring>
#include <vector>

#include "battery.hpp"
#include "support/thread_state.hpp"

namespace battery {
namespace {

struct test {
  const char* name;
  void (*run)();
};
// In a function: the cases of other files are added before main's own globals may be there.
std::vector<test>& all() {
  static std::vector<test> tests;
  return tests;
}

// The kernel's own number of this thread: asked past libc, where nobody answers in its place.
pid_t kernel_tid() {
#if defined(__x86_64__)
  long result = SYS_gettid;
  asm volatile("syscall" : "+a"(result) : : "rcx", "r11", "memory");
  return pid_t(result);
#else
  return gettid();
#endif
}

long times_slept() {
  rusage used;
  getrusage(RUSAGE_THREAD, &used);
  return used.ru_nvcsw;
}

}  // namespace

added::added(const char* name, void (*run)()) { all().push_back({name, run}); }

bool asleep(pid_t tid) {
  const char state = support::state_of(tid);
  if (state && tid != kernel_tid()) return state == 'S';
  // It shares our kernel thread, which gave up the processor while we slept: so nobody on it had anything to do.
  const long before = times_slept();
  usleep(1000);
  return times_slept() > before;
}

void* in_thread(void* (*run)(void*), void* with) {
  pthread_t t;
  void* result = nullptr;
  CHECK(pthread_create(&t, nullptr, run, with) == 0);
  CHECK(pthread_join(t, &result) == 0);
  return result;
}

void install(int signal, void (*handler)(int), int flags) {
  struct sigaction how {};
  how.sa_handler = handler;
  how.sa_flags = flags;
  sigaction(signal, &how, nullptr);
}
void count_signal(int) {
  ++handled_here;
  ++handled;
}

}  // namespace battery

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (argc < 2) {
    for (const auto& t : battery::all()) std::puts(t.name);
    return 0;
  }
  for (const auto& t : battery::all())
    if (std::strcmp(t.name, argv[1]) == 0) {
      t.run();
      return 0;
    }
  std::fprintf(stderr, "no case '%s'\n", argv[1]);
  return 2;
}
