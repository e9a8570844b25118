#include "loop/early_end.hpp"

#include <atomic>
#include <new>
#include <utility>

#include "base/kernel_action.hpp"

namespace ringlet::loop {

namespace {
constexpr int the_signal = SIGURG;
constexpr std::uint64_t only_it = std::uint64_t(1) << (the_signal - 1);

#ifdef __x86_64__
// Nothing at all, also under a sanitizer that adds its own to every function.
extern "C" [[gnu::visibility("hidden")]] void ringlet_no_action(int, siginfo_t*, void*);
asm(".text\n\t.p2align 4\n\t.hidden ringlet_no_action\n\t.globl ringlet_no_action\n\t.type ringlet_no_action,@function\n"
    "ringlet_no_action:\n\tendbr64\n\tret\n\t.size ringlet_no_action,.-ringlet_no_action\n");
#else
void ringlet_no_action(int, siginfo_t*, void*) {}
#endif

constinit base::lock installing;
constinit unsigned users = 0;
constinit base::kernel_action before;
constinit std::atomic<handler_function> shared{nullptr};

class taken {
 public:
  taken(base::lock& l, early_end::place where) noexcept
      : lock_(l), held_(where == early_end::place::anywhere || l.try_acquire()) {
    if (where == early_end::place::anywhere) l.acquire();
  }
  ~taken() {
    if (held_) lock_.release();
  }
  taken(const taken&) = delete;
  explicit operator bool() const noexcept { return held_; }

 private:
  base::lock& lock_;
  const bool held_;
};

bool is_ours(const base::kernel_action& a) noexcept {
  return a.handler == &ringlet_no_action || (a.handler && a.handler == shared.load(std::memory_order_relaxed));
}
bool is_programs(base::kernel_action& now) noexcept {
  return base::set_action(the_signal, nullptr, &now) != 0 || (now.has_handler() && !is_ours(now));
}

// With the lock held. What the program has installed meanwhile stays.
void put_back() noexcept {
  base::kernel_action found;
  base::set_action(the_signal, &before, &found);
  if (!is_ours(found) || (found.flags & SA_RESTART)) base::set_action(the_signal, &found, nullptr);
}
}  // namespace

void share_early_end_signal(handler_function handler) noexcept { shared.store(handler, std::memory_order_relaxed); }

early_end::means::means(place where) noexcept {
  const taken hold(installing, where);
  base::kernel_action now;
  if (!hold || is_programs(now)) return;
  if (users == 0) {
    base::kernel_action ours = base::action_of(&ringlet_no_action, 0);
    if (now.has_handler()) {
      ours = now;
      ours.flags &= ~static_cast<unsigned long>(SA_RESTART);
    }
    if (base::set_action(the_signal, &ours, &before) != 0) return;
  }
  ++users;
  there_ = true;
}

// Nobody who was interrupted holds the lock: the constructor, in the same handler, has had it.
early_end::means::~means() {
  if (!there_) return;
  base::lock_guard hold(installing);
  if (--users == 0) put_back();
}

void forget_early_ends_after_fork() noexcept {
  new (&installing) base::lock;
  if (std::exchange(users, 0) > 0) put_back();
}

// The handler of a program that handles it must not run here.
bool early_end::arrive() noexcept {
  base::kernel_action now;
  const bool can_be_reached = !is_programs(now);
  if (can_be_reached) sys::call(SYS_rt_sigprocmask, SIG_UNBLOCK, &only_it, nullptr, sizeof only_it);
  {
    base::lock_guard hold(lock_);
    if (!called_off_) {
      begun_ = true;
      if (can_be_reached) helper_ = int(sys::call(SYS_gettid));
      return true;
    }
  }
  if (can_be_reached) sys::call(SYS_rt_sigprocmask, SIG_BLOCK, &only_it, nullptr, sizeof only_it);
  return false;
}

// One that is still on its way is blocked, and is nothing when the next call lets it through.
void early_end::leave() noexcept {
  {
    base::lock_guard hold(lock_);
    if (std::exchange(helper_, 0) == 0) return;
  }
  sys::call(SYS_rt_sigprocmask, SIG_BLOCK, &only_it, nullptr, sizeof only_it);
}

bool early_end::ask(place where) noexcept {
  const taken hold(lock_, where);
  if (!hold || helper_ == 0) return false;
  return sys::call(SYS_tgkill, sys::call(SYS_getpid), helper_, the_signal) == 0;
}

bool early_end::call_off(place where) noexcept {
  const taken hold(lock_, where);
  if (!hold || begun_) return false;
  return called_off_ = true;
}

}  // namespace ringlet::loop
