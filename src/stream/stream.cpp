// What all streams have in common: reading ahead, looking for an end, writing until all is gone.
//
// Bytes come into the buffer and leave it when a read is sure of its result, so an exception between takes none with it.

#include <ringlet/stream.hpp>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "hub/hub.hpp"

namespace ringlet {

namespace {
constexpr std::size_t chunk = 16384;
}

io_error::io_error(int error_number, const std::string& what, std::size_t done)
    : std::system_error(error_number, std::generic_category(), "ringlet: " + what), done_(done) {}

namespace detail {
void throw_io_failure(ssize_t result, const std::string& doing, std::size_t done) {
  hub_state& hub = hub_state::here();
  if (result == -ECANCELED && hub.can_park() && hub.interrupted()) hub.throw_interrupt();
  throw io_error(int(-result), doing, done);
}
}  // namespace detail

stream::~stream() = default;

stream::stream(stream&& other) noexcept
    : buffer_(std::exchange(other.buffer_, {})), taken_(std::exchange(other.taken_, 0)) {}
stream& stream::operator=(stream&& other) noexcept {
  buffer_ = std::exchange(other.buffer_, {});
  taken_ = std::exchange(other.taken_, 0);
  return *this;
}

void stream::forget_ahead() noexcept {
  taken_ = buffer_.size() - room_;
  if (room_ > 0) return;  // somebody writes to the buffer
  buffer_.clear();
  taken_ = 0;
}

// Whose turn it is to read, or to write.
struct stream::turn {
  bool& taken;
  turn(bool& flag, const stream& of, const char* what) : taken(flag) {
    if (flag)
      throw std::logic_error("ringlet: two fibers " + std::string(what) + " " + of.describe() +
                             " at once and would get each other's bytes. Cure: one of them only, or a ringlet::mutex.");
    flag = true;
  }
  ~turn() { taken = false; }
};

stream::position_turn::position_turn(stream& of, const char* doing, deadline until) {
  if (!of.has_one_position() || !detail::hub_state::here().can_park()) return;  // nor could it let others run then
  if (!of.position_.lock_until(until)) of.fail(-ETIMEDOUT, doing);
  held = &of.position_;
}
stream::position_turn::~position_turn() {
  if (held) held->unlock();
}

void stream::fail(ssize_t error, const char* doing, std::size_t done) const {
  detail::throw_io_failure(error, std::string(doing) + " " + describe(), done);
}

// More bytes into the buffer: how many, 0 at the end, or an error.
ssize_t stream::fill(deadline until) {
  if (taken_ > 0 && (taken_ == buffer_.size() || taken_ >= chunk)) {
    buffer_.erase(0, taken_);
    taken_ = 0;
  }
  const std::size_t had = buffer_.size();
  // A long line's buffer grows by its own size, so that it is not copied at every step.
  buffer_.resize(had + std::max(chunk, std::min<std::size_t>(had, 1 << 20)));
  room_ = buffer_.size() - had;
  const auto give_back = [&](std::size_t got) {
    room_ = 0;
    buffer_.resize(had + got);
  };
  ssize_t got;
  try {
    do got = receive(buffer_.data() + had, buffer_.size() - had, until);
    while (got == -EINTR);
  } catch (...) {
    give_back(0);
    throw;
  }
  give_back(got > 0 ? std::size_t(got) : 0);
  return got;
}

std::string stream::take(std::size_t size, std::size_t and_drop) {
  std::string result = taken_ == 0 && size + and_drop == buffer_.size() ? std::exchange(buffer_, {}) : buffer_.substr(taken_, size);
  result.resize(size);
  taken_ = buffer_.empty() ? 0 : taken_ + size + and_drop;
  return result;
}

std::size_t stream::read(void* buffer, std::size_t size, deadline until) {
  const turn mine(reading_, *this, "read");
  const position_turn alone(*this, "reading", until);
  if (const std::string_view there = ahead(); !there.empty() || size == 0) {
    const std::size_t n = std::min(size, there.size());
    std::memcpy(buffer, there.data(), n);
    taken_ += n;
    return n;
  }
  ssize_t got;
  do got = receive(buffer, size, until);
  while (got == -EINTR);
  if (got < 0) fail(got, "reading");
  return std::size_t(got);
}

std::string stream::read_some(std::size_t most, deadline until) {
  const turn mine(reading_, *this, "read");
  const position_turn alone(*this, "reading", until);
  if (ahead().empty())
    if (const ssize_t got = fill(until); got < 0) fail(got, "reading");
  return take(std::min(most, ahead().size()));
}

std::string stream::read_exactly(std::size_t size, deadline until) {
  const turn mine(reading_, *this, "read");
  const position_turn alone(*this, "reading", until);
  while (ahead().size() < size) {
    const ssize_t got = fill(until);
    if (got < 0) fail(got, "reading");
    if (got == 0)
      throw io_error(ENODATA, "reading " + describe() + ": it ends after " + std::to_string(ahead().size()) + " of " +
                                  std::to_string(size) + " bytes");
  }
  return take(size);
}

std::string stream::read_all(deadline until, std::size_t most) {
  const turn mine(reading_, *this, "read");
  const position_turn alone(*this, "reading", until);
  while (true) {
    const ssize_t got = fill(until);
    if (got < 0) fail(got, "reading");
    if (ahead().size() > most)
      throw io_error(EMSGSIZE, "reading " + describe() + ": it has more than the allowed " + std::to_string(most) + " bytes");
    if (got == 0) return take(ahead().size());
  }
}

std::optional<std::string> stream::read_until(std::string_view delimiter, deadline until, std::size_t most) {
  if (delimiter.empty()) throw std::invalid_argument("ringlet: read_until without a delimiter");
  const turn mine(reading_, *this, "read");
  const position_turn alone(*this, "reading", until);
  std::size_t looked_at = 0;
  while (true) {
    const std::string_view there = ahead();
    const std::size_t found = there.find(delimiter, looked_at);
    if (found != there.npos ? found > most : there.size() > most)
      throw io_error(EMSGSIZE, "reading " + describe() + ": no end of line within the allowed " + std::to_string(most) + " bytes");
    if (found != there.npos) return take(found, delimiter.size());
    looked_at = there.size() - std::min(there.size(), delimiter.size() - 1);
    const ssize_t got = fill(until);
    if (got < 0) fail(got, "reading");
    if (got == 0) {
      if (ahead().empty()) return std::nullopt;
      return take(ahead().size());
    }
  }
}

void stream::write(const void* data, std::size_t size, deadline until) {
  const turn mine(writing_, *this, "write");
  const position_turn alone(*this, "writing to", until);
  for (std::size_t done = 0; done < size;) {
    const ssize_t sent = transmit(static_cast<const char*>(data) + done, size - done, until);
    if (sent == -EINTR) continue;
    if (sent <= 0) fail(sent == 0 ? -EIO : sent, "writing to", done);
    done += std::size_t(sent);
  }
}

}  // namespace ringlet
