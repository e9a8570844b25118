// A place to run functions in: what it is, is one function that takes an errand there.

#include <ringlet/executor.hpp>

#include <atomic>
#include <stdexcept>

namespace ringlet {

struct executor::impl {
  std::function<void(std::unique_ptr<detail::errand>)> take_there;
  detail::countdown unfinished;
  std::atomic<bool> closed{false}, cancelled{false};
};

namespace {
// Counted until it is gone; one that is reached after a cancelling shutdown goes unrun.
struct tracked final : detail::errand {
  std::shared_ptr<void> keeps;
  detail::countdown& unfinished;
  const std::atomic<bool>& cancelled;
  std::unique_ptr<detail::errand> work;
  tracked(std::shared_ptr<void> k, detail::countdown& u, const std::atomic<bool>& c, std::unique_ptr<detail::errand> w)
      : keeps(std::move(k)), unfinished(u), cancelled(c), work(std::move(w)) {
    unfinished.add();
  }
  ~tracked() override {
    work.reset();
    unfinished.done();
  }
  void run() noexcept override {
    if (!cancelled.load(std::memory_order_relaxed)) work->run();
  }
};
}  // namespace

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
  impl_->closed.store(true, std::memory_order_relaxed);
  impl_->unfinished.wait_out("the end of an executor");
}

void executor::send(std::unique_ptr<detail::errand> work) {
  if (impl_->closed.load(std::memory_order_relaxed)) throw std::runtime_error("ringlet: work is submitted to an executor after its shutdown");
  impl_->take_there(std::make_unique<tracked>(impl_, impl_->unfinished, impl_->cancelled, std::move(work)));
}

bool executor::shutdown(deadline until, bool cancel) {
  impl_->closed.store(true, std::memory_order_relaxed);
  if (cancel) impl_->cancelled.store(true, std::memory_order_relaxed);
  return impl_->unfinished.wait(until, "executor::shutdown");
}

}  // namespace ringlet
