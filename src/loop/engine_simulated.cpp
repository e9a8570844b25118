// The engine for tests: real files, but an order, a delay and a clock that a seed decides.
//
// What is ready is asked of the kernel (an epoll set with a zero timeout: poll(2) shows levels and would miss what was
// drained and filled again between two looks). When it is told, and in which order, is drawn: events are shuffled,
// some are withheld for a few turns, some notifications are false, operations are done as plain system calls some
// turns later. All of this a kernel may do, and seldom does while one is looking.
//
// Time starts at one second and stands still while anything is ready or pending; when nothing is, it jumps to the
// moment waited for. So a test of an hour's timeouts takes no time, and sleeps are exact. While this engine lives,
// clock::now() on its thread is this time.
//
// Always true: the same seed, the same calls and the same file contents at each turn give the same deliveries. Other
// real threads break that, though not correctness: if the wait is without end, this engine really sleeps, briefly.

#include <sys/uio.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "base/assert.hpp"
#include "loop/clock.hpp"
#include "loop/engine.hpp"
#include "loop/epoll_set.hpp"
#include "loop/operation_call.hpp"
#include "loop/refusal.hpp"
#include "loop/wakeup.hpp"

namespace ringlet::loop {
namespace {

// splitmix64: one word of state, and good enough to draw lots.
class lots {
 public:
  explicit lots(std::uint64_t seed) : state_(seed) {}
  std::uint64_t draw() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t n) { return draw() % n; }
  bool one_in(unsigned n) { return below(n) == 0; }

 private:
  std::uint64_t state_;
};

constexpr timespec no_time{0, 0};
constexpr timespec short_sleep{0, 10'000'000};
// A loop that only yields until some moment must see time pass in the end.
constexpr unsigned turns_time_may_stand = 256;
constexpr auto tick = std::chrono::microseconds(10);

class simulated_engine final : public engine {
 public:
  explicit simulated_engine(std::uint64_t seed) : seed_(seed), lots_(seed) {
    int error = wakeup_.open();
    if (error == 0) error = set_.open(wakeup_);
    if (error < 0)
      throw std::runtime_error("ringlet: no simulated engine can be made (" + diagnose("epoll_create1", -error).cause +
                               ").");
    set_thread_clock(this);
  }
  ~simulated_engine() override {
    if (thread_clock() == this) set_thread_clock(nullptr);
  }

  std::string_view name() const override { return "simulated"; }
  std::string describe() const override { return "simulated: seed " + std::to_string(seed_); }

  int arm(readiness&, direction) override;
  void disarm(readiness&) override;
  void start(const operation& what, completion& c) override {
    c.done = false;
    started_.push_back({what, &c, turn_ + 1 + lots_.below(4), false});
  }
  void cancel(completion&) override;
  void settle(completion&, bool end) override;
  unsigned operations_in_flight() const override { return unsigned(started_.size() + due_operations_); }
  void wait(clock::time_point until) override;
  bool has_news() const override { return set_.watched() > 0 || operations_in_flight() > 0 || wakeup_.is_pending(); }
  void wake() noexcept override { wakeup_.signal(); }
  clock::time_point now() const noexcept override { return now_; }
  void abandon_after_fork() noexcept override {
    set_.close();
    wakeup_.close();
  }

 private:
  struct watch {
    readiness* whose;
    unsigned pending;    // told by the kernel, not yet by us
    std::uint64_t turn;  // when it will be
  };
  struct started {
    operation what;
    completion* whose;
    std::uint64_t turn;
    bool cancelled;
  };
  struct delivery {  // one of the two; neither: it was disarmed meanwhile
    readiness* r;
    unsigned events;
    completion* c;
    operation what;
    bool cancelled;
  };

  void look(const timespec& timeout, bool withhold);
  void gather();
  bool anything_pending() const;
  void deliver();
  void let_time_pass(clock::time_point until);

  const std::uint64_t seed_;
  lots lots_;
  wakeup wakeup_;
  epoll_set set_;
  std::vector<watch> watches_;  // in the order of arming, so that nothing depends on addresses
  std::vector<started> started_;
  std::vector<delivery> due_;
  std::size_t next_due_ = 0;
  std::size_t due_operations_ = 0;
  std::uint64_t turn_ = 0;
  unsigned turns_time_stood_ = 0;
  clock::time_point now_{std::chrono::seconds(1)};
};

int simulated_engine::arm(readiness& r, direction d) {
  if (r.fd < 0) return -EBADF;
  const bool is_new = r.armed == 0;
  const int result = set_.arm(r, d);
  if (result == 0 && is_new) watches_.push_back({&r, 0, 0});
  return result;
}

void simulated_engine::disarm(readiness& r) {
  set_.disarm(r);
  std::erase_if(watches_, [&](const watch& w) { return w.whose == &r; });
  for (std::size_t i = next_due_; i < due_.size(); ++i)
    if (due_[i].r == &r) due_[i].r = nullptr;
}

void simulated_engine::cancel(completion& c) {
  for (started& s : started_) {
    if (s.whose != &c) continue;
    s.cancelled = !lots_.one_in(4);  // otherwise the operation is faster
    s.turn = turn_ + 1;
    return;
  }
}

void simulated_engine::settle(completion& c, bool end) {
  const auto finish = [&](const operation& what, bool cancelled) {
    c.result = cancelled || end ? -ECANCELED : call_operation(what);
    c.done = true;
    c.wake(c);
  };
  for (std::size_t i = next_due_; i < due_.size(); ++i) {
    if (due_[i].c != &c) continue;
    due_[i].c = nullptr;
    --due_operations_;
    return finish(due_[i].what, due_[i].cancelled);
  }
  for (std::size_t i = 0; i < started_.size(); ++i) {
    if (started_[i].whose != &c) continue;
    const started s = started_[i];
    started_.erase(started_.begin() + long(i));
    return finish(s.what, s.cancelled);
  }
}

// Asks the kernel.
void simulated_engine::look(const timespec& timeout, bool withhold) {
  epoll_event events[64];
  for (const timespec* wait = &timeout;; wait = &no_time) {
    const int got = set_.wait(events, 64, wait);
    RINGLET_ASSERT(got >= 0 || got == -EINTR, "epoll_pwait failed: somebody closed the epoll fd");
    if (got == -EINTR) signal_seen = true;
    for (int i = 0; i < got; ++i)
      for (watch& w : watches_)
        if (w.whose == events[i].data.ptr) {
          if (!w.pending) w.turn = turn_;
          w.pending |= events[i].events;
        }
    if (got < 64) break;
  }
  if (!withhold) return;
  for (watch& w : watches_)
    if (w.pending && w.turn == turn_ && lots_.one_in(4)) w.turn = turn_ + 1 + lots_.below(3);
}

// Moves what is told this turn to due_, in an order drawn by lot.
void simulated_engine::gather() {
  due_.clear();
  next_due_ = 0;
  for (watch& w : watches_) {
    if (w.pending && w.turn <= turn_) {
      due_.push_back({w.whose, w.pending, nullptr, {}, false});
      w.pending = 0;
    }
  }
  if (!watches_.empty() && lots_.one_in(16)) {
    readiness& r = *watches_[lots_.below(watches_.size())].whose;
    due_.push_back({&r, r.is_armed(direction::in) ? unsigned(POLLIN) : unsigned(POLLOUT), nullptr, {}, false});
  }
  std::erase_if(started_, [&](const started& s) {
    if (s.turn > turn_) return false;
    due_.push_back({nullptr, 0, s.whose, s.what, s.cancelled});
    ++due_operations_;
    return true;
  });
  for (std::size_t i = due_.size(); i > 1; --i) std::swap(due_[i - 1], due_[lots_.below(i)]);
}

bool simulated_engine::anything_pending() const {
  return !started_.empty() ||
         std::any_of(watches_.begin(), watches_.end(), [](const watch& w) { return w.pending != 0; });
}

void simulated_engine::deliver() {
  while (next_due_ < due_.size()) {
    const delivery d = due_[next_due_++];
    if (d.r) {
      d.r->notify(*d.r, d.events);
    } else if (d.c) {
      d.c->result = d.cancelled ? -ECANCELED : call_operation(d.what);
      d.c->done = true;
      --due_operations_;
      d.c->wake(*d.c);
    }
  }
}

void simulated_engine::let_time_pass(clock::time_point until) {
  if (until != clock::time_point::max()) {
    now_ = until;
    turns_time_stood_ = 0;
    return;
  }
  if (!wakeup_.try_sleep()) return;
  look(short_sleep, false);
}

void simulated_engine::wait(clock::time_point until) {
  ++turn_;
  look(no_time, true);
  gather();
  const bool may_wait = until > now_ && due_.empty() && !anything_pending() && !wakeup_.is_pending();
  if (may_wait) {
    let_time_pass(until);
    gather();
  } else if (++turns_time_stood_ > turns_time_may_stand) {
    now_ = until > now_ ? std::min(now_ + tick, until) : now_ + tick;
  }
  wakeup_.awoke();
  deliver();
}

}  // namespace

std::unique_ptr<engine> make_simulated_engine(std::uint64_t seed) { return std::make_unique<simulated_engine>(seed); }

}  // namespace ringlet::loop
