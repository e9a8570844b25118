// Runs a program as a container with Docker's default profile would: io_uring refused.
//
//   no_uring PROGRAM [ARGUMENT]...
//
// Installs a seccomp filter that answers io_uring_setup, io_uring_enter and io_uring_register with EPERM, and executes
// the program in its place. Plain BPF, no libseccomp: three comparisons need no library. Exit status 125 if the filter
// cannot be installed, 127 if the program cannot be executed; else the program's.

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: no_uring PROGRAM [ARGUMENT]...\n");
    return 125;
  }
  // The processor's kind is not looked at: a foreign system call with the same number would only be refused in vain.
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_register, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
  };
  const sock_fprog filter{sizeof code / sizeof *code, code};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
    std::fprintf(stderr, "no_uring: the seccomp filter was refused: %s\n", std::strerror(errno));
    return 125;
  }
  ::execvp(argv[1], argv + 1);
  std::fprintf(stderr, "no_uring: %s: %s\n", argv[1], std::strerror(errno));
  return 127;
}
