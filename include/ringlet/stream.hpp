#pragma once
// stream: bytes in their order, from and to whatever is at the other end: a file, a pipe, a terminal, a socket, TLS.
//
//   while (auto line = input.read_line()) output.write(*line + "\n");
//
// Every call parks the fiber while it waits, never the thread. Errors are exceptions: io_error; what interrupts the fiber (a
// kill, a timeout scope); a deadline that passes is an io_error that is timed_out(). What had arrived by then is kept, and the
// next read begins with it: nothing is lost, whatever ends a read.
//
// One fiber may read while another writes. Two that read at once, or write at once, would get each other's bytes:
// std::logic_error. Used on one thread at a time.

#include <cerrno>
#include <cstddef>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <sys/types.h>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/sync.hpp>

namespace ringlet {

// A call of the system's that failed: code() is its errno, what() says what was tried on what.
class RINGLET_EXPORT io_error : public std::system_error {
 public:
  io_error(int error_number, const std::string& what, std::size_t done = 0);
  bool timed_out() const noexcept { return code().value() == ETIMEDOUT; }
  // The other side is no longer there to read or write: nobody's mistake here.
  bool peer_gone() const noexcept { return code().value() == EPIPE || code().value() == ECONNRESET; }
  // Bytes that a write had passed on before it failed.
  std::size_t done() const noexcept { return done_; }

 private:
  std::size_t done_;
};

class RINGLET_EXPORT stream {
 public:
  virtual ~stream();
  stream(const stream&) = delete;

  // Waits for some bytes and takes up to `size`; 0 is the end.
  std::size_t read(void* buffer, std::size_t size, deadline until = never);
  // The same as a string; empty is the end.
  std::string read_some(std::size_t most = 65536, deadline until = never);
  // Exactly so many; io_error with ENODATA if the end comes before (what there was stays to be read).
  std::string read_exactly(std::size_t size, deadline until = never);
  // All to the end; io_error with EMSGSIZE if that is more than `most`.
  std::string read_all(deadline until = never, std::size_t most = std::numeric_limits<std::size_t>::max());
  // Up to the delimiter, which is taken and not returned. What stands between the last one and the end is returned, too, if it
  // is not empty; nothing: the end. io_error with EMSGSIZE if none comes within `most` bytes.
  std::optional<std::string> read_until(std::string_view delimiter, deadline until = never, std::size_t most = longest_line);
  std::optional<std::string> read_line(deadline until = never, std::size_t most = longest_line) {
    return read_until("\n", until, most);
  }
  // for (const std::string& line : s.lines())
  class line_range;
  line_range lines(std::size_t most = longest_line);

  // Passes all of it on. One that was interrupted or failed has passed on some of it.
  void write(const void* data, std::size_t size, deadline until = never);
  void write(std::string_view data, deadline until = never) { write(data.data(), data.size(), until); }

  // Bytes that were read ahead and not taken yet.
  std::string_view ahead() const noexcept { return std::string_view(buffer_).substr(taken_, buffer_.size() - room_ - taken_); }

  static constexpr std::size_t longest_line = std::size_t(1) << 20;

 protected:
  stream() noexcept = default;
  stream(stream&& other) noexcept;
  stream& operator=(stream&& other) noexcept;
  // Both in kernel dialect (io.hpp). receive: up to `size` bytes, 0 at the end. transmit: at least one byte.
  virtual ssize_t receive(void* buffer, std::size_t size, deadline until) = 0;
  virtual ssize_t transmit(const void* data, std::size_t size, deadline until) = 0;
  // "client 127.0.0.1:9": for messages.
  virtual std::string describe() const = 0;
  void forget_ahead() noexcept;
  // Reads and writes go on from one common position, so they take turns, each as a whole. While one has its turn.
  virtual bool has_one_position() const { return false; }
  struct position_turn {
    mutex* held = nullptr;
    position_turn(stream& of, const char* doing, deadline until);
    position_turn(const position_turn&) = delete;
    ~position_turn();
  };

 private:
  struct turn;
  ssize_t fill(deadline until);
  std::string take(std::size_t size, std::size_t and_drop = 0);
  [[noreturn]] void fail(ssize_t error, const char* doing, std::size_t done = 0) const;
  std::string buffer_;
  std::size_t taken_ = 0;
  std::size_t room_ = 0;  // at the buffer's end, for what a read that is under way brings
  mutex position_;
  bool reading_ = false, writing_ = false;
};

class stream::line_range {
 public:
  line_range(stream& of, std::size_t most) noexcept : of_(&of), most_(most) {}
  class iterator {
   public:
    using value_type = std::string;
    using difference_type = std::ptrdiff_t;
    explicit iterator(line_range& in) : in_(&in) { ++*this; }
    const std::string& operator*() const noexcept { return *line_; }
    const std::string* operator->() const noexcept { return &*line_; }
    iterator& operator++() {
      line_ = in_->of_->read_line(never, in_->most_);
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const noexcept { return !line_; }

   private:
    line_range* in_;
    std::optional<std::string> line_;
  };
  iterator begin() { return iterator(*this); }
  std::default_sentinel_t end() const noexcept { return {}; }

 private:
  stream* of_;
  std::size_t most_;
};
inline stream::line_range stream::lines(std::size_t most) { return line_range(*this, most); }

namespace detail {
// Throws what a negative result of ringlet::io stands for: the interruption itself, or an io_error.
[[noreturn]] RINGLET_EXPORT void throw_io_failure(ssize_t result, const std::string& doing, std::size_t done = 0);
}  // namespace detail

}  // namespace ringlet
