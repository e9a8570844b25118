// Channels and select.
//
// Who waits makes an offer on each channel of its cases; all its offers belong to one wait, which is claimed once, by one
// atomic exchange: by a partner, a timer or a kill. So exactly one case happens, though the offers lie on several channels
// whose locks nobody else holds together.
//
// Who looks for a partner holds the locks of all its channels (taken in the order of their addresses), and has no offer
// anywhere yet; so it cannot be claimed while it claims, and two selects that could serve each other do not pass each other
// by. Offers of a wait that was claimed elsewhere stay in their lists until their fiber has been resumed and takes them out;
// until then they are passed over. A claimed wait lives until it is woken, which is done when all locks are released.

#include <ringlet/channel.hpp>

#include <algorithm>
#include <memory>
#include <mutex>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "hub/hub.hpp"

namespace ringlet {

namespace detail {

struct offer;
namespace {
struct offered_wait : waiter {
  std::span<const select_case> cases;
  offer* offers = nullptr;
  std::atomic<bool> claimed{false};
  std::size_t happened = 0;  // whoever claims it says which case
  bool by_shutdown = false;
  bool claim() noexcept { return !claimed.exchange(true, std::memory_order_acq_rel); }
};

std::uint32_t this_process() noexcept { return fork_tag.load(std::memory_order_relaxed); }

// Any number below n, each with the same chance; the same ones in each run.
std::size_t choose(std::size_t n) noexcept {
  thread_local std::uint32_t state = 2463534242u;
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state % n;
}
}  // namespace

struct offer {
  offered_wait* wait = nullptr;
  void* item = nullptr;
  std::size_t index = 0;
  offer* before = nullptr;
  offer* after = nullptr;
  offer_list* in = nullptr;
  // Who takes it out of its list: whoever leads it from listed to something else, while the channel is there: its own fiber
  // (leaving) or, under the channel's lock, a partner or the channel's end (taken, and gone when it is no longer touched).
  enum class step : std::uint8_t { gone, listed, taken, leaving };
  std::atomic<step> at{step::gone};
  bool move_on(step to) noexcept {
    step was = step::listed;
    return at.compare_exchange_strong(was, to, std::memory_order_acq_rel);
  }
};

struct offer_links {
  static void settle(offer_list& list) noexcept {
    if (list.first && __builtin_expect(list.tag != this_process(), 0)) list.first = list.last = nullptr;
  }
  static void append(offer_list& list, offer& o) noexcept {
    settle(list);
    list.tag = this_process();
    o.in = &list;
    o.at.store(offer::step::listed, std::memory_order_relaxed);
    o.before = list.last;
    o.after = nullptr;
    (o.before ? o.before->after : list.first) = &o;
    list.last = &o;
  }
  static void remove(offer& o) noexcept {
    (o.before ? o.before->after : o.in->first) = o.after;
    (o.after ? o.after->before : o.in->last) = o.before;
    o.at.store(offer::step::gone, std::memory_order_release);  // the last touch
  }
  // The first one that still stands, now claimed and taken out; null if there is none.
  static offer* claim_first(offer_list& list) noexcept {
    settle(list);
    for (offer *o = list.first, *next; o; o = next) {
      next = o->after;
      if (!o->move_on(offer::step::taken)) continue;  // on its way out
      const bool ours = o->wait->claim();
      if (ours) o->wait->happened = o->index;
      remove(*o);  // last: one that was claimed elsewhere may be gone from here on
      if (ours) return o;
    }
    return nullptr;
  }
  static std::ptrdiff_t count(offer_list& list) noexcept {
    settle(list);
    std::ptrdiff_t n = 0;
    for (offer* o = list.first; o; o = o->after) n += !o->wait->claimed.load(std::memory_order_relaxed);
    return n;
  }

  static wait_lock& lock_of(channel_core& c) noexcept { return c.lock_; }
  static bool shut(channel_core& c) noexcept { return c.shut_; }
  static offer_list& partners(const select_case& c) noexcept { return c.sends ? c.on->receivers_ : c.on->senders_; }
  static offer_list& own_side(const select_case& c) noexcept { return c.sends ? c.on->senders_ : c.on->receivers_; }
  static void empty_slot(const select_case& c) noexcept { c.on->empty_(c.item); }
  static void tell(channel_core& c) noexcept { c.listeners_.tell_all(); }
  static void hand_over(const select_case& c, offer& partner) noexcept {
    c.sends ? c.on->move_(c.item, partner.item) : c.on->move_(partner.item, c.item);
  }
};
using links = offer_links;

channel_core::~channel_core() {
  if (process_ends.load(std::memory_order_relaxed)) return;
  lock_.lock();  // see ~wait_queue
  RINGLET_REQUIRE(links::count(senders_) + links::count(receivers_) == 0, "a channel is destroyed while a fiber waits on it");
  // What is left are offers of selects that have happened on another channel: they need not come here any more. One that
  // is just coming, on another thread, is waited for.
  for (offer_list* side : {&senders_, &receivers_}) {
    links::settle(*side);
    while (offer* o = side->first) {
      if (o->move_on(offer::step::taken)) {
        links::remove(*o);
        continue;
      }
      lock_.unlock();
      sys::call(SYS_sched_yield);
      lock_.lock();
    }
  }
}

void channel_core::shutdown() noexcept {
  std::lock_guard hold(lock_);
  shut_ = true;
  for (offer_list* side : {&senders_, &receivers_})
    while (offer* o = links::claim_first(*side)) {
      o->wait->by_shutdown = true;
      hub_state::wake_anywhere(*o->wait);
    }
  listeners_.tell_all();
}

bool channel_core::add_listener(listener& l) noexcept {
  std::lock_guard hold(lock_);
  if (shut_ || links::count(senders_) > 0) return false;
  listeners_.add(l);
  return true;
}

void channel_core::remove_listener(listener& l) noexcept {
  std::lock_guard hold(lock_);
  listeners_.remove(l);
}

bool channel_core::is_shut_down() const noexcept {
  std::lock_guard hold(lock_);
  return shut_;
}

std::ptrdiff_t channel_core::balance() const noexcept {
  std::lock_guard hold(lock_);
  return links::count(senders_) - links::count(receivers_);
}

namespace {

// So many, on the stack if they are few.
template <class Thing>
class several {
 public:
  explicit several(std::size_t n) : many_(n > std::size(few_) ? new Thing[n] : nullptr) {}
  Thing* get() noexcept { return many_ ? many_.get() : few_; }

 private:
  Thing few_[4];
  std::unique_ptr<Thing[]> many_;
};

// The channels of all cases, each once, in the one order in which they may be locked.
class all_locked {
 public:
  explicit all_locked(std::span<const select_case> cases) : channels_(cases.size()) {
    channel_core** const c = channels_.get();
    for (const select_case& each : cases) c[count_++] = each.on;
    if (count_ > 1) {
      std::sort(c, c + count_, std::less<>());
      count_ = std::size_t(std::unique(c, c + count_) - c);
    }
    for (std::size_t i = 0; i < count_; ++i) links::lock_of(*c[i]).lock();
  }
  ~all_locked() { unlock(); }
  void unlock() noexcept {
    for (std::size_t i = 0; i < count_; ++i) links::lock_of(*channels_.get()[i]).unlock();
    count_ = 0;
  }

 private:
  several<channel_core*> channels_;
  std::size_t count_ = 0;
};

}  // namespace
}  // namespace detail

using detail::hub_state;
using detail::links;
using detail::wake_reason;

namespace {
// Takes out what offers are left. One that is in no list any more was taken out by a partner or by its channel's end: that
// channel may be gone.
void leave(detail::offered_wait& w) noexcept {
  for (std::size_t i = 0; i < w.cases.size(); ++i) {
    detail::offer& mine = w.offers[i];
    if (mine.move_on(detail::offer::step::leaving)) {
      std::lock_guard hold(links::lock_of(*w.cases[i].on));
      links::remove(mine);
    } else {
      while (mine.at.load(std::memory_order_acquire) != detail::offer::step::gone) sys::call(SYS_sched_yield);
    }
  }
}
}  // namespace

std::optional<std::size_t> select(std::span<const select_case> cases, deadline until) {
  const std::size_t n = cases.size();
  if (n == 0) throw std::invalid_argument("ringlet: select without a case; it would wait forever");
  const bool waits = until != deadline::passed();
  const char* const what = n > 1 ? "select" : cases[0].sends ? "channel::send" : "channel::receive";
  if (waits) detail::require_can_park(what);
  for (const select_case& c : cases)
    if (!c.sends) links::empty_slot(c);

  detail::several<detail::offer> offers(n);
  detail::several<std::size_t> order(n);
  detail::offered_wait me;
  {
    detail::all_locked locked(cases);
    for (std::size_t k = 0; k < n; ++k) order.get()[k] = k;
    for (std::size_t k = 0; k < n; ++k) {
      if (k + 1 < n) std::swap(order.get()[k], order.get()[k + detail::choose(n - k)]);
      const std::size_t i = order.get()[k];
      const select_case& c = cases[i];
      if (links::shut(*c.on)) {
        if (!c.sends) return i;
        locked.unlock();
        detail::throw_shut_down("send");
      }
      if (detail::offer* partner = links::claim_first(links::partners(c))) {
        links::hand_over(c, *partner);
        detail::offered_wait& theirs = *partner->wait;
        locked.unlock();
        hub_state::wake_anywhere(theirs);
        return i;
      }
    }
    if (!waits) return std::nullopt;
    me.what = what;
    me.whom = cases[0].on;
    me.fiber = hub_state::here().running;
    me.cases = cases;
    me.offers = offers.get();
    // Who gives up leaves its channels at once: when it runs again they may be gone.
    me.withdraw = [](detail::waiter& w) {
      auto& late = static_cast<detail::offered_wait&>(w);
      if (!late.claim()) return false;
      leave(late);
      return true;
    };
    for (std::size_t i = 0; i < n; ++i) {
      detail::offer& mine = offers.get()[i];
      mine.wait = &me;
      mine.item = cases[i].item;
      mine.index = i;
      links::append(links::own_side(cases[i]), mine);
      if (cases[i].sends) links::tell(*cases[i].on);
    }
  }
  hub_state& hub = hub_state::here();
  const wake_reason ended = hub.wait(me, until);
  if (ended == wake_reason::woken && n > 1) leave(me);
  if (ended == wake_reason::interrupted) hub.throw_interrupt();
  if (ended == wake_reason::timed_out) return std::nullopt;
  if (me.by_shutdown && cases[me.happened].sends) detail::throw_shut_down("send");
  return me.happened;
}

}  // namespace ringlet
