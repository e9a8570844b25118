// Sockets and streams: each call is an attempt that cannot block, given to until_ready.
//
// Reads try with MSG_DONTWAIT (sockets) or RWF_NOWAIT (everything else); files that know neither are read by the ring,
// which waits for them, or under the epoll engine after a poll. A short read from a stream says that it is empty now, so
// the next read parks without a try. Blocking writes go on until all is written, as a thread's do.

#include <ringlet/io.hpp>

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <vector>

#include "base/sys.hpp"
#include "io/wait.hpp"

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

namespace ringlet::io {

namespace {

bool is_stream(const fd_watch* w) {
  return w && (w->kind == file_kind::stream || w->kind == file_kind::pipe);
}

// After a read that got less than it asked for: what was there has been taken. Not so near an end or urgent data.
void note_short(fd_watch* w, direction d, ssize_t got, std::size_t wanted) {
  if (is_stream(w) && got > 0 && std::size_t(got) < wanted && w->is_armed(d) && !w->hung_up && !w->urgent) w->clear_ready(d);
}

std::size_t total(const iovec* parts, int count) {
  std::size_t sum = 0;
  for (int i = 0; i < count; ++i) sum += parts[i].iov_len;
  return sum;
}

bool polled_ready(int fd, short events) {
  pollfd p{fd, events, 0};
  const timespec at_once{0, 0};
  return sys::call(SYS_ppoll, &p, 1, &at_once, nullptr, 0) != 0;
}

enum class verb { read, write };

// preadv2/pwritev2 that will not wait. -EAGAIN: it would. -EOPNOTSUPP: this kind of file cannot be asked so.
ssize_t try_vector(verb v, int fd, const iovec* parts, int count) {
  return sys::call(v == verb::read ? SYS_preadv2 : SYS_pwritev2, fd, parts, count, -1L, -1L, RWF_NOWAIT);
}

// A file whose reads cannot be tried (terminals, timerfd, signalfd, inotify on some kernels; regular files that are not in
// the page cache): an operation of the ring; where the engine has only helper threads, pollable ones wait for readiness.
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
  if (w.nonblocking) return sys::call(plain, fd, parts, count);
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

// A regular file gave less than was asked: because it ends there, or because the page cache does?
bool at_end_of_file(int fd) {
  struct stat s;
  const long at = sys::call(SYS_lseek, fd, 0L, SEEK_CUR);
  return at < 0 || sys::call(SYS_fstat, fd, &s) != 0 || at >= s.st_size;
}

ssize_t read_vector(int fd, const iovec* parts, int count, deadline until, const char* what) {
  // The caller's vector is looked at only after the kernel has accepted it: a bad one is EFAULT, not a crash.
  hub_state& h = hub_state::here();
  fd_watch* known = fd_table::of(h).find(fd);
  bool unaskable = known && known->no_nowait;
  if (!unaskable) {
    const ssize_t result = until_ready(fd, direction::in, until, what, [&](fd_watch* w) -> ssize_t {
      const ssize_t got = try_vector(verb::read, fd, parts, count);
      if (got == -EOPNOTSUPP || (got == -EAGAIN && fd_table::of(h).kind_of(fd_table::of(h).get(fd)) == file_kind::regular)) {
        unaskable = true;
        return 0;
      }
      if (got > 0) note_short(w, direction::in, got, total(parts, count));
      return got;
    });
    if (!unaskable && result > 0 && std::size_t(result) < total(parts, count)) {
      fd_watch& w = fd_table::of(h).get(fd);
      if (fd_table::of(h).kind_of(w) == file_kind::regular && !at_end_of_file(fd)) {
        const rest_of rest(parts, count, std::size_t(result));
        const ssize_t more = wait_for_vector(verb::read, fd, rest.parts(), rest.count(), until, what);
        return more > 0 ? result + more : result;
      }
    }
    if (!unaskable) return result;
  }
  fd_watch& w = fd_table::of(h).get(fd);
  if (fd_table::of(h).kind_of(w) != file_kind::regular) w.no_nowait = true;
  return wait_for_vector(verb::read, fd, parts, count, until, what);
}

// One attempt to write what is left from `done` on; -EAGAIN if nothing at all could be.
template <class Size, class Attempt>
ssize_t write_all(int fd, Size size_of_all, deadline until, const char* what, Attempt attempt) {
  hub_state& h = hub_state::here();
  if (__builtin_expect(h.can_park() && h.interrupted(), 0)) return -ECANCELED;
  fd_table& table = fd_table::of(h);
  fd_watch* known = table.find(fd);
  std::size_t done = 0;
  // A write says how much went; whether more is to be written is asked only when it was cut short.
  const bool tried = !known || known->maybe_ready(direction::out) || !known->is_armed(direction::out) || until == deadline::passed();
  ssize_t got = tried ? attempt(known, done) : -EAGAIN;
  if (got < 0 && got != -EAGAIN) return got;
  if (got >= 0) {
    done = std::size_t(got);
    if (got == 0 || done >= size_of_all()) {
      keep_fair(h);
      return got;
    }
  }
  if (fd < 0) return -EBADF;
  fd_watch& w = table.get(fd);
  table.refresh(w);
  if (w.nonblocking && !tried) return attempt(&w, 0);  // as in until_ready
  if (w.nonblocking || (w.kind != file_kind::stream && w.kind != file_kind::pipe && w.kind != file_kind::other && got >= 0))
    return done ? ssize_t(done) : got;
  const call_deadline limit = deadline_of(w, direction::out, until);
  do {
    if (got == -EAGAIN) {
      w.clear_ready(direction::out);
      if (const int failed = park_on(w, direction::out, limit.until, what))
        return done ? ssize_t(done) : failed == -ETIME ? limit.when_passed : failed;
    }
    got = attempt(&w, done);
    if (got < 0 && got != -EAGAIN) return done ? ssize_t(done) : got;
    if (got > 0) done += std::size_t(got);
    if (got == 0) break;
  } while (got == -EAGAIN || done < size_of_all());
  if (w.maybe_ready(direction::out) && !w.waiters[1].empty()) fd_table::wake_next(w, direction::out);
  return ssize_t(done);
}

ssize_t write_vector(int fd, const iovec* parts, int count, deadline until, const char* what) {
  hub_state& h = hub_state::here();
  fd_watch* known = fd_table::of(h).find(fd);
  if (known && known->kind == file_kind::regular) return sys::call(SYS_writev, fd, parts, count);
  bool unaskable = known && known->no_nowait;
  if (!unaskable) {
    const ssize_t result = write_all(fd, [&] { return total(parts, count); }, until, what, [&](fd_watch*, std::size_t done) -> ssize_t {
      const rest_of rest(parts, count, done);
      const ssize_t got = try_vector(verb::write, fd, rest.parts(), rest.count());
      if (done == 0 && (got == -EOPNOTSUPP ||
                        (got == -EAGAIN && fd_table::of(h).kind_of(fd_table::of(h).get(fd)) == file_kind::regular))) {
        unaskable = true;
        return -EOPNOTSUPP;
      }
      return got;
    });
    if (!unaskable) return result;
  }
  fd_watch& w = fd_table::of(h).get(fd);
  if (fd_table::of(h).kind_of(w) != file_kind::regular) w.no_nowait = true;
  return wait_for_vector(verb::write, fd, parts, count, until, what);
}

// Some sockets' send may be cut short in the middle; MSG_DONTWAIT by the caller means that it wants to know.
template <class Send>
ssize_t send_all(int fd, std::size_t size, int flags, deadline until, const char* what, Send once) {
  if (flags & MSG_DONTWAIT) return once(0, flags);
  return write_all(fd, [size] { return size; }, until, what, [&](fd_watch*, std::size_t done) { return once(done, flags | MSG_DONTWAIT); });
}

// recv and its kin: with MSG_WAITALL until all is here, an end or an error.
template <class Receive>
ssize_t receive(int fd, std::size_t wanted, int flags, deadline until, const char* what, Receive once) {
  if (flags & (MSG_DONTWAIT | MSG_ERRQUEUE)) return once(0, flags);
  const auto attempt = [&](std::size_t done) {
    return until_ready(fd, direction::in, until, what, [&, done](fd_watch* w) -> ssize_t {
      const ssize_t got = once(done, flags | MSG_DONTWAIT);
      if (!(flags & MSG_PEEK)) note_short(w, direction::in, got, wanted - done);
      return got;
    });
  };
  ssize_t got = attempt(0);
  if (!(flags & MSG_WAITALL) || (flags & (MSG_PEEK | MSG_OOB)) || got <= 0 || std::size_t(got) >= wanted) return got;
  hub_state& h = hub_state::here();
  if (fd_table::of(h).kind_of(fd_table::of(h).get(fd)) != file_kind::stream) return got;
  std::size_t done = std::size_t(got);
  while (done < wanted) {
    got = attempt(done);
    if (got <= 0) break;
    done += std::size_t(got);
  }
  return ssize_t(done);
}
}  // namespace

ssize_t read(int fd, void* buffer, std::size_t size, deadline until) noexcept {
  if (size == 0) return sys::call(SYS_read, fd, buffer, size);
  const iovec part{buffer, std::min<std::size_t>(size, 0x7ffff000)};
  return read_vector(fd, &part, 1, until, "read");
}
ssize_t readv(int fd, const iovec* parts, int count, deadline until) noexcept {
  return read_vector(fd, parts, count, until, "readv");
}
ssize_t write(int fd, const void* data, std::size_t size, deadline until) noexcept {
  const iovec part{const_cast<void*>(data), std::min<std::size_t>(size, 0x7ffff000)};
  return write_vector(fd, &part, 1, until, "write");
}
ssize_t writev(int fd, const iovec* parts, int count, deadline until) noexcept {
  return write_vector(fd, parts, count, until, "writev");
}

ssize_t recv(int fd, void* buffer, std::size_t size, int flags, deadline until) noexcept {
  return recvfrom(fd, buffer, size, flags, nullptr, nullptr, until);
}

ssize_t recvfrom(int fd, void* buffer, std::size_t size, int flags, sockaddr* from, unsigned* from_length,
                 deadline until) noexcept {
  return receive(fd, size, flags, until, "recv", [=](std::size_t done, int how) {
    return sys::call(SYS_recvfrom, fd, static_cast<char*>(buffer) + done, size - done, how, from, from_length);
  });
}

ssize_t recvmsg(int fd, msghdr* message, int flags, deadline until) noexcept {
  const auto once = [=](std::size_t, int how) { return sys::call(SYS_recvmsg, fd, message, how); };
  // A bad message is the kernel's to refuse; and what a first try has put into its lengths must not limit the next one.
  if (!(flags & MSG_WAITALL)) return receive(fd, std::size_t(-1) >> 1, flags, until, "recvmsg", once);
  const ssize_t first = receive(fd, std::size_t(-1) >> 1, flags & ~MSG_WAITALL, until, "recvmsg", once);
  if (first <= 0) return first;
  std::size_t wanted = 0;
  for (std::size_t i = 0; i < message->msg_iovlen; ++i) wanted += message->msg_iov[i].iov_len;
  std::size_t done = std::size_t(first);
  hub_state& h = hub_state::here();
  if (done >= wanted || (flags & MSG_PEEK) || message->msg_controllen ||
      fd_table::of(h).kind_of(fd_table::of(h).get(fd)) != file_kind::stream)
    return first;
  const rest_of rest(message->msg_iov, int(message->msg_iovlen), done);
  for (int i = 0; i < rest.count(); ++i) {
    const iovec& part = rest.parts()[i];
    const ssize_t got = recv(fd, part.iov_base, part.iov_len, flags, until);
    if (got > 0) done += std::size_t(got);
    if (got < ssize_t(part.iov_len)) break;
  }
  return ssize_t(done);
}

ssize_t send(int fd, const void* data, std::size_t size, int flags, deadline until) noexcept {
  return sendto(fd, data, size, flags, nullptr, 0, until);
}

ssize_t sendto(int fd, const void* data, std::size_t size, int flags, const sockaddr* to, unsigned to_length,
               deadline until) noexcept {
  return send_all(fd, size, flags, until, "send", [=](std::size_t done, int how) {
    return sys::call(SYS_sendto, fd, static_cast<const char*>(data) + done, size - done, how, to, to_length);
  });
}

ssize_t sendmsg(int fd, const msghdr* message, int flags, deadline until) noexcept {
  if (flags & MSG_DONTWAIT) return sys::call(SYS_sendmsg, fd, message, flags);
  // The first piece carries the ancillary data; what is left of a stream's bytes follows plainly.
  const ssize_t first = until_ready(fd, direction::out, until, "sendmsg", [&](fd_watch*) -> ssize_t {
    return sys::call(SYS_sendmsg, fd, message, flags | MSG_DONTWAIT);
  });
  if (first < 0) return first;
  std::size_t size = 0;
  for (std::size_t i = 0; i < message->msg_iovlen; ++i) size += message->msg_iov[i].iov_len;
  std::size_t done = std::size_t(first);
  if (done >= size) return first;
  hub_state& h = hub_state::here();
  fd_watch& w = fd_table::of(h).get(fd);
  fd_table::of(h).refresh(w);
  if (w.nonblocking || w.kind != file_kind::stream) return first;
  const rest_of rest(message->msg_iov, int(message->msg_iovlen), done);
  for (int i = 0; i < rest.count(); ++i) {
    const iovec& part = rest.parts()[i];
    const ssize_t got = send(fd, part.iov_base, part.iov_len, flags, until);
    if (got > 0) done += std::size_t(got);
    if (got < ssize_t(part.iov_len)) break;
  }
  return ssize_t(done);
}

// --- connections -----------------------------------------------------------------------------------------------------

namespace {
// accept and connect have no flag that says "do not wait". The ring waits for them itself; without it O_NONBLOCK is set
// for the length of one call, which another thread or process that shares the socket might see. The kernel leaves no
// other way (engine::waits_for_sockets).
template <class Call>
long call_nonblocking(int fd, Call call) {
  const long flags = sys::call(SYS_fcntl, fd, F_GETFL);
  if (flags < 0) return flags;
  if (flags & O_NONBLOCK) return call();
  sys::call(SYS_fcntl, fd, F_SETFL, flags | O_NONBLOCK);
  const long result = call();
  sys::call(SYS_fcntl, fd, F_SETFL, flags);
  return result;
}
}  // namespace

int connect(int fd, const sockaddr* to, unsigned to_length, deadline until) noexcept {
  hub_state& h = hub_state::here();
  if (fd < 0) return -EBADF;
  fd_table& table = fd_table::of(h);
  fd_watch& w = table.get(fd);
  table.refresh(w);
  if (w.nonblocking || (w.kind != file_kind::stream && w.kind != file_kind::datagram))
    return int(sys::call(SYS_connect, fd, to, to_length));
  call_deadline limit = deadline_of(w, direction::out, until);
  if (limit.when_passed == -EAGAIN) limit.when_passed = -EINPROGRESS;  // connect(2) under SO_SNDTIMEO
  ssize_t result;
  if (h.engine->waits_for_sockets()) {
    // The kernel's own copy of the address is made when the operation is handed over, which may be after we have parked.
    unsigned length = to_length;
    result = perform({.code = loop::opcode::connect, .fd = fd, .address = const_cast<sockaddr*>(to), .address_length = &length},
                     limit.until, "connect", fd, detail::signal_effect::ends_unless_restarted);
    if (result == -ETIMEDOUT && limit.until.has_passed()) result = limit.when_passed;
  } else {
    clock::duration pause = std::chrono::milliseconds(1);
    while ((result = call_nonblocking(fd, [&] { return sys::call(SYS_connect, fd, to, to_length); })) == -EAGAIN) {
      // A unix listener's backlog is full; nothing tells when it has room.
      if (limit.until.has_passed()) return limit.when_passed;
      if (const int failed = sleep_until(std::min(limit.until, deadline(pause)))) return failed;
      pause = std::min<clock::duration>(pause * 2, std::chrono::milliseconds(50));
    }
    if (result == -EINPROGRESS) {
      // Asked again when it stirs: that also is what turns the socket from connecting to connected.
      do {
        w.clear_ready(direction::out);
        const int failed = park_on(w, direction::out, limit.until, "connect");
        if (failed) return failed == -ETIME ? limit.when_passed : failed;
        result = call_nonblocking(fd, [&] { return sys::call(SYS_connect, fd, to, to_length); });
      } while (result == -EINPROGRESS || result == -EALREADY);
    }
  }
  // An unconnected socket reports HUP when it is polled; that is over now.
  w.hung_up = false;
  w.set_ready(direction::in);
  w.set_ready(direction::out);
  return int(result);
}

int accept4(int fd, sockaddr* from, unsigned* from_length, int flags, deadline until) noexcept {
  hub_state& h = hub_state::here();
  if (fd < 0) return -EBADF;
  fd_table& table = fd_table::of(h);
  fd_watch& w = table.get(fd);
  table.refresh(w);
  if (w.nonblocking || w.kind != file_kind::stream) {
    const long got = sys::call(SYS_accept4, fd, from, from_length, flags);
    if (got >= 0) keep_fair(h);
    return int(got);
  }
  const call_deadline limit = deadline_of(w, direction::in, until);
  if (!h.engine->waits_for_sockets())
    return int(until_ready(fd, direction::in, until, "accept", [&](fd_watch*) -> ssize_t {
      return call_nonblocking(fd, [&] { return sys::call(SYS_accept4, fd, from, from_length, flags); });
    }));
  const ssize_t got = perform({.code = loop::opcode::accept, .fd = fd, .flags = flags, .address = from, .address_length = from_length},
                              limit.until, "accept", fd, detail::signal_effect::ends_unless_restarted);
  return got == -ETIMEDOUT ? limit.when_passed : int(got);
}

}  // namespace ringlet::io
