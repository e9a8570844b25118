#include "real.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>

#include "base/sys.hpp"

namespace ringlet::hooks {

thread_local int vfork_children = 0;

namespace {

thread_local bool searching_now = false;

// libc keeps two generations of condition variables under one name; dlsym may give the one of 2.2.5, whose objects
// look different. Only x86-64 is old enough to have both.
RINGLET_UNTOLD bool has_two_generations(const char* name) noexcept {
  static constexpr const char* those[] = {"pthread_cond_wait", "pthread_cond_timedwait", "pthread_cond_signal", "pthread_cond_broadcast"};
  for (const char* each : those)
    if (std::strcmp(name, each) == 0) return true;
  return false;
}

}  // namespace

bool searching() noexcept { return searching_now; }

void* find_original(const char* name) noexcept {
  const int saved = errno;
  searching_now = true;
  void* found = nullptr;
#ifdef __x86_64__
  if (has_two_generations(name)) found = ::dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
#endif
  if (!found) found = ::dlsym(RTLD_NEXT, name);
  searching_now = false;
  errno = saved;
  return found;
}

void missing_original(const char* name) noexcept {
  char line[160];
  const int n = std::snprintf(line, sizeof line,
                              "ringlet: libc has no %s (an older glibc than the one ringlet was built with?)\n", name);
  sys::call(SYS_write, 2, line, n);
  std::abort();
}

void find_all_originals() noexcept {
#define SUSPENDS(result, name, group, parameters, arguments) real::name.find();
#define SHAPED(result, name, group, when, parameters, arguments) real::name.find();
#define VARIADIC(result, name, group, when, parameters, last, extra, arguments) real::name.find();
#define OBSERVES(result, name, group, parameters, arguments, told) real::name.find();
#define OFFLOADS(result, name, group, parameters, arguments, ends) real::name.find();
#include "calls.def"
}

namespace {
[[gnu::constructor(101)]] void find_at_start() { find_all_originals(); }
}  // namespace

}  // namespace ringlet::hooks
