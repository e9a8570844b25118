// The default engine: one ring a hub, one io_uring_enter a turn, which submits, sleeps to the earliest deadline, and
// brings back what happened.
//
// Readiness is a persistent multishot edge-triggered poll, armed once per fd and direction; the calls themselves are
// made directly on the fd by io/. That was the cheapest of nine designs measured (0.91 of epoll for a blocking
// receive; a receive operation on the ring costs 1.16 to 1.32), leaves no kernel write under way into a fiber's stack,
// and keeps the exact semantics of the system calls. Ring operations serve where the completion itself is the point.
//
// user_data is a pointer and, in its three low bits, what the pointer is (see tag). The ring is made on the thread
// that uses it (SINGLE_ISSUER) and only wake() is called from elsewhere.
//
// liburing makes and unmakes the ring; entering is ours, because one place must decide what a refused submission, an
// overflown completion queue or an interrupted sleep means. Only liburing 2.3's fields and functions are used.
//
// Always true: whatever is queued in the SQ is submitted before anything is delivered, so a cancel can only meet the
// operation it was meant for. Delivery happens inside wait() and disarm() only; completions that had to be taken out
// of the ring elsewhere (to make the kernel accept more) rest in backlog_ in their order.

#include <liburing.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <poll.h>
#include <stdexcept>
#include <vector>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "loop/clock.hpp"
#include "loop/engine.hpp"
#include "loop/refusal.hpp"
#include "loop/wakeup.hpp"

namespace ringlet::loop {
namespace {

enum tag : std::uint64_t {
  of_operation,     // completion*
  of_in,            // readiness*: an event of the multishot poll for reading
  of_out,           // readiness*: … for writing
  of_in_removal,    // readiness*: the answer to POLL_REMOVE
  of_out_removal,
  of_wakeup,        // the eventfd's poll
  of_nobody,        // answers that tell nothing: to ASYNC_CANCEL
};
constexpr std::uint64_t tag_mask = 7;
static_assert(alignof(readiness) >= 8 && alignof(completion) >= 8, "the tag needs three free bits");

constexpr unsigned in_events = POLLIN | POLLPRI | POLLRDHUP;
constexpr unsigned out_events = POLLOUT;

// readiness::leaving, per direction: what disarm still waits for.
constexpr unsigned final_event(unsigned d) { return 1u << d; }    // the poll's last completion
constexpr unsigned answer(unsigned d) { return 4u << d; }         // that of POLL_REMOVE
constexpr unsigned ask_again(unsigned d) { return 16u << d; }     // the poll was busy with an event: EALREADY

constexpr unsigned default_sq_entries = 256;    // with CQ 1024: what a 64 KiB RLIMIT_MEMLOCK just allows
constexpr unsigned fewest_sq_entries = 8;       // ENOMEM halves down to here
constexpr unsigned cq_per_sq = 4;

struct attempt {
  unsigned flags;
  const char* words;
};
// Best first; each kernel that does not know a flag answers EINVAL.
constexpr attempt attempts[] = {
    {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
     "SINGLE_ISSUER|DEFER_TASKRUN|TASKRUN_FLAG|SUBMIT_ALL"},
    {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL, "COOP_TASKRUN|TASKRUN_FLAG|SUBMIT_ALL"},
    {0, "no flags"},
};

__kernel_timespec timespec_of(clock::duration d) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(d);
  return {seconds.count(), (d - seconds).count()};
}
constexpr auto short_pause = std::chrono::milliseconds(1);

class uring_engine final : public engine {
 public:
  // Sets up the ring; false and the refusal if it cannot be used.
  bool set_up(refusal&);
  ~uring_engine() override;

  std::string_view name() const override { return "uring"; }
  std::string describe() const override;

  int arm(readiness&, direction) override;
  void disarm(readiness&) override;
  void start(const operation&, completion&) override;
  void cancel(completion&) override;
  unsigned operations_in_flight() const override { return operations_; }
  bool waits_for_sockets() const override { return true; }
  void wait(clock::time_point until) override;
  bool has_news() const override {
    return backlog_next_ < backlog_.size() || io_uring_cq_ready(&ring_) || kernel_has_work() || wakeup_.is_pending();
  }
  void wake() noexcept override { wakeup_.signal(); }
  clock::time_point now() const noexcept override { return real_now(); }
  void abandon_after_fork() noexcept override;

 private:
  struct event {
    std::uint64_t user_data;
    int result;
    unsigned flags;
  };

  int make_ring(unsigned entries);
  bool multishot_poll_works(refusal&);

  // Work that only an enter can turn into completions: deferred task work, or completions the CQ had no room for.
  bool kernel_has_work() const {
    return IO_URING_READ_ONCE(*ring_.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
  }
  int enter(unsigned to_submit, unsigned min_complete, unsigned flags, const __kernel_timespec* timeout);
  unsigned publish_queued();
  void after_enter(long result);
  void pause_for_kernel();
  bool submit_all();
  io_uring_sqe* next_sqe();

  void queue_removal(readiness&, unsigned d);
  void arm_wakeup();

  bool take(event&);
  void stash();
  bool next_event(event&);
  void deliver_all();
  void deliver(const event&);
  void deliver_readiness(readiness&, unsigned d, const event&);

  io_uring ring_{};
  bool have_ring_ = false;
  unsigned enter_flags_ = 0;
  unsigned operations_ = 0;
  const char* setup_words_ = "";
  wakeup wakeup_;
  std::vector<event> backlog_;
  std::size_t backlog_next_ = 0;
};

// ---- making the ring

int uring_engine::make_ring(unsigned entries) {
  int error = EINVAL;
  for (const attempt& a : attempts) {
    for (unsigned n = entries;; n /= 2) {
      io_uring_params params{};
      params.flags = a.flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
      params.cq_entries = n * cq_per_sq;
      error = -io_uring_queue_init_params(n, &ring_, &params);
      if (error == 0) {
        have_ring_ = true;
        setup_words_ = a.words;
        return 0;
      }
      if (error != ENOMEM || n / 2 < fewest_sq_entries) break;
    }
    if (error != EINVAL) break;
  }
  return error;
}

bool uring_engine::set_up(refusal& why) {
  const unsigned entries = number_from_environment("RINGLET_RING_ENTRIES", 1, 32768).value_or(default_sq_entries);
  int error = make_ring(entries);
  // The kernel takes closed rings down (and gives their memory back to the limit) a little later.
  for (int again = 0; error == ENOMEM && again < 5; ++again) {
    const timespec moment{0, 10'000'000};
    sys::call(SYS_nanosleep, &moment, nullptr);
    error = make_ring(entries);
  }
  if (error != 0) {
    why = diagnose("io_uring_setup", error);
    return false;
  }
  const char* missing = !(ring_.features & IORING_FEAT_EXT_ARG)  ? "waiting with a timeout (EXT_ARG, Linux 5.11)"
                        : !(ring_.features & IORING_FEAT_NODROP) ? "keeping completions that overflow (NODROP, Linux 5.5)"
                                                                 : nullptr;
  if (missing) {
    why = {std::string("this kernel's io_uring lacks ") + missing, "Use Linux 5.13 or newer, or RINGLET_ENGINE=epoll."};
    return false;
  }
  // The SQ's indirection is the identity for ever. Newer liburings make rings without it (NO_SQARRAY).
  if (ring_.sq.array)
    for (unsigned i = 0; i < ring_.sq.ring_entries; ++i) ring_.sq.array[i] = i;
  // A child that keeps the ring alive keeps our sockets alive after we are gone.
  io_uring_ring_dontfork(&ring_);
  if (io_uring_register_ring_fd(&ring_) == 1) enter_flags_ |= IORING_ENTER_REGISTERED_RING;  // 118 ns an enter, not 149
  unsigned most_workers[2] = {8, 64};  // bounded (regular files), unbounded; the default is RLIMIT_NPROC
  io_uring_register_iowq_max_workers(&ring_, most_workers);

  error = -wakeup_.open();
  if (error != 0) {
    why = diagnose("eventfd", error);
    return false;
  }
  return multishot_poll_works(why);
}

// Proven on the wake-up's own eventfd, which stays armed: two writes without a read must give two events.
bool uring_engine::multishot_poll_works(refusal& why) {
  arm_wakeup();
  for (int round = 0; round < 2; ++round) {
    wakeup_.ring_bell();
    const __kernel_timespec second{1, 0};
    const int entered = enter(publish_queued(), 1, IORING_ENTER_GETEVENTS, &second);
    event e{};
    if (entered < 0 && entered != -EINTR && entered != -ETIME) {
      why = diagnose("io_uring_enter", -entered);
      return false;
    }
    if (!take(e) || e.user_data != of_wakeup || e.result <= 0 || !(e.flags & IORING_CQE_F_MORE)) {
      why = {"this kernel's io_uring has no working multishot poll (Linux 5.13)", "Use a newer kernel, or RINGLET_ENGINE=epoll."};
      return false;
    }
  }
  return true;
}

void uring_engine::arm_wakeup() {
  io_uring_sqe* sqe = next_sqe();
  RINGLET_ASSERT(sqe, "the kernel accepts no submission, so nobody could wake this hub");
  io_uring_prep_poll_multishot(sqe, wakeup_.fd(), POLLIN);
  sqe->user_data = of_wakeup;
}

uring_engine::~uring_engine() {
  if (!have_ring_) return;
  // Whoever destroys us with operations under way has lost interest in their results, but their buffers may be about
  // to go. Those that cannot be cancelled within a second (a worker in a dead NFS) are left: better than no exit.
  const auto give_up = now() + std::chrono::seconds(1);
  const __kernel_timespec pause = timespec_of(short_pause);
  for (bool asked = false; operations_ > 0 && now() < give_up; asked = true) {
    if (io_uring_sqe* sqe = asked ? nullptr : next_sqe()) {
      io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
      sqe->user_data = of_nobody;
    }
    enter(publish_queued(), 1, IORING_ENTER_GETEVENTS, &pause);
    for (event e; take(e);)
      if ((e.user_data & tag_mask) == of_operation) --operations_;
  }
  io_uring_queue_exit(&ring_);
}

void uring_engine::abandon_after_fork() noexcept {
  // The ring's memory is not mapped here (dontfork), and unmapping by its addresses could hit what replaced it.
  sys::call(SYS_close, ring_.ring_fd);
  have_ring_ = false;
  wakeup_.close();
  operations_ = 0;
}

std::string uring_engine::describe() const {
  return std::string("uring: ") + setup_words_ + ", SQ " + std::to_string(ring_.sq.ring_entries) + ", CQ " +
         std::to_string(ring_.cq.ring_entries) + (enter_flags_ & IORING_ENTER_REGISTERED_RING ? ", registered ring fd" : "");
}

// ---- entering the kernel

int uring_engine::enter(unsigned to_submit, unsigned min_complete, unsigned flags, const __kernel_timespec* timeout) {
  io_uring_getevents_arg arg{};
  arg.ts = reinterpret_cast<std::uint64_t>(timeout);
  flags |= enter_flags_;
  if (!(flags & IORING_ENTER_GETEVENTS))
    return int(sys::call(SYS_io_uring_enter, ring_.enter_ring_fd, to_submit, min_complete, flags, nullptr, 0));
  return int(sys::call(SYS_io_uring_enter, ring_.enter_ring_fd, to_submit, min_complete, flags | IORING_ENTER_EXT_ARG, &arg,
                       sizeof arg));
}

// Shows the kernel what was queued; how many it has not taken yet.
unsigned uring_engine::publish_queued() {
  io_uring_sq& sq = ring_.sq;
  sq.sqe_head = sq.sqe_tail;
  io_uring_smp_store_release(sq.ktail, sq.sqe_tail);
  return sq.sqe_tail - io_uring_smp_load_acquire(sq.khead);
}

// The one place that knows what an enter may answer.
void uring_engine::after_enter(long result) {
  switch (result) {
    default:
      RINGLET_ASSERT(result >= 0, "io_uring_enter failed in a way that cannot happen: the ring's fd was closed, or another thread entered it");
      break;
    case -ETIME:  // slept to the end
      break;
    case -EINTR:  // a signal: the hub looks what it wants to do next
      signal_seen = true;
      break;
    case -EBUSY:   // the CQ has overflown; the kernel takes nothing more until there is room
    case -EAGAIN:  // no memory for requests just now
    case -ENOMEM:
      pause_for_kernel();
      break;
    case -EBADR:
      RINGLET_ASSERT(false, "the kernel had no memory to keep an overflown completion, so some wait would never end");
      break;
  }
}

// Gives the kernel room and a moment, submitting nothing.
void uring_engine::pause_for_kernel() {
  stash();
  const __kernel_timespec pause = timespec_of(short_pause);
  enter(0, 1, IORING_ENTER_GETEVENTS, &pause);
  stash();
}

// False if the kernel refuses for ten seconds on end.
bool uring_engine::submit_all() {
  for (int refusals = 0; refusals < 10'000;) {
    const unsigned queued = publish_queued();
    if (queued == 0) return true;
    const int result = enter(queued, 0, 0, nullptr);
    if (result > 0 || result == -EINTR) continue;
    after_enter(result);
    ++refusals;
  }
  return false;
}

io_uring_sqe* uring_engine::next_sqe() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (!sqe && submit_all()) sqe = io_uring_get_sqe(&ring_);
  return sqe;
}

void uring_engine::wait(clock::time_point until) {
  bool sleep = until != clock::time_point::min() && backlog_next_ == backlog_.size() && !kernel_has_work() && !io_uring_cq_ready(&ring_);
  __kernel_timespec left{};
  const bool has_end = until != clock::time_point::max();
  if (sleep && has_end) {
    const auto remaining = until - now();
    sleep = remaining > clock::duration::zero();
    left = timespec_of(remaining);
  }
  sleep = sleep && wakeup_.try_sleep();

  const unsigned queued = publish_queued();
  if (sleep || queued || kernel_has_work())
    after_enter(enter(queued, sleep ? 1 : 0, IORING_ENTER_GETEVENTS, sleep && has_end ? &left : nullptr));
  wakeup_.awoke();
  deliver_all();

  // What had overflown comes into the room we just made. Bounded: the rest is has_news().
  for (int round = 0; round < 16 && (IO_URING_READ_ONCE(*ring_.sq.kflags) & IORING_SQ_CQ_OVERFLOW); ++round) {
    after_enter(enter(publish_queued(), 0, IORING_ENTER_GETEVENTS, nullptr));
    deliver_all();
  }
}

// ---- readiness

int uring_engine::arm(readiness& r, direction where) {
  const unsigned d = unsigned(where);
  RINGLET_ASSERT(!r.is_armed(where), "a readiness is armed twice in one direction");
  RINGLET_ASSERT(!(r.leaving & (final_event(d) | answer(d))), "a readiness is armed while it is being disarmed");
  if (r.fd < 0) return -EBADF;
  io_uring_sqe* sqe = next_sqe();
  if (!sqe) return -ENOMEM;
  io_uring_prep_poll_multishot(sqe, r.fd, (where == direction::in ? in_events : out_events) | EPOLLET);
  sqe->user_data = reinterpret_cast<std::uint64_t>(&r) | (where == direction::in ? of_in : of_out);
  r.armed |= std::uint8_t(1u << d);
  return 0;
}

void uring_engine::queue_removal(readiness& r, unsigned d) {
  io_uring_sqe* sqe = next_sqe();
  RINGLET_ASSERT(sqe, "the kernel accepts no submission, so a poll cannot be removed");
  const auto address = reinterpret_cast<std::uint64_t>(&r);
  io_uring_prep_poll_remove(sqe, address | (d == 0 ? of_in : of_out));
  sqe->user_data = address | (d == 0 ? of_in_removal : of_out_removal);
  r.leaving = std::uint8_t((r.leaving & ~ask_again(d)) | answer(d));
}

// An armed poll holds the file: close() would not even send the FIN. So this returns only when both the poll's last
// event and the answer to its removal are here; nothing of the kernel's points at the readiness afterwards.
void uring_engine::disarm(readiness& r) {
  for (unsigned d = 0; d < 2; ++d) {
    if (!(r.armed & (1u << d))) continue;
    r.leaving |= std::uint8_t(final_event(d));
    queue_removal(r, d);
  }
  const __kernel_timespec pause = timespec_of(short_pause);
  for (int round = 0; r.leaving; ++round) {
    RINGLET_ASSERT(round < 10'000, "the kernel does not let go of a poll that was removed");
    for (unsigned d = 0; d < 2; ++d)
      if (r.leaving & ask_again(d)) queue_removal(r, d);
    after_enter(enter(publish_queued(), 1, IORING_ENTER_GETEVENTS, &pause));
    deliver_all();
  }
}

void uring_engine::deliver_readiness(readiness& r, unsigned d, const event& e) {
  const bool last = !(e.flags & IORING_CQE_F_MORE);
  if (last) r.armed &= std::uint8_t(~(1u << d));
  if (r.leaving & final_event(d)) {  // an event that comes while it is disarmed is nobody's any more
    if (last) r.leaving &= std::uint8_t(~(final_event(d) | ask_again(d)));
    return;
  }
  // Un-armed by an overflow or an error still notifies: the waiter tries again, learns the truth from its own call,
  // and arms again if it has to.
  unsigned events = unsigned(e.result);
  if (e.result <= 0) events = (d == 0 ? POLLIN : POLLOUT) | (e.result == -EBADF ? POLLNVAL : e.result < 0 ? POLLERR : 0);
  r.notify(r, events);
}

// ---- operations

void uring_engine::start(const operation& op, completion& c) {
  c.done = false;
  ++operations_;
  const auto user_data = reinterpret_cast<std::uint64_t>(&c) | of_operation;
  io_uring_sqe* sqe = next_sqe();
  if (!sqe) {
    backlog_.push_back(event{user_data, -ENOMEM, 0});
    return;
  }
  const auto offset = std::uint64_t(op.offset);
  // One part needs no vector to be copied in; what one call can move at most fits the length's 32 bits.
  const unsigned length = op.count == 1 ? unsigned(std::min<std::size_t>(op.parts->iov_len, 0x7ffff000)) : 0;
  switch (op.code) {
    case opcode::nop:
      io_uring_prep_nop(sqe);
      break;
    case opcode::readv:
      if (op.count == 1)
        io_uring_prep_read(sqe, op.fd, op.parts->iov_base, length, offset);
      else
        io_uring_prep_readv(sqe, op.fd, op.parts, op.count, offset);
      sqe->rw_flags = op.flags;
      break;
    case opcode::writev:
      if (op.count == 1)
        io_uring_prep_write(sqe, op.fd, op.parts->iov_base, length, offset);
      else
        io_uring_prep_writev(sqe, op.fd, op.parts, op.count, offset);
      sqe->rw_flags = op.flags;
      break;
    case opcode::fsync:
      io_uring_prep_fsync(sqe, op.fd, 0);
      break;
    case opcode::fdatasync:
      io_uring_prep_fsync(sqe, op.fd, IORING_FSYNC_DATASYNC);
      break;
    case opcode::openat:
      io_uring_prep_openat(sqe, op.fd, op.path, op.flags, op.mode);
      break;
    case opcode::accept:
      io_uring_prep_accept(sqe, op.fd, op.address, op.address_length, op.flags);
      break;
    case opcode::connect:
      io_uring_prep_connect(sqe, op.fd, op.address, *op.address_length);
      break;
  }
  sqe->user_data = user_data;
}

void uring_engine::cancel(completion& c) {
  if (c.done) return;
  io_uring_sqe* sqe = next_sqe();
  if (!sqe) return;  // the completion arrives all the same, only later
  io_uring_prep_cancel64(sqe, reinterpret_cast<std::uint64_t>(&c) | of_operation, 0);
  sqe->user_data = of_nobody;
}

// ---- delivering

bool uring_engine::take(event& e) {
  io_uring_cq& cq = ring_.cq;
  const unsigned head = *cq.khead;
  if (head == io_uring_smp_load_acquire(cq.ktail)) return false;
  const io_uring_cqe& cqe = cq.cqes[head & cq.ring_mask];
  e = event{cqe.user_data, cqe.res, cqe.flags};
  io_uring_smp_store_release(cq.khead, head + 1);  // given back before delivery: what is delivered may enter again
  return true;
}

void uring_engine::stash() {
  for (event e; take(e);) backlog_.push_back(e);
}

// Bounded by what was there at the start: a callback that starts operations cannot keep the hub here.
void uring_engine::deliver_all() {
  std::size_t most = backlog_.size() - backlog_next_ + io_uring_cq_ready(&ring_);
  for (event e; most > 0 && next_event(e); --most) deliver(e);
}

bool uring_engine::next_event(event& e) {
  if (backlog_next_ == backlog_.size()) return take(e);
  e = backlog_[backlog_next_++];
  if (backlog_next_ == backlog_.size()) {
    backlog_.clear();
    backlog_next_ = 0;
  }
  return true;
}

void uring_engine::deliver(const event& e) {
  const auto pointer = e.user_data & ~tag_mask;
  switch (tag(e.user_data & tag_mask)) {
    case of_operation: {
      auto& c = *reinterpret_cast<completion*>(pointer);
      --operations_;
      c.result = e.result;
      c.done = true;
      c.wake(c);
      break;
    }
    case of_in:
    case of_out:
      deliver_readiness(*reinterpret_cast<readiness*>(pointer), (e.user_data & tag_mask) == of_in ? 0 : 1, e);
      break;
    case of_in_removal:
    case of_out_removal: {
      auto& r = *reinterpret_cast<readiness*>(pointer);
      const unsigned d = (e.user_data & tag_mask) == of_in_removal ? 0 : 1;
      r.leaving &= std::uint8_t(~answer(d));
      if (e.result == -EALREADY && (r.leaving & final_event(d))) r.leaving |= std::uint8_t(ask_again(d));
      break;
    }
    case of_wakeup:
      if (!(e.flags & IORING_CQE_F_MORE)) {  // ended by an overflow; an unread counter makes the new one tell at once
        std::uint64_t count;
        sys::call(SYS_read, wakeup_.fd(), &count, sizeof count);
        arm_wakeup();
      }
      break;
    case of_nobody:
      break;
  }
}

}  // namespace

std::unique_ptr<engine> set_up_uring_engine(refusal& why) {
  auto made = std::make_unique<uring_engine>();
  if (!made->set_up(why)) return nullptr;
  return made;
}

}  // namespace ringlet::loop
