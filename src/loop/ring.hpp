#pragma once
// The ring as the uring engine sees it: a place to queue submissions, one way to enter the kernel, and events that come
// out in their order. What a refused submission, an overflown completion queue or an interrupted sleep means is decided
// here and nowhere else.
//
// liburing makes and unmakes the ring; entering is ours, so that every answer of the kernel passes one switch. Only
// liburing 2.3's functions and fields are used; 2.9 was tried.
//
// For the thread that opened it only (SINGLE_ISSUER). Always true: events that had to be taken out of the CQ to make
// the kernel accept more rest in backlog_, older than those in the CQ, and nothing is delivered from in here.
// Included by engine_uring.cpp alone.

#include <liburing.h>

#include <atomic>
#include <chrono>
#include <new>
#include <string>
#include <vector>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "loop/entries.hpp"
#include "loop/refusal.hpp"

namespace ringlet::loop {

inline __kernel_timespec timespec_of(std::chrono::nanoseconds d) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(d);
  return {seconds.count(), (d - seconds).count()};
}

class ring {
 public:
  struct event {
    std::uint64_t user_data;
    int result;
    unsigned flags;
    bool is_last() const { return !(flags & IORING_CQE_F_MORE); }
  };

  ring() = default;
  ring(const ring&) = delete;
  ~ring() {
    if (!is_open_) return;
    closed_.fetch_add(1, std::memory_order_release);
    io_uring_queue_exit(&ring_);
  }

  // Sets it up with the best flags that this kernel takes; false and the reason if it cannot be used.
  bool open(refusal&);
  bool is_open() const { return is_open_; }
  // In a forked child. The ring's memory is not mapped there (dontfork), and unmapping by its addresses could hit what
  // has replaced it.
  void forget_in_child() noexcept {
    sys::call(SYS_close, ring_.ring_fd);
    is_open_ = false;
  }
  std::string describe() const;

  // A submission to fill in; the kernel sees it at the next enter. Null if the kernel takes nothing for ten seconds on
  // end (it has no memory).
  io_uring_sqe* next_sqe();

  // Submits what is queued and lets the kernel do what it has put off; sleeps until an event comes, if told to, but not
  // longer than said (null: for ever), with these signals blocked (null: the thread's). False if a signal ended it.
  bool enter(bool sleep, const __kernel_timespec* longest = nullptr, const std::uint64_t* mask = nullptr) {
    const int result = try_enter(sleep, longest, mask);
    deal_with(result);
    return result != -EINTR;
  }
  // The same, and gives the kernel's answer instead of dealing with it.
  int try_enter(bool sleep, const __kernel_timespec* longest, const std::uint64_t* mask = nullptr) {
    return enter_kernel(unsubmitted(), sleep ? 1 : 0, IORING_ENTER_GETEVENTS, sleep ? longest : nullptr, sleep ? mask : nullptr);
  }

  bool has_queued() { return unsubmitted() > 0; }
  // Work that only an enter turns into events: deferred task work, or events the CQ had no room for.
  bool kernel_has_work() const { return flags() & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW); }
  bool has_overflown() const { return flags() & IORING_SQ_CQ_OVERFLOW; }

  // Events that are here.
  std::size_t events() const { return backlog_.size() - backlog_next_ + io_uring_cq_ready(&ring_); }
  // Takes the oldest. It is out of the ring before it is delivered, since what is delivered may enter again.
  bool next_event(event&);
  // Adds one of our own; false if there is no memory for it.
  bool add_event(const event& e) noexcept {
    try {
      backlog_.push_back(e);
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }

 private:
  static constexpr unsigned default_sq_entries = 256;  // with CQ 1024: what an RLIMIT_MEMLOCK of 64 KiB just allows
  static constexpr unsigned fewest_sq_entries = 8;     // ENOMEM halves down to here
  static constexpr unsigned cq_per_sq = 4;

  int make(unsigned entries);
  unsigned flags() const { return IO_URING_READ_ONCE(*ring_.sq.kflags); }
  unsigned unsubmitted();
  int enter_kernel(unsigned to_submit, unsigned min_complete, unsigned flags, const __kernel_timespec* longest,
                   const std::uint64_t* mask = nullptr);
  void deal_with(int result);
  bool submit_all();
  bool take(event&);
  // Where there is no memory they stay in the CQ, and the kernel takes less meanwhile.
  bool has_room_for_one_more() noexcept {
    if (backlog_.size() < backlog_.capacity()) return true;
    try {
      backlog_.reserve(backlog_.size() * 2 + 16);
    } catch (const std::bad_alloc&) {
      return false;
    }
    return true;
  }
  void stash() {
    for (event e; io_uring_cq_ready(&ring_) && has_room_for_one_more() && take(e);) backlog_.push_back(e);
  }

  io_uring ring_{};
  bool is_open_ = false;
  static inline std::atomic<unsigned> closed_{0};
  unsigned enter_flags_ = 0;
  const char* setup_words_ = "";
  std::vector<event> backlog_;
  std::size_t backlog_next_ = 0;
};

// ---- setting up

inline int ring::make(unsigned entries) {
  struct attempt {
    unsigned flags;
    const char* words;
  };
  // Best first; a kernel that does not know a flag answers EINVAL.
  static constexpr attempt attempts[] = {
      {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
       "SINGLE_ISSUER|DEFER_TASKRUN|TASKRUN_FLAG|SUBMIT_ALL"},
      {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
       "COOP_TASKRUN|TASKRUN_FLAG|SUBMIT_ALL"},
      {0, "no flags"},
  };
  int error = EINVAL;
  for (const attempt& a : attempts) {
    for (unsigned n = entries;; n /= 2) {
      io_uring_params params{};
      params.flags = a.flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
      params.cq_entries = n * cq_per_sq;
      error = -io_uring_queue_init_params(n, &ring_, &params);
      if (error == 0) {
        is_open_ = true;
        setup_words_ = a.words;
        return 0;
      }
      if (error != ENOMEM || n / 2 < fewest_sq_entries) break;
    }
    if (error != EINVAL) break;
  }
  return error;
}

inline bool ring::open(refusal& why) {
  backlog_.reserve(default_sq_entries);
  const auto asked = number_from_environment("RINGLET_RING_ENTRIES", 1, 32768);
  const unsigned entries = asked.value_or(default_sq_entries);
  int error = make(entries);
  // The kernel takes closed rings down, and gives their memory back to the limit, a little later.
  for (int again = 0; error == ENOMEM && again < 5; ++again) {
    const __kernel_timespec moment{0, 10'000'000};
    sys::call(SYS_nanosleep, &moment, nullptr);
    error = make(entries);
  }
  if (error != 0) {
    why = diagnose("io_uring_setup", error);
    return false;
  }
  // The new ring may have got the addresses of one that another thread has closed. The kernel has put that in order; this
  // lets ThreadSanitizer know, which sees nothing of liburing's own system calls.
  (void)closed_.load(std::memory_order_acquire);
  const char* missing = !(ring_.features & IORING_FEAT_EXT_ARG)  ? "waiting with a timeout (EXT_ARG, Linux 5.11)"
                        : !(ring_.features & IORING_FEAT_NODROP) ? "keeping completions that overflow (NODROP, 5.5)"
                                                                 : nullptr;
  if (missing) {
    why = {std::string("this kernel's io_uring lacks ") + missing, "Use Linux 5.13, or RINGLET_ENGINE=epoll."};
    return false;
  }
  // The SQ's indirection is the identity for ever. Newer liburings make rings without it (NO_SQARRAY).
  if (ring_.sq.array)
    for (unsigned i = 0; i < ring_.sq.ring_entries; ++i) ring_.sq.array[i] = i;
  // A child that keeps the ring alive keeps our sockets alive after we are gone.
  io_uring_ring_dontfork(&ring_);
  // 118 ns an enter, not 149; does without where it is refused.
  if (io_uring_register_ring_fd(&ring_) == 1) enter_flags_ |= IORING_ENTER_REGISTERED_RING;
  unsigned most_workers[2] = {8, 64};  // bounded (regular files) and unbounded; the default is RLIMIT_NPROC
  io_uring_register_iowq_max_workers(&ring_, most_workers);
  return true;
}

inline std::string ring::describe() const {
  return std::string(setup_words_) + ", SQ " + std::to_string(ring_.sq.ring_entries) + ", CQ " +
         std::to_string(ring_.cq.ring_entries) +
         (enter_flags_ & IORING_ENTER_REGISTERED_RING ? ", registered ring fd" : "");
}

// ---- entering

inline int ring::enter_kernel(unsigned to_submit, unsigned min_complete, unsigned flags,
                              const __kernel_timespec* longest, const std::uint64_t* mask) {
  io_uring_getevents_arg arg{};
  arg.sigmask = reinterpret_cast<std::uint64_t>(mask);
  arg.sigmask_sz = sizeof *mask;
  arg.ts = reinterpret_cast<std::uint64_t>(longest);
  count_entry();
  return int(sys::call(SYS_io_uring_enter, ring_.enter_ring_fd, to_submit, min_complete,
                       flags | enter_flags_ | IORING_ENTER_EXT_ARG, &arg, sizeof arg));
}

// Shows the kernel what is queued; how much of it it has not taken yet.
inline unsigned ring::unsubmitted() {
  io_uring_sq& sq = ring_.sq;
  sq.sqe_head = sq.sqe_tail;
  io_uring_smp_store_release(sq.ktail, sq.sqe_tail);
  return sq.sqe_tail - io_uring_smp_load_acquire(sq.khead);
}

inline void ring::deal_with(int result) {
  switch (result) {
    default:
      RINGLET_REQUIRE(result >= 0, "io_uring_enter fails: the ring's file descriptor was closed by the program. Likely cause: close_range, closefrom "
                                   "or a loop of close over numbers that it has not opened. Cure: close only what is known to be the program's own.");
      break;
    case -ETIME:  // slept to the end
    case -EINTR:  // the caller looks what is next
      break;
    case -EBUSY:   // the CQ has overflown, and nothing more is taken until there is room
    case -EAGAIN:  // no memory for requests just now
    case -ENOMEM: {
      stash();
      const __kernel_timespec moment = timespec_of(std::chrono::milliseconds(1));
      enter_kernel(0, 1, IORING_ENTER_GETEVENTS, &moment);
      stash();
      break;
    }
    case -EBADR:
      RINGLET_ASSERT(false, "the kernel had no memory to keep an overflown completion: some wait would never end");
      break;
  }
}

inline bool ring::submit_all() {
  for (int refusals = 0; refusals < 10'000;) {  // a millisecond each
    const unsigned queued = unsubmitted();
    if (queued == 0) return true;
    const int result = enter_kernel(queued, 0, 0, nullptr);
    if (result > 0 || result == -EINTR) continue;
    deal_with(result);
    ++refusals;
  }
  return false;
}

inline io_uring_sqe* ring::next_sqe() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (!sqe && submit_all()) sqe = io_uring_get_sqe(&ring_);
  return sqe;
}

// ---- events

inline bool ring::take(event& e) {
  io_uring_cq& cq = ring_.cq;
  const unsigned head = *cq.khead;
  if (head == io_uring_smp_load_acquire(cq.ktail)) return false;
  const io_uring_cqe& cqe = cq.cqes[head & cq.ring_mask];
  e = event{cqe.user_data, cqe.res, cqe.flags};
  io_uring_smp_store_release(cq.khead, head + 1);
  return true;
}

inline bool ring::next_event(event& e) {
  if (backlog_next_ == backlog_.size()) return take(e);
  e = backlog_[backlog_next_++];
  if (backlog_next_ == backlog_.size()) {
    backlog_.clear();
    backlog_next_ = 0;
  }
  return true;
}

}  // namespace ringlet::loop
