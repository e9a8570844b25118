#pragma once
// file: regular files, pipes, FIFOs and terminals as a stream that never blocks the thread; files::…: what is done to names.
//
//   ringlet::file log("/var/log/app.log", O_WRONLY | O_CREAT | O_APPEND);
//   log.write("begun\n");
//   for (const auto& line : ringlet::file::borrow(0).lines()) …        // stdin, be it a terminal, a pipe or a file
//   for (const auto& e : ringlet::files::list("/etc")) …
//
// Reads are answered from the page cache where it has the data; what would wait for a disk is done by the ring or by a helper
// thread (hub::engine_name), also opening and writing. A FIFO's open waits for its other end. Writing to a pipe that nobody reads
// is an io_error, never a SIGPIPE. A deadline ends the wait, but not always the work: a rename that hangs in a dead network
// may still happen.

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/stream.hpp>

namespace ringlet {

enum class file_type : unsigned char { unknown, regular, directory, symlink, fifo, socket, character_device, block_device };

struct file_info {
  file_type type = file_type::unknown;
  unsigned permissions = 0;  // 0755 and the like, with setuid, setgid, sticky
  std::uint64_t size_bytes = 0;
  std::uint64_t allocated_bytes = 0;
  std::chrono::system_clock::time_point accessed{}, modified{}, changed{};
  std::uint64_t inode = 0, device = 0, links = 0;
  unsigned user = 0, group = 0;
};

class RINGLET_EXPORT file : public stream {
 public:
  file() noexcept = default;
  // `flags` as open(2) has them (O_CLOEXEC is added), `permissions` of a file that is made, less the umask.
  explicit file(const std::string& path, int flags = O_RDONLY, unsigned permissions = 0666, deadline until = never);
  // Takes an open fd over, and closes it; borrow leaves it open. `name` is for messages.
  static file adopt(int fd, std::string name = {});
  static file borrow(int fd, std::string name = {});
  file(file&& other) noexcept;
  file& operator=(file&& other) noexcept;
  ~file() override;

  int fd() const noexcept { return fd_; }
  bool is_open() const noexcept { return fd_ >= 0; }
  // Gives the fd away; what was read ahead is forgotten.
  int release() noexcept;
  void close() noexcept;

  // At a position, past the stream's own: fewer bytes than asked for only at the end of the file.
  std::string read_at(std::int64_t offset, std::size_t size, deadline until = never);
  void write_at(std::int64_t offset, std::string_view data, deadline until = never);
  // Where the next read or write begins; lseek(2)'s whence. Reads, writes and seeks of one regular file take turns.
  std::int64_t seek(std::int64_t offset, int whence = SEEK_SET);
  std::int64_t position() { return seek(0, SEEK_CUR); }
  // Waits until all that was written is on the disk; `data_only`: times of change may be missing.
  void sync(bool data_only = false, deadline until = never);
  void truncate(std::int64_t size, deadline until = never);
  file_info info(deadline until = never) const;

 protected:
  ssize_t receive(void* buffer, std::size_t size, deadline until) override;
  ssize_t transmit(const void* data, std::size_t size, deadline until) override;
  std::string describe() const override;
  bool has_one_position() const override;

 private:
  file_type type() const;
  int fd_ = -1;
  bool borrowed_ = false;
  mutable file_type type_ = file_type::unknown;
  mutable bool asked_ = false;
  std::string name_;
};

namespace files {
// Errors are io_error; what() names the call and the path.
RINGLET_EXPORT file_info info(const std::string& path, deadline until = never);
// Of the symbolic link itself.
RINGLET_EXPORT file_info link_info(const std::string& path, deadline until = never);
RINGLET_EXPORT bool exists(const std::string& path, deadline until = never);

struct entry {
  std::string name;
  file_type type = file_type::unknown;  // unknown where the file system does not say: ask info
};
// All but "." and "..", in no order.
RINGLET_EXPORT std::vector<entry> list(const std::string& path, deadline until = never);
// rename(2): replaces `to`, in one step.
RINGLET_EXPORT void rename(const std::string& from, const std::string& to, deadline until = never);
// A file or an empty directory.
RINGLET_EXPORT void remove(const std::string& path, deadline until = never);
RINGLET_EXPORT void make_directory(const std::string& path, unsigned permissions = 0777, deadline until = never);
RINGLET_EXPORT void make_fifo(const std::string& path, unsigned permissions = 0666, deadline until = never);

RINGLET_EXPORT std::string read(const std::string& path, deadline until = never);
// Makes or overwrites it.
RINGLET_EXPORT void write(const std::string& path, std::string_view data, unsigned permissions = 0666, deadline until = never);
// The same, but whoever opens the path meanwhile, or after a crash, finds the old content or the new one, whole.
RINGLET_EXPORT void replace(const std::string& path, std::string_view data, unsigned permissions = 0666, deadline until = never);
}  // namespace files

}  // namespace ringlet
