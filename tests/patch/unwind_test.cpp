// Whoever walks the stack from inside the door comes out at the caller: from every single instruction on the way from a
// site to the dispatcher and back, by exception, and by cancellation.

#include <atomic>
#include <csignal>
#include <cstring>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unwind.h>
#include <vector>

#include "patched.hpp"

namespace patch = ringlet::patch;

extern "C" {
long shape_number_before(long);
long shape_after(long);
long shape_around(long);
long shape_padding(long, long);
long shape_stack_pointer(long);
long shape_keeps_registers(long);
long shape_keeps_vectors(long);
// Calls function(a, b) with the processor's trap flag set: a SIGTRAP after each instruction.
long stepped(void* function, long a, long b);
extern const char stepped_end[];
}
asm(R"(
    .text
    .globl stepped
    .type stepped, @function
stepped:
    .cfi_startproc
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    movq %rdi, %rbx
    movq %rsi, %rdi
    movq %rdx, %rsi
    pushfq
    .cfi_adjust_cfa_offset 8
    orq $0x100, (%rsp)
    popfq
    .cfi_adjust_cfa_offset -8
    call *%rbx
    pushfq
    .cfi_adjust_cfa_offset 8
    andq $~0x100, (%rsp)
    popfq
    .cfi_adjust_cfa_offset -8
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    ret
    .cfi_endproc
    .size stepped, .-stepped
    .globl stepped_end
stepped_end:
)");

namespace {

// --- from every instruction -------------------------------------------------------------------------------------------
unsigned steps = 0, lost = 0;
std::uint64_t first_lost = 0;
std::uint64_t frame_of_test = 0;

struct walk {
  unsigned frames = 0;
  bool met_stepped = false, met_test = false;
};

_Unwind_Reason_Code one_frame(_Unwind_Context* context, void* data) {
  auto& w = *static_cast<walk*>(data);
  const auto at = std::uint64_t(_Unwind_GetIP(context));
  if (at >= std::uint64_t(&stepped) && at < std::uint64_t(stepped_end)) w.met_stepped = true;
  // The canonical frame address of what called stepped: the stack has come out right, not only the way.
  if (w.met_stepped && std::uint64_t(_Unwind_GetCFA(context)) == frame_of_test) w.met_test = true;
  return ++w.frames > 64 ? _URC_END_OF_STACK : _URC_NO_REASON;
}

void on_step(int, siginfo_t*, void* context) {
  walk w;
  _Unwind_Backtrace(one_frame, &w);
  ++steps;
  if (w.met_stepped && w.met_test) return;
  ++lost;
  if (!first_lost) first_lost = std::uint64_t(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
}

// Returns how many instructions there were; checks that each saw its caller.
template <class... Arguments>
unsigned steps_of(long (*function)(Arguments...), long a, long b) {
  struct sigaction step {}, before {};
  step.sa_sigaction = on_step;
  step.sa_flags = SA_SIGINFO;
  REQUIRE(::sigaction(SIGTRAP, &step, &before) == 0);
  steps = lost = 0;
  first_lost = 0;
  // Learned from a walk outside of any door: the address above stepped's frame.
  frame_of_test = 0;
  static std::uint64_t found;
  found = 0;
  static const auto look = [](_Unwind_Context* context, void*) {
    const auto at = std::uint64_t(_Unwind_GetIP(context));
    static bool is_next;
    if (found == 0 && is_next) found = std::uint64_t(_Unwind_GetCFA(context));
    is_next = at >= std::uint64_t(&stepped) && at < std::uint64_t(stepped_end);
    return _URC_NO_REASON;
  };
  struct helper {
    static long measure(long, long) {
      _Unwind_Backtrace(+look, nullptr);
      return 0;
    }
  };
  // The walk that measures is stepped, too, by a handler that does nothing.
  struct sigaction quiet {};
  quiet.sa_handler = [](int) {};
  REQUIRE(::sigaction(SIGTRAP, &quiet, nullptr) == 0);
  stepped(reinterpret_cast<void*>(&helper::measure), 0, 0);
  frame_of_test = found;
  REQUIRE(frame_of_test != 0);
  REQUIRE(::sigaction(SIGTRAP, &step, nullptr) == 0);
  stepped(reinterpret_cast<void*>(function), a, b);
  REQUIRE(::sigaction(SIGTRAP, &before, nullptr) == 0);
  CAPTURE(first_lost);
  CHECK(lost == 0);
  return steps;
}

void answering(patch::registers& r) { r.rax = 4711; }

long libc_getppid() { return ::getppid(); }
long libc_read() {
  char byte;
  return ::read(-1, &byte, 1);
}
long libc_syscall() { return ::syscall(1000); }

}  // namespace

TEST_CASE("unwind: from each instruction of each shape, the caller is found") {
  SKIP_UNDER_SANITIZERS();
  const unsigned bare = steps_of(shape_number_before, 0, 0);
  for (const patch::dispatcher d : {patch::dispatcher(answering), patch::dispatcher(patched::passing_through), patch::dispatcher(patched::passing_at_site)}) {
    patched::library on(reinterpret_cast<const void*>(&shape_number_before), d);
    CHECK(steps_of(shape_number_before, 0, 0) > bare + 60);
    CHECK(steps_of(shape_after, 1000, 0) > 60);
    CHECK(steps_of(shape_around, 1000, 0) > 120);
    CHECK(steps_of(shape_padding, 1000, 0) > 60);
    CHECK(steps_of(shape_stack_pointer, 1000, 0) > 60);
    CHECK(steps_of(shape_keeps_registers, 1000, 0) > 60);
    CHECK(steps_of(shape_keeps_vectors, 1000, 0) > 100);
  }
}

TEST_CASE("unwind: from each instruction of libc's own calls, the caller is found") {
  SKIP_UNDER_SANITIZERS();
  for (const patch::dispatcher d : {patch::dispatcher(patched::passing_through), patch::dispatcher(patched::passing_at_site)}) {
    patched::library on(patched::in_libc(), d);
    CHECK(steps_of(libc_getppid, 0, 0) > 60);
    CHECK(steps_of(libc_read, 0, 0) > 60);
    CHECK(steps_of(libc_syscall, 0, 0) > 60);
  }
}

// --- exceptions -------------------------------------------------------------------------------------------------------
namespace {
struct refusal {
  int code;
};
void throwing(patch::registers& r) {
  if (long(r.rax) == 1000) throw refusal{int(r.rdi)};
  patch::pass_at_site(r);
}
}  // namespace

TEST_CASE("unwind: an exception of the dispatcher's passes through libc to whoever called it") {
  SKIP_UNDER_SANITIZERS();
  patched::library on(patched::in_libc(), throwing);
  // As declared, it can't throw.
  long (*volatile throwing_syscall)(long, ...) = ::syscall;
  int caught = 0, destroyed = 0;
  struct guard {
    int& count;
    ~guard() { ++count; }
  };
  for (int i = 1; i <= 100; ++i) {
    try {
      guard g{destroyed};
      throwing_syscall(1000, long(i));
    } catch (const refusal& r) {
      caught += r.code == i;
    }
  }
  CHECK(caught == 100);
  CHECK(destroyed == 100);
}

// --- cancellation -----------------------------------------------------------------------------------------------------
namespace {
std::atomic<int> destructors = 0;
struct counts_destruction {
  ~counts_destruction() { ++destructors; }
};

// Cancels a thread that runs `body` (which says when it is there, by a byte into the pipe); true if that ended it and
// ran its destructors.
bool cancels(void* (*body)(void*), int (&pipe_ends)[2]) {
  const int before = destructors;
  pthread_t thread;
  REQUIRE(::pthread_create(&thread, nullptr, body, pipe_ends) == 0);
  char byte;
  REQUIRE(::read(pipe_ends[0], &byte, 1) == 1);
  REQUIRE(::pthread_cancel(thread) == 0);
  void* result = nullptr;
  REQUIRE(::pthread_join(thread, &result) == 0);
  return result == PTHREAD_CANCELED && destructors == before + 1;
}

int never_readable[2];

void* waits_in_read(void* ends) {
  counts_destruction counted;
  (void)!::write(static_cast<int*>(ends)[1], "x", 1);
  char byte;
  for (;;) (void)!::read(never_readable[0], &byte, 1);
}

// Where a signal may come at any instruction, C++ allows a walk only through functions that have nothing to destroy.
[[gnu::noinline]] void call_for_ever() {
  pid_t (*volatile call)() = ::getppid;
  ::pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
  for (;;) call();
}

void* calls_all_the_time(void* ends) {
  counts_destruction counted;
  (void)!::write(static_cast<int*>(ends)[1], "x", 1);
  void (*volatile call)() = call_for_ever;
  call();
  return nullptr;
}

struct pipes {
  int ends[2];
  pipes() {
    REQUIRE(::pipe(ends) == 0);
    REQUIRE(::pipe(never_readable) == 0);
  }
  ~pipes() { ::close(ends[0]), ::close(ends[1]), ::close(never_readable[0]), ::close(never_readable[1]); }
};

bool libc_is_at_least(unsigned minor) { return ::strverscmp(::gnu_get_libc_version(), ("2." + std::to_string(minor)).c_str()) >= 0; }
}  // namespace

TEST_CASE("unwind: pthread_cancel ends a thread that waits in read, with its destructors, when calls are passed at their sites") {
  SKIP_UNDER_SANITIZERS();
  pipes p;
  patched::library on(patched::in_libc(), patched::passing_at_site);
  for (int i = 0; i < 50; ++i) CHECK(cancels(waits_in_read, p.ends));
}

TEST_CASE("unwind: pthread_cancel ends a thread that waits in read, with its destructors, when calls are passed through") {
  SKIP_UNDER_SANITIZERS();
  if (libc_is_at_least(41)) RINGLET_SKIP("since glibc 2.41 only a call that is interrupted at libc's own instruction is cancelled: pass_at_site");
  pipes p;
  patched::library on(patched::in_libc(), patched::passing_through);
  for (int i = 0; i < 50; ++i) CHECK(cancels(waits_in_read, p.ends));
}

TEST_CASE("unwind: asynchronous cancellation ends a thread wherever in the door it is, with its destructors") {
  SKIP_UNDER_SANITIZERS();
  pipes p;
  for (const patch::dispatcher d : {patch::dispatcher(patched::passing_through), patch::dispatcher(patched::passing_at_site), patch::dispatcher(nullptr)}) {
    patch::number_set wanted;
    wanted.add(SYS_getppid);
    patched::library on(patched::in_libc(), d ? d : +[](patch::registers& r) {
      if (r.rax == SYS_getppid) r.rax = 4711;
      else patch::pass_at_site(r);
    }, wanted);
    for (int i = 0; i < 200; ++i) CHECK(cancels(calls_all_the_time, p.ends));
  }
}
