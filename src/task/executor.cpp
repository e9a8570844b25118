// A place to run functions in: what it is, is one function that takes an errand there.

#include <ringlet/executor.hpp>

#include <atomic>
#include <mutex>
#include <stdexcept>

#include "base/assert.hpp"
#include "hub/hub.hpp"

namespace ringlet {

namespace {
// Who runs: a fiber, or the thread where no hub has been made yet (or its main fiber, which is the same flow).
const void* running_flow() noexcept {
  static thread_local char thread;
  const auto* hub = detail::hub_state::here_or_null();
  return hub && hub->running && hub->running != &hub->main_fiber ? static_cast<const void*>(hub->running) : &thread;
}
}  // namespace

struct executor::impl {
  std::function<void(std::unique_ptr<detail::errand>)> take_there;
  detail::countdown unfinished;
  std::atomic<bool> closed{false}, cancelled{false};

  // The flows that do our work now.
  struct at_work {
    impl& of;
    const void* const flow = running_flow();
    at_work* next;
    explicit at_work(impl& i) noexcept : of(i) {
      std::lock_guard hold(of.lock);
      next = std::exchange(of.working, this);
    }
    ~at_work() {
      std::lock_guard hold(of.lock);
      at_work** link = &of.working;
      while (*link != this) link = &(*link)->next;
      *link = next;
    }
  };
  detail::wait_lock lock;
  at_work* working = nullptr;

  bool is_inside() noexcept {
    const void* const self = running_flow();
    std::lock_guard hold(lock);
    for (const at_work* w = working; w; w = w->next)
      if (w->flow == self) return true;
    return false;
  }

  // Counted until it is gone; one that is reached after a cancelling shutdown goes unrun.
  struct tracked final : detail::errand {
    const std::shared_ptr<impl> of;
    std::unique_ptr<detail::errand> work;
    tracked(std::shared_ptr<impl> i, std::unique_ptr<detail::errand> w) : of(std::move(i)), work(std::move(w)) { of->unfinished.add(); }
    ~tracked() override {
      work.reset();
      of->unfinished.done();
    }
    void run() noexcept override {
      if (of->cancelled.load(std::memory_order_relaxed)) return;
      at_work here(*of);
      work->run();
    }
  };
};

executor::executor(std::unique_ptr<thread_pool> own) : executor(*own) { own_ = std::move(own); }

executor::executor(thread_pool& threads) : impl_(std::make_shared<impl>()) {
  impl_->take_there = [&threads](std::unique_ptr<detail::errand> work) {
    threads.submit([w = std::shared_ptr<detail::errand>(std::move(work))] { w->run(); });
  };
}
executor::executor(group& fibers) : impl_(std::make_shared<impl>()) {
  impl_->take_there = [&fibers](std::unique_ptr<detail::errand> work) {
    fibers.apply_async([w = std::shared_ptr<detail::errand>(std::move(work))] { w->run(); });
  };
}
executor::executor(hub_threads& hubs) : impl_(std::make_shared<impl>()) {
  impl_->take_there = [&hubs](std::unique_ptr<detail::errand> work) {
    hubs.spawn([w = std::shared_ptr<detail::errand>(std::move(work))] { w->run(); });
  };
}

executor::~executor() {
  RINGLET_REQUIRE(!impl_->is_inside(), "an executor is destroyed by its own work, whose end its destructor waits for");
  impl_->closed.store(true);
  impl_->unfinished.wait_out("the end of an executor");
}

bool executor::is_inside() const noexcept { return impl_->is_inside(); }

// Counted before it looks whether the executor is closed: a shutdown that did not see it counted is seen here.
void executor::send(std::unique_ptr<detail::errand> work) {
  auto counted = std::make_unique<impl::tracked>(impl_, std::move(work));
  if (impl_->closed.load()) throw std::runtime_error("ringlet: work is submitted to an executor after its shutdown");
  impl_->take_there(std::move(counted));
}

bool executor::shutdown(deadline until, bool cancel) {
  if (impl_->is_inside()) throw std::logic_error("ringlet: executor::shutdown in its own work; it would wait for itself for ever");
  impl_->closed.store(true);
  if (cancel) impl_->cancelled.store(true, std::memory_order_relaxed);
  return impl_->unfinished.wait(until, "executor::shutdown");
}

}  // namespace ringlet
