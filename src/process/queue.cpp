// A queue is a pair of packet sockets whose both ends all processes have: who puts sends into one, who gets receives from the
// other, and the kernel does what is to be done in one step (packets.hpp). Shutting the sending end down is seen by all.
//
// What is counted beside (size, unfinished) is counted before the message is in and after it is out: a process that is killed
// between leaves a count that is one too high, never one too low.

#include <ringlet/ipc/byte_queue.hpp>

#include <stdexcept>
#include <sys/socket.h>

#include <ringlet/queue.hpp>

#include "process/packets.hpp"
#include "process/shared_wait.hpp"

namespace ringlet::ipc {

byte_queue::byte_queue(std::size_t capacity) : capacity_(capacity) {
  if (capacity == 0) throw std::invalid_argument("ringlet: an ipc queue of capacity 0 would take nothing; 1 is the least");
  if (capacity != unbounded) room_ = std::make_unique<semaphore>(capacity);
  const auto ends = process_detail::make_packets();
  ends_[0] = ends.first;
  ends_[1] = ends.second;
}

byte_queue::~byte_queue() {
  for (int fd : ends_) io::close(fd);
}

bool byte_queue::put_bytes(std::string_view message, deadline until) {
  auto& page = *state_->at;
  if (is_shut_down()) ringlet::detail::throw_shut_down("put");
  if (room_ && !room_->acquire(until)) return false;
  struct taken_back {
    byte_queue& of;
    bool in = false;
    ~taken_back() {
      if (in) return;
      of.state_->at->count.fetch_sub(1, std::memory_order_relaxed);
      if (of.state_->at->unfinished.fetch_sub(1, std::memory_order_seq_cst) == 1) of.state_->wake(~std::uint64_t(0));
      if (of.room_) of.room_->release();
    }
  } counted{*this};
  page.count.fetch_add(1, std::memory_order_relaxed);
  page.unfinished.fetch_add(1, std::memory_order_seq_cst);
  if (is_shut_down()) ringlet::detail::throw_shut_down("put");
  switch (process_detail::send_packet(ends_[1], message, until, "ipc::queue::put")) {
    case process_detail::sent::yes: counted.in = true; return true;
    case process_detail::sent::late: return false;
    default: ringlet::detail::throw_shut_down("put");
  }
}

std::optional<std::string> byte_queue::get_bytes(deadline until) {
  std::string message;
  if (!get_into(message, until)) return std::nullopt;
  return message;
}

bool byte_queue::get_into(std::string& message, deadline until) {
  switch (process_detail::receive_packet(ends_[0], message, until, "ipc::queue::get").how) {
    case process_detail::received::kind::message:
      state_->at->count.fetch_sub(1, std::memory_order_relaxed);
      if (room_) room_->release();
      return true;
    case process_detail::received::kind::late: return false;
    default: ringlet::detail::throw_shut_down("get");
  }
}

void byte_queue::task_done() {
  auto& left = state_->at->unfinished;
  std::int64_t now = left.load(std::memory_order_seq_cst);
  do {
    if (now <= 0) ringlet::detail::throw_too_many_done();
  } while (!left.compare_exchange_weak(now, now - 1, std::memory_order_seq_cst));
  if (now == 1) state_->wake(~std::uint64_t(0));
}

bool byte_queue::join(deadline until) {
  return state_->wait(until, "ipc::queue::join", [&] { return state_->at->unfinished.load(std::memory_order_seq_cst) <= 0; });
}

std::size_t byte_queue::unfinished() const noexcept { return std::size_t(std::max<std::int64_t>(0, state_->at->unfinished.load(std::memory_order_relaxed))); }

void byte_queue::shutdown() {
  state_->at->flag.store(1, std::memory_order_seq_cst);
  sys::call(SYS_shutdown, ends_[1], SHUT_WR);
  if (room_) room_->release(std::size_t(1) << 30);  // who waits for room finds out
}
bool byte_queue::is_shut_down() const noexcept { return state_->at->flag.load(std::memory_order_seq_cst) != 0; }

std::size_t byte_queue::size() const noexcept { return std::size_t(std::max<std::int64_t>(0, state_->at->count.load(std::memory_order_relaxed))); }

}  // namespace ringlet::ipc
