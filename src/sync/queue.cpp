// The errors of queues and channels, for which a template is too dear.

#include <ringlet/queue.hpp>

#include <string>

namespace ringlet::detail {

void throw_shut_down(const char* what) {
  throw shut_down(std::string("ringlet: ") + what + " on what was shut down (shutdown() was called; nothing goes in any more, nothing will come)");
}

void throw_too_many_done() {
  throw std::logic_error("ringlet: task_done was called more often than items were put into the queue");
}

std::size_t checked_capacity(std::size_t capacity) {
  if (capacity == 0) throw std::invalid_argument("ringlet: a queue's capacity must be at least 1 (for none at all there is channel)");
  return capacity;
}

}  // namespace ringlet::detail
