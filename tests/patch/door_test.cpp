// The door as a whole: opened by rule, tested by itself, closed without a trace; libraries that come later.
//
// Each case opens it in a child of its own: a process has one door.

#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <string>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "patch/door.hpp"
#include "patched.hpp"

namespace patch = ringlet::patch;

namespace {

// Runs in a child; what it returns is "" or what is wrong.
std::string in_child(const std::function<std::string()>& body) {
  auto pipe = support::make_pipe();
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string said = body();
    (void)!::write(pipe.second, said.data(), said.size());
    ::_exit(0);
  }
  pipe.second.reset();
  std::string said;
  char bytes[512];
  for (ssize_t n; (n = ::read(pipe.first, bytes, sizeof bytes)) > 0;) said.append(bytes, std::size_t(n));
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? said : "it died by signal " + std::to_string(WTERMSIG(status)) + "; " + said;
}

void answering(patch::registers& r) {
  if (r.rax == SYS_getppid) r.rax = 4711;
  else patch::pass_at_site(r);
}

patch::door_rule rule(std::string (*test)() = nullptr) { return {.wanted = patch::number_set::all(), .call = answering, .test = test}; }

}  // namespace

TEST_CASE("door: open, libc's calls come to the dispatcher; closed, they don't") {
  SKIP_UNDER_SANITIZERS();
  CHECK(in_child([]() -> std::string {
          if (const auto why = patch::open_door(rule()); !why.empty()) return why;
          if (!patch::is_door_open() || ::getppid() != 4711) return "it is not open";
          if (patch::treated_libraries().empty() || !patch::treated_libraries().front().applied) return "libc is not among the treated";
          patch::close_door();
          if (patch::is_door_open() || ::getppid() == 4711) return "it is not closed";
          if (const auto why = patch::open_door(rule()); !why.empty()) return "again: " + why;
          return ::getppid() == 4711 ? "" : "it is not open again";
        }) == "");
}

TEST_CASE("door: a test of the rule's that fails closes it, and says so") {
  SKIP_UNDER_SANITIZERS();
  CHECK(in_child([]() -> std::string {
          const auto why = patch::open_door(rule([]() -> std::string { return ::getppid() == 4711 ? "made up" : "the test does not see the dispatcher"; }));
          if (patch::is_door_open() || ::getppid() == 4711) return "it is open";
          for (const auto& p : patch::treated_libraries())
            if (p.applied) return p.library + " is still patched";
          return why;
        }) == "its self-test failed: made up");
}

TEST_CASE("door: a library that is loaded later is treated by the same rule, again when it comes again, and forgotten when it goes") {
  SKIP_UNDER_SANITIZERS();
  CHECK(in_child([]() -> std::string {
          if (const auto why = patch::open_door(rule()); !why.empty()) return why;
          if (!patch::are_loads_watched()) return "the loader is not watched";
          const auto before = patch::treated_libraries().size();
          if (const auto said = patch::treat_new_libraries(); !said.empty() || patch::treated_libraries().size() != before) return "something new was seen: " + said;
          for (int i = 0; i < 3; ++i) {
            void* loaded = ::dlopen("liburing.so.2", RTLD_NOW | RTLD_LOCAL);
            if (!loaded) return "there is no liburing";
            if (patch::treated_libraries().size() != before + 1) return "the new library is not treated";
            const auto& p = patch::treated_libraries().back();
            if (!p.applied || p.library.find("liburing") == std::string::npos || p.wanted_count() == 0) return "it is not patched: " + p.library + ": " + p.refused;
            // A ring is set up and left by its own system calls, which pass (or are refused here).
            auto init = reinterpret_cast<int (*)(unsigned, void*, unsigned)>(::dlsym(loaded, "io_uring_queue_init"));
            auto leave = reinterpret_cast<void (*)(void*)>(::dlsym(loaded, "io_uring_queue_exit"));
            alignas(16) char ring[1024] = {};
            const int result = init ? init(4, ring, 0) : 1;
            if (result > 0) return "io_uring_queue_init";
            if (result == 0) leave(ring);
            ::dlclose(loaded);
            if (::dlopen("liburing.so.2", RTLD_NOLOAD | RTLD_NOW)) return "it can't be unloaded";
            if (patch::treated_libraries().size() != before) return "it is not forgotten";
          }
          patch::close_door();
          void* loaded = ::dlopen("liburing.so.2", RTLD_NOW | RTLD_LOCAL);
          for (const auto& p : patch::treated_libraries())
            if (p.library.find("liburing") != std::string::npos) return "it is treated with the door closed";
          ::dlclose(loaded);
          return "";
        }) == "");
}

TEST_CASE("door: the rule names libc and what waits in calls of its own, and leaves compute libraries with a reason") {
  CHECK(patch::is_under_rule("/lib/x86_64-linux-gnu/libc.so.6"));
  CHECK(patch::is_under_rule("/usr/lib/libc-2.31.so"));
  CHECK(patch::is_under_rule("/lib/libpthread.so.0"));
  CHECK(patch::is_under_rule("liburing.so.2"));
  CHECK(patch::is_under_rule("/usr/lib/x86_64-linux-gnu/libaio.so.1t64"));
  CHECK_FALSE(patch::is_under_rule("/usr/lib/x86_64-linux-gnu/libgomp.so.1"));
  CHECK_FALSE(patch::is_under_rule("/home/libc.so.6/program"));
  CHECK_FALSE(patch::is_under_rule("/usr/lib/libcurl.so.4"));
  CHECK(patch::why_left("/usr/lib/x86_64-linux-gnu/libgomp.so.1").find("OpenMP") != std::string::npos);
  CHECK(patch::why_left("/usr/lib/libcurl.so.4") == "");
}
