// What a thread knows of its greenlets: made on first use, taken apart when the thread ends.
//
// At the end of a thread its suspended greenlets are unwound by greenlet_exit, so that their locals are destroyed. The main
// thread's are not: the process is over, and static objects may still hold handles. A greenlet whose thread is gone is
// freed without unwinding by whoever drops its last handle.

#include <unistd.h>

#include <memory>

#include "base/sys.hpp"
#include "base/thread_end.hpp"
#include "greenlet/greenlet.hpp"

namespace ringlet::detail {

namespace {
thread_local thread_state* state = nullptr;

void at_thread_end(void*) noexcept {
  if (!state || sys::call(SYS_gettid) == ::getpid()) return;
  thread_state* ending = state;
  drop_tracer(*ending);
  ending->tidy();
  end_living(*ending);
  // From here on the others bury what is ours, each for himself: stacks only come back, lists are empty.
  ending->stacks->stop_reuse();
  ending->exited.store(true, std::memory_order_seq_cst);
  bury_dropped(*ending);
  context::leave_thread_stack(ending->main.where);
  state = nullptr;
  context::stack_pool::retire(ending->stacks);
  drop_thread_state(*ending);
}
}  // namespace

thread_state* thread_state::here_or_null() noexcept { return state; }

void thread_state::show_to(std::uintptr_t fs_base, std::uintptr_t fs_base_now) noexcept {
  *reinterpret_cast<thread_state**>(reinterpret_cast<std::uintptr_t>(&state) - fs_base_now + fs_base) = state;
}

thread_state& thread_state::here() {
  if (__builtin_expect(state != nullptr, 1)) return *state;
  auto made = std::make_unique<thread_state>();
  made->stacks = new context::stack_pool;
  made->main.is_main = true;
  made->main.phase = greenlet_phase::running;
  made->main.thread = made.get();
  context::adopt_thread_stack(made->main.where);
  made->current = made->base = &made->main;
  state = made.release();
  base::at_thread_end(&at_thread_end, nullptr);
  return *state;
}

void drop_thread_state(thread_state& t) noexcept {
  // A handle of a main greenlet may outlive its thread; then this stays, for it to say "dead".
  if (t.references.fetch_sub(1, std::memory_order_acq_rel) == 1) greenlet_release(&t.main);
}

}  // namespace ringlet::detail
