// A library with system calls that can't be patched (one is entered at the `syscall` and right behind it, and nothing near
// is padding; one has AVX registers in use; one's code is not understood), and one that could.

asm(R"(
    .text
    .globl unpatchable_entered_everywhere
    .type unpatchable_entered_everywhere, @function
unpatchable_entered_everywhere:
    .cfi_startproc
    movl %edi, %eax
    testl %esi, %esi
    je 1f
    jmp 2f
1:  syscall
2:  testl %eax, %eax
    jne 3f
    ret
3:  ret
    .cfi_endproc
    .size unpatchable_entered_everywhere, .-unpatchable_entered_everywhere
    .byte 0xf4, 0xf4
    .globl unpatchable_wide_vectors
    .type unpatchable_wide_vectors, @function
unpatchable_wide_vectors:
    .cfi_startproc
    vpxor %ymm1, %ymm1, %ymm1
    movl $110, %eax
    syscall
    vptest %ymm1, %ymm1
    ret
    .cfi_endproc
    .size unpatchable_wide_vectors, .-unpatchable_wide_vectors
    .byte 0xf4, 0xf4
    .globl unpatchable_not_understood
    .type unpatchable_not_understood, @function
unpatchable_not_understood:
    .cfi_startproc
    movl $110, %eax
    syscall
    ret
    .byte 0x06, 0x07, 0x06
    ret
    .cfi_endproc
    .size unpatchable_not_understood, .-unpatchable_not_understood
    .byte 0xf4, 0xf4
    .globl unpatchable_neighbour
    .type unpatchable_neighbour, @function
unpatchable_neighbour:
    .cfi_startproc
    movl $110, %eax
    syscall
    ret
    .cfi_endproc
    .size unpatchable_neighbour, .-unpatchable_neighbour
    .byte 0xf4, 0xf4
)");
