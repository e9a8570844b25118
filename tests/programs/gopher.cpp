// A program with a thread, and the note that Go's linker leaves: for what is refused to it.

#include <cstdio>
#include <thread>

#ifdef __x86_64__
asm(R"(
  .section .note.go.buildid, "a", @note
  .long 4, 4, 4
  .asciz "Go\0"
  .long 0
  .text
)");
#endif

int main() { std::thread([] { std::puts("a thread"); }).join(); }
