#pragma once
// What the tests of processes share. PROCESS_CASE runs its body on this thread's hub and then looks whether anything was left
// behind: a fiber, a wait, an fd, a child that nobody has waited for.

#include <csignal>
#include <dirent.h>
#include <new>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ringlet/process.hpp>

#include "hub/on_hub.hpp"

namespace process_test {

using namespace hub_test;

inline std::size_t open_fds() {
  std::size_t n = 0;
  DIR* d = ::opendir("/proc/self/fd");
  while (d && ::readdir(d)) ++n;
  if (d) ::closedir(d);
  return n;
}

inline bool has_children() {
  int status;
  return ::waitpid(-1, &status, WNOHANG) != -1 || errno != ECHILD;
}

inline void leaving_nothing(void (*body)()) {
  hub::here();
  static const bool warm = (body(), true);  // what is made once (tables, the hub's own fds) counts for nobody
  (void)warm;
  const std::size_t fds = open_fds(), living = living_greenlets();
  body();
  CHECK(left_behind() == "");
  CHECK(open_fds() == fds);
  CHECK(living_greenlets() == living);
  CHECK_FALSE(has_children());
  CHECK(active_children().empty());
}

// Memory that parent and child see.
template <class T>
class seen_by_both {
 public:
  seen_by_both() : at_(new (::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) T) {}
  ~seen_by_both() { ::munmap(at_, sizeof(T)); }
  T& operator*() { return *at_; }
  T* operator->() { return at_; }

 private:
  T* at_;
};

#define RINGLET_PROCESS_CASE(function, name)  \
  static void function();                     \
  TEST_CASE(name) {                           \
    NOT_UNDER_TSAN;                           \
    process_test::leaving_nothing(&function); \
  }                                           \
  static void function()
#define PROCESS_CASE(name) RINGLET_PROCESS_CASE(DOCTEST_ANONYMOUS(process_case_), name)

}  // namespace process_test
