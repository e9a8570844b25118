#include "io/flag_turn.hpp"

#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#include <cerrno>
#include <new>

#include "base/sys.hpp"

namespace ringlet::io {

namespace {

constinit flag_turn::place own;  // until the first fork
constinit std::atomic<flag_turn::place*> shared{&own};

std::uint32_t take(flag_turn::place& p) noexcept {
  constexpr int wait_op = 0;  // FUTEX_WAIT, not private
  const timespec longest{1, 0};
  std::uint32_t ticket;
  do ticket = p.last_ticket.fetch_add(1) + 1;
  while (ticket == 0);
  for (int tries = 0;; ++tries) {
    std::uint32_t holder = 0;
    if (p.holder.compare_exchange_strong(holder, ticket)) return ticket;
    if (tries < 4) {  // it is a matter of some microseconds
      sys::call(SYS_sched_yield);
      continue;
    }
    ++p.waiting;
    const long answer = sys::call(SYS_futex, &p.holder, wait_op, holder, &longest);
    --p.waiting;
    if (answer == -ETIMEDOUT && p.holder.compare_exchange_strong(holder, ticket)) return ticket;
  }
}

void give_back(flag_turn::place& p, std::uint32_t ticket) noexcept {
  constexpr int wake_op = 1;
  if (p.holder.compare_exchange_strong(ticket, 0) && p.waiting.load() > 0) sys::call(SYS_futex, &p.holder, wake_op, 1);
}

// A program may fork before it has a hub: so this does not wait for one.
[[maybe_unused]] const int watched = ::pthread_atfork(&flag_turn::share, nullptr, nullptr);

}  // namespace

flag_turn::flag_turn() noexcept {
  while (true) {
    at_ = shared.load();
    ticket_ = take(*at_);
    if (shared.load() == at_) return;  // else it has just been moved
    give_back(*at_, ticket_);
  }
}

flag_turn::~flag_turn() { give_back(*at_, ticket_); }

bool flag_turn::is_shared() noexcept { return shared.load(std::memory_order_relaxed) != &own; }

void flag_turn::share() noexcept {
  if (shared.load() != &own) return;
  const long page = sys::call(SYS_mmap, nullptr, sizeof(place), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page < 0 && page > -4096) return;
  auto* const made = new (reinterpret_cast<void*>(page)) place;
  const flag_turn nobody_else;
  auto* expected = &own;
  if (!shared.compare_exchange_strong(expected, made)) sys::call(SYS_munmap, page, sizeof(place));
}

}  // namespace ringlet::io
