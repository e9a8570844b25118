#include "context/context.hpp"

#include "base/assert.hpp"

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
  entry(detail::land(arrived));
  RINGLET_ASSERT(false, "a context's entry returned");
}
}  // namespace

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
}

void leave_thread_stack(context& adopted) noexcept {
  if (adopted.is_thread_stack) sanitizer::look_no_more_in(adopted.stack_bottom, adopted.stack_size);
}

void drop_context(context& dead) noexcept {
  if (dead.tsan_fiber) sanitizer::drop_fiber(dead.tsan_fiber);
  dead.tsan_fiber = nullptr;
}

}  // namespace ringlet::context
