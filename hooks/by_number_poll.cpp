// Rows of syscalls.def that wait for many descriptors. The kernel is asked first, on the caller's own arguments and
// without waiting: errors and answers at once are its own. Only then does the fiber park. A mask given for the wait is
// the thread's for the length of the call: a thread of ours has a mask of its own.

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include <ringlet/io.hpp>

#include "base/moments.hpp"
#include "base/sys.hpp"
#include "by_number.hpp"
#include "dialect.hpp"

namespace ringlet::by_number {

using base::after, base::is_valid, base::remaining, hooks::no_pointer;

namespace {

constexpr auto look_again = std::chrono::milliseconds(20);

// The caller's three sets, and copies to ask the kernel with.
class fd_sets {
 public:
  fd_sets(int count, fd_set* in, fd_set* out, fd_set* odd)
      : count_(count), words_(std::size_t((count + word_bits - 1) / word_bits)), given_{in, out, odd} {
    if (words_ * 3 > std::size(few_words_)) many_words_.reset(new (std::nothrow) long[words_ * 3]);
  }
  bool good() const noexcept { return words_ * 3 <= std::size(few_words_) || many_words_; }

  // The caller's sets are written only if there is an answer.
  long ask() noexcept {
    fd_set* copies[3];
    for (int i = 0; i < 3; ++i) {
      copies[i] = given_[i] ? copy(i) : nullptr;
      if (given_[i]) std::memcpy(copies[i], given_[i], words_ * sizeof(long));
    }
    timespec at_once{};
    const long answer = sys::call(SYS_pselect6, count_, copies[0], copies[1], copies[2], &at_once, nullptr);
    if (answer > 0)
      for (int i = 0; i < 3; ++i)
        if (given_[i]) std::memcpy(given_[i], copy(i), words_ * sizeof(long));
    return answer;
  }
  void clear() noexcept {
    for (fd_set* each : given_)
      if (each) std::memset(each, 0, words_ * sizeof(long));
  }
  long wait(deadline until) noexcept {
    if (!polls_) {
      std::size_t needed = 0;
      for (int fd = 0; fd < count_; ++fd) needed += events(fd) != 0;
      if (needed > std::size(few_polls_)) {
        many_polls_.reset(new (std::nothrow) pollfd[needed]);
        if (!many_polls_) return -ENOMEM;
      }
      polls_ = many_polls_ ? many_polls_.get() : few_polls_;
      for (int fd = 0; fd < count_; ++fd)
        if (const short wanted = events(fd)) polls_[polls_count_++] = {fd, wanted, 0};
    }
    return io::poll(polls_, polls_count_, until);
  }

 private:
  static constexpr int word_bits = 8 * sizeof(long);
  fd_set* copy(int i) noexcept { return reinterpret_cast<fd_set*>((many_words_ ? many_words_.get() : few_words_) + std::size_t(i) * words_); }
  bool has(const fd_set* set, int fd) const noexcept {
    return set && (reinterpret_cast<const unsigned long*>(set)[fd / word_bits] >> (fd % word_bits) & 1);
  }
  // What select(2) means by its sets (fs/select.c).
  short events(int fd) const noexcept {
    return short((has(given_[0], fd) ? POLLIN | POLLRDNORM | POLLRDBAND : 0) |
                 (has(given_[1], fd) ? POLLOUT | POLLWRNORM | POLLWRBAND : 0) | (has(given_[2], fd) ? POLLPRI : 0));
  }
  int count_;
  std::size_t words_;
  fd_set* given_[3];
  long few_words_[3 * 1024 / word_bits];
  std::unique_ptr<long[]> many_words_;
  pollfd* polls_ = nullptr;
  std::size_t polls_count_ = 0;
  pollfd few_polls_[32];
  std::unique_ptr<pollfd[]> many_polls_;
};

long select_until(int count, fd_set* in, fd_set* out, fd_set* odd, deadline until) noexcept {
  fd_sets sets(count, in, out, odd);
  if (!sets.good()) return -ENOMEM;
  bool heard_what_nobody_asked = false;
  while (true) {
    const long answer = sets.ask();
    if (answer != 0) return answer;
    if (until.has_passed()) break;
    // poll(2) tells of hang-ups where select(2) was only asked for writing: then the kernel is asked now and then.
    const long woken = heard_what_nobody_asked ? io::sleep_until(std::min(until, deadline(look_again))) : sets.wait(until);
    if (woken < 0) return woken;
    heard_what_nobody_asked = woken > 0;
  }
  sets.clear();
  return 0;
}

bool bad_sets(int count, const fd_set* in, const fd_set* out, const fd_set* odd) noexcept {
  if (count < 0) return true;
  for (const fd_set* each : {in, out, odd})
    if (each && count > 0 && no_pointer(each)) return true;
  return false;
}

}  // namespace

long ppoll(pollfd* fds, unsigned long count, timespec* timeout, const mask* blocked) noexcept {
  if ((timeout && (no_pointer(timeout) || !is_valid(*timeout))) || (count > 0 && no_pointer(fds))) return pass;
  const deadline until = timeout ? after(*timeout) : never;
  if (blocked) threads::mask_for_this_call(*blocked);
  if (threads::has_signal_due()) return -EINTR;
  const long found = io::poll(fds, count, until);
  if (timeout && !until.is_never()) *timeout = remaining(until);
  return found;
}

long select(int count, fd_set* in, fd_set* out, fd_set* odd, timeval* timeout) noexcept {
  if (bad_sets(count, in, out, odd) || (timeout && (no_pointer(timeout) || timeout->tv_sec < 0 || timeout->tv_usec < 0))) return pass;
  deadline until = never;
  if (timeout && timeout->tv_sec < 1'000'000'000) until = deadline(std::chrono::seconds(timeout->tv_sec) + std::chrono::microseconds(timeout->tv_usec));
  const long answer = select_until(count, in, out, odd, until);
  if (timeout && !until.is_never()) {
    const timespec left = remaining(until);
    *timeout = {left.tv_sec, left.tv_nsec / 1000};
  }
  return answer;
}

long pselect(int count, fd_set* in, fd_set* out, fd_set* odd, timespec* timeout, const mask_argument* blocked) noexcept {
  if (bad_sets(count, in, out, odd) || (timeout && (no_pointer(timeout) || !is_valid(*timeout)))) return pass;
  const deadline until = timeout ? after(*timeout) : never;
  if (blocked && blocked->set) threads::mask_for_this_call(*blocked->set);
  if (threads::has_signal_due()) return -EINTR;
  const long answer = select_until(count, in, out, odd, until);
  if (timeout && !until.is_never()) *timeout = remaining(until);
  return answer;
}

long epoll(int fd, epoll_event* events, int capacity, deadline until, const mask* blocked) noexcept {
  if (no_pointer(events) || capacity <= 0) return pass;
  if (blocked) threads::mask_for_this_call(*blocked);
  if (threads::has_signal_due()) return -EINTR;
  return io::epoll_wait(fd, events, capacity, until);
}

long epoll(int fd, epoll_event* events, int capacity, const timespec* timeout, const mask* blocked) noexcept {
  if (timeout && (no_pointer(timeout) || !is_valid(*timeout))) return pass;
  return epoll(fd, events, capacity, timeout ? after(*timeout) : never, blocked);
}

}  // namespace ringlet::by_number
