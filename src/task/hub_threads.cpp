// Several hubs on threads of their own.
//
// A hub's main fiber waits for the order to stop; then it kills what runs there, waits for its end, and takes the hub down on
// its own thread. The threads are detached and counted: the count goes down after the last destructor of a thread_local, and who
// waits for it also waits until the kernel has forgotten them, which takes a moment. What has been sent to a hub that ends is
// dropped with its messages, and its future says so.

#include <ringlet/hub_threads.hpp>

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <system_error>

#include <unistd.h>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "base/thread_end.hpp"
#include "hub/fork.hpp"
#include "hub/hub.hpp"
#include "loop/native_thread.hpp"

namespace ringlet {

using detail::fiber_state;
using detail::hub_state;

struct hub_threads::impl {
  struct one {
    std::size_t index = 0;
    hub::handle handle;
    std::atomic<hub_state*> hub{nullptr};  // to be compared only, but on its own thread
    event stop;
    std::atomic<std::size_t> load{0};
    std::atomic<long> thread_id{0};  // once it is about to end
    std::exception_ptr failed;          // to start
    std::vector<const fiber_state*> onlookers;  // fibers that join() has put there
  };

  const hub_threads_options how;
  const std::size_t count;
  const std::unique_ptr<one[]> all;
  detail::countdown starting, running;
  std::atomic<bool> closed{false};
  std::atomic<std::size_t> turn{0};
  const unsigned generation = detail::fork_generation.load(std::memory_order_relaxed);

  impl(std::size_t n, hub_threads_options o) : how(std::move(o)), count(n), all(std::make_unique<one[]>(n)) {}

  struct starter;
  enum class seen { nobody, somebody, late };
  static seen onlook(one&, deadline until);

  // A forked child has none of the threads.
  bool in_child() const noexcept { return generation != detail::fork_generation.load(std::memory_order_relaxed); }
  one& at(std::size_t index) const {
    if (index >= count)
      throw std::out_of_range("ringlet: hub " + std::to_string(index) + " of " + std::to_string(count) + " (they count from 0)");
    return all[index];
  }
  one* own() const noexcept {
    auto* here = hub_state::here_or_null();
    for (std::size_t i = 0; here && i < count; ++i)
      if (all[i].hub.load(std::memory_order_relaxed) == here) return &all[i];
    return nullptr;
  }
  // After `running` has come to zero.
  void wait_for_threads() const noexcept {
    for (std::size_t i = 0; i < count; ++i)
      if (const long id = all[i].thread_id.load(std::memory_order_acquire))
        for (int n = 0; n < 1'000'000 && sys::call(SYS_tgkill, ::getpid(), id, 0) == 0; ++n) sys::call(SYS_sched_yield);
  }
  void stop() {
    closed.store(true, std::memory_order_release);
    for (std::size_t i = 0; i < count; ++i) all[i].stop.set();
  }
  void refuse_inside(const char* what) const {
    if (own()) throw std::logic_error(std::string("ringlet: hub_threads::") + what + " on one of its own hubs; it would wait for itself for ever");
  }
};

namespace {

std::vector<any_fiber> fibers_of(hub_state& hub, const std::vector<const fiber_state*>& but) {
  std::vector<any_fiber> result;
  hub.fibers.for_each([&](fiber_state& f) {
    if (std::find(but.begin(), but.end(), &f) != but.end()) return;
    greenlet_retain(&f);
    result.push_back(fiber_access::adopt(&f));
  });
  return result;
}

// Kills until nobody is left: who dies may leave new ones behind. Nothing may end it early, or their stacks would be freed
// under them.
void kill_everybody(hub_state& hub) {
  for (bool again = false;; again = true) {
    try {
      if (again) hub.yield();  // killall may have failed before it waited for anybody
      const auto victims = fibers_of(hub, {});
      if (victims.empty()) return;
      killall(victims);
    } catch (...) {  // a deadlock among those who resist: they are waited for all the same; or no memory just now
    }
  }
}

// What is to be run there; counted until it is gone.
struct counted_errand final : detail::errand {
  std::shared_ptr<void> keeps;
  std::atomic<std::size_t>& load;
  std::unique_ptr<detail::errand> work;
  counted_errand(std::shared_ptr<void> k, std::atomic<std::size_t>& l, std::unique_ptr<detail::errand> w)
      : keeps(std::move(k)), load(l), work(std::move(w)) {
    load.fetch_add(1, std::memory_order_relaxed);
  }
  ~counted_errand() override {
    work.reset();
    load.fetch_sub(1, std::memory_order_relaxed);
  }
  void run() noexcept override { work->run(); }
};

}  // namespace

// In a fiber of that hub: waits until there is nobody but onlookers.
hub_threads::impl::seen hub_threads::impl::onlook(one& mine, deadline until) {
  hub_state& hub = hub_state::here();
  struct looking {
    std::vector<const fiber_state*>& all;
    const fiber_state* self;
    looking(std::vector<const fiber_state*>& a, const fiber_state* s) : all(a), self(s) { all.push_back(s); }
    ~looking() { std::erase(all, self); }
  } entry(mine.onlookers, hub.running);
  seen result = seen::nobody;
  for (;;) {
    const auto others = fibers_of(hub, mine.onlookers);
    if (others.empty()) return result;
    result = seen::somebody;
    if (joinall(others, {.until = until}).size() < others.size()) return seen::late;
  }
}

// On the new thread: from a hub of its own to the end of it.
struct hub_threads::impl::starter {
  std::shared_ptr<impl> all;
  one* mine;

  static void* run(void* argument) {
    auto given = std::unique_ptr<starter>(static_cast<starter*>(argument));
    impl* const all = given->all.get();
    one& mine = *given->mine;
    // First of all, so that it is called last. It keeps us.
    base::at_thread_end(&at_end, given.release());
    try {
      begin(*all, mine);
    } catch (...) {
      mine.failed = std::current_exception();
    }
    const bool runs = !mine.failed;
    all->starting.done();
    while (runs && !mine.stop.is_set()) try {
        mine.stop.wait();
      } catch (...) {  // whoever got hold of the main fiber and killed it has no business here
      }
    if (auto* hub = hub_state::here_or_null()) {
      kill_everybody(*hub);
      mine.hub.store(nullptr, std::memory_order_relaxed);  // another thread's hub may get its address
      delete hub;
    }
    return nullptr;
  }
  static void at_end(void* argument) noexcept {
    const auto ended = std::unique_ptr<starter>(static_cast<starter*>(argument));
    ended->mine->thread_id.store(sys::call(SYS_gettid), std::memory_order_release);
    ended->all->running.done();
  }
  static void begin(impl& all, one& mine) {
    mine.hub = &hub_state::here();
    mine.handle = hub::here();
    if (all.how.on_error)
      hub::set_error_handler([call = all.how.on_error, index = mine.index](const hub::failure& f) { call(index, f); });
    if (all.how.at_start) all.how.at_start(mine.index);
  }
};

hub_threads::hub_threads(private_tag, std::size_t count, hub_threads_options how)
    : impl_(std::make_shared<impl>(count, std::move(how))) {
  impl& all = *impl_;
  std::exception_ptr failed;
  for (std::size_t i = 0; i < count && !failed; ++i) {
    impl::one& mine = all.all[i];
    mine.index = i;
    std::unique_ptr<impl::starter> start;
    try {
      start = std::make_unique<impl::starter>(impl_, &mine);
    } catch (const std::bad_alloc&) {
      failed = std::current_exception();
      break;
    }
    all.starting.add();
    all.running.add();
    if (const int error = loop::make_native_thread(&impl::starter::run, start.get(), 0, false)) {
      all.starting.done();
      all.running.done();
      failed = std::make_exception_ptr(std::system_error(error, std::generic_category(),
                                                         "ringlet: hub_threads cannot make a thread (a limit on processes or memory? see "
                                                         "ulimit -u, the cgroup's pids.max)"));
    } else {
      start.release();
    }
  }
  all.starting.wait_out("the start of hub_threads");
  // Taken, not shared: the threads may let go of the rest later than the catcher does.
  for (std::size_t i = 0; i < count && !failed; ++i) failed = std::exchange(all.all[i].failed, nullptr);
  if (!failed) return;
  all.stop();
  all.running.wait_out("the end of hub_threads that could not start");
  all.wait_for_threads();
  std::rethrow_exception(failed);
}

hub_threads::~hub_threads() {
  if (impl_->in_child()) return;
  RINGLET_REQUIRE(!impl_->own(), "hub_threads are destroyed on one of their own hubs, which cannot outlive itself");
  impl_->stop();
  impl_->running.wait_out("the end of hub_threads");
  impl_->wait_for_threads();
}

std::size_t hub_threads::size() const noexcept { return impl_->count; }
hub::handle hub_threads::hub(std::size_t index) const { return impl_->at(index).handle; }
std::size_t hub_threads::load(std::size_t index) const { return impl_->at(index).load.load(std::memory_order_relaxed); }

std::size_t hub_threads::here() const noexcept {
  const auto* mine = impl_->own();
  return mine ? mine->index : impl_->count;
}

std::size_t hub_threads::least_loaded() const noexcept {
  const std::size_t first = impl_->turn.fetch_add(1, std::memory_order_relaxed);
  std::size_t best = first % impl_->count;
  for (std::size_t i = 1; i < impl_->count; ++i) {
    const std::size_t other = (first + i) % impl_->count;
    if (impl_->all[other].load.load(std::memory_order_relaxed) < impl_->all[best].load.load(std::memory_order_relaxed)) best = other;
  }
  return best;
}

void hub_threads::send(std::size_t index, std::unique_ptr<detail::errand> work) {
  impl::one& to = impl_->at(index);
  auto counted = std::make_shared<counted_errand>(impl_, to.load, std::move(work));
  if (impl_->closed.load(std::memory_order_acquire) || impl_->in_child() || !to.handle.post([counted] { counted->run(); }))
    throw std::runtime_error("ringlet: a fiber is spawned on hub_threads that were shut down (or that a forked child does not have)");
}

// A pass that has found all hubs empty, with nothing on its way to any, is the end; a fiber of a later hub may have spawned on
// an earlier one meanwhile.
bool hub_threads::join(deadline until) {
  impl& all = *impl_;
  all.refuse_inside("join");
  for (;;) {
    bool quiet = true;
    for (std::size_t i = 0; i < all.count; ++i) {
      impl::one& mine = all.all[i];
      auto [work, waited] = detail::promise_maker::make([&mine, until, state = impl_] { return impl::onlook(mine, until); });
      mine.handle.post([w = std::shared_ptr<detail::errand>(std::move(work))] { w->run(); });
      if (!waited.wait(until)) return false;
      if (const auto error = waited.exception()) {
        try {
          std::rethrow_exception(error);
        } catch (const std::bad_alloc&) {
          throw;
        } catch (...) {  // that hub has ended
          continue;
        }
      }
      if (waited.get() == impl::seen::late) return false;
      quiet = quiet && waited.get() == impl::seen::nobody;
    }
    for (std::size_t i = 0; i < all.count; ++i) quiet = quiet && all.all[i].load.load(std::memory_order_relaxed) == 0;
    if (quiet) return true;
    if (until.has_passed()) return false;
  }
}

bool hub_threads::shutdown(deadline until) {
  if (impl_->in_child()) return true;
  impl_->refuse_inside("shutdown");
  impl_->stop();
  if (!impl_->running.wait(until, "hub_threads::shutdown")) return false;
  impl_->wait_for_threads();
  return true;
}

}  // namespace ringlet
