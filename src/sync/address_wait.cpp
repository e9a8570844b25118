#include "sync/address_wait.hpp"

#include <csignal>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "hub/hub.hpp"

namespace ringlet::sync {

using detail::fiber_state;
using detail::hub_state;
using detail::wake_reason;
using detail::waiter;

namespace {

struct address_waiter : waiter {
  const void* address = nullptr;
};

struct table;

// A table as others see it. Never freed, so that a waker in a signal handler or on another thread may walk the list at
// any moment; one whose hub has gone is used again by the next hub.
struct table_entry {
  std::atomic<table*> hubs_table{nullptr};
  std::atomic<unsigned> waiting{0};
  std::atomic<int> visitors{0};
  table_entry* next = nullptr;
};
std::atomic<table_entry*> entries{nullptr};
// Waiters of all hubs: the one load that a wake costs when nobody waits.
std::atomic<unsigned> waiting_anywhere{0};

struct table : detail::message {
  static constexpr std::size_t bucket_count = 256;
  base::intrusive_list<address_waiter> buckets[bucket_count];
  hub_state* hub = nullptr;
  table_entry* entry = nullptr;
  std::atomic<bool> recheck{false};           // the message is under way
  volatile std::sig_atomic_t in_use = 0;      // its own thread is inside: a signal handler must keep out

  base::intrusive_list<address_waiter>& bucket(const void* address) {
    return buckets[(reinterpret_cast<std::uintptr_t>(address) >> 3) * 0x9E3779B97F4A7C15u >> 56];
  }
};
static_assert(table::bucket_count == 256);

struct inside {
  table& t;
  explicit inside(table& of) : t(of) { t.in_use = t.in_use + 1; }
  ~inside() { t.in_use = t.in_use - 1; }
};

void let_all_look_again(detail::message& m) {
  table& t = static_cast<table&>(m);
  t.recheck.store(false, std::memory_order_seq_cst);
  inside now(t);
  for (auto& bucket : t.buckets)
    while (address_waiter* w = bucket.pop_front()) t.hub->wake(*w);
}

void let_go(hub_state& h) {
  auto* t = static_cast<table*>(h.address_waiters);
  if (!t) return;
  h.address_waiters = nullptr;
  t->entry->hubs_table.store(nullptr, std::memory_order_seq_cst);
  waiting_anywhere.fetch_sub(t->entry->waiting.exchange(0, std::memory_order_relaxed), std::memory_order_relaxed);
  // Visitors stay for a few instructions; in a forked child one may have been left behind for good by the parent.
  if (h.forked) t->entry->visitors.store(0, std::memory_order_relaxed);
  while (t->entry->visitors.load(std::memory_order_seq_cst) != 0) sys::call(SYS_sched_yield);
  for (auto& bucket : t->buckets) bucket.forget_all();
  delete t;
}

table& table_of(hub_state& h) {
  if (h.address_waiters) return *static_cast<table*>(h.address_waiters);
  auto* t = new table;
  t->hub = &h;
  t->deliver = &let_all_look_again;
  table_entry* e = entries.load(std::memory_order_acquire);
  for (; e; e = e->next) {
    table* nobody = nullptr;
    if (e->hubs_table.compare_exchange_strong(nobody, t)) break;
  }
  if (!e) {
    e = new table_entry;
    e->hubs_table.store(t);
    e->next = entries.load(std::memory_order_relaxed);
    while (!entries.compare_exchange_weak(e->next, e, std::memory_order_release)) {
    }
  }
  t->entry = e;
  h.address_waiters = t;
  h.let_go[1] = &let_go;
  return *t;
}

// From another thread, or from a signal handler that interrupted the table's own.
void ask_to_look_again(table_entry& e) {
  if (e.waiting.load(std::memory_order_seq_cst) == 0) return;
  e.visitors.fetch_add(1, std::memory_order_seq_cst);
  if (table* t = e.hubs_table.load(std::memory_order_seq_cst))
    if (!t->recheck.exchange(true, std::memory_order_seq_cst)) t->hub->send(*t);
  e.visitors.fetch_sub(1, std::memory_order_seq_cst);
}
}  // namespace

address_result wait_on_address(const void* address, deadline until, const char* what, bool interruptible,
                               bool (*still_blocked)(const void* address)) {
  hub_state& h = hub_state::here();
  table& t = table_of(h);
  address_waiter w;
  w.address = address;
  w.what = what;
  w.whom = address;
  w.interruptible = interruptible;
  w.withdraw = [](waiter& x) {
    auto& late = static_cast<address_waiter&>(x);
    if (!late.linked()) return false;
    inside now(*static_cast<table*>(hub_state::here().address_waiters));
    late.unlink();
    return true;
  };
  {
    inside now(t);
    t.bucket(address).push_back(w);
  }
  t.entry->waiting.fetch_add(1, std::memory_order_seq_cst);
  waiting_anywhere.fetch_add(1, std::memory_order_seq_cst);
  wake_reason reason = wake_reason::woken;
  if (still_blocked && !still_blocked(address)) {
    inside now(t);
    w.unlink();
  } else {
    reason = h.wait(w, until);
  }
  t.entry->waiting.fetch_sub(1, std::memory_order_relaxed);
  waiting_anywhere.fetch_sub(1, std::memory_order_relaxed);
  return reason == wake_reason::woken       ? address_result::woken
         : reason == wake_reason::timed_out ? address_result::timed_out
                                            : address_result::interrupted;
}

void wake_address_from_anywhere(const void*) noexcept {
  if (waiting_anywhere.load(std::memory_order_seq_cst) == 0) return;
  for (table_entry* e = entries.load(std::memory_order_acquire); e; e = e->next) ask_to_look_again(*e);
}

std::size_t wake_address(const void* address, std::size_t count) noexcept {
  if (waiting_anywhere.load(std::memory_order_seq_cst) == 0) return 0;
  hub_state* h = hub_state::here_or_null();
  auto* own = h ? static_cast<table*>(h->address_waiters) : nullptr;
  std::size_t woken = 0;
  if (own && own->in_use == 0 && h->can_park()) {
    inside now(*own);
    own->bucket(address).for_each([&](address_waiter& w) {
      if (w.address != address || woken == count) return;
      w.unlink();
      h->wake(w);
      ++woken;
    });
  } else if (own) {
    ask_to_look_again(*own->entry);
  }
  if (woken < count)
    for (table_entry* e = entries.load(std::memory_order_acquire); e; e = e->next)
      if (!own || e != own->entry) ask_to_look_again(*e);
  return woken;
}

}  // namespace ringlet::sync
