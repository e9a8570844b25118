#include "base/kernel_action.hpp"

#ifdef __x86_64__
// What unwinders and debuggers know a signal's frame by: these very bytes.
asm(".text\n\t.p2align 4\n\t.hidden ringlet_signal_return\n\t.globl ringlet_signal_return\n"
    "\t.type ringlet_signal_return,@function\n"
    "\tnop\n"
    "ringlet_signal_return:\n\tmovq $15, %rax\n\tsyscall\n\t.size ringlet_signal_return,.-ringlet_signal_return\n");
#endif
