#pragma once
// A bound unix socket's file: goes with this object, but for a forked child's, and one that another server has put in its place.

#include <fcntl.h>
#include <sys/stat.h>

#include <string>
#include <utility>

#include "base/sys.hpp"

namespace ringlet::detail {

inline long info_of(const std::string& path, struct stat& s) {
  return sys::call(SYS_newfstatat, AT_FDCWD, path.c_str(), &s, AT_SYMLINK_NOFOLLOW);
}

struct socket_file {
  std::string path;
  const dev_t device;
  const ino_t inode;
  const long made_by = sys::call(SYS_getpid);
  socket_file(std::string where, const struct stat& s) noexcept : path(std::move(where)), device(s.st_dev), inode(s.st_ino) {}
  socket_file(const socket_file&) = delete;
  ~socket_file() {
    struct stat s{};
    if (made_by == sys::call(SYS_getpid) && info_of(path, s) == 0 && s.st_dev == device && s.st_ino == inode)
      sys::call(SYS_unlinkat, AT_FDCWD, path.c_str(), 0);
  }
};

}  // namespace ringlet::detail
