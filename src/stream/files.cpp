// What is done to names: each is one system call on a helper thread.
//
// The ring has operations for most of these, but the kernel hands each of them to a worker thread of its own, which costs as much;
// and a helper may be left alone with a dead network, where an operation has to be waited for.

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <atomic>
#include <cstring>

#include <ringlet/file.hpp>

#include "base/sys.hpp"
#include "io/helped.hpp"
#include "stream/info.hpp"

namespace ringlet {

namespace detail {

file_type type_of(mode_t mode) noexcept {
  switch (mode & S_IFMT) {
    case S_IFREG: return file_type::regular;
    case S_IFDIR: return file_type::directory;
    case S_IFLNK: return file_type::symlink;
    case S_IFIFO: return file_type::fifo;
    case S_IFSOCK: return file_type::socket;
    case S_IFCHR: return file_type::character_device;
    case S_IFBLK: return file_type::block_device;
    default: return file_type::unknown;
  }
}

namespace {
struct asked_info {
  long result = 0;
  struct statx found {};
};

std::chrono::system_clock::time_point moment(const statx_timestamp& t) {
  return std::chrono::system_clock::time_point(
      std::chrono::duration_cast<std::chrono::system_clock::duration>(std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec)));
}

asked_info look(int directory, const std::string& path, int flags, deadline until) {
  asked_info answer;
  const int left = io::on_helper("statx", until, [directory, path, flags] {
    asked_info a;
    a.result = sys::call(SYS_statx, directory, path.c_str(), flags, STATX_BASIC_STATS, &a.found);
    return a;
  }, answer);
  if (left < 0) answer.result = left;
  return answer;
}
}  // namespace

file_info ask_info(int directory, const std::string& path, int flags, deadline until, const std::string& shown) {
  const asked_info answer = look(directory, path, flags, until);
  if (answer.result < 0) throw_io_failure(answer.result, "asking about " + shown);
  const struct statx& s = answer.found;
  file_info i;
  i.type = type_of(s.stx_mode);
  i.permissions = s.stx_mode & 07777;
  i.size_bytes = s.stx_size;
  i.allocated_bytes = s.stx_blocks * 512;
  i.accessed = moment(s.stx_atime);
  i.modified = moment(s.stx_mtime);
  i.changed = moment(s.stx_ctime);
  i.inode = s.stx_ino;
  i.device = ::makedev(s.stx_dev_major, s.stx_dev_minor);
  i.links = s.stx_nlink;
  i.user = s.stx_uid;
  i.group = s.stx_gid;
  return i;
}
}  // namespace detail

namespace files {

namespace {

template <class Call>
void change(const char* what, deadline until, const std::string& doing, Call call) {
  long result = 0;
  if (const int left = io::on_helper(what, until, std::move(call), result); left < 0) result = left;
  if (result < 0) detail::throw_io_failure(result, doing);
}

std::string quoted(const std::string& path) { return "'" + path + "'"; }

struct listed {
  long result = 0;
  std::vector<entry> entries;
};

file_type type_of_entry(unsigned char type) {
  return type == DT_UNKNOWN ? file_type::unknown : detail::type_of(mode_t(type) << 12);
}

listed read_directory(const std::string& path) {
  listed all;
  const int fd = int(all.result = sys::call(SYS_openat, AT_FDCWD, path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
  if (fd < 0) return all;
  alignas(8) char records[32768];
  try {
    while ((all.result = sys::call(SYS_getdents64, fd, records, sizeof records)) > 0)
      for (long at = 0; at < all.result;) {
        const auto* one = reinterpret_cast<const dirent64*>(records + at);
        at += one->d_reclen;
        if (std::strcmp(one->d_name, ".") != 0 && std::strcmp(one->d_name, "..") != 0)
          all.entries.push_back({one->d_name, type_of_entry(one->d_type)});
      }
  } catch (const std::bad_alloc&) {
    all.result = -ENOMEM;
  }
  sys::call(SYS_close, fd);
  return all;
}

}  // namespace

file_info info(const std::string& path, deadline until) { return detail::ask_info(AT_FDCWD, path, 0, until, quoted(path)); }
file_info link_info(const std::string& path, deadline until) {
  return detail::ask_info(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, until, quoted(path));
}

bool exists(const std::string& path, deadline until) {
  const long result = detail::look(AT_FDCWD, path, 0, until).result;
  if (result == 0) return true;
  if (result == -ENOENT || result == -ENOTDIR) return false;
  detail::throw_io_failure(result, "asking about " + quoted(path));
}

std::vector<entry> list(const std::string& path, deadline until) {
  listed all;
  if (const int left = io::on_helper("getdents", until, [path] { return read_directory(path); }, all); left < 0) all.result = left;
  if (all.result < 0) detail::throw_io_failure(all.result, "listing " + quoted(path));
  return std::move(all.entries);
}

void rename(const std::string& from, const std::string& to, deadline until) {
  change("rename", until, "renaming " + quoted(from) + " to " + quoted(to),
         [from, to] { return sys::call(SYS_renameat, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str()); });
}

void remove(const std::string& path, deadline until) {
  change("unlink", until, "removing " + quoted(path), [path] {
    const long result = sys::call(SYS_unlinkat, AT_FDCWD, path.c_str(), 0);
    return result == -EISDIR ? sys::call(SYS_unlinkat, AT_FDCWD, path.c_str(), AT_REMOVEDIR) : result;
  });
}

void make_directory(const std::string& path, unsigned permissions, deadline until) {
  change("mkdir", until, "making directory " + quoted(path), [=] { return sys::call(SYS_mkdirat, AT_FDCWD, path.c_str(), permissions); });
}

void make_fifo(const std::string& path, unsigned permissions, deadline until) {
  change("mkfifo", until, "making FIFO " + quoted(path),
         [=] { return sys::call(SYS_mknodat, AT_FDCWD, path.c_str(), S_IFIFO | permissions, 0); });
}

std::string read(const std::string& path, deadline until) { return file(path, O_RDONLY, 0, until).read_all(until); }

void write(const std::string& path, std::string_view data, unsigned permissions, deadline until) {
  file f(path, O_WRONLY | O_CREAT | O_TRUNC, permissions, until);
  f.write(data, until);
}

void replace(const std::string& path, std::string_view data, unsigned permissions, deadline until) {
  static std::atomic<unsigned> count{0};
  std::string made_as;
  file f;
  while (!f.is_open()) try {
      made_as = path + "." + std::to_string(sys::call(SYS_getpid)) + "." + std::to_string(count.fetch_add(1)) + ".new";
      f = file(made_as, O_WRONLY | O_CREAT | O_EXCL, permissions, until);
    } catch (const io_error& e) {  // one of our number may have died here (in a container everybody is 1)
      if (e.code().value() != EEXIST) throw;
    }
  try {
    f.write(data, until);
    f.sync(false, until);
    rename(made_as, path, until);
  } catch (...) {
    sys::call(SYS_unlinkat, AT_FDCWD, made_as.c_str(), 0);
    throw;
  }
  // The name, too, is to survive a crash.
  const auto slash = path.rfind('/');
  file(slash == path.npos ? "." : slash == 0 ? "/" : path.substr(0, slash), O_RDONLY | O_DIRECTORY, 0, until).sync(false, until);
}

}  // namespace files
}  // namespace ringlet
