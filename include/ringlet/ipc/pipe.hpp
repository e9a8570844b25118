#pragma once
// Pipes between processes that carry whole messages.
//
//   auto [reader, writer] = ringlet::ipc::byte_pipe();      // one way;  byte_duplex(): both ways
//   ringlet::process p([](ringlet::ipc::byte_end out) { out.send_bytes("hello"); }, std::move(writer));
//   p.start();
//   reader.receive_bytes();      // "hello"
//   reader.receive_bytes();      // throws end_of_pipe: the child has ended
//
// A message is sent whole or not at all, however big, and received by exactly one who receives; many processes and fibers may
// send into one pipe and many receive from it, and nothing ever mixes: each message is one packet (SOCK_SEQPACKET), and most
// of a big one lies in a memfd that goes with its packet. So neither a timeout nor a kill -9 leaves half a message behind. A pipe
// holds some hundred messages; send waits for room.
//
// Ends are moved, and closed by their destructor. What a ringlet::process is to use is moved into it (an argument, or captured by
// value); duplicate() it first if it shall be open on both sides. All other ends are closed in the child: so the pipe's end
// is told as soon as the last process that really has the other side closes it or ends, however it ends. To use an end that
// was captured by reference is an error that says so.
//
// Usable from fibers of any hub and from plain threads. Bytes only; for typed messages see ipc/message.hpp.

#include <cstddef>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>

namespace ringlet::ipc {

// Nobody is left on the other side: nothing will come any more, or nobody would read.
struct RINGLET_EXPORT end_of_pipe : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class RINGLET_EXPORT byte_end {
 public:
  byte_end() noexcept;
  ~byte_end();
  byte_end(byte_end&&) noexcept;
  byte_end& operator=(byte_end&&) noexcept;

  // Sends the message: true; false when the deadline passed first, and then nothing was sent. Throws end_of_pipe when nobody has the
  // other side any more; std::logic_error on the reading end of a one-way pipe; std::system_error if the system has no
  // memory or fds for it.
  bool send_bytes(std::string_view message, deadline until = never);
  // The next message; empty when the deadline passed first. Throws end_of_pipe when all is read and nobody has the other side.
  std::optional<std::string> receive_bytes(deadline until = never);
  // The same into a string whose memory is used again: true; false, and it is left as it was, when the deadline passed first.
  bool receive_into(std::string& message, deadline until = never);
  // Waits until receive would not wait: true; false when the deadline passed. (Python's poll.)
  bool wait_readable(deadline until = never);

  // Another end of the same side: the pipe ends when all of a side are closed.
  byte_end duplicate() const;
  void close() noexcept;
  bool is_open() const noexcept;
  bool can_send() const noexcept;
  bool can_receive() const noexcept;
  int fd() const noexcept;  // -1 if closed

  // For who executes another program and passes the end to it: the fd stays open there, and is the end of the same pipe again.
  int keep_over_exec() const;
  static byte_end adopt(int fd, bool can_send, bool can_receive);

 private:
  friend struct end_maker;
  struct state;
  state& opened(const char* verb) const;
  std::unique_ptr<state> state_;
};

struct byte_pipe_ends {
  byte_end reader, writer;
};
RINGLET_EXPORT byte_pipe_ends byte_pipe();
struct byte_duplex_ends {
  byte_end first, second;
};
RINGLET_EXPORT byte_duplex_ends byte_duplex();

}  // namespace ringlet::ipc
