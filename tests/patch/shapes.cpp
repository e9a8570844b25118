// A library whose system calls lie in every way that the planner knows, each in a function of its own that is named by
// what is special about it. No padding stands between functions (`shut` is no no-operation), where the case isn't about
// padding: else every hard case would be an easy one.
//
// All take their number in edi, if they don't say otherwise, and return what the call returned.

asm(R"(
    .macro shut
    .byte 0xf4, 0xf4
    .endm
    .macro function name
    .globl \name
    .type \name, @function
\name:
    .cfi_startproc
    .endm
    .macro end_function name
    .cfi_endproc
    .size \name, .-\name
    shut
    .endm

    .text
    # The common one: getppid.
function shape_number_before
    movl $110, %eax
    syscall
    ret
end_function shape_number_before

    # The number is told further up.
function shape_number_above
    movl $110, %eax
    xorl %edi, %edi
    leaq -8(%rsp), %rsi
    syscall
    ret
end_function shape_number_above

    # Something rip-relative has to be moved: write(edi = 1 is the number, esi the fd) of "hello".
function shape_before_rip_relative
    movl %edi, %eax
    movl %esi, %edi
    movl $5, %edx
    leaq shape_text(%rip), %rsi
    syscall
    ret
end_function shape_before_rip_relative

    # Entered at the `syscall` itself.
function shape_after
    testl %edi, %edi
    movl %edi, %eax
    js 1f
    jmp 2f
    shut
1:  negl %eax
2:  syscall
    cmpq $-4096, %rax
    ja 3f
    ret
3:  movq $-1, %rax
    ret
end_function shape_after

    # Entered at the `syscall`, and followed by short instructions, of which one is a branch.
function shape_after_branch
    movl %edi, %eax
    cmpl $0, %esi
    je 2f
    negl %eax
2:  syscall
    testq %rax, %rax
    js 3f
    ret
3:  movq $-2, %rax
    ret
end_function shape_after_branch

    # As glibc's for(;;) exit(0): nothing is long enough by itself. The second round ends it.
function shape_around
    movl $2, %ecx
    movl %edi, %edx
    xorl %r8d, %r8d
    jmp 1f
4:  movq %r9, %rax
    ret
    shut
1:  movl %edx, %eax
    syscall
    jmp 5f
    shut
5:  incl %r8d
    movq %rax, %r9
    cmpl $2, %r8d
    je 4b
    jmp 1b
end_function shape_around

    # A jump table leads to the `syscall`: esi 0 or 1.
function shape_jump_table
    movl %edi, %eax
    leaq shape_table(%rip), %rdx
    movslq (%rdx,%rsi,4), %rcx
    addq %rdx, %rcx
    jmp *%rcx
    shut
.Lcase_0:
    nop
    addl $0, %eax
.Lcase_1:
    syscall
    cmpq $-4096, %rax
    ret
end_function shape_jump_table

    # Entered from another function.
function shape_entered_from_elsewhere
    movl %edi, %eax
    movl $0, %esi
    .globl shape_inner
    .hidden shape_inner
shape_inner:
    syscall
    cmpq $-4096, %rax
    ret
end_function shape_entered_from_elsewhere
function shape_enters_elsewhere
    movl %edi, %eax
    jmp shape_inner
end_function shape_enters_elsewhere

    # Entered at the `syscall` and behind it: only padding helps.
function shape_padding
    movl %edi, %eax
    testl %esi, %esi
    je 1f
    jmp 2f
    .byte 0x0f, 0x1f, 0x44, 0x00, 0x00
1:  syscall
2:  testl %eax, %eax
    ret
end_function shape_padding

    # The stack pointer moves right at it, so nothing in front of the `subq` can be moved.
function shape_stack_pointer
    .cfi_def_cfa_offset 8
    movl %edi, %eax
    subq $8, %rsp
    .cfi_adjust_cfa_offset 8
    syscall
    leaq 1(%rax), %rcx
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    ret
end_function shape_stack_pointer

    # Flags and red zone. rdi number, rsi rdx compared: returns the flags (as lahf and seto have them) after the call.
function shape_keeps_flags
    movq %rdi, %rax
    movq $0x1234567, -8(%rsp)
    movq $0x7654321, -128(%rsp)
    cmpq %rdx, %rsi
    movq %rax, %rax
    leaq 0x1000(%rsi), %r10
    syscall
    seto %al
    movb %al, %cl
    lahf
    movb %cl, %al
    movzwl %ax, %eax
    cmpq $0x1234567, -8(%rsp)
    jne 1f
    cmpq $0x7654321, -128(%rsp)
    jne 1f
    ret
1:  movq $-1, %rax
    ret
end_function shape_keeps_flags

    # All general registers that the kernel keeps: returns 0, or the or of all differences.
function shape_keeps_registers
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    movl %edi, %eax
    movq %rsp, %rbx
    movl $2, %ebp
    movl $3, %edx
    movl $4, %esi
    movl $5, %edi
    movl $8, %r8d
    movl $9, %r9d
    movl $10, %r10d
    movl $12, %r12d
    movl $13, %r13d
    movl $14, %r14d
    movl $15, %r15d
    syscall
    xorq %rsp, %rbx
    xorq $2, %rbp
    xorq $3, %rdx
    xorq $4, %rsi
    xorq $5, %rdi
    xorq $8, %r8
    xorq $9, %r9
    xorq $10, %r10
    xorq $12, %r12
    xorq $13, %r13
    xorq $14, %r14
    xorq $15, %r15
    movq %rbx, %rax
    orq %rbp, %rax
    orq %rdx, %rax
    orq %rsi, %rax
    orq %rdi, %rax
    orq %r8, %rax
    orq %r9, %rax
    orq %r10, %rax
    orq %r12, %rax
    orq %r13, %rax
    orq %r14, %rax
    orq %r15, %rax
    popq %r15
    .cfi_adjust_cfa_offset -8
    popq %r14
    .cfi_adjust_cfa_offset -8
    popq %r13
    .cfi_adjust_cfa_offset -8
    popq %r12
    .cfi_adjust_cfa_offset -8
    popq %rbp
    .cfi_adjust_cfa_offset -8
    popq %rbx
    .cfi_adjust_cfa_offset -8
    ret
end_function shape_keeps_registers

    # All vector registers, each with a value of its own: returns 0, or the number of those that changed.
function shape_keeps_vectors
    movl %edi, %r8d
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movl $\n+77, %eax
    movd %eax, %xmm\n
    pshufd $0, %xmm\n, %xmm\n
    .endr
    movl %r8d, %eax
    leaq shape_text(%rip), %rsi
    syscall
    xorl %r9d, %r9d
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    pshufd $0x4e, %xmm\n, %xmm\n
    movq %xmm\n, %rcx
    movl $\n+77, %eax
    movq %rax, %rdx
    shlq $32, %rdx
    orq %rdx, %rax
    xorl %edx, %edx
    cmpq %rax, %rcx
    setne %dl
    addl %edx, %r9d
    .endr
    movq %r9, %rax
    ret
end_function shape_keeps_vectors

    # A cold part: it makes the call between two uses of a vector register in the hot part, and uses none itself.
function shape_cold_part
    movl %edi, %eax
    movl $77, %ecx
    movd %ecx, %xmm3
    jmp shape_cold
    .globl shape_hot_again
    .hidden shape_hot_again
shape_hot_again:
    movd %xmm3, %eax
    ret
end_function shape_cold_part
    .globl shape_cold
    .hidden shape_cold
function shape_cold
    addl $0, %eax
    movl $0, %esi
    syscall
    jmp shape_hot_again
end_function shape_cold

    # The two bytes inside of another instruction are no system call.
function shape_no_system_call
    movl $0x050f, %eax
    ret
end_function shape_no_system_call

    .section .rodata
    .balign 4
shape_table:
    .long .Lcase_0 - shape_table
    .long .Lcase_1 - shape_table
shape_text:
    .ascii "hello"
    .text
)");
