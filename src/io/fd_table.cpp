#include "io/fd_table.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <new>

#include "base/assert.hpp"
#include "base/lock.hpp"
#include "base/sys.hpp"
#include "io/counter.hpp"
#include "io/doors.hpp"
#include "io/flag_turn.hpp"

namespace ringlet::io {

std::atomic<std::uint32_t> facts_epoch{0};

std::atomic<std::uint32_t> observed_era{0};

namespace {
// How many hubs know an fd number, so that a close need not ask hubs that have never seen it. Numbers beyond the array
// count as known to all.
constexpr int counted_numbers = 1 << 20;
constexpr std::size_t counts_bytes = counted_numbers * sizeof(std::atomic<std::uint16_t>);
std::atomic<std::uint16_t>* known_to = nullptr;

// Hubs with an fd table, so that a close on one thread finds the polls of another.
base::lock hubs_lock;
std::vector<hub_state*> hubs;
std::atomic<std::size_t> hub_count{0};

// Asks other hubs to let go of an fd, and tells when they have. On the heap: a hub may answer after the closer has given
// up waiting for it.
struct farewell;
struct forget_request : detail::message {
  hub_state* asked = nullptr;
  farewell* of = nullptr;
};
struct farewell {
  int fd;
  std::atomic<std::uint32_t> left{0};     // hubs that have not answered
  std::atomic<std::uint32_t> holders{1};  // they and the closer
  std::unique_ptr<forget_request[]> requests;

  void drop() {
    if (holders.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
  void answered() {
    left.fetch_sub(1, std::memory_order_release);
    sys::call(SYS_futex, &left, 1 /* FUTEX_WAKE */, 1);
    drop();
  }
};

void forget_here(detail::message& m) {
  auto& request = static_cast<forget_request&>(m);
  if (fd_table* table = fd_table::of_or_null(*request.asked))
    if (fd_watch* w = table->find(request.of->fd); w && w->counted) table->forget(*w);
  request.of->answered();
}
// The hub ends, and with it whatever it had on the fd.
void nothing_to_forget(detail::message& m) { static_cast<forget_request&>(m).of->answered(); }

// Somebody else has our descriptions, and what that one does to O_NONBLOCK nobody reports.
std::atomic<bool> shares_descriptions{false};

// The child of a fork has the calling thread only: no other hub would ever answer there, and the rings of those would
// keep the parent's connections open. The hub of the calling thread, if any, puts itself right (let_go).
void before_fork() {
  shares_descriptions.store(true, std::memory_order_relaxed);
  hubs_lock.acquire();
}
void after_fork_in_parent() { hubs_lock.release(); }
void after_fork_in_child() {
  for (hub_state* h : hubs)
    if (h != hub_state::here_or_null()) h->engine->abandon_after_fork();
  hubs.clear();
  hub_count.store(0, std::memory_order_relaxed);
  if (known_to) ::madvise(static_cast<void*>(known_to), counts_bytes, MADV_DONTNEED);
  hubs_lock.release();
}

void watch_forks() {
  static const int once = ::pthread_atfork(&before_fork, &after_fork_in_parent, &after_fork_in_child);
  (void)once;
}

clock::duration socket_timeout(int fd, int option) {
  timeval t{};
  socklen_t size = sizeof t;
  if (sys::call(SYS_getsockopt, fd, SOL_SOCKET, option, &t, &size) != 0 || (t.tv_sec == 0 && t.tv_usec == 0))
    return clock::duration::max();
  return std::chrono::seconds(t.tv_sec) + std::chrono::microseconds(t.tv_usec);
}
}  // namespace

fd_table& fd_table::of(hub_state& h) {
  if (__builtin_expect(h.fd_watches != nullptr, 1)) return *static_cast<fd_table*>(h.fd_watches);
  watch_forks();
  std::unique_ptr<fd_table> t(new fd_table(h));
  base::lock_guard hold(hubs_lock);
  if (!known_to) {
    void* zeros = ::mmap(nullptr, counts_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (zeros == MAP_FAILED) throw std::bad_alloc();
    known_to = static_cast<std::atomic<std::uint16_t>*>(zeros);
  }
  hubs.push_back(&h);
  h.fd_watches = t.get();
  h.let_go[0] = &let_go;
  hub_count.store(hubs.size(), std::memory_order_release);
  return *t.release();
}

void fd_table::let_go(hub_state& h) {
  auto* t = static_cast<fd_table*>(h.fd_watches);
  if (!t) return;  // let go already, and nothing waited for since (a child that forks again)
  h.fd_watches = nullptr;
  h.watched_fds = 0;
  h.look_again_at = clock::time_point::max();
  if (!h.forked) {  // else the lock is held, and all of this is forgotten at once
    {
      base::lock_guard hold(hubs_lock);
      std::erase(hubs, &h);
      hub_count.store(hubs.size(), std::memory_order_release);
    }
    h.drop_messages();  // somebody may have asked us to forget an fd until now, and waits for the answer
  }
  for (auto& p : t->pages_)
    if (p)
      for (fd_watch& w : p->entries) {
        if (!h.forked && w.counted && w.fd < counted_numbers) known_to[w.fd].fetch_sub(1, std::memory_order_acq_rel);
        for (auto& waiting : w.waiters) waiting.forget_all();
        w.operations.forget_all();
      }
  delete t;
}

fd_watch& fd_table::get(int fd) {
  const auto at = std::size_t(fd) / page_size;
  if (at >= pages_.size()) pages_.resize(std::max(at + 1, pages_.size() * 2));
  if (!pages_[at]) pages_[at] = std::make_unique<page>();
  fd_watch& w = pages_[at]->entries[std::size_t(fd) % page_size];
  if (w.fd < 0) {
    w.fd = fd;
    w.notify = &notify;
  }
  if (!w.counted) {
    w.counted = true;
    if (fd < counted_numbers) known_to[fd].fetch_add(1, std::memory_order_acq_rel);
  }
  return w;
}

fd_watch* fd_table::get_or_null(int fd) noexcept {
  try {
    return &get(fd);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

fd_watch* fd_table::get_if_open(int fd) {
  return fd >= 0 && (find(fd) || sys::call(SYS_fcntl, fd, F_GETFD) >= 0) ? &get(fd) : nullptr;
}

file_kind fd_table::kind_of(fd_watch& w) {
  if (w.kind != file_kind::unknown && knows_kind(w)) return w.kind;
  const std::uint32_t era = observed_era.load(std::memory_order_acquire);
  struct stat s;
  if (sys::call(SYS_fstat, w.fd, &s) != 0) return w.kind = file_kind::unknown;  // it may be opened yet
  w.kind_era = era;
  if (w.kind != file_kind::unknown && w.inode == s.st_ino && w.device == s.st_dev) return w.kind;
  // Closed and opened behind our back, before it ever waited here: nothing that we know is true.
  if (w.kind != file_kind::unknown) forget_facts(w);
  w.inode = s.st_ino;
  w.device = s.st_dev;
  switch (s.st_mode & S_IFMT) {
    case S_IFSOCK: {
      const auto ask = [&](int option) {
        int answer = 0;
        socklen_t size = sizeof answer;
        sys::call(SYS_getsockopt, w.fd, SOL_SOCKET, option, &answer, &size);
        return answer;
      };
      w.kind = ask(SO_TYPE) == SOCK_STREAM ? file_kind::stream : file_kind::datagram;
      if (w.kind == file_kind::stream) {
        if (ask(SO_PROTOCOL) == IPPROTO_TCP) w.tells = short_read::says_empty;
        else if (ask(SO_DOMAIN) == AF_UNIX) w.tells = short_read::says_empty_unless_ancillary;
      }
      break;
    }
    case S_IFIFO: w.kind = file_kind::pipe; break;
    case S_IFREG:
    case S_IFBLK:
    case S_IFDIR: w.kind = file_kind::regular; break;
    default: {
      w.kind = file_kind::other;
      char settings[256];  // a struct termios, the kernel's or a larger one
      w.terminal = S_ISCHR(s.st_mode) && sys::call(SYS_ioctl, w.fd, 0x5401 /* TCGETS */, settings) == 0;
      w.counter = (s.st_mode & S_IFMT) == 0 && is_eventfd(w.fd);
      break;
    }
  }
  return w.kind;
}

namespace {
bool is_nonblocking(int fd) noexcept {
  const long flags = sys::call(SYS_fcntl, fd, F_GETFL);
  return flags >= 0 && (flags & O_NONBLOCK);
}
}  // namespace

void fd_table::refresh(fd_watch& w) {
  const std::uint32_t epoch = facts_epoch.load(std::memory_order_acquire);
  const file_kind kind = kind_of(w);
  const bool socket = kind == file_kind::stream || kind == file_kind::datagram;
  // Pipes and terminals are shared with processes whose changes nobody reports: always asked.
  const bool known = epoch != 0 && w.facts_epoch == epoch && socket;
  constexpr int standard_streams = 3;  // a parent has them, too
  if (known && w.fd >= standard_streams && !shares_descriptions.load(std::memory_order_relaxed)) return;
  w.nonblocking = is_nonblocking(w.fd);
  // It may be set for the length of another hub's call only.
  if (w.nonblocking && socket && !hub_.engine->waits_for_sockets() &&
      (hub_count.load(std::memory_order_relaxed) > 1 || flag_turn::is_shared())) {
    const flag_turn nobody_sets_it;
    w.nonblocking = is_nonblocking(w.fd);
  }
  if (known) return;
  // Nothing else has any; the number may have been a socket's before.
  w.timeouts[0] = socket ? socket_timeout(w.fd, SO_RCVTIMEO) : clock::duration::max();
  w.timeouts[1] = socket ? socket_timeout(w.fd, SO_SNDTIMEO) : clock::duration::max();
  w.facts_epoch = epoch;
}

int fd_table::arm(fd_watch& w, direction d) {
  if (w.unpollable) return -EPERM;
  if (w.is_armed(d)) return 0;
  const bool first = w.armed == 0;
  const int failed = hub_.engine->arm(w, d);
  if (failed == -EPERM) w.unpollable = true;
  if (failed == 0 && first) ++hub_.watched_fds;
  return failed;
}

void fd_table::notify(loop::readiness& r, unsigned events) {
  auto& w = static_cast<fd_watch&>(r);
  constexpr unsigned bad = POLLHUP | POLLERR | POLLNVAL;
  if (w.armed == 0 && hub_state::here().watched_fds > 0) --hub_state::here().watched_fds;
  if (events & (bad | POLLRDHUP)) w.hung_up = true;
  if (events & POLLPRI) w.misleads = true;
  if (events & (POLLIN | POLLPRI | POLLRDHUP | bad)) {
    if (__builtin_expect(w.suspected, 0)) {
      w.suspected = false;
      w.doubt_link::unlink();
    }
    w.set_ready(direction::in);
    wake_next(w, direction::in);
  }
  if (events & (POLLOUT | bad)) {
    w.set_ready(direction::out);
    wake_next(w, direction::out);
  }
}

// All who only look, and the first of those who take; everybody when there is nothing to take but an end or an error.
void fd_table::wake_next(fd_watch& w, direction d) {
  bool taker_woken = false;
  w.waiters[unsigned(d)].for_each([&](waiter& parked) {
    auto& f = static_cast<fd_waiter&>(parked);
    if (f.exclusive && taker_woken && !w.hung_up) return;
    taker_woken |= f.exclusive;
    f.unlink();
    f.end();
  });
}

void fd_table::forget(fd_watch& w) {
  ++w.generation;
  w.doubt_link::unlink();
  w.suspected = false;
  if (w.armed) {
    hub_.engine->disarm(w);
    if (hub_.watched_fds > 0) --hub_.watched_fds;
  }
  for (auto& waiting : w.waiters)
    while (waiter* parked = waiting.pop_front()) {
      auto& f = static_cast<fd_waiter&>(*parked);
      f.closed = true;
      f.end();
    }
  w.operations.for_each([&](waiter& o) {
    auto& op = static_cast<operation_waiter&>(o);
    op.closed = true;
    if (!op.done) hub_.engine->settle(op, op.waits_for_a_peer);
  });
  if (w.counted && w.fd < counted_numbers) known_to[w.fd].fetch_sub(1, std::memory_order_acq_rel);
  w.counted = false;
  forget_facts(w);
}

void fd_table::forget_facts(fd_watch& w) {
  w.kind = file_kind::unknown;
  w.tells = short_read::says_nothing;
  w.ready = 3;
  w.no_nowait = 0;
  w.hung_up = w.misleads = w.unpollable = w.terminal = w.counter = w.position_taken = false;
  w.facts_epoch = 0;
}

// --- doors -----------------------------------------------------------------------------------------------------------

namespace {
thread_local bool adopted = false;
thread_local bool in_vfork_child = false;
}  // namespace

bool may_suspend() noexcept {
  hub_state* h = hub_state::here_or_null();
  if (__builtin_expect(h != nullptr, 1)) return h->can_park() && !in_vfork_child;
  return adopted && !in_vfork_child;
}

void adopt_thread() noexcept { adopted = true; }
void entered_vfork_child() noexcept {
  in_vfork_child = true;
  shares_descriptions.store(true, std::memory_order_relaxed);
}
void left_vfork_child() noexcept { in_vfork_child = false; }
bool is_vfork_child() noexcept { return in_vfork_child; }

void observe_descriptors(bool reported) noexcept {
  // What was remembered before a time in which nobody reported must not seem true after it.
  static std::atomic<std::uint32_t> last_epoch{0}, last_era{0};
  watch_forks();
  if (const std::uint32_t epoch = facts_epoch.load(std::memory_order_acquire)) last_epoch.store(epoch);
  observed_era.store(reported ? last_era.fetch_add(1) + 1 : 0, std::memory_order_release);
  facts_epoch.store(reported ? last_epoch.load() + 1 : 0, std::memory_order_release);
}

void fd_changed(int) noexcept {
  std::uint32_t epoch = facts_epoch.load(std::memory_order_acquire);
  while (epoch != 0 && !facts_epoch.compare_exchange_weak(epoch, epoch + 1 == 0 ? 1 : epoch + 1, std::memory_order_acq_rel)) {
  }
}

void fd_opened(int fd) noexcept { fd_closing(fd); }

void fd_closing(int fd) noexcept {
  if (fd < 0 || hub_count.load(std::memory_order_acquire) == 0) return;
  if (fd < counted_numbers && known_to[fd].load(std::memory_order_acquire) == 0) return;
  if (in_vfork_child) return;
  hub_state* own = hub_state::here_or_null();
  if (own && own->process != int(sys::call(SYS_getpid))) return;
  if (own && own->fd_watches) {
    fd_watch* w = fd_table::of(*own).find(fd);
    if (w && w->counted) fd_table::of(*own).forget(*w);
  }
  if (fd < counted_numbers && known_to[fd].load(std::memory_order_acquire) == 0) return;
  if (hub_count.load(std::memory_order_acquire) == (own && own->fd_watches ? 1u : 0u)) return;

  // Other hubs: each is asked and answers from its own turn. One whose thread is kept busy, or waits in the kernel for
  // this very thread, must not keep us for ever: after a second we go on, and it forgets the fd when it comes to it.
  auto* f = new (std::nothrow) farewell;
  if (!f) return;
  f->fd = fd;
  {
    base::lock_guard hold(hubs_lock);
    f->requests.reset(new (std::nothrow) forget_request[hubs.size()]);
    std::size_t asked = 0;
    for (hub_state* h : hubs) {
      if (h == own || !f->requests) continue;
      forget_request& r = f->requests[asked++];
      r.asked = h;
      r.of = f;
      r.deliver = &forget_here;
      r.drop = &nothing_to_forget;
      f->left.fetch_add(1, std::memory_order_relaxed);
      f->holders.fetch_add(1, std::memory_order_relaxed);
      h->send(r);
    }
  }
  for (int patience = 100; patience > 0; --patience) {
    const std::uint32_t still = f->left.load(std::memory_order_acquire);
    if (still == 0) break;
    const timespec pause{0, 10'000'000};
    sys::call(SYS_futex, &f->left, 0 /* FUTEX_WAIT */, still, &pause);
    // Two hubs that close at the same time would wait for each other: answer while we wait.
    if (own) own->deliver_messages();
  }
  f->drop();
}

}  // namespace ringlet::io
