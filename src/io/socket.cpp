// Sockets and streams: each call is an attempt that cannot block, given to until_ready, or to transfer_all if it goes on
// until all is done.
//
// Reads try with MSG_DONTWAIT (sockets) or RWF_NOWAIT (everything else); files that know neither are asked by poll first,
// and regular ones read by the engine. A short read from a stream may say that it is empty now (short_read), so the next
// read parks without a try. Blocking writes go on until all is written, as a thread's do.
//
// An error that comes after some bytes is the next call's: so it is not fetched from the kernel, and raises no SIGPIPE.

#include <ringlet/io.hpp>

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/sys.hpp"
#include "io/doors.hpp"
#include "io/wait.hpp"

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

namespace ringlet::io {

namespace {

constexpr std::size_t most_at_once = 0x7ffff000;  // what the kernel moves in one call

// After a read that got less than it asked for: what was there has been taken. Not so near an end or urgent data.
void note_short(fd_watch* w, ssize_t got, std::size_t wanted, bool ancillary) {
  if (!w || got <= 0 || std::size_t(got) >= wanted || !w->is_armed(direction::in) || w->hung_up || w->urgent) return;
  if (w->tells == short_read::says_empty || (w->tells == short_read::says_empty_unless_ancillary && !ancillary))
    w->clear_ready(direction::in);
}

std::size_t total(const iovec* parts, std::size_t count) {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < count && sum < most_at_once; ++i) sum += std::min(parts[i].iov_len, most_at_once);
  return std::min(sum, most_at_once);
}

enum class verb { read, write };

// preadv2/pwritev2 that will not wait. -EAGAIN: it would. -EOPNOTSUPP: this kind of file cannot be asked so.
ssize_t try_vector(verb v, int fd, const iovec* parts, int count, bool reads_end = false) {
  if (__builtin_expect(reads_end, 0) && v == verb::read) return sys::call(SYS_readv, fd, parts, count);
  return sys::call(v == verb::read ? SYS_preadv2 : SYS_pwritev2, fd, parts, count, -1L, -1L, RWF_NOWAIT);
}

// recv(2), noting a short read. On a unix stream as recvmsg, which tells of ancillary data that were passed over.
ssize_t receive_bytes(fd_watch* w, int fd, void* buffer, std::size_t size, int how) {
  if (!w || w->tells != short_read::says_empty_unless_ancillary || !w->is_armed(direction::in)) {
    const ssize_t got = sys::call(SYS_recvfrom, fd, buffer, size, how, nullptr, nullptr);
    if (!(how & MSG_PEEK)) note_short(w, got, std::min(size, most_at_once), false);
    return got;
  }
  iovec part{buffer, size};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  const ssize_t got = sys::call(SYS_recvmsg, fd, &message, how);
  if (!(how & MSG_PEEK)) note_short(w, got, std::min(size, most_at_once), message.msg_flags & MSG_CTRUNC);
  return got;
}

// More of a message that has gone in part: its peer's end is not ours to hear of now.
ssize_t send_rest(int fd, const iovec* parts, int count, int flags) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts);
  message.msg_iovlen = std::size_t(count);
  return sys::call(SYS_sendmsg, fd, &message, flags | MSG_DONTWAIT | MSG_NOSIGNAL);
}

// Whether eight bytes can be read there. A call that copies them before it refuses to do anything tells, whatever
// sandbox (seccomp) this is; process_vm_readv is forbidden in some.
bool is_readable(const void* eight_bytes) {
  constexpr int no_way = -1;
  return eight_bytes && sys::call(SYS_rt_sigprocmask, no_way, eight_bytes, nullptr, 8L) != -EFAULT;
}

// What would be added to an eventfd: nothing, if the kernel refuses it at once (too short, UINT64_MAX, a bad address)
// or takes it whatever is there (0).
std::uint64_t number_in(const iovec* parts) {
  const char* const words = reinterpret_cast<const char*>(parts);
  if (!is_readable(words) || !is_readable(words + 8)) return 0;
  std::uint64_t number;
  if (parts->iov_len < sizeof number || !is_readable(parts->iov_base)) return 0;
  std::memcpy(&number, parts->iov_base, sizeof number);
  return number == UINT64_MAX ? 0 : number;
}

// Whether an eventfd has no room for what is to be added, although it has room for 1, which is all that poll tells.
bool is_too_full(int fd, std::uint64_t number) {
  if (number <= 1) return false;
  char path[48], text[512];
  std::snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  const long file = sys::call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return true;
  const long size = sys::call(SYS_read, file, text, sizeof text - 1);
  sys::call(SYS_close, file);
  text[std::max(size, 0L)] = 0;
  unsigned long long count = 0;
  const char* line = std::strstr(text, "eventfd-count:");
  return !line || std::sscanf(line, "eventfd-count: %llx", &count) != 1 || count > UINT64_MAX - 1 - number;
}

// A file whose reads cannot be tried (terminals, inotify, others on some kernels; regular files that are not in the page
// cache).
ssize_t wait_for_vector(verb v, int fd, const iovec* parts, int count, deadline until, const char* what) {
  hub_state& h = hub_state::here();
  fd_table& table = fd_table::of(h);
  fd_watch& w = table.get(fd);
  const long plain = v == verb::read ? SYS_readv : SYS_writev;
  const direction d = v == verb::read ? direction::in : direction::out;
  if (table.kind_of(w) == file_kind::regular) {
    if (v == verb::write) return sys::call(plain, fd, parts, count);
    return perform({.code = loop::opcode::readv, .fd = fd, .parts = parts, .count = unsigned(count), .offset = -1}, until, what, fd);
  }
  table.refresh(w);
  if (w.nonblocking) {
    keep_fair(h);
    return sys::call(plain, fd, parts, count);
  }
  const std::uint64_t number = v == verb::write && w.counter && count > 0 ? number_in(parts) : 1;
  if (number == 0) return sys::call(plain, fd, parts, count);
  // A terminal with room for one byte is ready, and then waits inside the call for the rest. So it may wait elsewhere.
  if (v == verb::write && (w.terminal || is_too_full(fd, number)))
    return perform({.code = loop::opcode::writev, .fd = fd, .parts = parts, .count = unsigned(count), .offset = -1, .may_block = true},
                   until, what, fd, h.watch_signals(detail::signal_effect::ends_unless_restarted));
  // The kernel's own word on readiness, then the plain call, at once: nobody of this thread comes between.
  const short events = v == verb::read ? POLLIN : POLLOUT;
  return until_ready(fd, d, until, what, [&](fd_watch*) -> ssize_t {
    return polled_ready(fd, events) ? sys::call(plain, fd, parts, count) : -EAGAIN;
  });
}

// What is left of a vector after its first bytes; made only when a call was cut short.
class rest_of {
 public:
  rest_of(const iovec* parts, int count, std::size_t done) : from_(parts), left_(count) {
    if (done == 0) return;
    while (left_ > 0 && done >= from_->iov_len) done -= from_->iov_len, ++from_, --left_;
    if (left_ == 0) return;
    if (left_ == 1) {
      single_ = *from_;
      from_ = &single_;
    } else {
      copy_.assign(from_, from_ + left_);
      from_ = copy_.data();
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
  std::vector<iovec> copy_;
};

// A file gave less than was asked: because it ends there, or because the page cache does?
bool at_end_of_file(int fd) {
  struct stat s;
  const long at = sys::call(SYS_lseek, fd, 0L, SEEK_CUR);
  return at < 0 || sys::call(SYS_fstat, fd, &s) != 0 || (!S_ISBLK(s.st_mode) && at >= s.st_size);
}

bool unaskable_file(fd_table& table, fd_watch* known, direction d) {
  return known && known->knows_no_nowait(d) && table.kind_of(*known) != file_kind::unknown && known->knows_no_nowait(d);
}

// The kernel refuses RWF_NOWAIT here, or says that a regular file would have to be read from the disk.
bool cannot_be_asked(fd_table& table, int fd, ssize_t answer) {
  return answer == -EOPNOTSUPP || (answer == -EAGAIN && table.kind_of(table.get(fd)) == file_kind::regular);
}

ssize_t wait_for_unaskable(verb v, int fd, const iovec* parts, int count, deadline until, const char* what) {
  fd_table& table = fd_table::of(hub_state::here());
  fd_watch& w = table.get(fd);
  const direction d = v == verb::read ? direction::in : direction::out;
  if (table.kind_of(w) != file_kind::regular) w.no_nowait |= std::uint8_t(1u << unsigned(d));
  return wait_for_vector(v, fd, parts, count, until, what);
}

// A regular file's position is one reader's at a time, as in the kernel, also while the engine reads for it; the engine
// itself would let two read the same bytes. Other hubs and duplicates of the fd are not kept away.
class position_hold {
 public:
  void take(fd_watch& w) {
    if (w_) return;
    w_ = &w;
    generation_ = w.generation;
    w.position_taken = true;
  }
  ~position_hold() {
    if (!w_ || w_->generation != generation_) return;  // the number means another file
    w_->position_taken = false;
    fd_table::wake_next(*w_, direction::in);
  }

 private:
  fd_watch* w_ = nullptr;
  std::uint32_t generation_ = 0;
};

int wait_for_position(fd_watch& w, deadline until, const char* what) {
  while (w.position_taken) {
    const int ended = park_in_line(w, direction::in, until, what, {});
    if (ended == 0 && !w.position_taken && !w.waiters[0].empty()) fd_table::wake_next(w, direction::in);
    if (ended) return ended == -ETIME ? -ETIMEDOUT : ended;
  }
  return 0;
}

// The caller's vector is looked at only after the kernel has accepted it: a bad one is EFAULT, not a crash. `ours`: it is
// no caller's, and has one part.
ssize_t read_vector(int fd, const iovec* parts, int count, deadline until, const char* what, bool ours = false) {
  fd_table& table = fd_table::of(hub_state::here());
  fd_watch* known = table.find(fd);
  if (known && known->position_taken)
    if (const int failed = wait_for_position(*known, until, what)) return failed;
  bool unaskable = unaskable_file(table, known, direction::in);
  if (unaskable) return wait_for_unaskable(verb::read, fd, parts, count, until, what);
  bool goes_on = false;  // a regular file, cut short by the cache's end
  position_hold position;
  std::uint32_t generation = 0;
  const ssize_t result = until_ready(fd, direction::in, until, what, [&](fd_watch* w) -> ssize_t {
    if (w && w->tells == short_read::says_empty_unless_ancillary && w->is_armed(direction::in) && ours)
      return receive_bytes(w, fd, parts->iov_base, parts->iov_len, MSG_DONTWAIT);
    const ssize_t got = try_vector(verb::read, fd, parts, count, w && w->reads_end);
    if (got > 0 && std::size_t(got) < total(parts, std::size_t(count))) {
      note_short(w, got, std::size_t(-1), true);
      goes_on = !(w && w->is_armed(direction::in)) && table.kind_of(table.get(fd)) == file_kind::regular && !at_end_of_file(fd);
    }
    unaskable = cannot_be_asked(table, fd, got);
    if (goes_on || unaskable) {
      fd_watch& file = table.get(fd);
      generation = file.generation;
      if (table.kind_of(file) == file_kind::regular) position.take(file);
    }
    return unaskable ? 0 : got;
  }, !ours);
  if (!goes_on && !unaskable) return result;
  // Others may have run meanwhile (keep_fair), and closed it.
  const bool same_file = table.get(fd).generation == generation;
  if (unaskable) return same_file ? wait_for_unaskable(verb::read, fd, parts, count, until, what) : -EBADF;
  if (result <= 0 || !same_file) return result;
  const rest_of rest(parts, count, std::size_t(result));
  const ssize_t more = wait_for_vector(verb::read, fd, rest.parts(), rest.count(), until, what);
  return more > 0 ? result + more : result;
}

// Some bytes have gone through a stream socket: does the call end here, since what comes next is an error or the mark of
// urgent data?
bool ends_here(int fd, direction d) {
  if (d == direction::out) return polled_ready(fd, 0);  // POLLERR, POLLHUP: no more goes
  pollfd p{fd, POLLPRI, 0};
  const timespec at_once{0, 0};
  int answer = 0;
  if (sys::call(SYS_ppoll, &p, 1, &at_once, nullptr, 0) <= 0) return false;
  if ((p.revents & POLLPRI) && sys::call(SYS_ioctl, fd, SIOCATMARK, &answer) == 0 && answer) return true;
  return (p.revents & POLLERR) && sys::call(SYS_ioctl, fd, FIONREAD, &answer) == 0 && answer == 0;
}

// park_on, but for a unix datagram socket that is not connected: whether its receiver has room, no poll of it tells.
int wait_for_room(fd_watch& w, direction d, deadline until, const char* what, clock::duration& pause,
                  const detail::signal_watch& signals) {
  if (d == direction::in || w.kind != file_kind::datagram || until == deadline::passed() || !polled_ready(w.fd, POLLOUT))
    return park_on(w, d, until, what, signals);
  const std::uint32_t generation = w.generation;
  const int slept = sleep_until(std::min(until, deadline(pause)));
  pause = std::min<clock::duration>(pause * 2, std::chrono::milliseconds(20));
  if (slept) return slept;
  return w.generation != generation ? -EBADF : until.has_passed() ? -ETIME : 0;
}

// Tries, parks and tries again until all is transferred, or an end, an error or the deadline comes; then what has been
// counts, if anything has. `attempt(watch or null, done)`: one try from there on; `refuses` as until_ready has it. The
// size is asked for only after the kernel has accepted the arguments.
template <class Size, class Attempt>
ssize_t transfer_all(int fd, direction d, Size size_of_all, deadline until, const char* what, Attempt attempt, bool refuses) {
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
  fd_watch& w = table.get(fd);
  table.refresh(w);
  if (w.nonblocking) {
    if (!tries) got = attempt(&w, std::size_t(0));
    keep_fair(h);
    return got;
  }
  const bool goes_on = w.kind == file_kind::stream || (d == direction::out && (w.kind == file_kind::pipe || w.kind == file_kind::other));
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

ssize_t write_vector(int fd, const iovec* parts, int count, deadline until, const char* what) {
  fd_table& table = fd_table::of(hub_state::here());
  fd_watch* known = table.find(fd);
  if (known && known->kind == file_kind::regular && table.kind_of(*known) == file_kind::regular) {
    keep_fair(hub_state::here());
    if (known->position_taken)
      if (const int failed = wait_for_position(*known, until, what)) return failed;
    return sys::call(SYS_writev, fd, parts, count);
  }
  bool unaskable = unaskable_file(table, known, direction::out);
  if (unaskable) return wait_for_unaskable(verb::write, fd, parts, count, until, what);
  const auto size_of_all = [&] { return total(parts, std::size_t(count)); };
  const ssize_t result = transfer_all(fd, direction::out, size_of_all, until, what, [&](fd_watch* w, std::size_t done) -> ssize_t {
    if (done == 0) {
      const ssize_t got = try_vector(verb::write, fd, parts, count);
      unaskable = cannot_be_asked(table, fd, got);
      return unaskable ? -EOPNOTSUPP : got;
    }
    const rest_of rest(parts, count, done);
    return w && w->kind == file_kind::stream ? send_rest(fd, rest.parts(), rest.count(), 0)
                                             : try_vector(verb::write, fd, rest.parts(), rest.count());
  }, true);
  return unaskable ? wait_for_unaskable(verb::write, fd, parts, count, until, what) : result;
}

// Receives with MSG_PEEK and MSG_WAITALL look until all is there; what they see stays.
template <class Look>
ssize_t peek_all(int fd, std::size_t wanted, deadline until, const char* what, Look look) {
  ssize_t most = -EAGAIN;
  const ssize_t got = until_ready(fd, direction::in, until, what, [&](fd_watch* w) -> ssize_t {
    most = look(w);
    fd_table& table = fd_table::of(hub_state::here());
    fd_watch& file = table.get(fd);
    const bool enough = most <= 0 || std::size_t(most) >= wanted || table.kind_of(file) != file_kind::stream ||
                        file.tells == short_read::says_empty_unless_ancillary ||  // a unix stream's peek is one look
                        polled_ready(fd, POLLRDHUP | POLLPRI);
    return enough ? most : -EAGAIN;
  }, true);
  return got < 0 && most > 0 ? most : got;
}

}  // namespace

ssize_t read(int fd, void* buffer, std::size_t size, deadline until) noexcept {
  if (size == 0) return sys::call(SYS_read, fd, buffer, size);
  const iovec part{buffer, std::min(size, most_at_once)};
  return read_vector(fd, &part, 1, until, "read", true);
}
ssize_t readv(int fd, const iovec* parts, int count, deadline until) noexcept {
  return read_vector(fd, parts, count, until, "readv");
}
ssize_t write(int fd, const void* data, std::size_t size, deadline until) noexcept {
  // An empty message, which only the plain call sends; a vector of nothing is no message.
  if (size == 0) {
    const ssize_t sent = send(fd, data, 0, 0, until);
    return sent == -ENOTSOCK ? sys::call(SYS_write, fd, data, size) : sent;
  }
  const iovec part{const_cast<void*>(data), std::min(size, most_at_once)};
  return write_vector(fd, &part, 1, until, "write");
}
ssize_t writev(int fd, const iovec* parts, int count, deadline until) noexcept {
  return write_vector(fd, parts, count, until, "writev");
}

// Which receives do not wait: MSG_OOB, too, never does (tcp(7) is silent about it; the kernel answers EAGAIN or EINVAL).
static constexpr int never_wait = MSG_DONTWAIT | MSG_ERRQUEUE | MSG_OOB;

// TCP waits once before it gives nothing to who asks for nothing, and does not ask why the wait ended.
static ssize_t of_nothing(int fd, ssize_t result) {
  if (result != -EAGAIN && result != -EINTR) return result;
  const fd_watch* w = fd_table::of(hub_state::here()).find(fd);
  return w && w->tells == short_read::says_empty && !w->nonblocking ? 0 : result;
}

static int without_waiting(const fd_watch* w, int flags) { return w && w->reads_end ? flags : flags | MSG_DONTWAIT; }

ssize_t recv(int fd, void* buffer, std::size_t size, int flags, deadline until) noexcept {
  return recvfrom(fd, buffer, size, flags, nullptr, nullptr, until);
}

ssize_t recvfrom(int fd, void* buffer, std::size_t size, int flags, sockaddr* from, unsigned* from_length,
                 deadline until) noexcept {
  const auto once = [=](fd_watch* w, std::size_t done) -> ssize_t {
    const int how = without_waiting(w, flags);
    char* place = static_cast<char*>(buffer) + done;
    if (!from) return receive_bytes(w, fd, place, size - done, how);
    const ssize_t got = sys::call(SYS_recvfrom, fd, place, size - done, how, from, from_length);
    if (!(how & MSG_PEEK)) note_short(w, got, std::min(size - done, most_at_once), true);
    return got;
  };
  if (flags & never_wait) {
    keep_fair(hub_state::here());
    return sys::call(SYS_recvfrom, fd, buffer, size, flags | MSG_DONTWAIT, from, from_length);
  }
  if (size == 0) return of_nothing(fd, until_ready(fd, direction::in, until, "recv", [&](fd_watch* w) { return once(w, 0); }));
  if (!(flags & MSG_WAITALL)) return until_ready(fd, direction::in, until, "recv", [&](fd_watch* w) { return once(w, 0); });
  const std::size_t wanted = std::min(size, most_at_once);
  if (flags & MSG_PEEK) return peek_all(fd, wanted, until, "recv", [&](fd_watch* w) { return once(w && w->reads_end ? w : nullptr, 0); });
  return transfer_all(fd, direction::in, [=] { return wanted; }, until, "recv", once, false);
}

ssize_t recvmsg(int fd, msghdr* message, int flags, deadline until) noexcept {
  const int how = flags | MSG_DONTWAIT;
  if (flags & never_wait) {
    keep_fair(hub_state::here());
    return sys::call(SYS_recvmsg, fd, message, how);
  }
  // A bad message is the kernel's to refuse, so it is looked at only afterwards.
  bool ancillary = false;
  const auto whole = [&] { return total(message->msg_iov, message->msg_iovlen); };
  const auto once = [&](fd_watch* w) -> ssize_t {
    const ssize_t got = sys::call(SYS_recvmsg, fd, message, without_waiting(w, flags));
    if (got > 0) ancillary = message->msg_controllen > 0 || (message->msg_flags & MSG_CTRUNC);
    if (got > 0 && !(flags & MSG_PEEK)) note_short(w, got, whole(), ancillary);
    return got;
  };
  if (!(flags & MSG_WAITALL)) {
    const ssize_t got = until_ready(fd, direction::in, until, "recvmsg", once, true);
    return (got == -EAGAIN || got == -EINTR) && whole() == 0 ? of_nothing(fd, got) : got;
  }
  if (flags & MSG_PEEK) return peek_all(fd, most_at_once, until, "recvmsg", [&](fd_watch* w) { return once(w && w->reads_end ? w : nullptr); });
  // What came with ancillary data is a message of its own.
  return transfer_all(fd, direction::in, [&] { return ancillary ? 0 : whole(); }, until, "recvmsg", [&](fd_watch* w, std::size_t done) -> ssize_t {
    if (done == 0) return once(w);
    const rest_of rest(message->msg_iov, int(message->msg_iovlen), done);
    msghdr more{};
    more.msg_iov = const_cast<iovec*>(rest.parts());
    more.msg_iovlen = std::size_t(rest.count());
    const ssize_t got = sys::call(SYS_recvmsg, fd, &more, how);
    note_short(w, got, whole() - done, more.msg_flags & MSG_CTRUNC);
    return got;
  }, true);
}

ssize_t send(int fd, const void* data, std::size_t size, int flags, deadline until) noexcept {
  return sendto(fd, data, size, flags, nullptr, 0, until);
}

ssize_t sendto(int fd, const void* data, std::size_t size, int flags, const sockaddr* to, unsigned to_length,
               deadline until) noexcept {
  const auto once = [=](fd_watch*, std::size_t done) -> ssize_t {
    const int how = flags | MSG_DONTWAIT | (done ? MSG_NOSIGNAL : 0);
    return sys::call(SYS_sendto, fd, static_cast<const char*>(data) + done, size - done, how, to, to_length);
  };
  if (flags & MSG_DONTWAIT) {
    keep_fair(hub_state::here());
    return once(nullptr, 0);
  }
  return transfer_all(fd, direction::out, [size] { return std::min(size, most_at_once); }, until, "send", once, true);
}

ssize_t sendmsg(int fd, const msghdr* message, int flags, deadline until) noexcept {
  if (flags & MSG_DONTWAIT) {
    keep_fair(hub_state::here());
    return sys::call(SYS_sendmsg, fd, message, flags);
  }
  // The first piece carries the ancillary data; what is left of a stream's bytes follows plainly.
  return transfer_all(fd, direction::out, [=] { return total(message->msg_iov, message->msg_iovlen); }, until, "sendmsg",
                      [=](fd_watch*, std::size_t done) -> ssize_t {
                        if (done == 0) return sys::call(SYS_sendmsg, fd, message, flags | MSG_DONTWAIT);
                        const rest_of rest(message->msg_iov, int(message->msg_iovlen), done);
                        return send_rest(fd, rest.parts(), rest.count(), flags);
                      }, true);
}

}  // namespace ringlet::io
