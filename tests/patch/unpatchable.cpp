// A library with one system call that can't be patched: it is entered at the `syscall` and right behind it, and nothing
// near is padding; and one that could.

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
