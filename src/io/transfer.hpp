#pragma once
// What reads, writes, receives and sends share: vectors that went in part, and the loop that goes on until all is done.
//
// An error that comes after some bytes is the next call's: so it is not fetched from the kernel, and raises no SIGPIPE.

#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "io/wait.hpp"

namespace ringlet::io {

inline constexpr std::size_t most_at_once = 0x7ffff000;  // what the kernel moves in one call

// The kernel looks whether all of a buffer could be memory before it cuts the size: one that no processor's addresses reach
// is refused at once, by the plain call.
inline bool is_beyond_memory(const void* buffer, std::size_t size) {
  constexpr unsigned address_bits = 57;
  const auto begin = reinterpret_cast<std::uintptr_t>(buffer);
  return size > most_at_once && (begin + size < begin || (begin + size) >> address_bits != 0);
}

// Of all parts; no more than the kernel moves.
inline std::size_t total(const iovec* parts, std::size_t count) {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < count && sum < most_at_once; ++i) sum += std::min(parts[i].iov_len, most_at_once);
  return std::min(sum, most_at_once);
}

// After a read that got less than it asked for: what was there has been taken. Not so near an end or urgent data, nor with
// `ancillary` data. A caller that can't tell says that there was none: the second look finds what a read has left.
void note_short(fd_watch*, ssize_t got, std::size_t wanted, bool ancillary);

// The least that a receive waits for (SO_RCVLOWAT); 1 while nobody has set any.
std::size_t low_water(int fd);

// Reads of this one go past the page cache (O_DIRECT), and so wait for the disk whatever they ask for. False while nobody
// has opened such a file.
inline std::atomic<bool> somebody_bypasses_the_cache{false};
bool is_opened_past_cache(int fd, const fd_watch* known);
inline bool bypasses_cache(int fd, const fd_watch* known) {
  return __builtin_expect(somebody_bypasses_the_cache.load(std::memory_order_relaxed), 0) && is_opened_past_cache(fd, known);
}

// More of a message that has gone in part: its peer's end is not ours to hear of now.
ssize_t send_rest(int fd, const iovec* parts, int count, int flags);

// What is left of a vector after its first bytes; made only when a call was cut short. Where there is no memory for a copy,
// only its first part: bytes have gone already, and must not be forgotten for that.
class rest_of {
 public:
  rest_of(const iovec* parts, int count, std::size_t done) : from_(parts), left_(count) {
    if (done == 0) return;
    while (left_ > 0 && done >= from_->iov_len) done -= from_->iov_len, ++from_, --left_;
    if (left_ == 0) return;
    if (left_ == 1) {
      single_ = *from_;
      from_ = &single_;
    } else if (copy_.reset(new (std::nothrow) iovec[std::size_t(left_)]); copy_) {
      from_ = std::copy_n(from_, left_, copy_.get()) - left_;
    } else {
      left_ = 1;
      single_ = *from_;
      from_ = &single_;
    }
    auto& cut = const_cast<iovec&>(*from_);
    cut.iov_base = static_cast<char*>(cut.iov_base) + done;
    cut.iov_len -= done;
  }
  rest_of(const rest_of&) = delete;
  const iovec* parts() const { return from_; }
  int count() const { return left_; }

 private:
  const iovec* from_;
  int left_;
  iovec single_{};
  std::unique_ptr<iovec[]> copy_;
};

// Some bytes have gone through a stream socket: does the call end here, since what comes next is an error or the mark
// of urgent data?
bool ends_here(int fd, direction);

// Whom the end of a unix stream meets in a send is told of the error that lies ready; who sends later is not. Takes it.
int error_of_waiting(const fd_watch&, direction);

// park_on, but for a unix datagram socket that is not connected: whether its receiver has room, no poll of it tells. So
// it is looked at again, first after `pause`, which grows.
int wait_for_room(fd_watch&, direction, deadline until, const char* what, clock::duration& pause,
                  const detail::signal_watch& signals);

// Tries, parks and tries again until all is transferred, or an end, an error or the deadline comes; then what has been
// counts, if anything has. `attempt(watch or null, done)`: one try from there on; `refuses` as until_ready has it. The
// size is asked for only after the kernel has accepted the arguments.
template <class Size, class Attempt>
ssize_t transfer_all(int fd, direction d, Size size_of_all, deadline until, const char* what, Attempt attempt,
                     bool refuses) {
  hub_state& h = hub_state::here();
  if (__builtin_expect(h.can_park() && h.interrupted(), 0)) return -ECANCELED;
  fd_table& table = fd_table::of(h);
  fd_watch* known = table.find(fd);
  const bool tries = refuses || !known || known->maybe_ready(d) || !known->is_armed(d);
  ssize_t got = tries ? attempt(known, std::size_t(0)) : -EAGAIN;
  if (got != -EAGAIN && (got <= 0 || std::size_t(got) >= size_of_all())) {
    if (got >= 0) keep_fair(h);
    return got;
  }
  if (fd < 0) return -EBADF;
  fd_watch* watched = table.get_or_null(fd);
  if (!watched) return got > 0 ? got : -ENOMEM;
  fd_watch& w = *watched;
  table.refresh(w);
  if (w.nonblocking) {
    if (!tries) got = attempt(&w, std::size_t(0));
    keep_fair(h);
    return got;
  }
  const bool goes_on =
      w.kind == file_kind::stream || (d == direction::out && (w.kind == file_kind::pipe || w.kind == file_kind::other));
  if (got > 0 && !goes_on) return got;
  const call_deadline limit = deadline_of(w, d, until);
  const detail::signal_watch signals = h.watch_signals(limit.effect());
  clock::duration pause = std::chrono::microseconds(100);
  std::size_t done = got > 0 ? std::size_t(got) : 0;
  while (true) {
    int ended = 0;
    if (got == -EAGAIN && __builtin_expect(w.hung_up, 0) && is_shut_for_reading(w, d)) {
      got = attempt_at_end(w, [&] { return attempt(&w, done); });
      break;
    }
    if (got == -EAGAIN || (w.is_armed(d) && !w.maybe_ready(d))) {
      w.clear_ready(d);
      ended = wait_for_room(w, d, limit.until, what, pause, signals);
      if (ended && ended != -ETIME) return done ? ssize_t(done) : ended;
      if (const int error = error_of_waiting(w, d)) {
        got = -error;
        break;
      }
    }
    if (done && w.kind == file_kind::stream && (d == direction::in || w.hung_up) && ends_here(fd, d)) break;
    got = attempt(&w, done);
    if (got == -EAGAIN) {
      if (ended) return done ? ssize_t(done) : limit.when_passed;
      continue;
    }
    if (got > 0) done += std::size_t(got);
    if (got <= 0 || !goes_on || done >= size_of_all()) break;
  }
  pass_on(w, d);
  return done ? ssize_t(done) : got;
}

}  // namespace ringlet::io
