// The engine for where io_uring is refused: Docker's and Kubernetes' default profiles, gVisor, hardened sysctls.
// Readiness is epoll's; operations are plain system calls on helper threads (offload).
//
// Sockets need readiness only, so for them this engine is the same code with another source of events (measured: 1.00
// to 1.04 of raw epoll on TCP). Files pay a thread hand-over per operation that would really block.
//
// What helpers and the engine share is a mailbox that each job holds on to, so a helper's last touch can never hit an
// engine that is gone. Always true: a job's operation is looked at by a helper only if nobody had cancelled it before,
// and from then on its completion waits for the helper.

#include <sys/uio.h>

#include <atomic>
#include <new>
#include <system_error>
#include <utility>

#include "base/assert.hpp"
#include "loop/clock.hpp"
#include "loop/engine.hpp"
#include "loop/entries.hpp"
#include "loop/epoll_set.hpp"
#include "loop/offload.hpp"
#include "loop/operation_call.hpp"
#include "loop/refusal.hpp"
#include "loop/wakeup.hpp"

namespace ringlet::loop {
namespace {

struct helper_job;

struct mailbox {
  std::atomic<unsigned> holders{1};            // the engine, and each job that a helper has or will get
  std::atomic<helper_job*> finished{nullptr};  // newest first
  std::atomic<bool> closed{false};             // the engine is going: start nothing more
  wakeup alarm;

  ~mailbox();
  void hold() { holders.fetch_add(1, std::memory_order_relaxed); }
  void drop() {
    if (holders.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
  void finish(helper_job&);
};

struct helper_job : job {
  // Where it is: with the pool (waiting); with a helper (running), then in the mailbox; with the pool but of no more
  // use (cancelled: its completion has been taken from it).
  enum : int { waiting, running, cancelled };
  std::atomic<int> state{waiting};
  mailbox* box = nullptr;
  operation what;
  completion* whose = nullptr;
  int result = 0;
  helper_job* older = nullptr;
};

mailbox::~mailbox() {  // what finished after the engine was gone
  for (helper_job* j = finished.load(); j;) delete std::exchange(j, j->older);
}

void mailbox::finish(helper_job& j) {
  j.older = finished.load(std::memory_order_relaxed);
  while (!finished.compare_exchange_weak(j.older, &j, std::memory_order_release, std::memory_order_relaxed)) {
  }
}

void run_on_helper(job& base) {
  auto& j = static_cast<helper_job&>(base);
  mailbox& box = *j.box;
  int expected = helper_job::waiting;
  if (!j.state.compare_exchange_strong(expected, helper_job::running)) {
    delete &j;
  } else {
    j.result = box.closed.load() ? -ECANCELED : call_operation(j.what);
    box.finish(j);  // from here on j is the engine's
    box.alarm.signal();
  }
  box.drop();
}

class epoll_engine final : public engine {
 public:
  epoll_engine() {
    const int alarm = box_->alarm.open();
    const int set = alarm < 0 ? alarm : set_.open(box_->alarm);
    if (set == 0) return;
    box_->drop();
    const refusal why = diagnose(alarm < 0 ? "eventfd" : "epoll_create1", -set);
    throw std::system_error(-set, std::generic_category(), "ringlet: no epoll engine can be made (" + why.cause + "). " + why.cure);
  }
  ~epoll_engine() override;

  std::string_view name() const override { return "epoll"; }
  std::string describe() const override { return "epoll: edge-triggered; operations on helper threads"; }

  int arm(readiness& r, direction d) override {
    if (r.fd < 0) return -EBADF;
    int result = set_.arm(r, d);
    if (result < 0 && set_.is_lost(result)) {
      begin_anew();
      result = set_.arm(r, d);
    }
    return result == -ENOSPC ? -ENOMEM : result;  // max_user_watches: of the calls that wait here, none says ENOSPC
  }
  void disarm(readiness&) override;
  void start(const operation&, completion&) override;
  void cancel(completion&) override;
  void settle(completion&, bool end) override;
  unsigned operations_in_flight() const override { return operations_; }
  void wait(clock::time_point until) override;
  // epoll shows nothing without a system call: whenever an fd is watched, it may have news.
  bool has_news() const override { return set_.watched() > 0 || has_own_news(); }
  void wake() noexcept override { box_->alarm.signal(); }
  clock::time_point now() const noexcept override { return real_now(); }
  void abandon_after_fork() noexcept override;

 private:
  bool has_own_news() const {
    return cancelled_ || set_.has_lost() || box_->finished.load(std::memory_order_relaxed) || box_->alarm.is_pending();
  }
  void begin_anew();
  helper_job* take_finished();
  void deliver_operations();
  void complete(completion&, int result);

  mailbox* box_ = new mailbox;
  epoll_set set_;
  unsigned operations_ = 0;
  completion* cancelled_ = nullptr;  // a list of those that were, newest first, before a helper took them; told at the next wait
  epoll_event events_[256];
  int next_event_ = 0;
  int events_end_ = 0;
};

void epoll_engine::disarm(readiness& r) {
  set_.disarm(r);
  // Called from a notify of the same turn: what was fetched for it is nobody's any more.
  for (int i = next_event_; i < events_end_; ++i)
    if (events_[i].data.ptr == &r) events_[i].data.ptr = nullptr;
}

void epoll_engine::start(const operation& what, completion& c) {
  auto* j = new (std::nothrow) helper_job;
  if (!j) {
    c.result = -ENOMEM;
    c.done = true;
    c.wake(c);
    return;
  }
  j->run = run_on_helper;
  j->box = box_;
  j->what = what;
  j->whose = &c;
  c.done = false;
  c.engine_data = j;
  ++operations_;
  box_->hold();
  if (offload(*j) < 0) run_on_helper(*j);  // no helper can be made: slow is better than wrong
}

void epoll_engine::cancel(completion& c) {
  if (c.done || !c.engine_data) return;
  auto* j = static_cast<helper_job*>(c.engine_data);
  int expected = helper_job::waiting;
  if (!j->state.compare_exchange_strong(expected, helper_job::cancelled)) return;
  c.engine_data = nullptr;  // the job is the pool's alone now
  c.engine_next = std::exchange(cancelled_, &c);
}

// One that no helper has begun is cancelled. For one that has been begun we wait; after a second it is surely inside its
// system call, and that holds the file.
void epoll_engine::settle(completion& c, bool) {
  cancel(c);
  const auto give_up = now() + std::chrono::seconds(1);
  const timespec pause{0, 100'000};
  for (deliver_operations(); !c.done && now() < give_up; deliver_operations()) sys::call(SYS_nanosleep, &pause, nullptr);
}

void epoll_engine::complete(completion& c, int result) {
  --operations_;
  c.engine_data = nullptr;
  c.result = result;
  c.done = true;
  c.wake(c);
}

// Oldest first.
helper_job* epoll_engine::take_finished() {
  helper_job* newest = box_->finished.load(std::memory_order_relaxed)
                           ? box_->finished.exchange(nullptr, std::memory_order_acquire)
                           : nullptr;
  helper_job* oldest = nullptr;
  while (newest) {
    helper_job* older = newest->older;
    newest->older = oldest;
    oldest = newest;
    newest = older;
  }
  return oldest;
}

void epoll_engine::deliver_operations() {
  completion* in_order = nullptr;
  for (completion* c = std::exchange(cancelled_, nullptr); c;) {
    completion* older = std::exchange(c->engine_next, in_order);
    in_order = std::exchange(c, older);
  }
  while (in_order) {
    completion& c = *in_order;
    in_order = std::exchange(c.engine_next, nullptr);
    complete(c, -ECANCELED);
  }
  for (helper_job* j = take_finished(); j;) {
    helper_job* next = j->older;
    completion& c = *j->whose;
    const int result = j->result;
    delete j;
    j = next;
    complete(c, result);
  }
}

void epoll_engine::wait(clock::time_point until) {
  bool sleep = until != clock::time_point::min() && !has_own_news();
  timespec left{0, 0};
  const bool has_end = until != clock::time_point::max();
  if (sleep && has_end) {
    const auto remaining = until - now();
    sleep = remaining > clock::duration::zero();
    left = {remaining / std::chrono::seconds(1), (remaining % std::chrono::seconds(1)).count()};
  }
  sleep = sleep && box_->alarm.try_sleep();
  if (!sleep) left = {0, 0};  // a wake has come in between: whoever sends the next one believes us awake
  if (sleep || set_.watched() > 0) {
    count_entry();
    const int got = set_.wait(events_, int(std::size(events_)), sleep && !has_end ? nullptr : &left, sleep ? sleep_mask : nullptr);
    if (got == -EINTR)
      signal_seen = true;
    else if (got < 0)
      begin_anew();
    next_event_ = 0;
    events_end_ = got > 0 ? got : 0;
  }
  box_->alarm.awoke();
  while (next_event_ < events_end_) {
    const epoll_event e = events_[next_event_++];
    if (auto* r = static_cast<readiness*>(e.data.ptr)) r->notify(*r, e.events);
  }
  while (readiness* r = set_.pop_lost()) r->notify(*r, POLLNVAL);
  deliver_operations();
}

// A program that closes what it has not opened has closed the set, and perhaps the eventfd; their numbers may be other files'.
void epoll_engine::begin_anew() {
  static std::atomic<bool> told{false};
  if (!told.exchange(true, std::memory_order_relaxed)) {
    static constexpr char text[] =
        "ringlet: the file descriptors that the epoll engine waits on were closed by the program; it goes on with new ones. Likely cause: "
        "close_range, closefrom or a loop of close over numbers that it has not opened. Cure: close only what is known to be the "
        "program's own, or do it before ringlet is first used.\n";
    sys::call(SYS_write, 2, text, sizeof text - 1);
  }
  box_->alarm.forget();
  const int alarm = box_->alarm.open();
  const int error = alarm < 0 ? alarm : set_.open_anew(box_->alarm);
  RINGLET_REQUIRE(error == 0, "the epoll engine's file descriptors were closed by the program (close_range, closefrom), and new ones cannot be had");
}

epoll_engine::~epoll_engine() {
  box_->closed.store(true);
  // As the ring engine does: a second for buffers to come free, then better an exit than none.
  for (completion* c = cancelled_; c; c = c->engine_next) --operations_;
  const auto give_up = now() + std::chrono::seconds(1);
  const timespec pause{0, 1'000'000};
  for (;;) {
    for (helper_job* j = take_finished(); j; --operations_) {
      helper_job* next = j->older;
      delete j;
      j = next;
    }
    if (operations_ == 0 || now() >= give_up) break;
    set_.wait(events_, 1, &pause);
  }
  box_->drop();
}

void epoll_engine::abandon_after_fork() noexcept {
  // Closing our copies only: a registration taken back here would be taken back from the parent.
  set_.close();
  box_->alarm.close();
  operations_ = 0;  // their helpers stayed in the parent
  cancelled_ = nullptr;
}

}  // namespace

std::unique_ptr<engine> make_epoll_engine() { return std::make_unique<epoll_engine>(); }

}  // namespace ringlet::loop
