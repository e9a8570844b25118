// fork: the child keeps the fiber that forked and nothing else, on a fresh loop.
//
// The other fibers' frames exist in the child's memory, too, but resuming them would do the parent's work twice (write
// to its sockets, answer its requests). They are forgotten, not unwound: their destructors would act on shared things as
// well. Those of them that wait for something the child still uses (a lock, a queue, the end of the fiber that forked) are
// passed over there: see fiber_state::is_ghost. The ring must go because its memory and its files are shared with the parent. If the fiber that forked was not
// the main one, the process ends when it and those it has spawned have ended, as it does for a thread that forked; with
// status 1, and a report, if it ended by an exception.

#include "hub/fork.hpp"

#include <ringlet/sync.hpp>

#include <pthread.h>
#include <unistd.h>

#include "base/assert.hpp"
#include "hub/debug.hpp"
#include "hub/timeout.hpp"
#include "loop/offload.hpp"

namespace ringlet::detail {

constinit std::atomic<std::uint32_t> fork_tag{1};  // 0 is a free lock

namespace {
std::atomic<int> known_process{0};  // every thread that makes a hub writes it

void in_child() {
  unlock_handles();
  go_on_in_child();
}
}  // namespace

void register_fork_handler() {
  known_process.store(::getpid(), std::memory_order_relaxed);
  static const int once = ::pthread_atfork(&lock_handles, &unlock_handles, &in_child);
  (void)once;
}

void go_on_in_child() {
  const int process = ::getpid();
  if (known_process.exchange(process, std::memory_order_relaxed) == process) return;
  fork_generation.fetch_add(1, std::memory_order_relaxed);
  fork_tag.fetch_add(1, std::memory_order_relaxed);
  loop::offload_forget_after_fork();
  if (hub_state* h = hub_state::here_or_null()) h->after_fork_in_child();
}

void hub_state::after_fork_in_child() {
  process = ::getpid();
  only_debuggers_hub(*this);
  ready_fibers.forget_all();
  computing.forget_all();
  ready_count = 0;
  fibers.forget_all();
  fiber_count = daemon_count = 0;
  silent_threads.store(0, std::memory_order_relaxed);
  timers.forget_all();
  inbox.store(nullptr, std::memory_order_relaxed);
  fd_waits = foreign_work = watched_fds = 0;
  forked = true;
  for (auto& each : let_go)
    if (auto forget = std::exchange(each, nullptr)) forget(*this);
  forked = false;
  engine->abandon_after_fork();
  auto choice = loop::make_engine();
  engine = std::move(choice.made);
  engine_reason = std::move(choice.reason);
  turn_time = engine->now();
  if (running && running != &main_fiber) {
    static_cast<all_link&>(*running) = all_link{};
    fibers.push_back(*running);
    fiber_count = 1;
    daemon_count = running->is_daemon;
  }
  if (running) {
    running->generation = fork_generation.load(std::memory_order_relaxed);
    delete std::exchange(running->links, nullptr);
  }
  senders.store(0, std::memory_order_relaxed);
  main_gone = running != &main_fiber;
  if (running) chief = running;
  for (timeout_scope* s = running ? running->scopes : nullptr; s; s = s->outer) s->rearm(*this);
}

}  // namespace ringlet::detail
