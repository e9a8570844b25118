// libc itself, patched: processes and threads begin and end as ever, a child of clone can be begun by hand, and code is
// written under whatever the system allows.

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "patched.hpp"

namespace patch = ringlet::patch;

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

extern char** environ;
extern "C" long shape_number_before(long);

namespace {

const patch::dispatcher both_ways[] = {patched::passing_through, patched::passing_at_site};

// Runs `body` in a child of fork: its return is the child's exit status, 99 if it died.
template <class Body>
int in_child(Body body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

bool has_writable_code() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.find(" rwx") != std::string::npos) return true;
  return false;
}

}  // namespace

TEST_CASE("libc: fork, vfork, posix_spawn and popen work under the door, each call counted") {
  SKIP_UNDER_SANITIZERS();
  for (const auto d : both_ways) {
    patched::library on(patched::in_libc(), d);
    const auto before = patched::reached;
    CHECK(in_child([] { return ::getppid() > 0 ? 7 : 1; }) == 7);

    const pid_t child = ::vfork();
    if (child == 0) {
      ::execl("/bin/sh", "sh", "-c", "exit 5", nullptr);
      ::_exit(127);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WEXITSTATUS(status) == 5);

    pid_t spawned = 0;
    char command[] = "exit 6", flag[] = "-c", name[] = "sh";
    char* const arguments[] = {name, flag, command, nullptr};
    REQUIRE(::posix_spawn(&spawned, "/bin/sh", nullptr, nullptr, arguments, environ) == 0);
    REQUIRE(::waitpid(spawned, &status, 0) == spawned);
    CHECK(WEXITSTATUS(status) == 6);

    FILE* f = ::popen("echo through a pipe", "r");
    REQUIRE(f);
    char line[64] = {};
    CHECK(std::fgets(line, sizeof line, f) != nullptr);
    CHECK(std::string(line) == "through a pipe\n");
    CHECK(::pclose(f) == 0);
    CHECK(patched::reached - before > 15);
  }
}

TEST_CASE("libc: threads begin, wait for each other and end under the door") {
  SKIP_UNDER_SANITIZERS();
  for (const auto d : both_ways) {
    patched::library on(patched::in_libc(), d);
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static long sum;
    sum = 0;
    pthread_t threads[8];
    for (long i = 0; i < 8; ++i)
      REQUIRE(::pthread_create(&threads[i], nullptr, [](void* n) -> void* {
        for (int k = 0; k < 1000; ++k) {
          ::pthread_mutex_lock(&lock);
          sum += long(n);
          errno = int(long(n));
          ::pthread_mutex_unlock(&lock);
          if (errno != int(long(n))) return nullptr;
        }
        return n;
      }, reinterpret_cast<void*>(i + 1)) == 0);
    for (long i = 0; i < 8; ++i) {
      void* result = nullptr;
      REQUIRE(::pthread_join(threads[i], &result) == 0);
      CHECK(long(result) == i + 1);
    }
    CHECK(sum == 36000);
  }
}

// --- a child of clone, begun by hand: what threads as fibers rest on ---------------------------------------------------
namespace {
patch::registers parent;
bool has_parent = false;
int made_up_thread = 0;

// clone(2) is answered by going on, on the new stack, with a copy of the registers; when that "thread" ends, its parent
// goes on with the thread's id as the result.
void cloning(patch::registers& r) {
  if (r.rax == SYS_clone && (r.rdi & CLONE_VM)) {
    parent = r;
    has_parent = true;
    patch::registers child = r;
    child.rax = 0;
    child.rsp = r.rsi;
    patch::resume(child);
  }
  if (r.rax == SYS_exit && has_parent) {
    has_parent = false;
    made_up_thread = int(r.rdi);
    parent.rax = 4711;
    patch::resume(parent);
  }
  patch::pass_at_site(r);
}
}  // namespace

TEST_CASE("libc: a copy of the registers of clone, resumed on the new stack, is its child") {
  SKIP_UNDER_SANITIZERS();
  constexpr std::size_t size = 1 << 16;
  void* stack = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(stack != MAP_FAILED);
  {
    patched::library on(patched::in_libc(), cloning);
    static std::uint64_t child_stack;
    for (int i = 0; i < 100; ++i) {
      made_up_thread = 0;
      const int id = ::clone([](void* n) {
        int local;
        child_stack = std::uint64_t(&local);
        return int(long(n)) + 1;
      }, static_cast<char*>(stack) + size, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_FILES | CLONE_FS, reinterpret_cast<void*>(long(i)));
      CHECK(id == 4711);
      CHECK(made_up_thread == i + 1);
      CHECK(child_stack - std::uint64_t(stack) < size);
    }
  }
  ::munmap(stack, size);
}

// --- writing code ------------------------------------------------------------------------------------------------------
TEST_CASE("libc: no page of code is writable while it is patched, nor afterwards") {
  SKIP_UNDER_SANITIZERS();
  {
    patched::library on(patched::in_libc(), patched::passing_at_site);
    CHECK_FALSE(has_writable_code());
  }
  CHECK_FALSE(has_writable_code());
}

TEST_CASE("libc: it is patched by a copy where the kernel refuses code that was written (PR_SET_MDWE)") {
  SKIP_UNDER_SANITIZERS();
  const int status = in_child([] {
    if (::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0) return 77;
    auto p = patch::make_plan(patched::in_libc(), patch::number_set::all());
    if (!patch::apply(p, [](patch::registers& r) {
           if (r.rax == SYS_getppid) r.rax = 4711;
           else patch::pass_at_site(r);
         }).empty())
      return 1;
    if (p.how_written != "by a patched copy") return 2;
    if (::getppid() != 4711) return 3;
    if (!patch::restore(p).empty()) return 4;
    return ::getppid() == 4711 ? 5 : 0;
  });
  if (status == 77) RINGLET_SKIP("this kernel has no PR_SET_MDWE");
  CHECK(status == 0);
}

TEST_CASE("libc: where code can be written in no way, it is left whole and the reason is told") {
  SKIP_UNDER_SANITIZERS();
  const int status = in_child([] {
    // No memfd, and no mapping becomes executable.
    sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 16 + 2 * 8),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program{sizeof filter / sizeof *filter, filter};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) return 77;
    const pid_t parent_id = ::getppid();
    auto p = patch::make_plan(patched::in_libc(), patch::number_set::all());
    const auto why = patch::apply(p, [](patch::registers& r) { r.rax = 4711; });
    if (why.find("memfd") == std::string::npos || p.applied || p.refused != why) return 1;
    return ::getppid() == parent_id ? 0 : 2;
  });
  if (status == 77) RINGLET_SKIP("seccomp filters are refused here");
  CHECK(status == 0);
}
