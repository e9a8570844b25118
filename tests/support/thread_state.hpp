#pragma once
// What the kernel says of a thread of this process: the fact to wait for where another thread should be waiting. It is
// for programs that know nothing of ringlet, too; system calls by number, so that no hook takes part.

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace support {

// 'R' while it runs or could, 'S' while it sleeps, …; 0 if the kernel knows no such thread of ours.
inline char state_of(pid_t tid) {
  char path[64], text[512];
  std::snprintf(path, sizeof path, "/proc/self/task/%d/stat", int(tid));
  const int fd = int(::syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC));
  if (fd < 0) return 0;
  const long n = ::syscall(SYS_read, fd, text, sizeof text - 1);
  ::syscall(SYS_close, fd);
  if (n <= 0) return 0;
  text[n] = 0;
  const char* name_end = std::strrchr(text, ')');
  return name_end ? name_end[2] : 0;
}

}  // namespace support
