// The entry: from a slot to the dispatcher and back, and the area of slots inside our own object.
//
// Reached from a slot with rcx = the site's record and everything else as it was at the site. It saves all registers
// below the caller's red zone (struct registers), calls the dispatcher, and goes on with what is in that struct. Written
// in assembly because each register counts; with unwind information at every instruction, because signals (a debugger's,
// a profiler's, the one by which pthread_cancel interrupts) arrive anywhere.
//
// The unwinder is led from here to the address behind the site's `syscall`, in the library, past the slot: record.after.
// The rules in bytes (cfi_escape), by register numbers of the x86-64 ABI (rcx 2, rbx 3, rdi 5, return address 16):
//   0x16, 16, n, ...   the return address is the value of this expression
//   0x10, r, n, ...    the register r is saved at the address of this expression
//   0x0f, n, ...       the stack pointer of the caller is the value of this expression
//   0x70 + r, offset   register + offset; 0x06 dereferences
//
// Vector registers are the kernel's to keep, and ours to clobber (the dispatcher is ordinary C++). Only a function that
// uses some can have one alive at its `syscall`, for to its callers they are all clobbered by the call. Sites of such
// functions come in by ringlet_patch_entry_with_vectors. Upper halves are not saved: libraries with AVX in such a
// function are refused by the planner.

#ifdef __x86_64__

#include <cstddef>

#include "patch.hpp"
#include "slots.hpp"

namespace ringlet::patch {
static_assert(offsetof(registers, r15) == 0 && offsetof(registers, r14) == 8 && offsetof(registers, r13) == 16 && offsetof(registers, r12) == 24);
static_assert(offsetof(registers, rbp) == 32 && offsetof(registers, rbx) == 40 && offsetof(registers, r10) == 48 && offsetof(registers, r9) == 56);
static_assert(offsetof(registers, r8) == 64 && offsetof(registers, rdi) == 72 && offsetof(registers, rsi) == 80 && offsetof(registers, rdx) == 88);
static_assert(offsetof(registers, rax) == 96 && offsetof(registers, rsp) == 104 && offsetof(registers, rip) == 112 && offsetof(registers, rflags) == 120);
static_assert(offsetof(registers, site) == 128 && sizeof(registers) == 144);
static_assert(offsetof(site_record, after) == 0 && offsetof(site_record, on) == 8 && offsetof(site_record, call) == 24);
}  // namespace ringlet::patch

asm(R"(
    .text

    # Saves everything in a struct registers at rsp; rbx = its address. 272 = 128 of red zone + 144.
    .macro SAVE_REGISTERS
    .cfi_def_cfa %rsp, 0
    .cfi_escape 0x16, 16, 3, 0x72, 0x00, 0x06
    leaq -272(%rsp), %rsp
    .cfi_def_cfa_offset 272
    movq %r15, (%rsp)
    .cfi_rel_offset %r15, 0
    movq %r14, 8(%rsp)
    .cfi_rel_offset %r14, 8
    movq %r13, 16(%rsp)
    .cfi_rel_offset %r13, 16
    movq %r12, 24(%rsp)
    .cfi_rel_offset %r12, 24
    movq %rbp, 32(%rsp)
    .cfi_rel_offset %rbp, 32
    movq %rbx, 40(%rsp)
    .cfi_rel_offset %rbx, 40
    movq %r10, 48(%rsp)
    .cfi_rel_offset %r10, 48
    movq %r9, 56(%rsp)
    .cfi_rel_offset %r9, 56
    movq %r8, 64(%rsp)
    .cfi_rel_offset %r8, 64
    movq %rdi, 72(%rsp)
    .cfi_rel_offset %rdi, 72
    movq %rsi, 80(%rsp)
    .cfi_rel_offset %rsi, 80
    movq %rdx, 88(%rsp)
    .cfi_rel_offset %rdx, 88
    movq %rax, 96(%rsp)
    .cfi_rel_offset %rax, 96
    movq %rsp, %rbx
    .cfi_def_cfa_register %rbx
    # The flags: sign, zero, adjust, parity, carry as they lie in rflags' low byte, then overflow.
    seto %al
    lahf
    movzbl %ah, %edx
    movzbl %al, %eax
    shll $11, %eax
    orl %edx, %eax
    movq %rax, 120(%rbx)
    leaq 272(%rbx), %rax
    movq 8(%rcx), %r11
    movq %rax, 104(%rbx)
    movq %r11, 112(%rbx)
    movq %rcx, 128(%rbx)
    movq $0, 136(%rbx)
    movq %rbx, %rdi
    andq $-16, %rsp
    .endm

    # From here on rcx may be clobbered: the record is found through the struct.
    .macro RECORD_BY_RBX
    .cfi_escape 0x16, 16, 5, 0x73, 0x80, 0x01, 0x06, 0x06
    .endm

    .globl ringlet_patch_entry
    .hidden ringlet_patch_entry
    .type ringlet_patch_entry, @function
    .p2align 6
ringlet_patch_entry:
    .cfi_startproc simple
    SAVE_REGISTERS
    RECORD_BY_RBX
    call *24(%rcx)
    movq %rbx, %rdi
    jmp ringlet_patch_resume
    .cfi_endproc
    .size ringlet_patch_entry, .-ringlet_patch_entry

    .globl ringlet_patch_entry_with_vectors
    .hidden ringlet_patch_entry_with_vectors
    .type ringlet_patch_entry_with_vectors, @function
    .p2align 6
ringlet_patch_entry_with_vectors:
    .cfi_startproc simple
    SAVE_REGISTERS
    RECORD_BY_RBX
    subq $256, %rsp
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movaps %xmm\n, 16*\n(%rsp)
    .endr
    call *24(%rcx)
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movaps 16*\n(%rsp), %xmm\n
    .endr
    movq %rbx, %rdi
    jmp ringlet_patch_resume
    .cfi_endproc
    .size ringlet_patch_entry_with_vectors, .-ringlet_patch_entry_with_vectors

    # rdi = a struct registers, anywhere. All of it is read before the stack is left: what lies below the new stack
    # pointer's red zone is a signal's to write over.
    .globl ringlet_patch_resume
    .hidden ringlet_patch_resume
    .type ringlet_patch_resume, @function
    .p2align 6
ringlet_patch_resume:
    .cfi_startproc simple
    .cfi_escape 0x0f, 4, 0x75, 0xe8, 0x00, 0x06
    .cfi_escape 0x16, 16, 5, 0x75, 0x80, 0x01, 0x06, 0x06
    .cfi_escape 0x10, 15, 2, 0x75, 0
    .cfi_escape 0x10, 14, 2, 0x75, 8
    .cfi_escape 0x10, 13, 2, 0x75, 16
    .cfi_escape 0x10, 12, 2, 0x75, 24
    .cfi_escape 0x10, 6, 2, 0x75, 32
    .cfi_escape 0x10, 3, 2, 0x75, 40
    movq 120(%rdi), %rax
    movl %eax, %ecx
    shrl $11, %ecx
    andl $1, %ecx
    movb %al, %ah
    # 1 + 127 overflows a signed byte: that is how the overflow flag comes back, and sahf leaves it alone.
    addb $127, %cl
    sahf
    movq (%rdi), %r15
    movq 8(%rdi), %r14
    movq 16(%rdi), %r13
    movq 24(%rdi), %r12
    movq 32(%rdi), %rbp
    movq 40(%rdi), %rbx
    movq 48(%rdi), %r10
    movq 56(%rdi), %r9
    movq 64(%rdi), %r8
    movq 80(%rdi), %rsi
    movq 88(%rdi), %rdx
    movq 96(%rdi), %rax
    movq 104(%rdi), %rcx
    movq 112(%rdi), %r11
    movq 72(%rdi), %rdi
    .cfi_same_value %r15
    .cfi_same_value %r14
    .cfi_same_value %r13
    .cfi_same_value %r12
    .cfi_same_value %rbp
    .cfi_same_value %rbx
    .cfi_def_cfa %rcx, 0
    .cfi_register %rip, %r11
    movq %rcx, %rsp
    .cfi_def_cfa_register %rsp
    jmp *%r11
    .cfi_endproc
    .size ringlet_patch_resume, .-ringlet_patch_resume

    # Slots in our own object: pages of their own, to be written over. 1024 of them.
    .section .text.ringlet_patch_slots, "ax", @progbits
    .globl ringlet_patch_slots
    .hidden ringlet_patch_slots
    .type ringlet_patch_slots, @function
    .p2align 12
ringlet_patch_slots:
    .cfi_startproc simple
    .cfi_def_cfa %rsp, 0
    .cfi_escape 0x16, 16, 6, 0x80, 0x00, 0x09, 0x80, 0x1a, 0x06
    .fill 131072, 1, 0xcc
    .cfi_endproc
    .size ringlet_patch_slots, .-ringlet_patch_slots
    .text
)");

#endif
