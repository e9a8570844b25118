#include "refusals.hpp"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace faults {

namespace {
constexpr std::size_t most_rules = 8;
struct counted_rule {
  refusal_rule rule;
  std::atomic<unsigned long> calls{0}, refused{0};
} rules[most_rules];
std::size_t rule_count = 0;
}  // namespace

unsigned long refusals_made() {
  unsigned long sum = 0;
  for (std::size_t i = 0; i < rule_count; ++i) sum += rules[i].refused;
  return sum;
}

refusal_rule parse_rule(std::string_view text) {
  struct name {
    const char* text;
    long value;
  };
#define NAMED(call) \
  { #call, SYS_##call }
  static constexpr name calls[] = {NAMED(io_uring_setup), NAMED(io_uring_enter), NAMED(io_uring_register),
                                   NAMED(eventfd2),       NAMED(epoll_create1),  NAMED(epoll_ctl),
                                   NAMED(epoll_pwait2),   NAMED(epoll_pwait),    NAMED(mmap),
                                   NAMED(madvise),        NAMED(clone3),         NAMED(clone)};
#undef NAMED
#define NAMED(error) \
  { #error, error }
  static constexpr name errors[] = {NAMED(EAGAIN), NAMED(EBUSY),   NAMED(EINTR),  NAMED(ENOMEM), NAMED(EMFILE),
                                    NAMED(ENFILE), NAMED(ENOBUFS), NAMED(ENOSPC), NAMED(EPERM),  NAMED(ENOSYS)};
#undef NAMED
  std::vector<std::string> parts(1);
  for (char c : text)
    if (c == ':')
      parts.emplace_back();
    else
      parts.back() += c;
  refusal_rule made{-1, 0};
  for (const name& n : calls)
    if (parts[0] == n.text) made.number = n.value;
  for (const name& n : errors)
    if (parts.size() > 1 && parts[1] == n.text) made.error = int(n.value);
  if (made.number < 0 || made.error == 0) {
    std::fprintf(stderr, "no rule: %.*s\n", int(text.size()), text.data());
    std::exit(2);
  }
  unsigned long* const numbers[] = {&made.every, &made.from, &made.most};
  for (std::size_t i = 2; i < parts.size() && i < 5; ++i) *numbers[i - 2] = std::strtoul(parts[i].c_str(), nullptr, 10);
  return made;
}

#ifdef __x86_64__

// long faults_call(number, six arguments): the one place whose calls the filter lets through.
extern "C" long faults_call(long number, long a, long b, long c, long d, long e, long f);
extern "C" char faults_call_after[];
extern "C" void faults_signal_return();
asm(R"(
    .text
    .globl faults_call
    .hidden faults_call
faults_call:
    movq %rdi, %rax
    movq %rsi, %rdi
    movq %rdx, %rsi
    movq %rcx, %rdx
    movq %r8, %r10
    movq %r9, %r8
    movq 8(%rsp), %r9
    syscall
    .globl faults_call_after
    .hidden faults_call_after
faults_call_after:
    ret
    .globl faults_signal_return
    .hidden faults_signal_return
    nop
faults_signal_return:
    movq $15, %rax
    syscall
)");

namespace {

constexpr std::uint64_t sigsys_bit = std::uint64_t(1) << (SIGSYS - 1);

bool is_refused(counted_rule& r) {
  const unsigned long n = r.calls.fetch_add(1, std::memory_order_relaxed) + 1;
  if (n < r.rule.from || (n - r.rule.from) % r.rule.every != 0) return false;
  if (r.refused.load(std::memory_order_relaxed) >= r.rule.most) return false;
  r.refused.fetch_add(1, std::memory_order_relaxed);
  return true;
}

// On whatever stack and thread; uses nothing of libc.
__attribute__((no_sanitize("address", "undefined"))) void on_call(int, siginfo_t* info, void* context) {
  greg_t* r = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const long number = info->si_syscall;
  for (std::size_t i = 0; i < rule_count; ++i)
    if (rules[i].rule.number == number && is_refused(rules[i])) {
      r[REG_RAX] = -rules[i].rule.error;
      return;
    }
  long second = r[REG_RSI];
  std::uint64_t mask;
  if (number == SYS_rt_sigprocmask && second) {
    mask = *reinterpret_cast<const std::uint64_t*>(second);
    if (r[REG_RDI] != SIG_UNBLOCK) mask &= ~sigsys_bit;
    second = reinterpret_cast<long>(&mask);
    // The thread's mask is put back when we return: so it is changed there.
    std::uint64_t& kept = *reinterpret_cast<std::uint64_t*>(&static_cast<ucontext_t*>(context)->uc_sigmask);
    if (r[REG_RDX]) *reinterpret_cast<std::uint64_t*>(r[REG_RDX]) = kept;
    kept = r[REG_RDI] == SIG_BLOCK ? kept | mask : r[REG_RDI] == SIG_UNBLOCK ? kept & ~mask : mask;
    r[REG_RAX] = 0;
    return;
  }
  r[REG_RAX] = faults_call(number, r[REG_RDI], second, r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]);
}

}  // namespace

bool install_refusals(const std::vector<refusal_rule>& wanted) {
  for (const refusal_rule& r : wanted) rules[rule_count++].rule = r;
  struct {
    void (*handler)(int, siginfo_t*, void*);
    unsigned long flags;
    void (*restorer)();
    std::uint64_t mask;
  } const action{&on_call, SA_SIGINFO | SA_NODEFER | 0x04000000UL, &faults_signal_return, 0};
  if (faults_call(SYS_rt_sigaction, SIGSYS, reinterpret_cast<long>(&action), 0, 8, 0, 0) != 0) return false;

  const auto place = reinterpret_cast<std::uint64_t>(&faults_call_after[0]);
  std::vector<sock_filter> code;
  code.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, instruction_pointer)));
  code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, std::uint32_t(place), 0, 3));
  code.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, instruction_pointer) + 4));
  code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, std::uint32_t(place >> 32), 0, 1));
  code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  code.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
  const auto answer = [&](long number, std::uint32_t what) {
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, std::uint32_t(number), 0, 1));
    code.push_back(BPF_STMT(BPF_RET | BPF_K, what));
  };
  for (const refusal_rule& r : wanted)
    answer(r.number,
           r.number == SYS_clone3 || r.number == SYS_clone ? SECCOMP_RET_ERRNO | unsigned(r.error) : SECCOMP_RET_TRAP);
  answer(SYS_rt_sigprocmask, SECCOMP_RET_TRAP);
  code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter{static_cast<unsigned short>(code.size()), code.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

#else
bool install_refusals(const std::vector<refusal_rule>&) { return false; }
#endif

}  // namespace faults
