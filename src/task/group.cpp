// The members of a group and their places.
//
// A member is known by a listener in its fiber, which takes it out at its end and gives its place to the first who waits
// for one: the place is handed over, so nobody who comes later can have it. Guests (the feeders of imap) are no members, but
// they use the group, so its destructor ends them, too.
//
// Always true: free + (members with a place) + (places taken whose fiber is not adopted yet) is the capacity.

#include <ringlet/pool.hpp>

#include <algorithm>
#include <unordered_map>

#include "base/assert.hpp"
#include "hub/fork.hpp"
#include "hub/hub.hpp"

namespace ringlet {

using detail::fiber_phase;
using detail::fiber_state;
using detail::hub_state;

struct group::impl {
  struct member : detail::listener {
    impl* owner;
    any_fiber fiber;
    standing as;
    bool dying = false;

    member(impl& i, const any_fiber& f, standing s) : owner(&i), fiber(f), as(s) {
      told = [](detail::listener& l) noexcept {
        member& ended = static_cast<member&>(l);
        ended.owner->leave(ended.state());
      };
    }
    fiber_state& state() const noexcept { return *fiber_access::state(fiber); }
  };

  const std::size_t capacity;
  std::size_t free = capacity;
  std::size_t guests = 0;
  std::unordered_map<const fiber_state*, member> all;
  hub_state* hub = nullptr;  // of its members, from the first one on
  unsigned generation = detail::fork_generation.load(std::memory_order_relaxed);
  detail::wait_queue room;       // who waits for a place
  detail::wait_queue available;  // who only wants to know that there is one
  detail::wait_queue shrunk;     // who waits for the members' end
  std::vector<any_fiber*> error_wanted;  // the first that fails, for joiners
  std::size_t killers = 0;

  explicit impl(std::size_t places) : capacity(places) {}

  std::size_t members() const noexcept { return all.size() - guests; }

  // Every call that changes something begins here.
  void enter(const char* what) {
    hub_state& here = hub_state::here();
    if (generation != detail::fork_generation.load(std::memory_order_relaxed)) forget_ghosts();
    if (all.empty()) hub = &here;
    if (hub != &here)
      throw wrong_thread(std::string("ringlet: ") + what +
                         " of a group or pool whose fibers run on another thread. Cure: one for each thread, or ringlet::hub_threads.");
  }
  void forget_ghosts() noexcept {
    generation = detail::fork_generation.load(std::memory_order_relaxed);
    for (auto at = all.begin(); at != all.end();)
      if (member& m = (at++)->second; m.state().is_ghost()) {
        m.state().listeners.remove(m);
        remove(all.find(&m.state()));
      } else {  // the fiber that forked: it has lost its listeners
        m.linked = false;
        m.state().listeners.add(m);
      }
  }

  static void wake_all(detail::wait_queue& q) noexcept {
    q.lock();
    while (q.wake_one()) {
    }
    q.unlock();
  }

  bool take(deadline until) {
    if (free > 0) {
      --free;
      return true;
    }
    if (until == deadline::passed()) return false;
    room.lock();
    return room.wait(until, "a place in a pool", this);
  }
  void give_back() noexcept {
    room.lock();
    const bool handed_over = room.wake_one();
    room.unlock();
    if (handed_over) return;
    ++free;
    wake_all(available);
  }

  void adopt(const any_fiber& f, standing as) {
    fiber_state* state = detail_state(f);
    if (state->step == fiber_phase::finished) {  // a spawn callback has killed it
      if (as == standing::placed) give_back();
      return;
    }
    auto& m = add_or_kill(f, as);
    if (as == standing::guest) ++guests;
    state->listeners.add(m);
    if (killers > 0) wake_all(shrunk);  // the newcomer's turn
  }
  // One that was spawned for the group and finds no room in its memory has not begun yet, and never shall.
  member& add_or_kill(const any_fiber& f, standing as) {
    try {
      return all.try_emplace(detail_state(f), *this, f, as).first->second;
    } catch (const std::bad_alloc&) {
      if (!f.started()) f.kill(deadline::passed());
      throw;
    }
  }
  void leave(fiber_state& ended) noexcept {
    const auto at = all.find(&ended);
    if (ended.error)
      for (any_fiber* wanted : error_wanted)
        if (wanted->empty()) *wanted = at->second.fiber;
    remove(at);
  }
  void remove(std::unordered_map<const fiber_state*, member>::iterator at) noexcept {
    const standing as = at->second.as;
    if (as == standing::guest) --guests;
    all.erase(at);
    if (as == standing::placed) give_back();
    if (members() == 0 || (killers > 0 && members() == 1)) wake_all(shrunk);  // at 1, the killer may be the last one itself
  }

  member* find(const fiber_state* f) noexcept {
    const auto found = all.find(f);
    return found == all.end() ? nullptr : &found->second;
  }
  member* self() noexcept { return hub && hub == hub_state::here_or_null() ? find(hub->running) : nullptr; }

  // Kills those that have not been; true if there was one.
  bool kill_more(const std::exception_ptr& reason, const member* but, bool with_guests) {
    const auto spared = [&](const member& m) { return &m == but || m.dying || (m.as == standing::guest && !with_guests); };
    std::vector<any_fiber> victims;
    try {
      victims.reserve(all.size());
    } catch (const std::bad_alloc&) {  // one at a time, and in no order: a destructor must come to its end
      const auto found = std::find_if(all.begin(), all.end(), [&](const auto& each) { return !spared(each.second); });
      if (found == all.end()) return false;
      found->second.dying = true;
      const any_fiber f = found->second.fiber;
      if (!f.ready()) f.kill(reason, deadline::passed());
      return true;
    }
    for (auto& [state, m] : all) {
      if (spared(m)) continue;
      m.dying = true;
      victims.push_back(m.fiber);
    }
    // In the order of their spawning, so that what they say when they end comes in order, too.
    std::sort(victims.begin(), victims.end(), [](const any_fiber& a, const any_fiber& b) { return a.id() < b.id(); });
    for (const any_fiber& f : victims)
      if (!f.ready()) f.kill(reason, deadline::passed());
    return !victims.empty();
  }

  static fiber_state* detail_state(const any_fiber& f) { return fiber_access::state(f); }
};

group::group() : group(unbounded) {}
group::group(std::size_t places) : impl_(std::make_unique<impl>(places)) {}

group::~group() {
  impl& g = *impl_;
  if (g.generation != detail::fork_generation.load(std::memory_order_relaxed)) g.forget_ghosts();
  if (g.all.empty()) return;
  RINGLET_ASSERT(g.hub == hub_state::here_or_null(), "a group or pool with members is destroyed on another thread than theirs");
  if (impl::member* me = g.self()) {
    me->state().listeners.remove(*me);
    g.remove(g.all.find(g.hub->running));
  }
  const auto reason = std::make_exception_ptr(greenlet_exit{});
  ++g.killers;
  while (!g.all.empty()) {
    if (g.kill_more(reason, nullptr, true)) continue;
    g.shrunk.lock();
    g.shrunk.wait(never, "the end of a group", this, nullptr, false);
  }
}

// --- members ---------------------------------------------------------------------------------------------------------

bool group::add(const any_fiber& f, deadline until) {
  impl_->enter("add");
  fiber_state* state = impl::detail_state(f);
  if (!state) throw std::logic_error("ringlet: an empty fiber handle is added to a group");
  if (state->hub != impl_->hub) throw wrong_thread("ringlet: fiber '" + f.name() + "' is added to a group on another thread than its own");
  if (f.ready() || impl_->find(state)) return true;
  if (!take_place(until)) return false;
  taken_place taken{this};
  if (f.ready() || impl_->find(state)) return true;  // meanwhile
  adopt(f, standing::placed);
  taken.of = nullptr;
  return true;
}

bool group::discard(const any_fiber& f) {
  impl_->enter("discard");
  const auto found = impl_->all.find(impl::detail_state(f));
  if (found == impl_->all.end() || found->second.as == standing::guest) return false;
  if (found->second.as == standing::waiting) {  // it still needs the group, until it has had a place
    found->second.as = standing::guest;
    ++impl_->guests;
    if (impl_->members() == 0) impl::wake_all(impl_->shrunk);
    return true;
  }
  found->second.state().listeners.remove(found->second);
  impl_->remove(found);
  return true;
}

bool group::contains(const any_fiber& f) const noexcept {
  const auto* m = impl_->find(impl::detail_state(f));
  return m && m->as != standing::guest;
}
std::size_t group::size() const noexcept { return impl_->members(); }

std::vector<any_fiber> group::members() const {
  std::vector<any_fiber> result;
  for (auto& [state, m] : impl_->all)
    if (m.as != standing::guest) result.push_back(m.fiber);
  std::sort(result.begin(), result.end(), [](const any_fiber& a, const any_fiber& b) { return a.id() < b.id(); });
  return result;
}

bool group::join(deadline until, bool raise_error) {
  impl& g = *impl_;
  g.enter("join");
  if (const auto* me = g.self(); me && me->as != standing::guest)
    throw std::logic_error("ringlet: fiber '" + me->fiber.name() + "' joins a group that it is a member of; it would wait for itself forever");
  any_fiber first;
  struct wants {
    impl& g;
    any_fiber* place;
    ~wants() { if (place) std::erase(g.error_wanted, place); }
  } wanted{g, raise_error ? &first : nullptr};
  if (raise_error) g.error_wanted.push_back(&first);
  while (g.members() > 0) {
    g.shrunk.lock();
    if (!g.shrunk.wait(until, "group::join", this)) return false;
    if (g.killers == 0) break;  // it was empty, though others may have come since
  }
  if (!first.empty()) std::rethrow_exception(first.exception());
  return true;
}

bool group::kill(deadline until) { return kill(std::make_exception_ptr(greenlet_exit{}), until); }

bool group::kill(std::exception_ptr reason, deadline until) {
  impl& g = *impl_;
  g.enter("kill");
  if (!reason) throw std::invalid_argument("ringlet: kill needs a reason: a null exception_ptr was given");
  const impl::member* me = g.self();
  const std::size_t survivors = me && me->as != standing::guest ? 1 : 0;
  struct counted {
    std::size_t& n;
    explicit counted(std::size_t& c) : n(++c) {}
    ~counted() { --n; }
  } killing(g.killers);
  bool all_gone = true;
  for (;;) {
    if (g.kill_more(reason, me, false)) continue;
    if (g.members() <= survivors) break;
    if (until == deadline::passed()) {
      all_gone = false;
      break;
    }
    g.shrunk.lock();
    if (!g.shrunk.wait(until, "group::kill", this)) {
      all_gone = g.members() <= survivors;
      break;
    }
  }
  if (survivors) detail::hub_state::here().die(reason);
  return all_gone;
}

// --- room ------------------------------------------------------------------------------------------------------------

std::size_t group::free_count() const noexcept { return impl_->free; }

std::size_t group::wait_available(deadline until) {
  impl& g = *impl_;
  g.enter("wait_available");
  while (g.free == 0) {
    g.available.lock();
    if (!g.available.wait(until, "pool::wait_available", this)) return g.free;
  }
  return g.free;
}

bool group::take_place(deadline until) {
  impl_->enter("spawn");
  return impl_->take(until);
}
void group::give_back_place() noexcept { impl_->give_back(); }
void group::adopt(const any_fiber& f, standing as) {
  impl_->enter("spawn");
  impl_->adopt(f, as);
}

void group::take_place_inside() {
  impl_->take(never);
  // Discarded meanwhile: the place is not its own to keep.
  auto* me = impl_->self();
  if (me && me->as == standing::waiting) {
    me->as = standing::placed;
    return;
  }
  impl_->give_back();
  if (!me) return;
  me->state().listeners.remove(*me);
  impl_->remove(impl_->all.find(impl_->hub->running));
}

bool group::is_inside() const noexcept {
  const auto* me = impl_->self();
  return me && me->as == standing::placed;
}

std::exception_ptr group::end_of(const any_fiber& f) {
  if (auto error = f.exception()) return error;
  return impl::detail_state(f)->was_exit ? std::make_exception_ptr(greenlet_exit{}) : nullptr;
}

}  // namespace ringlet
