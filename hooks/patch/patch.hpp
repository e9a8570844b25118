#pragma once
// The system-call door's mechanism: finds the `syscall` instructions of a library, and makes those that are wanted jump
// to a function of ours, a dispatcher, which answers the call or lets it pass.
//
// What for: a call that libc makes inside itself (stdio's read, a futex of its own locks, the clone3 of pthread_create)
// goes by no symbol. Its `syscall` instruction is the only door to it.
//
// How: make_plan looks and changes nothing. It finds the functions by the library's unwind tables, decodes those that
// hold a system call with a real decoder, learns each call's number where the code itself tells it, and looks for a
// *window* at each wanted one: whole instructions, five bytes or more, that nothing jumps into. apply then writes a jump
// over each window, to a *slot*: the relocated instructions, a record of the site, and the way to the entry (entry.cpp),
// which saves the registers and calls the dispatcher on the caller's stack, below its red zone.
//
// Always true: a library is changed whole or not at all, because one missed site would be a silent deadlock; a plan that
// cannot do all says why in `refused`, and apply does not touch that library. The number of a site is either known or
// `variable`, never guessed; a variable one is always wanted. Code is never writable and executable at once. Each
// register that the kernel preserves is preserved; exceptions, cancellation and debuggers walk through the dispatcher
// into the function that made the call, because entry and slots have unwind information.
//
// Who may call: plans are made where libc may be used; apply and restore by a process with a single thread, or for a
// library whose sites no other thread is executing. x86-64 only; elsewhere every plan is refused.

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ringlet::patch {

// What a site's registers were when it was reached. The dispatcher leaves its result in rax (kernel dialect: -errno) and
// may change any of them; rcx and r11 are the kernel's to clobber, and are not here. A copy, on another stack, can be
// resumed as well (a child of clone3: set rsp and rax in the copy).
struct registers {
  std::uint64_t r15, r14, r13, r12, rbp, rbx;
  std::uint64_t r10, r9, r8, rdi, rsi, rdx;  // the arguments are rdi rsi rdx r10 r8 r9
  std::uint64_t rax;                         // the number, then the result
  std::uint64_t rsp;
  std::uint64_t rip;                         // where the program goes on
  std::uint64_t rflags;                      // of which the arithmetic ones are restored
  const struct site_record* site;            // where it was; for the unwinder, too
  std::uint64_t spare;
};

// Runs on the caller's stack and thread, with the caller's TLS: it may park there. It must not throw. Vector registers
// are saved around it where the site's function uses any.
using dispatcher = void (*)(registers&);

// Makes the call as it stands and leaves the result in rax. For whatever returns once, or twice in two address spaces
// (fork): not for a child that shares our memory.
void pass_through(registers& r) noexcept;

// Lets the site itself make the call, once the dispatcher has returned: with the very registers, on the caller's own
// frame, so that a call that returns twice on one stack (vfork), or on a new one (clone), is as good as untouched. The
// dispatcher does not see the result. Where libc's code still has its `syscall`, it is that one which is executed: what
// libc's cancellation concludes from the interrupted address stays true.
void pass_at_site(registers& r) noexcept;

// Goes on with these registers, on the stack that they name; does not return. They are read before the stack is left.
[[noreturn]] void resume(const registers& r) noexcept;

// The address behind the `syscall` instruction of the site (not rip, which may lie in a slot).
std::uint64_t address_of_site(const registers& r) noexcept;

// System call numbers.
class number_set {
 public:
  static constexpr int limit = 1024;
  void add(int number) { bits_.set(std::size_t(number)); }
  bool has(int number) const noexcept { return number >= 0 && number < limit && bits_[std::size_t(number)]; }
  static number_set all() { number_set s; s.bits_.set(); return s; }

 private:
  std::bitset<limit> bits_;
};

constexpr int variable_number = -1;

// How a window lies at the `syscall` instruction.
enum class shape : std::uint8_t {
  none,          // not wanted, or no window
  number_before, // over the `mov $number, %eax` in front of it, which stays behind intact
  before,        // over other instructions in front of it
  after,         // over it and what follows
  around,        // over both sides
  padding,       // a short jump over it, to a long one in the padding behind a near function
};
const char* name_of(shape s) noexcept;

struct site {
  std::uint64_t address = 0;     // of the instruction, as the library's file numbers it
  std::string function;          // its exported name, or empty
  std::uint64_t function_begin = 0;
  int number = variable_number;
  bool wanted = false;
  bool certain = true;           // false: two bytes that could be one, in what is data, or code that is not understood
  bool has_vectors = false;      // its function uses vector registers: they are saved around the dispatcher
  shape how = shape::none;
  std::uint64_t window = 0;      // first byte written over
  std::uint8_t window_size = 0;
  std::uint64_t padding = 0;     // shape::padding: where the long jump goes
  std::string refused;           // why it is wanted and has no window

  // Filled in by apply.
  std::uint8_t original[32] = {}, original_padding[8] = {};
};

struct plan {
  std::string library;           // path
  std::string build_id;          // in hexadecimal, or empty
  std::uint64_t base = 0;        // where it is loaded; 0 for a plan of a file
  bool loaded = false;
  std::vector<site> sites;       // by address
  std::string refused;           // why the library is left whole, or empty
  bool applied = false;
  std::string how_written;       // after apply: "in place" or "by a patched copy"

  std::size_t wanted_count() const noexcept;
  std::size_t native_count() const noexcept;
};

// Looks at a library that is loaded here, by any address in it, or at a file. Never throws: what is wrong is in
// `refused`.
plan make_plan(const void* address_in_library, const number_set& wanted);
plan make_plan_of_file(const std::string& path, const number_set& wanted);

// Changes the library. Returns why not, or an empty string; then everything is as it was, and plan.refused says it, too.
std::string apply(plan& p, dispatcher d);
// As before: the original bytes. Nobody may be inside a dispatcher that was reached from this library.
std::string restore(plan& p);
// For a library that has been unloaded: what was kept for it is given back.
void forget(const plan& p);

}  // namespace ringlet::patch
