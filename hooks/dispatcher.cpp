// The dispatcher: a table by number, made of syscalls.def, and the way in and out of the runtime.
//
// Until the first thread is born nothing is different: every call is the kernel's, but the one that makes the thread, and
// that begins the mode (threads::begin). From then on a call of the hub's OS thread comes here from one of three places:
// the program (the usual case); the runtime itself, which uses libc, too, or a child on our memory between vfork and exec
// (both are the kernel's); and what the runtime must not miss even then is that it has woken somebody. Helpers' kernel
// threads come here, too, and are let pass, but for their futexes: malloc's locks are everybody's.
//
// Always true: nothing here holds a resource when deliver_signals is called, since a handler may not come back.

#include "dispatcher.hpp"

#include <fcntl.h>
#include <linux/futex.h>

#include <ringlet/io.hpp>

#include "base/sys.hpp"
#include "by_number.hpp"
#include "io/doors.hpp"
#include "threads/threads.hpp"

namespace ringlet::dispatcher {

namespace {

using namespace by_number;
using patch::registers;

enum class verb : unsigned char { none, waits, tells, threads, guards };

struct row {
  verb what = verb::none;
  long (*answer)(registers& r) = nullptr;
  const char* name = nullptr;
  unsigned long long waits = 0;
};

constexpr int number_limit = 512;
constinit row rows[number_limit];

// The arguments, by their letters.
#define WORDS(r)                                                                                              \
  [[maybe_unused]] const long a = long(r.rdi), b = long(r.rsi), c = long(r.rdx), d = long(r.r10), e = long(r.r8), \
                              f = long(r.r9);
#define WAITS(name, expression)       \
  long answer_##name(registers& r) {  \
    WORDS(r)                          \
    (void)r;                          \
    return long(expression);          \
  }
#define THREADS(name, expression) WAITS(name, expression)
#define TELLS(name, told)             \
  long answer_##name(registers& r) {  \
    WORDS(r)                          \
    patch::pass_through(r);           \
    const long result = long(r.rax);  \
    if (result >= 0) told;            \
    return result;                    \
  }
#define GUARDS(name, by_libc_for_all) \
  long answer_##name(registers& r) { return guarded(r, #name, by_libc_for_all); }
#include "syscalls.def"
#undef WORDS

[[gnu::constructor(101)]] void fill_table() {
#define WAITS(name, expression) rows[SYS_##name] = {verb::waits, &answer_##name, #name, 0};
#define TELLS(name, told) rows[SYS_##name] = {verb::tells, &answer_##name, #name, 0};
#define THREADS(name, expression) rows[SYS_##name] = {verb::threads, &answer_##name, #name, 0};
#define GUARDS(name, by_libc_for_all) rows[SYS_##name] = {verb::guards, &answer_##name, #name, 0};
#include "syscalls.def"
}

counts counted;
bool counts_parks = false;
bool cannot_begin = false;

bool makes_thread(const registers& r) noexcept {
  constexpr unsigned long needed = CLONE_VM | CLONE_THREAD | CLONE_SETTLS;
  if (r.rax == SYS_clone) return (r.rdi & needed) == needed;
  if (r.rax == SYS_clone3 && r.rsi >= CLONE_ARGS_SIZE_VER0) return (reinterpret_cast<const clone_args*>(r.rdi)->flags & needed) == needed;
  return false;
}

void say(const char* text) noexcept { sys::call(SYS_write, 2, text, __builtin_strlen(text)); }

// The program has one thread. Begins the mode if this call would make another.
void before_threads(registers& r) {
  if (threads::inside || cannot_begin || !makes_thread(r)) return patch::pass_at_site(r);
  if (threads::runtime_makes_thread()) return patch::pass_at_site(r);
  threads::inside = true;
  const char* why = "";
  if (threads::begin(&why) != 0) {
    cannot_begin = true;
    threads::inside = false;
    say("ringlet: threads stay threads of the kernel: ");
    say(why);
    say("\n");
    return patch::pass_at_site(r);
  }
  r.rax = std::uint64_t(rows[r.rax].answer(r));
  threads::inside = false;
}

bool wakes_by_futex(const registers& r) noexcept {
  const auto command = int(r.rsi) & FUTEX_CMD_MASK;
  return r.rax == SYS_futex && (command == FUTEX_WAKE || command == FUTEX_WAKE_BITSET || command == FUTEX_WAKE_OP ||
                                command == FUTEX_REQUEUE || command == FUTEX_CMP_REQUEUE);
}

// A thread that the hub knows nothing of, or the runtime itself.
void from_elsewhere(registers& r) {
  if (wakes_by_futex(r)) {
    r.rax = std::uint64_t(rows[SYS_futex].answer(r));
    return;
  }
  patch::pass_at_site(r);
}

// What a handler is shown: where the kernel would have interrupted the call.
void show_behind_site(greg_t* to, const void* from) noexcept {
  const auto& r = *static_cast<const registers*>(from);
  to[REG_R15] = long(r.r15), to[REG_R14] = long(r.r14), to[REG_R13] = long(r.r13), to[REG_R12] = long(r.r12);
  to[REG_R10] = long(r.r10), to[REG_R9] = long(r.r9), to[REG_R8] = long(r.r8);
  to[REG_RBP] = long(r.rbp), to[REG_RBX] = long(r.rbx), to[REG_RDI] = long(r.rdi), to[REG_RSI] = long(r.rsi), to[REG_RDX] = long(r.rdx);
  to[REG_RAX] = long(r.rax), to[REG_RSP] = long(r.rsp);
  to[REG_RIP] = to[REG_RCX] = long(patch::address_of_site(r));
}
void show_at_site(greg_t* to, const void* from) noexcept {
  show_behind_site(to, from);
  constexpr long size_of_syscall = 2;
  to[REG_RIP] -= size_of_syscall;
}

[[gnu::noinline]] void dispatch_ours(registers& r) {
  if (__builtin_expect(!threads::begun(), 0)) return before_threads(r);
  if (__builtin_expect(!threads::here(), 0)) return from_elsewhere(r);
  if (__builtin_expect(io::is_vfork_child(), 0)) {
    // The child has our memory, and so this flag; the parent takes it down when it comes here again.
    if (sys::call(SYS_gettid) != threads::os_id()) return patch::pass_at_site(r);
    io::left_vfork_child();
  }
  if (__builtin_expect(threads::inside, 0)) return from_elsewhere(r);
  const std::uint64_t number = r.rax;
  row& how = rows[number];
  if (how.what == verb::waits && threads::alone()) return patch::pass_at_site(r);
  ++counted.dispatched;
  threads::inside = true;
  threads::thread_block& self = threads::current();
  const std::uint64_t before = counts_parks ? threads::switches() : 0;
  while (true) {
    self.ended_by_signal = false;
    self.may_restart = true;
    const long result = how.answer(r);
    if (result == pass) {
      r.rax = number;
      threads::deliver_signals(self, {&show_at_site, &r});
      threads::leave();
      return patch::pass_at_site(r);
    }
    if (__builtin_expect(result == -EPIPE, 0)) threads::keep_signals_of_calls(self);
    if (__builtin_expect(result == -EINTR, 0)) threads::remember_met_signals(self);
    const bool again = result == -EINTR && self.ended_by_signal && self.may_restart;
    r.rax = again ? number : std::uint64_t(result);
    threads::deliver_signals(self, {again ? &show_at_site : &show_behind_site, &r});
    if (!again) break;
  }
  if (__builtin_expect(counts_parks, 0) && threads::switches() != before) ++how.waits;
  threads::leave();
}

}  // namespace

void dispatch(registers& r) {
  // A site whose number the code in front of it does not tell may be any call: what is not ours is let pass before all else.
  if (r.rax >= number_limit || rows[r.rax].what == verb::none) return patch::pass_at_site(r);
  dispatch_ours(r);
}

patch::number_set wanted_numbers() {
  patch::number_set all;
  for (int n = 0; n < number_limit; ++n)
    if (rows[n].what != verb::none) all.add(n);
  return all;
}

void count_parks() noexcept { counts_parks = true; }
counts count() noexcept { return counted; }

void each_wait(void (*each)(const char*, unsigned long long, void*), void* with) {
  for (const row& one : rows)
    if (one.waits > 0) each(one.name, one.waits, with);
}

}  // namespace ringlet::dispatcher
