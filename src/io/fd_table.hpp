#pragma once
// What a hub knows of an fd: its readiness, who waits for it, and the few facts that decide how a call waits.
//
// The facts (kind, O_NONBLOCK, SO_RCVTIMEO, SO_SNDTIMEO) are the kernel's: asked when a call is about to park, never kept
// as our own truth. They are remembered only while the hooks report every change (observe_descriptors), and all at once
// forgotten when one is changed, because duplicates share them. The kind is remembered, too, while the kernel holds
// something of ours on the file, since such a number must be closed through us.
//
// Per hub, pages of entries by fd number that never move: the engine points at them while a poll is armed. An entry is
// reset when its number is closed or handed out anew; its generation tells a fiber that was already woken so that the
// number now means another file.
//
// Always true: a ready bit that is clear while its direction is armed means that a try would say EAGAIN, that news are on
// their way, or that somebody looks again soon (doubt); so a call that would wait may park without trying. One that would
// not wait has to try.

#include <cstdint>
#include <memory>
#include <vector>

#include "hub/hub.hpp"
#include "loop/engine.hpp"

namespace ringlet::io {

using detail::hub_state;
using detail::wake_reason;
using detail::waiter;
using loop::direction;

// datagram: all sockets that keep boundaries.
enum class file_kind : std::uint8_t { unknown, stream, datagram, pipe, regular, other };

// What a read that got less than it asked for says. TCP gives all there is. A unix stream stops behind passed descriptors
// and between writers whose credentials differ; ancillary data tell of both, if there is room for them. A pipe may hold
// packets (O_DIRECT is the writer's flag), an SCTP stream messages: there it says nothing.
enum class short_read : std::uint8_t { says_nothing, says_empty, says_empty_unless_ancillary };

// Somebody parked on one direction of one fd. Exclusive ones try when woken and pass the readiness on if any is left;
// the others (poll) only look.
struct fd_waiter : waiter {
  void end() {
    waiter& who = stands_for ? *stands_for : *this;
    if (who.reason == wake_reason::none) who.fiber->hub->wake(who);
  }
  bool exclusive = true;
  bool closed = false;            // woken because the fd is being closed
  waiter* stands_for = nullptr;   // poll: the one waiter behind several of these
};

// An operation of the engine on an fd, and the fiber that waits for it.
struct operation_waiter : loop::completion, waiter {
  hub_state* hub = nullptr;
  bool waits_for_a_peer = false;  // accept, connect: nobody knows how long
  bool accepts = false;
  bool closed = false;            // the fd is being closed
  bool asked_again = false;       // cancelled only to be started anew
};

struct doubt_link : base::list_link {};

struct fd_watch : loop::readiness, doubt_link {
  file_kind kind = file_kind::unknown;
  std::uint8_t ready = 3;        // bit per direction: a try may succeed
  bool hung_up = false;          // HUP, RDHUP or ERR was seen: a short read is no sign of emptiness
  bool reads_end = false;        // during one attempt on a datagram socket shut down for reading (attempt_at_end)
  bool misleads = false;         // so it is near out-of-band data, or there was more after a short read
  bool unpollable = false;       // the engine said EPERM: always ready
  bool counted = false;          // in the process-wide count of hubs that know this number
  std::uint8_t no_nowait = 0;    // bit per direction: RWF_NOWAIT is not known to this kind of file
  bool suspected = false;        // not empty at the second look, and no news yet
  bool terminal = false;         // takes part of a write and then waits, whatever poll says
  bool counter = false;          // an eventfd: has room for 1, says poll, and waits for more inside the call
  bool position_taken = false;   // a regular file: somebody's read at the file's own position is under way
  short_read tells = short_read::says_nothing;
  std::uint32_t generation = 0;  // changes when the number comes to mean another file
  std::uint32_t kind_era = 0;    // 0: asked while nobody reported changes
  std::uint64_t inode = 0, device = 0;  // of which the kind is known
  std::uint32_t facts_epoch = 0;  // 0: not asked
  bool nonblocking = false;
  clock::duration timeouts[2] = {clock::duration::max(), clock::duration::max()};  // SO_RCVTIMEO, SO_SNDTIMEO
  base::intrusive_list<waiter> waiters[2];
  base::intrusive_list<waiter> operations;  // operation_waiters under way

  bool maybe_ready(direction d) const { return ready & (1u << unsigned(d)); }
  bool knows_no_nowait(direction d) const { return no_nowait & (1u << unsigned(d)); }
  void set_ready(direction d) { ready |= std::uint8_t(1u << unsigned(d)); }
  void clear_ready(direction d) { ready &= std::uint8_t(~(1u << unsigned(d))); }
};

// Counts the times that somebody began to report changes; 0 while nobody does.
extern std::atomic<std::uint32_t> observed_era;

class fd_table {
 public:
  static fd_table& of(hub_state&);
  static fd_table* of_or_null(hub_state& h) { return static_cast<fd_table*>(h.fd_watches); }

  // What this thread's hub knows of the number, or null; allocates nothing.
  static fd_watch* find_here(int fd) noexcept {
    hub_state* h = hub_state::here_or_null();
    fd_table* t = h ? of_or_null(*h) : nullptr;
    return t ? t->find(fd) : nullptr;
  }
  fd_watch* find(int fd) noexcept {
    const auto page = std::size_t(unsigned(fd)) / page_size;
    return fd >= 0 && page < pages_.size() && pages_[page] ? &pages_[page]->entries[unsigned(fd) % page_size] : nullptr;
  }
  fd_watch& get(int fd);  // fd >= 0; std::bad_alloc
  fd_watch* get_or_null(int fd) noexcept;  // null where there is no memory
  fd_watch* get_if_open(int fd);  // null, and no memory, for a number that means nothing
  file_kind kind_of(fd_watch&);
  // Its kind, if it has one, is still true.
  static bool knows_kind(const fd_watch& w) {
    const std::uint32_t era = observed_era.load(std::memory_order_acquire);
    return w.armed || !w.operations.empty() || (era != 0 && w.kind_era == era);
  }
  // Asks the kernel for O_NONBLOCK and the timeouts, unless what is remembered still holds.
  void refresh(fd_watch&);
  // Watches the direction if it is not watched. 0, or what the engine says.
  int arm(fd_watch&, direction);
  // The number is to mean another file, or none: waiters get EBADF, polls and operations that wait leave the kernel.
  void forget(fd_watch&);
  static void wake_next(fd_watch&, direction);
  // A short read says that nothing is left, which is not certain (second_look.cpp).
  void doubt(fd_watch&);

 private:
  explicit fd_table(hub_state& h) : hub_(h) {}
  static void notify(loop::readiness&, unsigned events);
  void forget_facts(fd_watch&);
  static void let_go(hub_state&);
  void look_again();
  void ask_doubted();
  void end_suspicions();
  static bool still_waits(fd_watch&);
  static constexpr std::size_t page_size = 64;
  struct page {
    fd_watch entries[page_size];
  };
  hub_state& hub_;
  std::vector<std::unique_ptr<page>> pages_;
  base::intrusive_list<fd_watch, doubt_link> doubted_, suspected_;
  clock::time_point look_at_doubted_{}, look_at_suspected_{};
};

// Facts of all fds are asked anew when this moves; 0 while nobody reports changes (then they are never remembered).
extern std::atomic<std::uint32_t> facts_epoch;

}  // namespace ringlet::io
