#pragma once
// What all test binaries share: skipping with a reason, the check that a case left nothing behind, and small things of
// the system (an fd that closes itself, a listening socket, a child process, a directory that goes away).
//
// Everything here is for test code only; all of it may throw std::system_error.

#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

// Leaves the case and counts it as skipped; the reason is shown at the end of every test run.
#define RINGLET_SKIP(reason)   \
  do {                         \
    ::support::skip((reason)); \
    return;                    \
  } while (false)

namespace support {

void skip(std::string_view reason);

// Asked after each case: what is left behind (fibers, armed polls, waiters), or an empty string. A layer that has
// something to lose sets it, once, from a static initializer.
extern std::string (*leak_check)();

// The case has this long before it counts as hanging, instead of RINGLET_CASE_SECONDS or 60.
void allow_seconds(unsigned seconds);

// The sanitizers and Valgrind make everything slower and memory dearer: sizes of stress tests ask this.
bool is_instrumented() noexcept;

// Owns an fd.
class fd {
 public:
  fd() noexcept = default;
  explicit fd(int owned) noexcept : number_(owned) {}
  fd(fd&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  fd& operator=(fd&& other) noexcept { std::swap(number_, other.number_); return *this; }
  ~fd() { reset(); }

  int get() const noexcept { return number_; }
  operator int() const noexcept { return number_; }
  int release() noexcept { return std::exchange(number_, -1); }
  void reset() noexcept;  // closes it now

 private:
  int number_ = -1;
};

// Two connected ends.
struct fd_pair {
  fd first, second;
};
fd_pair make_socketpair(int type = 1 /* SOCK_STREAM */);
fd_pair make_pipe();  // first reads, second writes

// A TCP socket listening on a free port of 127.0.0.1.
struct listener {
  fd socket;
  unsigned short port = 0;
};
listener listen_on_free_port(int backlog = 128);
// A blocking connection to 127.0.0.1:port.
fd connect_to_port(unsigned short port);

// libc knows the name "localhost" (a bare chroot may have no /etc/hosts).
bool localhost_resolves();

// A directory that is removed with all that is in it.
class temporary_directory {
 public:
  explicit temporary_directory(const std::filesystem::path& where = std::filesystem::temp_directory_path());
  ~temporary_directory();
  temporary_directory(const temporary_directory&) = delete;
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
};

struct child_options {
  std::vector<std::string> environment = {};  // "NAME=value" set besides ours; "NAME" alone removes it
  std::string input = {};
  std::chrono::seconds timeout{30};
};
struct child_result {
  int exit_status = -1;  // what it exited with, or -1
  int signal = 0;        // what it died of, or 0
  bool timed_out = false;  // it was killed because it did not end
  std::string out, err;
};
// Runs a program (found in PATH) to its end and collects what it says.
child_result run_child(const std::vector<std::string>& command, const child_options& how = {});

// The path of a built file, relative to the top of the build tree (from the environment, or next to this program).
std::string built(std::string_view relative);

}  // namespace support
