#include <ringlet/ipc/shared.hpp>

#include <sys/mman.h>
#include <unistd.h>

#include <ringlet/io.hpp>

#include "io/doors.hpp"
#include "process/failures.hpp"

namespace ringlet::ipc::detail {

shared_memory::shared_memory(std::size_t size_bytes) : size_(size_bytes ? size_bytes : 1) {
  const long fd = sys::call(SYS_memfd_create, "ringlet shared", MFD_CLOEXEC);
  if (fd < 0) process_detail::fail(fd, "shared memory needs a memfd (a limit on open files? see ulimit -n)");
  fd_ = int(fd);
  io::fd_opened(fd_);
  long failed = sys::call(SYS_ftruncate, fd, size_);
  if (failed == 0) {
    const long at = sys::call(SYS_mmap, nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0L);
    if (at < 0 && at > -4096)
      failed = at;
    else
      at_ = reinterpret_cast<void*>(at);
  }
  if (failed < 0) {
    io::close(fd_);
    process_detail::fail(failed, std::to_string(size_) + " bytes of shared memory");
  }
}

shared_memory::~shared_memory() {
  sys::call(SYS_munmap, at_, size_);
  io::close(fd_);
}

}  // namespace ringlet::ipc::detail
