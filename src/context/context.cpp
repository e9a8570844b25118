#include "context/context.hpp"

#include <sys/auxv.h>

#include "base/assert.hpp"
#include "base/sys.hpp"

// The nop belongs to what follows it: an unwinder looks one byte before the address that a call returns to.
#if defined(__x86_64__)
asm(R"(
  .text
  .hidden ringlet_jump_alike
  .globl ringlet_jump_alike
  .type ringlet_jump_alike, @function
  .p2align 4
ringlet_jump_alike:
  .cfi_startproc
  leaq 1f(%rip), %rax
  pushq %rax
  .cfi_adjust_cfa_offset 8
  jmp *jump_fcontext@GOTPCREL(%rip)
  .cfi_adjust_cfa_offset -8
  nop
1:
  ret
  .cfi_endproc
  .size ringlet_jump_alike, .-ringlet_jump_alike
)");
#endif

namespace ringlet::context {

namespace {
void begin(boost::context::detail::transfer_t arrived) {
  auto* t = static_cast<detail::transfer*>(arrived.data);
  context& self = *t->to;
  auto entry = reinterpret_cast<void (*)(void*)>(self.fake_stack);
  self.fake_stack = nullptr;
  self.has_run = true;
  entry(detail::land(arrived));
  RINGLET_ASSERT(false, "a context's entry returned");
}

struct visit {
  context* guest;
  context* host;
  void (*call)(void*);
  void* argument;
};
// The stack may be aligned as for a call, or as ringlet_jump_alike has left it.
#if defined(__x86_64__) || defined(__i386__)
[[gnu::force_align_arg_pointer]]
#endif
boost::context::detail::transfer_t on_top(boost::context::detail::transfer_t arrived) {
  auto* v = static_cast<visit*>(arrived.data);
  detail::transfer t{v->guest, v->host, v};
  arrived.data = &t;
  detail::land(arrived);
  v->call(v->argument);
  sanitizer::leaving(&v->host->fake_stack, v->guest->stack_bottom, v->guest->stack_size);
  sanitizer::switch_fiber(v->guest->tsan_fiber);
  return boost::context::detail::jump_fcontext(v->guest->sp, v);  // what comes back is for whoever left here
}
}  // namespace

#if defined(__x86_64__)
namespace {
constexpr unsigned long has_fsgsbase = 2;  // in AT_HWCAP2 (the kernel's HWCAP2_FSGSBASE): user code may write FS itself
constexpr int arch_set_fs = 0x1002, arch_get_fs = 0x1003;
bool writes_fs_itself = false;

void set_fs_base(std::uintptr_t value) noexcept {
  if (writes_fs_itself)
    asm volatile("wrfsbase %0" : : "r"(value) : "memory");
  else
    sys::call(SYS_arch_prctl, arch_set_fs, value);
}
}  // namespace

bool can_change_images(thread_globals& g) noexcept {
  writes_fs_itself = ::getauxval(AT_HWCAP2) & has_fsgsbase;
  return sys::call(SYS_arch_prctl, arch_get_fs, &g.own_fs_base) == 0;
}

// errno and the exception globals lie at the same distance from FS in every thread (static TLS: libc and libstdc++ are
// there from the start), so the new ones are found by moving the pointers. Nothing thread-local may be named between
// the change of FS and the jump.
[[gnu::noinline]] void change_image(thread_globals& g, context& from, context& to) noexcept {
  from.exceptions = *g.exceptions;
  from.error_number = *g.error_number;
  const std::uintptr_t old_base = from.image ? from.image->fs_base : g.own_fs_base;
  const std::uintptr_t new_base = to.image ? to.image->fs_base : g.own_fs_base;
  if (g.changes_to) g.changes_to(to.image);
  g.exceptions = reinterpret_cast<exception_globals*>(reinterpret_cast<std::uintptr_t>(g.exceptions) - old_base + new_base);
  g.error_number = reinterpret_cast<int*>(reinterpret_cast<std::uintptr_t>(g.error_number) - old_base + new_base);
  *g.exceptions = to.exceptions;
  *g.error_number = to.error_number;
  if (old_base != new_base) set_fs_base(new_base);
}
#else
bool can_change_images(thread_globals&) noexcept { return false; }
void change_image(thread_globals&, context&, context&) noexcept { RINGLET_ASSERT(false, "thread images are for x86-64"); }
#endif

void call_on_top(context& from, context& resting, void (*call)(void*), void* argument) {
  visit v{&from, &resting, call, argument};
  sanitizer::leaving(&from.fake_stack, resting.stack_bottom, resting.stack_size);
  sanitizer::switch_fiber(resting.tsan_fiber);
  const auto back = boost::context::detail::ontop_fcontext(resting.sp, &v, &on_top);
  resting.sp = back.fctx;
  const void* bottom = nullptr;
  std::size_t size = 0;
  sanitizer::arrived(from.fake_stack, &bottom, &size);
}

void make_context(context& made, void* low, void* top, void (*entry)(void* message)) {
  made = context{};
  made.stack_bottom = low;
  made.stack_size = static_cast<char*>(top) - static_cast<char*>(low);
  made.sp = boost::context::detail::make_fcontext(top, made.stack_size, &begin);
  // One that never ran has no fake stack: the field carries the entry until then.
  made.fake_stack = reinterpret_cast<void*>(entry);
  made.tsan_fiber = sanitizer::make_fiber();
}

void adopt_thread_stack(context& made) {
  made = context{};
  made.tsan_fiber = sanitizer::this_fiber();
  made.has_run = true;
}

void leave_thread_stack(context& adopted) noexcept {
  if (adopted.is_thread_stack) sanitizer::look_no_more_in(adopted.stack_bottom, adopted.stack_size);
}

void drop_context(context& dead) noexcept {
  if (dead.tsan_fiber) sanitizer::drop_fiber(dead.tsan_fiber);
  dead.tsan_fiber = nullptr;
}

}  // namespace ringlet::context
