#include "io/counter.hpp"

#include <fcntl.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/sys.hpp"

namespace ringlet::io {

namespace {
// Whether eight bytes can be read there. A call that copies them before it refuses to do anything tells, whatever
// sandbox (seccomp) this is; process_vm_readv is forbidden in some.
bool is_readable(const void* eight_bytes) {
  constexpr int no_way = -1;
  return eight_bytes && sys::call(SYS_rt_sigprocmask, no_way, eight_bytes, nullptr, 8L) != -EFAULT;
}
static_assert(sizeof(iovec) == 16);
}  // namespace

bool is_eventfd(int fd) {
  char link[40], target[32] = {};
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  return sys::call(SYS_readlink, link, target, sizeof target - 1) > 0 &&
         std::strcmp(target, "anon_inode:[eventfd]") == 0;
}

std::uint64_t number_in(const iovec* parts) {
  const char* const words = reinterpret_cast<const char*>(parts);
  if (!is_readable(words) || !is_readable(words + 8)) return 0;
  std::uint64_t number;
  if (parts->iov_len < sizeof number || !is_readable(parts->iov_base)) return 0;
  std::memcpy(&number, parts->iov_base, sizeof number);
  return number == UINT64_MAX ? 0 : number;
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
