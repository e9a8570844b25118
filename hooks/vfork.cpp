// vfork, which returns twice on one stack: so it cannot be a C++ function. As glibc's own, it keeps its return address
// in a register over the system call, because the child will have overwritten its place on the stack when the parent
// goes on. Between the two, io is told that what runs here is a child on borrowed memory: its calls are libc's, and what
// it does to descriptors is its own affair.
//
// x86-64 only; elsewhere vfork is libc's, and a child that does more than dup2, close and exec may confuse its parent's
// fibers. Shadow stacks (CET) are not in use by any glibc that this was tried with.

#ifdef __x86_64__

#include <cerrno>

#include <ringlet/export.hpp>

#include "rows.hpp"

// Called from the assembly below; hidden.
extern "C" {
__attribute__((visibility("hidden"), used)) void ringlet_in_vfork_child() noexcept {
  ++ringlet::hooks::vfork_children;
  ringlet::io::entered_vfork_child();
}
__attribute__((visibility("hidden"), used)) int ringlet_after_vfork(long child) noexcept {
  if (child < 0) {
    errno = int(-child);
    return -1;
  }
  // The child's count is ours, too: it ran on our thread-local variables.
  if (ringlet::hooks::vfork_children > 0) {
    --ringlet::hooks::vfork_children;
    ringlet::io::left_vfork_child();
  }
  return int(child);
}
}

asm(R"(
    .text
    .globl vfork
    .type vfork, @function
    .globl __vfork
    .type __vfork, @function
vfork:
__vfork:
    .cfi_startproc
    popq %rdi
    .cfi_adjust_cfa_offset -8
    .cfi_register %rip, %rdi
    movl $58, %eax
    syscall
    pushq %rdi
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rip, 0
    testq %rax, %rax
    jnz 1f
    subq $8, %rsp
    .cfi_adjust_cfa_offset 8
    call ringlet_in_vfork_child
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    xorl %eax, %eax
    ret
1:  movq %rax, %rdi
    jmp ringlet_after_vfork
    .cfi_endproc
    .size vfork, .-vfork
    .size __vfork, .-__vfork
)");

#endif
