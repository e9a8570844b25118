// The default engine: one ring a hub, one io_uring_enter a turn, which submits, sleeps to the earliest deadline, and
// brings back what happened.
//
// Readiness is a persistent multishot edge-triggered poll, armed once per fd and direction; the calls themselves are
// made directly on the fd by io/. That was the cheapest of nine designs measured (0.91 of epoll for a blocking
// receive; a receive operation on the ring costs 1.16 to 1.32), leaves no kernel write under way into a fiber's stack,
// and keeps the exact semantics of the system calls. Ring operations serve where the completion itself is the point.
//
// user_data is a pointer and, in its three low bits, what the pointer is (see tag). The ring is made on the thread
// that uses it, and only wake() is called from elsewhere.
//
// Always true: what is queued has been submitted before a turn delivers, so a cancel can only meet the operation it
// was meant for. Delivery happens inside wait() and disarm() only.

#include <poll.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include <algorithm>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "loop/clock.hpp"
#include "loop/engine.hpp"
#include "loop/refusal.hpp"
#include "loop/ring.hpp"
#include "loop/ring_operation.hpp"
#include "loop/wakeup.hpp"

namespace ringlet::loop {
namespace {

using event = ring::event;

enum tag : std::uint64_t {
  of_operation,    // completion*
  of_in,           // readiness*: an event of the multishot poll for reading
  of_out,          // readiness*: … for writing
  of_in_removal,   // readiness*: the answer to POLL_REMOVE
  of_out_removal,  //
  of_wakeup,       // the eventfd's poll
  of_nobody,       // answers that tell nothing: to ASYNC_CANCEL
};
constexpr std::uint64_t tag_mask = 7;
static_assert(alignof(readiness) >= 8 && alignof(completion) >= 8, "the tag needs three free bits");

std::uint64_t user_data_of(const void* p, tag t) { return reinterpret_cast<std::uint64_t>(p) | t; }

// By direction.
constexpr tag of_poll[] = {of_in, of_out};
constexpr tag of_removal[] = {of_in_removal, of_out_removal};
constexpr unsigned events_of[] = {POLLIN | POLLPRI | POLLRDHUP, POLLOUT};
constexpr unsigned one_event_of[] = {POLLIN, POLLOUT};

// readiness::armed, and what disarm still waits for in readiness::leaving.
constexpr std::uint8_t bit(unsigned d) { return std::uint8_t(1u << d); }
constexpr std::uint8_t last_event(unsigned d) { return std::uint8_t(1u << d); }
constexpr std::uint8_t removal_answer(unsigned d) { return std::uint8_t(4u << d); }
constexpr std::uint8_t another_removal(unsigned d) { return std::uint8_t(16u << d); }  // it was busy with an event

class uring_engine final : public engine {
 public:
  bool set_up(refusal&);
  ~uring_engine() override;

  std::string_view name() const override { return "uring"; }
  std::string describe() const override { return "uring: " + ring_.describe(); }

  int arm(readiness&, direction) override;
  void disarm(readiness&) override;
  void start(const operation&, completion&) override;
  void cancel(completion&) override;
  void settle(completion&, bool end) override;
  unsigned operations_in_flight() const override { return operations_; }
  bool waits_for_sockets() const override { return true; }
  bool tells_urgent() const override { return false; }
  void wait(clock::time_point until) override;
  bool has_news() const override { return ring_.events() > 0 || ring_.kernel_has_work() || wakeup_.is_pending(); }
  void wake() noexcept override { wakeup_.signal(); }
  clock::time_point now() const noexcept override { return real_now(); }
  void abandon_after_fork() noexcept override;

 private:
  void enter(bool sleep, const __kernel_timespec* longest = nullptr) {
    if (!ring_.enter(sleep, longest, sleep_mask)) signal_seen = true;
  }
  bool multishot_poll_works(refusal&);
  void arm_wakeup();
  void queue_removal(readiness&, unsigned d);
  void queue_cancel(completion&);
  void cancel_again();
  void deliver_all();
  void deliver(const event&);
  void deliver_readiness(readiness&, unsigned d, const event&);
  void deliver_removal(readiness&, unsigned d, const event&);

  ring ring_;
  wakeup wakeup_;
  unsigned operations_ = 0;
  static constexpr auto cancel_pause = std::chrono::milliseconds(5);
  completion* cancelled_ = nullptr;  // a list of those that were asked to end, and have not yet; their engine_data is not null
  clock::time_point cancel_again_at_{};
};

// ---- coming and going

bool uring_engine::set_up(refusal& why) {
  if (!ring_.open(why)) return false;
  if (const int error = -wakeup_.open()) {
    why = diagnose("eventfd", error);
    return false;
  }
  return multishot_poll_works(why);
}

// Proven on the wake-up's own eventfd, which stays armed: two writes without a read must give two events. What passes
// (a signal, no memory just now) must not cost a process its ring.
bool uring_engine::multishot_poll_works(refusal& why) {
  arm_wakeup();
  const auto give_up = now() + std::chrono::seconds(1);
  const auto moment = timespec_of(std::chrono::milliseconds(100));
  for (int round = 0; round < 2; ++round) {
    wakeup_.ring_bell();
    event e{};
    while (!ring_.next_event(e) && now() < give_up) {
      const int entered = ring_.try_enter(true, &moment);
      const bool passes = entered == -EINTR || entered == -ETIME || entered == -EAGAIN || entered == -ENOMEM;
      if (entered >= 0 || passes) continue;
      why = diagnose("io_uring_enter", -entered);  // a filter may let a ring be made and not be entered
      return false;
    }
    if (e.user_data != of_wakeup || e.result <= 0 || e.is_last()) {
      why = {"this kernel's io_uring has no working multishot poll (Linux 5.13)",
             "Use a newer kernel, or RINGLET_ENGINE=epoll."};
      return false;
    }
  }
  return true;
}

void uring_engine::arm_wakeup() {
  io_uring_sqe* sqe = ring_.next_sqe();
  RINGLET_ASSERT(sqe, "the kernel accepts no submission, so nobody could wake this hub");
  io_uring_prep_poll_multishot(sqe, wakeup_.fd(), POLLIN);
  sqe->user_data = of_wakeup;
}

uring_engine::~uring_engine() {
  if (!ring_.is_open()) return;
  // Whoever destroys us with operations under way has lost interest in their results, but their buffers may be about
  // to go. Those that cannot be cancelled within a second (a worker in a dead NFS) are left: better than no exit.
  const auto give_up = now() + std::chrono::seconds(1);
  const auto moment = timespec_of(std::chrono::milliseconds(1));
  for (bool asked = false; operations_ > 0 && now() < give_up; asked = true) {
    if (io_uring_sqe* sqe = asked ? nullptr : ring_.next_sqe()) {
      io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
      sqe->user_data = of_nobody;
    }
    ring_.enter(true, &moment);
    for (event e; ring_.next_event(e);)
      if ((e.user_data & tag_mask) == of_operation) --operations_;
  }
}

void uring_engine::abandon_after_fork() noexcept {
  cancelled_ = nullptr;
  ring_.forget_in_child();
  wakeup_.close();
  operations_ = 0;
}

// ---- a turn

// An operation may be neither begun nor waiting at the moment (on its way from a poll to a worker): the kernel then finds
// nothing to cancel. So it is asked again until the operation has ended.
void uring_engine::cancel_again() {
  if (now() < cancel_again_at_) return;
  cancel_again_at_ = now() + cancel_pause;
  for (completion* c = cancelled_; c; c = c->engine_next) queue_cancel(*c);
}

void uring_engine::wait(clock::time_point until) {
  if (cancelled_) {
    cancel_again();
    until = std::min(until, now() + cancel_pause);
  }
  bool sleep = until != clock::time_point::min() && ring_.events() == 0 && !ring_.kernel_has_work();
  __kernel_timespec left{};
  const bool has_end = until != clock::time_point::max();
  if (sleep && has_end) {
    const auto remaining = until - now();
    sleep = remaining > clock::duration::zero();
    left = timespec_of(remaining);
  }
  sleep = sleep && wakeup_.try_sleep();
  const bool submits = ring_.has_queued();
  if (sleep || submits || ring_.kernel_has_work()) enter(sleep, has_end ? &left : nullptr);
  // An enter that has submitted something tells that, not that a signal then ended its sleep: seen by what is missing.
  if (sleep && submits && ring_.events() == 0 && !ring_.kernel_has_work() && (!has_end || now() < until)) signal_seen = true;
  wakeup_.awoke();
  deliver_all();

  // What had overflown comes into the room we just made. Bounded: the rest is has_news().
  for (int round = 0; round < 16 && ring_.has_overflown(); ++round) {
    enter(false);
    deliver_all();
  }
}

// Bounded by what is here at the start: a callback that starts operations cannot keep the hub here.
void uring_engine::deliver_all() {
  std::size_t most = ring_.events();
  for (event e; most > 0 && ring_.next_event(e); --most) deliver(e);
}

void uring_engine::deliver(const event& e) {
  const auto pointer = e.user_data & ~tag_mask;
  switch (const auto what = tag(e.user_data & tag_mask)) {
    case of_operation: {
      auto& c = *reinterpret_cast<completion*>(pointer);
      --operations_;
      if (c.engine_data) {
        (c.engine_before ? c.engine_before->engine_next : cancelled_) = c.engine_next;
        if (c.engine_next) c.engine_next->engine_before = c.engine_before;
        c.engine_data = nullptr;
      }
      c.result = e.result;
      c.done = true;
      c.wake(c);
      break;
    }
    case of_in:
    case of_out:
      deliver_readiness(*reinterpret_cast<readiness*>(pointer), what == of_in ? 0 : 1, e);
      break;
    case of_in_removal:
    case of_out_removal:
      deliver_removal(*reinterpret_cast<readiness*>(pointer), what == of_in_removal ? 0 : 1, e);
      break;
    case of_wakeup:
      if (e.is_last()) {  // ended by an overflow; if the counter were left unread, the new poll would tell at once
        std::uint64_t count;
        sys::call(SYS_read, wakeup_.fd(), &count, sizeof count);
        arm_wakeup();
      }
      break;
    case of_nobody:
      break;
  }
}

// ---- readiness

int uring_engine::arm(readiness& r, direction where) {
  const unsigned d = unsigned(where);
  RINGLET_ASSERT(!r.is_armed(where), "a readiness is armed twice in one direction");
  RINGLET_ASSERT(!(r.leaving & (last_event(d) | removal_answer(d))), "a readiness is armed while it is disarmed");
  if (r.fd < 0) return -EBADF;
  io_uring_sqe* sqe = ring_.next_sqe();
  if (!sqe) return -ENOMEM;
  io_uring_prep_poll_multishot(sqe, r.fd, events_of[d] | EPOLLET);
  sqe->user_data = user_data_of(&r, of_poll[d]);
  r.armed |= bit(d);
  return 0;
}

void uring_engine::deliver_readiness(readiness& r, unsigned d, const event& e) {
  if (e.is_last()) r.armed &= std::uint8_t(~bit(d));
  if (r.leaving & last_event(d)) {  // an event that comes while it is disarmed is nobody's any more
    if (e.is_last()) r.leaving &= std::uint8_t(~(last_event(d) | another_removal(d)));
    return;
  }
  // Un-armed by an overflow or an error still notifies: the waiter tries again, learns the truth from its own call,
  // and arms again if it has to.
  unsigned events = unsigned(e.result);
  // The mask of the wake-up, which has POLLPRI for any data.
  if (events & POLLPRI) events = (events & ~unsigned(POLLPRI)) | POLLIN;
  if (e.result <= 0) events = one_event_of[d] | (e.result == -EBADF ? POLLNVAL : e.result < 0 ? POLLERR : 0);
  r.notify(r, events);
}

void uring_engine::queue_removal(readiness& r, unsigned d) {
  io_uring_sqe* sqe = ring_.next_sqe();
  RINGLET_ASSERT(sqe, "the kernel accepts no submission, so a poll cannot be removed");
  io_uring_prep_poll_remove(sqe, user_data_of(&r, of_poll[d]));
  sqe->user_data = user_data_of(&r, of_removal[d]);
  r.leaving = std::uint8_t((r.leaving & ~another_removal(d)) | removal_answer(d));
}

// ENOENT: the poll has ended by itself and its last event is on the way. EALREADY: an event of it is being made; it
// lives on after that, and has to be asked again.
void uring_engine::deliver_removal(readiness& r, unsigned d, const event& e) {
  r.leaving &= std::uint8_t(~removal_answer(d));
  if (e.result == -EALREADY && (r.leaving & last_event(d))) r.leaving |= another_removal(d);
}

// An armed poll holds the file: close() would not even send the FIN. So this returns only when both the poll's last
// event and the answer to its removal are here; nothing of the kernel's points at the readiness afterwards.
void uring_engine::disarm(readiness& r) {
  for (unsigned d = 0; d < 2; ++d) {
    if (!(r.armed & bit(d))) continue;
    r.leaving |= last_event(d);
    queue_removal(r, d);
  }
  const auto moment = timespec_of(std::chrono::milliseconds(1));
  for (int round = 0; r.leaving; ++round) {
    RINGLET_ASSERT(round < 10'000, "the kernel does not let go of a poll that was removed");
    for (unsigned d = 0; d < 2; ++d)
      if (r.leaving & another_removal(d)) queue_removal(r, d);
    enter(true, &moment);  // one is enough, as a rule: the last event comes in the enter that asks for it
    deliver_all();
  }
}

// ---- operations

void uring_engine::start(const operation& op, completion& c) {
  c.done = false;
  ++operations_;
  io_uring_sqe* sqe = ring_.next_sqe();
  if (!sqe) {
    if (ring_.add_event({user_data_of(&c, of_operation), -ENOMEM, 0})) return;
    --operations_;
    c.result = -ENOMEM;
    c.done = true;
    c.wake(c);
    return;
  }
  prepare(*sqe, op);
  sqe->user_data = user_data_of(&c, of_operation);
}

void uring_engine::cancel(completion& c) {
  if (c.done) return;
  if (!c.engine_data) {
    c.engine_data = this;
    c.engine_before = nullptr;
    c.engine_next = cancelled_;
    if (cancelled_) cancelled_->engine_before = &c;
    cancelled_ = &c;
  }
  cancel_again_at_ = now() + cancel_pause;
  queue_cancel(c);
}

void uring_engine::queue_cancel(completion& c) {
  io_uring_sqe* sqe = ring_.next_sqe();
  if (!sqe) return;  // the completion arrives all the same, only later
  io_uring_prep_cancel64(sqe, user_data_of(&c, of_operation), 0);
  sqe->user_data = of_nobody;
}

// The kernel looks its file up when it takes the submission.
void uring_engine::settle(completion& c, bool end) {
  for (int round = 0; !end && ring_.has_queued() && round < 1000; ++round) enter(false);
  const auto moment = timespec_of(std::chrono::milliseconds(1));
  for (int round = 0; end && !c.done; ++round) {
    RINGLET_ASSERT(round < 10'000, "the kernel does not let go of an operation that was cancelled");
    if (round % 64 == 0) cancel(c);  // one that is just busy with an event may have to be asked again
    enter(true, &moment);
    deliver_all();
  }
}

}  // namespace

std::unique_ptr<engine> set_up_uring_engine(refusal& why) {
  auto made = std::make_unique<uring_engine>();
  if (!made->set_up(why)) return nullptr;
  return made;
}

}  // namespace ringlet::loop
