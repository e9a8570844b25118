// What of queues and channels does not depend on their items: errors, and the guard over items' own code.

#include <ringlet/queue.hpp>

#include <string>

#include "hub/hub.hpp"

namespace ringlet::detail {

// No fiber runs meanwhile, as on the hub's own stack: so all that would wait refuses to.
item_code::item_code() noexcept {
  hub_state* hub = hub_state::here_or_null();
  running_ = hub ? std::exchange(hub->running, nullptr) : nullptr;
  if (running_) hub->in_item_code = true;
}
item_code::~item_code() {
  if (!running_) return;
  hub_state& hub = *running_->hub;
  hub.running = running_;
  hub.in_item_code = false;
}

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
