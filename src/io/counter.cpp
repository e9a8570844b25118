#include "io/counter.hpp"

#include <fcntl.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/sys.hpp"

namespace ringlet::io {

namespace {
// Copies words from an address that may be bad; false: it is. The kernel looks, for whom that is no crash.
bool copy_words(const void* from, void* to, std::size_t size) {
  const iovec there{const_cast<void*>(from), size}, here{to, size};
  const long got = sys::call(SYS_process_vm_readv, sys::call(SYS_getpid), &here, 1L, &there, 1L, 0L);
  if (got >= 0 || got == -EFAULT) return got == long(size);
  // A sandbox (seccomp) forbids that. None forbids this one, which reads a word before it refuses to do anything.
  constexpr int no_way = -1;
  for (std::size_t at = 0; at < size; at += 8)
    if (!from || sys::call(SYS_rt_sigprocmask, no_way, static_cast<const char*>(from) + at, nullptr, 8L) == -EFAULT)
      return false;
  std::memcpy(to, from, size);
  return true;
}
}  // namespace

bool is_eventfd(int fd) {
  char link[40], target[32] = {};
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  return sys::call(SYS_readlink, link, target, sizeof target - 1) > 0 &&
         std::strcmp(target, "anon_inode:[eventfd]") == 0;
}

std::uint64_t number_in(const iovec* parts) {
  iovec first;
  std::uint64_t number;
  if (!copy_words(parts, &first, sizeof first) || first.iov_len < sizeof number) return 0;
  if (!copy_words(first.iov_base, &number, sizeof number) || number == UINT64_MAX) return 0;
  return number;
}

bool is_too_full(int fd, std::uint64_t number) {
  if (number <= 1) return false;
  char path[48], text[512];
  std::snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  const long file = sys::call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return true;
  const long size = sys::call(SYS_read, file, text, sizeof text - 1);
  sys::call(SYS_close, file);
  text[std::max(size, 0L)] = 0;
  unsigned long long count = 0;
  const char* line = std::strstr(text, "eventfd-count:");
  return !line || std::sscanf(line, "eventfd-count: %llx", &count) != 1 || count > UINT64_MAX - 1 - number;
}

}  // namespace ringlet::io
