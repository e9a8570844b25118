// Readiness of many: poll is io's; the others are poll with other clothes.
//
// The kernel stays the oracle: select and the epoll variants ask it first, without waiting, on the caller's own
// arguments; what is an error or an answer at once is its answer. Only then does the fiber park, and afterwards the
// kernel is asked again. So FD_SETSIZE, EBADF, EINVAL, edge triggers and the event bits are the kernel's.
//
// A signal mask must be in force while waiting, but the thread has one mask for all fibers. So a mask that differs
// from the thread's is shown to the kernel in slices: every 20 ms a call that does not wait, with the mask, lets a
// pending signal in, and answers EINTR for it. Its delay is the price; no other fiber ever runs under that mask.

#include "libc.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <ringlet/io.hpp>

#include "base/moments.hpp"
#include "dialect.hpp"
#include "real.hpp"
#include "shaped.hpp"

namespace ringlet::hooks::shaped {

using base::is_valid, base::to_duration, base::after, base::after_milliseconds, base::remaining;

namespace {

constexpr auto mask_slice = std::chrono::milliseconds(20);

// Does the mask let in, or keep out, anything that the thread's own does not?
bool changes_signals(const sigset_t* mask) noexcept {
  if (!mask) return false;
  sigset_t now;
  if (::pthread_sigmask(SIG_SETMASK, nullptr, &now) != 0) return true;
  for (int signal = 1; signal < NSIG; ++signal)
    if (::sigismember(mask, signal) != ::sigismember(&now, signal)) return true;
  return false;
}

deadline sooner(deadline until, bool in_slices) { return in_slices ? std::min(until, deadline(mask_slice)) : until; }

bool bad_timeout(const timespec* t) noexcept { return t && (no_pointer(t) || !is_valid(*t)); }

// ask() is the call that does not wait; wait(until) parks and gives 0, a count, or -errno.
template <class Ask, class Wait>
int ask_and_wait(deadline until, bool in_slices, Ask ask, Wait wait) {
  while (true) {
    const int answer = ask();
    if (answer != 0) return answer;
    if (until.has_passed()) return 0;
    const int waited = wait(sooner(until, in_slices));
    if (waited < 0) return to_libc<int>(waited);
  }
}

}  // namespace

int poll(pollfd* fds, nfds_t count, int timeout) {
  if (count > 0 && no_pointer(fds)) return real::poll(fds, count, 0);
  return to_libc<int>(io::poll(fds, count, after_milliseconds(timeout)));
}

int ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  if (bad_timeout(timeout) || (count > 0 && no_pointer(fds))) return real::ppoll(fds, count, timeout, mask);
  const deadline until = timeout ? after(*timeout) : never;
  if (!changes_signals(mask)) return to_libc<int>(io::poll(fds, count, until));
  const timespec at_once{};
  return ask_and_wait(
      until, true, [&] { return real::ppoll(fds, count, &at_once, mask); },
      [&](deadline d) { return io::poll(fds, count, d); });
}

// --- select ----------------------------------------------------------------------------------------------------------

namespace {

// The caller's three sets, as bit arrays that may be longer than an fd_set, and copies to ask the kernel with.
class sets {
 public:
  sets(int count, fd_set* in, fd_set* out, fd_set* odd) : count_(count), given_{in, out, odd} {
    words_ = std::size_t((count + word_bits - 1) / word_bits);
    if (words_ * 3 > std::size(few_words_)) words_at_ = static_cast<long*>(std::malloc(words_ * 3 * sizeof(long)));
    else words_at_ = few_words_;
  }
  ~sets() {
    if (words_at_ != few_words_) std::free(words_at_);
    if (polls_ != few_polls_) std::free(polls_);
  }
  sets(const sets&) = delete;

  // The polls that stand for the sets: 0 or -ENOMEM.
  int make_polls() {
    std::size_t needed = 0;
    for (int fd = 0; fd < count_; ++fd) needed += events(fd) != 0;
    polls_ = needed <= std::size(few_polls_) ? few_polls_ : static_cast<pollfd*>(std::malloc(needed * sizeof(pollfd)));
    if (!polls_ || !words_at_) return -ENOMEM;
    for (int fd = 0; fd < count_; ++fd)
      if (short wanted = events(fd)) polls_[polls_count_++] = {fd, wanted, 0};
    return 0;
  }

  // select(2) on the copies, at once; the caller's sets are written only if it has an answer.
  int ask(const sigset_t* mask) {
    if (!words_at_) return to_libc<int>(-ENOMEM);
    fd_set* copies[3];
    for (int i = 0; i < 3; ++i) {
      copies[i] = given_[i] ? reinterpret_cast<fd_set*>(words_at_ + i * words_) : nullptr;
      if (given_[i]) std::memcpy(copies[i], given_[i], words_ * sizeof(long));
    }
    const timespec at_once{};
    const int answer = real::pselect(count_, copies[0], copies[1], copies[2], &at_once, mask);
    if (answer > 0) write_back();
    return answer;
  }
  // Nothing was ready in time: all sets are empty.
  void clear() {
    for (fd_set* each : given_)
      if (each) std::memset(each, 0, words_ * sizeof(long));
  }
  int wait(deadline until) {
    if (!polls_)
      if (int failed = make_polls()) return failed;
    return io::poll(polls_, polls_count_, until);
  }

 private:
  static constexpr int word_bits = 8 * sizeof(long);
  bool has(const fd_set* set, int fd) const {
    return set && (reinterpret_cast<const unsigned long*>(set)[fd / word_bits] >> (fd % word_bits) & 1);
  }
  // What select(2) means by its sets (fs/select.c, POLLIN_SET and its sisters).
  short events(int fd) const {
    return short((has(given_[0], fd) ? POLLIN | POLLRDNORM | POLLRDBAND : 0) |
                 (has(given_[1], fd) ? POLLOUT | POLLWRNORM | POLLWRBAND : 0) | (has(given_[2], fd) ? POLLPRI : 0));
  }
  void write_back() {
    for (int i = 0; i < 3; ++i)
      if (given_[i]) std::memcpy(given_[i], words_at_ + i * words_, words_ * sizeof(long));
  }

  int count_;
  fd_set* given_[3];
  std::size_t words_ = 0;
  long* words_at_ = nullptr;
  long few_words_[3 * 1024 / word_bits];
  pollfd* polls_ = nullptr;
  std::size_t polls_count_ = 0;
  pollfd few_polls_[32];
};

int select_until(int count, fd_set* in, fd_set* out, fd_set* odd, deadline until, const sigset_t* mask) {
  sets all(count, in, out, odd);
  bool heard_what_nobody_asked = false;
  const int answer = ask_and_wait(
      until, changes_signals(mask), [&] { return all.ask(mask); },
      [&](deadline d) {
        // poll(2) also reports hang-ups of fds in which only writing or exceptions count for select(2). Then the polls
        // would be ready for ever, and the kernel is asked now and then instead.
        if (heard_what_nobody_asked) return io::sleep_until(std::min(d, deadline(mask_slice)));
        const int n = all.wait(d);
        heard_what_nobody_asked = n > 0;
        return n;
      });
  if (answer == 0) all.clear();
  return answer;
}

bool bad_sets(int count, const fd_set* in, const fd_set* out, const fd_set* odd) {
  if (count < 0) return true;
  for (const fd_set* each : {in, out, odd})
    if (each && count > 0 && no_pointer(each)) return true;
  return false;
}

}  // namespace

int select(int count, fd_set* in, fd_set* out, fd_set* odd, timeval* timeout) {
  if (bad_sets(count, in, out, odd) || (timeout && (no_pointer(timeout) || timeout->tv_sec < 0 || timeout->tv_usec < 0)))
    return real::select(count, in, out, odd, timeout);
  deadline until = never;
  if (timeout) {
    // select(2) accepts more than a million microseconds.
    const timespec wanted{timeout->tv_sec, 0};
    const auto whole = to_duration(wanted);
    const std::chrono::microseconds part(timeout->tv_usec);
    until = deadline(whole > clock::duration::max() - part ? clock::duration::max() : whole + part);
  }
  const int answer = select_until(count, in, out, odd, until, nullptr);
  // Linux tells what was left, also when interrupted.
  if (timeout && !until.is_never()) {
    const timespec left = remaining(until);
    *timeout = {left.tv_sec, left.tv_nsec / 1000};
  }
  return answer;
}

int pselect(int count, fd_set* in, fd_set* out, fd_set* odd, const timespec* timeout, const sigset_t* mask) {
  if (bad_sets(count, in, out, odd) || bad_timeout(timeout)) return real::pselect(count, in, out, odd, timeout, mask);
  return select_until(count, in, out, odd, timeout ? after(*timeout) : never, mask);
}

// --- epoll -----------------------------------------------------------------------------------------------------------

namespace {
int epoll_until(int fd, epoll_event* events, int capacity, deadline until, const sigset_t* mask) {
  if (!changes_signals(mask)) return to_libc<int>(io::epoll_wait(fd, events, capacity, until));
  // epoll_pwait(2) that need not wait does not look at signals; ppoll(2) of nothing does.
  const timespec at_once{};
  return ask_and_wait(
      until, true,
      [&] {
        const int ready = real::epoll_wait(fd, events, capacity, 0);
        return ready != 0 ? ready : real::ppoll(nullptr, 0, &at_once, mask);
      },
      [&](deadline d) {
        const int waited = io::wait_readable(fd, d);
        return waited == -ETIMEDOUT ? 0 : waited;
      });
}
}  // namespace

int epoll_wait(int fd, epoll_event* events, int capacity, int timeout) {
  if (no_pointer(events)) return real::epoll_wait(fd, events, capacity, timeout);
  return epoll_until(fd, events, capacity, after_milliseconds(timeout), nullptr);
}

int epoll_pwait(int fd, epoll_event* events, int capacity, int timeout, const sigset_t* mask) {
  if (no_pointer(events)) return real::epoll_pwait(fd, events, capacity, timeout, mask);
  return epoll_until(fd, events, capacity, after_milliseconds(timeout), mask);
}

#if __GLIBC_PREREQ(2, 35)
int epoll_pwait2(int fd, epoll_event* events, int capacity, const timespec* timeout, const sigset_t* mask) {
  if (no_pointer(events) || bad_timeout(timeout)) return real::epoll_pwait2(fd, events, capacity, timeout, mask);
  return epoll_until(fd, events, capacity, timeout ? after(*timeout) : never, mask);
}
#endif

}  // namespace ringlet::hooks::shaped
