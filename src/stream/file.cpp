// Files as streams.
//
// What a write does depends on what is at the other end. A regular file's goes through the engine, which tries the page cache first
// where the file system allows that, and else has a worker copy: never this thread. A pipe's is tried
// without its SIGPIPE (pipe_write.cpp).

#include <ringlet/file.hpp>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <stdexcept>

#include "io/doors.hpp"
#include "io/helped.hpp"
#include "io/wait.hpp"
#include "stream/info.hpp"
#include "stream/pipe_write.hpp"
#include "stream/patience.hpp"
#include "sync/address_wait.hpp"

namespace ringlet {

// --- an fd and its owner ---------------------------------------------------------------------------------------------

file::file(const std::string& path, int flags, unsigned permissions, deadline until) : name_(path) {
  int fd;
  do fd = io::openat(AT_FDCWD, path.c_str(), flags | O_CLOEXEC, permissions, until);
  while (fd == -EINTR);
  if (fd < 0) detail::throw_io_failure(fd, "opening '" + path + "'");
  fd_ = fd;
}

file file::adopt(int fd, std::string name) {
  file made;
  made.fd_ = fd;
  made.name_ = std::move(name);
  return made;
}
file file::borrow(int fd, std::string name) {
  file made = adopt(fd, std::move(name));
  made.borrowed_ = true;
  return made;
}

file::file(file&& other) noexcept { *this = std::move(other); }
file& file::operator=(file&& other) noexcept {
  if (this == &other) return *this;
  close();
  stream::operator=(std::move(other));
  fd_ = std::exchange(other.fd_, -1);
  borrowed_ = std::exchange(other.borrowed_, false);
  type_ = other.type_;
  asked_ = std::exchange(other.asked_, false);
  name_ = std::move(other.name_);
  return *this;
}
file::~file() { close(); }

void file::close() noexcept {
  if (fd_ >= 0 && !borrowed_) io::close(fd_);
  release();
}
int file::release() noexcept {
  forget_ahead();
  asked_ = false;
  return std::exchange(fd_, -1);
}

std::string file::describe() const { return name_.empty() ? "fd " + std::to_string(fd_) : "'" + name_ + "'"; }

file_type file::type() const {
  struct stat s;
  if (!asked_ && sys::call(SYS_fstat, fd_, &s) == 0) {
    type_ = detail::type_of(s.st_mode);
    asked_ = true;
  }
  return type_;
}

bool file::has_one_position() const { return type() == file_type::regular || type() == file_type::block_device; }

// --- the stream ------------------------------------------------------------------------------------------------------

ssize_t file::receive(void* buffer, std::size_t size, deadline until) {
  return detail::patiently(fd_, false, until, [&] { return io::read(fd_, buffer, size, until); });
}

ssize_t file::transmit(const void* data, std::size_t size, deadline until) {
  switch (type()) {
    case file_type::block_device:
    case file_type::regular: {
      // What was read ahead was not read, as far as the user knows.
      if (const auto ahead_of_user = std::int64_t(ahead().size())) {
        if (const long failed = sys::call(SYS_lseek, fd_, -ahead_of_user, SEEK_CUR); failed < 0) return failed;
        forget_ahead();
      }
      const iovec part{const_cast<void*>(data), std::min<std::size_t>(size, 0x7ffff000)};
      return io::perform({.code = loop::opcode::writev, .fd = fd_, .parts = &part, .count = 1, .offset = -1}, until, "write", fd_);
    }
    case file_type::fifo:
      return detail::patiently(fd_, true, until, [&] {
        return io::until_ready(fd_, io::direction::out, until, "write", [&](io::fd_watch*) { return detail::try_pipe(fd_, data, size); });
      });
    case file_type::socket:
      return detail::patiently(fd_, true, until, [&] { return io::send(fd_, data, size, MSG_NOSIGNAL, until); });
    default:
      return detail::patiently(fd_, true, until, [&] { return io::write(fd_, data, size, until); });
  }
}

// --- positions and the disk ------------------------------------------------------------------------------------------

std::string file::read_at(std::int64_t offset, std::size_t size, deadline until) {
  std::string result(size, 0);
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got = io::pread(fd_, result.data() + done, size - done, offset + std::int64_t(done), until);
    if (got == -EINTR) continue;
    if (got < 0) detail::throw_io_failure(got, "reading " + describe() + " at " + std::to_string(offset));
    if (got == 0) break;
    done += std::size_t(got);
  }
  result.resize(done);
  return result;
}

void file::write_at(std::int64_t offset, std::string_view data, deadline until) {
  for (std::size_t done = 0; done < data.size();) {
    const iovec part{const_cast<char*>(data.data()) + done, std::min<std::size_t>(data.size() - done, 0x7ffff000)};
    const ssize_t got =
        io::perform({.code = loop::opcode::writev, .fd = fd_, .parts = &part, .count = 1, .offset = offset + std::int64_t(done)}, until, "pwrite", fd_);
    if (got == -EINTR) continue;
    if (got <= 0) detail::throw_io_failure(got == 0 ? -EIO : got, "writing to " + describe() + " at " + std::to_string(offset), done);
    done += std::size_t(got);
  }
}

std::int64_t file::seek(std::int64_t offset, int whence) {
  const position_turn alone(*this, "seeking in", never);
  if (whence == SEEK_CUR) offset -= std::int64_t(ahead().size());
  const long at = sys::call(SYS_lseek, fd_, offset, whence);
  if (at < 0) detail::throw_io_failure(at, "seeking in " + describe());
  forget_ahead();
  return at;
}

void file::sync(bool data_only, deadline until) {
  const auto code = data_only ? loop::opcode::fdatasync : loop::opcode::fsync;
  if (const ssize_t failed = io::perform({.code = code, .fd = fd_}, until, "fsync", fd_); failed < 0)
    detail::throw_io_failure(failed, "syncing " + describe());
}

void file::truncate(std::int64_t size, deadline until) {
  // Who leaves may close the fd, and its number would be another file's: so one that has not begun never does, and one that has is
  // waited for. (A duplicate's close would drop the process's record locks.)
  enum : int { waits, runs, ended, given_up };
  const auto step = std::make_shared<std::atomic<int>>(waits);
  long result = 0;
  const int left = io::on_helper("ftruncate", until, [fd = fd_, size, step]() -> long {
    int still = waits;
    if (!step->compare_exchange_strong(still, runs)) return -ECANCELED;
    const long answer = sys::call(SYS_ftruncate, fd, size);
    step->store(ended);
    sync::wake_address(step.get(), sync::all_waiters);
    return answer;
  }, result);
  if (left < 0) {
    result = left;
    int still = waits;
    if (!step->compare_exchange_strong(still, given_up)) {
      const auto goes_on = [](const void* at) { return static_cast<const std::atomic<int>*>(at)->load() != ended; };
      auto& owed = detail::hub_state::here().foreign_work;
      ++owed;
      while (goes_on(step.get())) sync::wait_on_address(step.get(), never, "ftruncate", false, goes_on);
      --owed;
    }
  }
  if (result < 0) detail::throw_io_failure(result, "truncating " + describe());
}

file_info file::info(deadline until) const { return detail::ask_info(fd_, "", AT_EMPTY_PATH, until, describe()); }

}  // namespace ringlet
