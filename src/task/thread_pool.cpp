// A crew of helper threads with a program's work.
//
// The pool and each piece of work under way share the state, so a pool may go while its last thread is still on its way
// out. What waits in apply lies on the caller's stack: it is taken back or waited for, whatever interrupts the caller.

#include <ringlet/thread_pool.hpp>

#include <algorithm>
#include <atomic>
#include <climits>
#include <system_error>

#include "base/lock.hpp"
#include "hub/fork.hpp"
#include "hub/hub.hpp"
#include "loop/crew.hpp"

namespace ringlet {

struct thread_pool::impl {
  loop::crew* crew;
  detail::countdown unfinished;
  std::atomic<bool> closed{false};
  event ending;  // its destructor has begun
  std::atomic<unsigned> generation{detail::fork_generation.load(std::memory_order_relaxed)};
  base::lock renewal;

  // What the threads of a parent had to do is not done again in its child.
  void enter() noexcept {
    const unsigned now = detail::fork_generation.load(std::memory_order_relaxed);
    if (__builtin_expect(generation.load(std::memory_order_acquire) == now, 1)) return;
    base::lock_guard hold(renewal);
    if (generation.load(std::memory_order_relaxed) == now) return;
    unfinished.forget_all();
    generation.store(now, std::memory_order_release);
  }
  template <class Job>
  void submit(Job& j) {
    j.crew = crew;
    j.ending = &ending;
    unfinished.add();
    const int error = crew->submit(j);
    if (error == 0) return;
    unfinished.done();
    throw std::system_error(-error, std::generic_category(),
                            "ringlet: no helper thread can be made for a thread_pool (a limit on processes or memory? see ulimit -u, "
                            "the cgroup's pids.max)");
  }
};

namespace {
constinit thread_local const void* working_for = nullptr;  // the pool whose work this helper does

// The state must outlive what still touches it.
struct pool_job : loop::job {
  void (*drop)(pool_job&) noexcept = nullptr;
  const void* pool;
  loop::crew* crew;
  event* ending;
  detail::countdown* unfinished;
  std::shared_ptr<void> state;
};

// Fibers that the work has left behind on the helper run to their end, or to the pool's. Another helper takes its place
// meanwhile: they may wait for what only that one does.
void end_fibers(loop::crew& crew, event& ending) noexcept {
  auto* hub = detail::hub_state::here_or_null();
  if (!hub || hub->fiber_count == hub->daemon_count) return;
  crew.step_aside();
  auto kill_all = [&] {
    while (hub->fiber_count > hub->daemon_count) {
      std::vector<any_fiber> all;
      hub->fibers.for_each([&](detail::fiber_state& f) {
        if (f.is_daemon) return;
        detail::fiber_retain(&f);
        all.push_back(fiber_access::adopt(&f));
      });
      killall(all);
    }
  };
  try {
    const any_fiber killer = spawn({.name = "a thread_pool's end", .daemon = true}, [&] {
      ending.wait();
      kill_all();
    });
    hub::join();
    killer.kill();
  } catch (...) {  // no stack, or they wait for each other
    try {
      kill_all();
    } catch (...) {
    }
  }
  crew.step_back();
}

struct queued_errand : pool_job {
  std::unique_ptr<detail::errand> work;

  // After the work has gone, with all that it captured.
  static void finish(pool_job& j) noexcept {
    auto* q = static_cast<queued_errand*>(&j);
    q->work.reset();
    const auto kept = std::move(q->state);
    auto* count = q->unfinished;
    delete q;
    count->done();
  }
};

struct waited_call : pool_job {
  void* call;
  void (*how)(void*);
  bool dropped = false;
  detail::countdown own;

  static void finish(pool_job& j) noexcept {
    auto& w = static_cast<waited_call&>(j);
    const auto kept = w.state;
    auto* count = w.unfinished;
    auto* crew = w.dropped ? nullptr : w.crew;
    auto* ending = w.ending;
    w.own.done();  // it may be gone from here on
    if (crew) end_fibers(*crew, *ending);
    count->done();
  }
};
}  // namespace

thread_pool::thread_pool(private_tag, std::size_t size, std::chrono::nanoseconds idle_time) : impl_(std::make_shared<impl>()) {
  impl_->crew = new loop::crew(0, loop::crew::works_for::program, std::max(idle_time, std::chrono::nanoseconds(1)));
  set_size(size);
}

thread_pool::~thread_pool() {
  impl_->enter();
  close();
  impl_->ending.set();
  drop_queued();
  impl_->unfinished.wait_out("the end of a thread_pool");
  impl_->crew->disband();
}

void thread_pool::queue(std::unique_ptr<detail::errand> work) {
  impl_->enter();
  if (impl_->closed.load(std::memory_order_relaxed))
    throw std::runtime_error("ringlet: work is given to a thread_pool (or executor) that was closed");
  auto made = std::make_unique<queued_errand>();
  made->state = impl_;
  made->pool = impl_.get();
  made->unfinished = &impl_->unfinished;
  made->work = std::move(work);
  made->drop = &queued_errand::finish;
  made->run = [](loop::job& j) {
    auto& q = static_cast<queued_errand&>(j);
    working_for = q.pool;
    q.work->run();
    working_for = nullptr;
    end_fibers(*q.crew, *q.ending);
    queued_errand::finish(q);
  };
  impl_->submit(*made);
  made.release();
}

void thread_pool::run_and_wait(void* call, void (*how)(void*)) {
  impl_->enter();
  if (impl_->closed.load(std::memory_order_relaxed)) throw std::runtime_error("ringlet: apply on a thread_pool that was closed");
  waited_call w;
  w.pool = impl_.get();
  w.call = call;
  w.how = how;
  w.state = impl_;
  w.unfinished = &impl_->unfinished;
  w.drop = [](pool_job& j) noexcept {
    static_cast<waited_call&>(j).dropped = true;
    waited_call::finish(j);
  };
  w.run = [](loop::job& j) {
    auto& mine = static_cast<waited_call&>(j);
    working_for = mine.pool;
    mine.how(mine.call);
    working_for = nullptr;
    waited_call::finish(mine);
  };
  w.own.add();
  impl_->submit(w);
  try {
    w.own.wait(never, "thread_pool::apply");
  } catch (...) {
    if (impl_->crew->take_back(w)) {
      w.own.done();
      impl_->unfinished.done();
    } else {
      w.own.wait_out("the end of a thread_pool::apply that was interrupted");
    }
    throw;
  }
  if (w.dropped) throw greenlet_exit{};
}

bool thread_pool::is_inside() const noexcept { return working_for == impl_.get(); }

void thread_pool::set_size(std::size_t size) { impl_->crew->set_limit(unsigned(std::min<std::size_t>(size, INT_MAX))); }
std::size_t thread_pool::size() const noexcept { return impl_->crew->limit(); }
std::size_t thread_pool::threads() const noexcept { return impl_->crew->threads(); }
std::size_t thread_pool::unfinished() const noexcept { return impl_->unfinished.left(); }

bool thread_pool::join(deadline until) {
  if (is_inside()) throw std::logic_error("ringlet: thread_pool::join on one of its own helpers; it would wait for itself for ever");
  impl_->enter();
  return impl_->unfinished.wait(until, "thread_pool::join");
}

void thread_pool::close() noexcept { impl_->closed.store(true, std::memory_order_relaxed); }

std::size_t thread_pool::drop_queued() noexcept {
  impl_->enter();
  std::size_t dropped = 0;
  for (loop::job* j = impl_->crew->take_back_all(); j; ++dropped) {
    auto& mine = static_cast<pool_job&>(*j);
    j = j->next;
    mine.drop(mine);
  }
  return dropped;
}

}  // namespace ringlet
