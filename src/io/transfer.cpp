#include "io/transfer.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <atomic>

#include <ringlet/io.hpp>

#include "base/sys.hpp"
#include "io/doors.hpp"

namespace ringlet::io {

void note_short(fd_watch* w, ssize_t got, std::size_t wanted, bool ancillary) {
  if (!w || got <= 0 || std::size_t(got) >= wanted || !w->is_armed(direction::in) || w->hung_up || w->misleads) return;
  if (w->tells == short_read::says_nothing || (w->tells == short_read::says_empty_unless_ancillary && ancillary)) return;
  w->clear_ready(direction::in);
  if (!w->doubt_link::linked()) fd_table::of(hub_state::here()).doubt(*w);
}

namespace {
std::atomic<bool> has_low_water{false};
}

void low_water_set() noexcept { has_low_water.store(true, std::memory_order_relaxed); }

std::size_t low_water(int fd) {
  if (__builtin_expect(!has_low_water.load(std::memory_order_relaxed), 1)) return 1;
  int least = 1;
  socklen_t size = sizeof least;
  return sys::call(SYS_getsockopt, fd, SOL_SOCKET, SO_RCVLOWAT, &least, &size) == 0 ? std::size_t(std::max(least, 1)) : 1;
}

void cache_bypassed() noexcept { somebody_bypasses_the_cache.store(true, std::memory_order_relaxed); }

bool is_opened_past_cache(int fd, const fd_watch* known) {
  if (known && known->kind != file_kind::unknown && known->kind != file_kind::regular) return false;
  const long flags = sys::call(SYS_fcntl, fd, F_GETFL);
  struct stat s;
  return flags >= 0 && (flags & O_DIRECT) && sys::call(SYS_fstat, fd, &s) == 0 && (S_ISREG(s.st_mode) || S_ISBLK(s.st_mode));
}

ssize_t send_rest(int fd, const iovec* parts, int count, int flags) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts);
  message.msg_iovlen = std::size_t(count);
  return sys::call(SYS_sendmsg, fd, &message, flags | MSG_DONTWAIT | MSG_NOSIGNAL);
}

bool ends_here(int fd, direction d) {
  if (d == direction::out) return polled_ready(fd, 0);  // POLLERR, POLLHUP: no more goes
  pollfd p{fd, POLLPRI, 0};
  int answer = 0;
  if (poll_now(&p, 1) <= 0) return false;
  if ((p.revents & POLLPRI) && sys::call(SYS_ioctl, fd, SIOCATMARK, &answer) == 0 && answer) return true;
  return (p.revents & POLLERR) && sys::call(SYS_ioctl, fd, FIONREAD, &answer) == 0 && answer == 0;
}

int error_of_waiting(const fd_watch& w, direction d) {
  if (d != direction::out || !w.hung_up || w.tells != short_read::says_empty_unless_ancillary) return 0;
  int error = 0;
  socklen_t size = sizeof error;
  sys::call(SYS_getsockopt, w.fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

int wait_for_room(fd_watch& w, direction d, deadline until, const char* what, clock::duration& pause,
                  const detail::signal_watch& signals) {
  if (d == direction::in || w.kind != file_kind::datagram || until == deadline::passed() ||
      !polled_ready(w.fd, POLLOUT))
    return park_on(w, d, until, what, signals);
  const std::uint32_t generation = w.generation;
  const int slept = sleep_until(std::min(until, deadline(pause)), signals.effect);
  pause = std::min<clock::duration>(pause * 2, std::chrono::milliseconds(20));
  if (slept) return slept;
  return w.generation != generation ? -EBADF : until.has_passed() ? -ETIME : 0;
}

}  // namespace ringlet::io
