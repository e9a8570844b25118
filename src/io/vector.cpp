// read and write, on all kinds of files: each is an attempt on a vector that cannot block.
//
// It tries with RWF_NOWAIT (stream sockets by receiving and sending); files that don't know it are asked by poll first, and
// regular ones read by the engine. Blocking writes go on until all is written, as a thread's do.
//
// Always true: the caller's vector is looked at only after the kernel has accepted it, or found it readable.

#include <ringlet/io.hpp>

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstdint>

#include "base/sys.hpp"
#include "io/counter.hpp"
#include "io/transfer.hpp"
#include "io/wait.hpp"

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

namespace ringlet::io {

namespace {

enum class verb { read, write };

// preadv2/pwritev2 that will not wait. -EAGAIN: it would. -EOPNOTSUPP: this kind of file cannot be asked so.
ssize_t try_vector(verb v, int fd, const iovec* parts, int count, bool reads_end = false) {
  if (__builtin_expect(reads_end, 0) && v == verb::read) return sys::call(SYS_readv, fd, parts, count);
  return sys::call(v == verb::read ? SYS_preadv2 : SYS_pwritev2, fd, parts, count, -1L, -1L, RWF_NOWAIT);
}

// Of one part. On a stream socket receive and send are the same, and cheaper.
ssize_t try_one(fd_table& table, const fd_watch* w, verb v, int fd, const iovec& part) {
  if (w && w->kind == file_kind::stream && table.knows_kind(*w)) {
    const ssize_t got = sys::call(v == verb::read ? SYS_recvfrom : SYS_sendto, fd, part.iov_base, part.iov_len, MSG_DONTWAIT, nullptr, 0);
    if (got != -ENOTSOCK) return got;
  }
  return try_vector(v, fd, &part, 1, w && w->reads_end);
}

// A terminal or a FIFO with room for one byte is ready, and then waits inside the call for the rest. A pipe that is ready has
// room for a page.
bool waits_when_ready(const fd_watch& w, std::size_t size) {
  return w.terminal || (w.kind == file_kind::pipe && size > PIPE_BUF);
}

// Writes that wait elsewhere, of all threads.
std::atomic<int> writers_elsewhere{0};

// So it may wait elsewhere: a thread of the kernel's or of the crew. A signal that the write raises is ours to raise again.
ssize_t write_elsewhere(fd_watch& w, const iovec* parts, int count, deadline until, const char* what) {
  hub_state& h = hub_state::here();
  const int fd = w.fd;
  const bool is_pipe = w.kind == file_kind::pipe;
  struct counted {
    counted() { ++writers_elsewhere; }
    ~counted() { --writers_elsewhere; }
  } const here_too;
  const std::size_t size = total(parts, std::size_t(count));
  // The kernel's workers end a wait for reasons of their own, with what has gone until then.
  std::size_t done = 0;
  ssize_t got;
  do {
    const rest_of rest(parts, count, done);
    got = perform({.code = loop::opcode::writev,
                   .fd = fd,
                   .parts = rest.parts(),
                   .count = unsigned(rest.count()),
                   .offset = -1,
                   .may_block = true},
                  until, what, fd, h.watch_signals(detail::signal_effect::ends_unless_restarted));
    if (got > 0) done += std::size_t(got);
  } while (is_pipe && got > 0 && done < size && !polled_ready(fd, 0));
  if (is_pipe && (got == -EPIPE || (done > 0 && done < size && polled_ready(fd, 0))))
    sys::call(SYS_tgkill, sys::call(SYS_getpid), sys::call(SYS_gettid), SIGPIPE);
  return done > 0 ? ssize_t(done) : got;
}

// A file whose reads cannot be tried (terminals, FIFOs, inotify, others on some kernels; regular files that are not in the
// page cache).
ssize_t wait_for_vector(verb v, int fd, const iovec* parts, int count, deadline until, const char* what) {
  hub_state& h = hub_state::here();
  fd_table& table = fd_table::of(h);
  fd_watch& w = table.get(fd);
  const long plain = v == verb::read ? SYS_readv : SYS_writev;
  const direction d = v == verb::read ? direction::in : direction::out;
  if (table.kind_of(w) == file_kind::regular) {
    if (v == verb::write) return sys::call(plain, fd, parts, count);
    // The ring does not move the file's position after a read past the cache. The position is held, so we may.
    const long from = bypasses_cache(fd, &w) ? sys::call(SYS_lseek, fd, 0L, SEEK_CUR) : -1;
    const std::uint32_t generation = w.generation;
    const ssize_t got = perform(
        {.code = loop::opcode::readv, .fd = fd, .parts = parts, .count = unsigned(count), .offset = from < 0 ? -1 : from},
        until, what, fd);
    if (from >= 0 && got > 0 && w.generation == generation) sys::call(SYS_lseek, fd, from + got, SEEK_SET);
    return got;
  }
  table.refresh(w);
  if (w.nonblocking) {
    keep_fair(h);
    return sys::call(plain, fd, parts, count);
  }
  // It looks at the vector before it waits, and gives nothing for nothing; more it will not do on this kind of file.
  const ssize_t looked = try_vector(v, fd, parts, count);
  if (looked != -EOPNOTSUPP && looked != -EAGAIN) return looked;
  const std::uint64_t number = v == verb::write && w.counter ? number_in(parts) : 1;
  if (number == 0) return sys::call(plain, fd, parts, count);
  if (v == verb::write && (waits_when_ready(w, total(parts, std::size_t(count))) || is_too_full(fd, number)))
    return write_elsewhere(w, parts, count, until, what);
  // The kernel's own word on readiness, then the plain call, at once: nobody of this thread comes between. But another thread's
  // write may, that the same reader woke, and fill an eventfd or a pipe again; and that reader may be a fiber of this thread.
  const short events = v == verb::read ? POLLIN : POLLOUT;
  bool waited = false, others_write = false;
  const ssize_t result = until_ready(fd, d, until, what, [&](fd_watch* known) -> ssize_t {
    if (!polled_ready(fd, events)) return waited = true, -EAGAIN;
    others_write = v == verb::write && known && (known->counter || known->kind == file_kind::pipe) &&
                   (waited || writers_elsewhere.load(std::memory_order_relaxed) > 0);
    if (others_write) return 0;
    const ssize_t got = sys::call(plain, fd, parts, count);
    // Whom the end of a terminal's other side meets in a read is told of it as an error; who reads later is at the end.
    const bool ended_meanwhile = got == 0 && v == verb::read && waited && known && known->terminal && known->hung_up;
    return ended_meanwhile ? -EIO : got;
  });
  return others_write ? write_elsewhere(w, parts, count, until, what) : result;
}

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

// The caller's vector is looked at only after the kernel has accepted it: a bad one is EFAULT, not a crash. `ours`: it
// is no caller's, and has one part.
ssize_t read_vector(int fd, const iovec* parts, int count, deadline until, const char* what, bool ours = false) {
  if (__builtin_expect(low_water(fd) > 1, 0)) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(parts);
    message.msg_iovlen = std::size_t(count);
    return recvmsg(fd, &message, 0, until);
  }
  fd_table& table = fd_table::of(hub_state::here());
  fd_watch* known = table.find(fd);
  if (known && known->position_taken)
    if (const int failed = wait_for_position(*known, until, what)) return failed;
  bool unaskable = unaskable_file(table, known, direction::in);
  if (unaskable) return wait_for_unaskable(verb::read, fd, parts, count, until, what);
  bool goes_on = false;  // a regular file, cut short by the cache's end
  position_hold position;
  std::uint32_t generation = 0;
  const ssize_t result = until_ready(
      fd, direction::in, until, what,
      [&](fd_watch* w) -> ssize_t {
        const ssize_t got = bypasses_cache(fd, w) ? -EAGAIN  // as one that is not in the cache
                            : ours                ? try_one(table, w, verb::read, fd, *parts)
                                                  : try_vector(verb::read, fd, parts, count, w && w->reads_end);
        if (got > 0 && std::size_t(got) < total(parts, std::size_t(count))) {
          note_short(w, got, std::size_t(-1), false);
          fd_watch* file = w && w->is_armed(direction::in) ? nullptr : table.get_or_null(fd);  // without memory it is a short read
          goes_on = file && table.kind_of(*file) == file_kind::regular && !at_end_of_file(fd);
        }
        unaskable = cannot_be_asked(table, fd, got);
        if (goes_on || unaskable) {
          fd_watch& file = table.get(fd);
          generation = file.generation;
          if (table.kind_of(file) == file_kind::regular) position.take(file);
        }
        return unaskable ? 0 : got;
      },
      !ours);
  if (!goes_on && !unaskable) return result;
  // Others may have run meanwhile (keep_fair), and closed it.
  const bool same_file = table.get(fd).generation == generation;
  if (unaskable) return same_file ? wait_for_unaskable(verb::read, fd, parts, count, until, what) : -EBADF;
  if (result <= 0 || !same_file) return result;
  const rest_of rest(parts, count, std::size_t(result));
  const ssize_t more = wait_for_vector(verb::read, fd, rest.parts(), rest.count(), until, what);
  return more > 0 ? result + more : result;
}

ssize_t write_vector(int fd, const iovec* parts, int count, deadline until, const char* what, bool ours = false) {
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
  const ssize_t result = transfer_all(
      fd, direction::out, size_of_all, until, what,
      [&](fd_watch* w, std::size_t done) -> ssize_t {
        if (done == 0) {
          const ssize_t got = ours ? try_one(table, w, verb::write, fd, *parts) : try_vector(verb::write, fd, parts, count);
          unaskable = cannot_be_asked(table, fd, got);
          return unaskable ? -EOPNOTSUPP : got;
        }
        const rest_of rest(parts, count, done);
        return w && w->kind == file_kind::stream ? send_rest(fd, rest.parts(), rest.count(), 0)
                                                 : try_vector(verb::write, fd, rest.parts(), rest.count());
      },
      true);
  return unaskable ? wait_for_unaskable(verb::write, fd, parts, count, until, what) : result;
}

}  // namespace

ssize_t read(int fd, void* buffer, std::size_t size, deadline until) noexcept try {
  if (size == 0 || is_beyond_memory(buffer, size)) return sys::call(SYS_read, fd, buffer, size);
  const iovec part{buffer, std::min(size, most_at_once)};
  return read_vector(fd, &part, 1, until, "read", true);
} catch (...) {
  return error_of_refusal();
}
ssize_t readv(int fd, const iovec* parts, int count, deadline until) noexcept try {
  return read_vector(fd, parts, count, until, "readv");
} catch (...) {
  return error_of_refusal();
}
ssize_t write(int fd, const void* data, std::size_t size, deadline until) noexcept try {
  // An empty message, which only the plain call sends; a vector of nothing is no message.
  if (size == 0) {
    const ssize_t sent = send(fd, data, 0, 0, until);
    return sent == -ENOTSOCK ? sys::call(SYS_write, fd, data, size) : sent;
  }
  if (is_beyond_memory(data, size)) return sys::call(SYS_write, fd, data, size);
  const iovec part{const_cast<void*>(data), std::min(size, most_at_once)};
  return write_vector(fd, &part, 1, until, "write", true);
} catch (...) {
  return error_of_refusal();
}
ssize_t writev(int fd, const iovec* parts, int count, deadline until) noexcept try {
  return write_vector(fd, parts, count, until, "writev");
} catch (...) {
  return error_of_refusal();
}

}  // namespace ringlet::io
