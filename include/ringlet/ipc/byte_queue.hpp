#pragma once
// A queue of messages between processes, as bytes; ipc/queue.hpp has the typed one, and says more.

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/ipc/sync.hpp>

namespace ringlet::ipc {

class RINGLET_EXPORT byte_queue : public detail::shared_thing {
 public:
  static constexpr std::size_t unbounded = static_cast<std::size_t>(-1);
  // Of at most so many messages; 0 is a mistake (std::invalid_argument).
  explicit byte_queue(std::size_t capacity = unbounded);
  ~byte_queue();

  // Puts it in, waiting for room: true; false when the deadline passed first. Throws shut_down.
  bool put_bytes(std::string_view message, deadline until = never);
  // The next one; empty when the deadline passed first. Throws shut_down when it was shut down and is empty.
  std::optional<std::string> get_bytes(deadline until = never);
  // The same into a string whose memory is used again: true; false, and it is left as it was, when the deadline passed first.
  bool get_into(std::string& message, deadline until = never);

  // A message that was got has been dealt with. std::logic_error if that was said of all already.
  void task_done();
  // Waits until all that was put has been dealt with: true; false when the deadline passed.
  bool join(deadline until = never);
  std::size_t unfinished() const noexcept;

  // From now on put throws shut_down, everywhere, and get does when it is empty.
  void shutdown();
  bool is_shut_down() const noexcept;

  // At the moment of asking.
  std::size_t size() const noexcept;
  bool empty() const noexcept { return size() == 0; }
  bool full() const noexcept { return size() >= capacity_; }
  std::size_t capacity() const noexcept { return capacity_; }

 private:
  std::size_t capacity_;
  int ends_[2];
  std::unique_ptr<semaphore> room_;  // if bounded
};

}  // namespace ringlet::ipc
