#pragma once
// A greenlet's control block and the one way to switch between greenlets.
//
// The block (and the body behind it) lies at the top of the greenlet's own stack: making one allocates nothing else, and a
// parked fiber stays on one page. The hub's fibers have such a block too; the hub resumes them by `resume`, without a
// packet.
//
// States and where such a greenlet sits:
//   unstarted  nowhere: it has a stack and a body, and no frame
//   running    on the processor: thread_state::current, exactly one a thread
//   suspended  its frames rest on its stack, its packet of the next switch will be taken there
//   dead       no frames; the stack stays while handles do
//
// Owner thread only, but for retain and release.

#include <atomic>
#include <cstdint>

#include <ringlet/greenlet.hpp>
#include <ringlet/trace.hpp>

#include "base/intrusive_list.hpp"
#include "context/context.hpp"
#include "context/stack.hpp"

namespace ringlet::detail {

struct thread_state;
struct trace_state;
struct weak_block;

enum class greenlet_phase : std::uint8_t { unstarted, running, suspended, dead };

struct living_link : base::list_link {};

struct greenlet_state : living_link {
  context::context where;
  std::atomic<std::uint32_t> references{1};  // handles, children, and what the runtime holds
  std::atomic<std::uint32_t> borrows{0};     // so many of them are parent links, handles that parent() gave, or `dropped`
  greenlet_phase phase = greenlet_phase::unstarted;
  bool is_main = false;
  bool is_fiber = false;  // the hub holds it until it is finished and resumes it itself
  bool in_hub = false;    // waits in park (or is the hub's own): only the hub may resume it
  bool filed = false;     // in its thread's left_behind
  bool exit_goes_on = false;  // its fiber was killed while it parked here: greenlet_exit passes on to its parent as an exception
  thread_state* thread = nullptr;
  greenlet_state* parent = nullptr;        // counted; set by set_parent_link
  greenlet_state* resumed_by = nullptr;    // who switched to it last; only compared, may be gone
  greenlet_body* body = nullptr;
  void* body_storage = nullptr;
  void* stack_start = nullptr;             // where its frames begin, below block and body
  context::stack memory;
  void (*run)(greenlet_state&, void* message) = nullptr;  // its first frame; does not return
  void (*destroy)(greenlet_state&) noexcept = nullptr;    // body and block; the stack is given back afterwards
  std::uint64_t number = 0;
  greenlet_state* next_dropped = nullptr;  // of `dropped`
  greenlet_state* next_left = nullptr;     // of `left_behind`; another link, for another thread may drop one that is filed
  weak_block* weak = nullptr;
  void* tag = nullptr;  // who runs in it, for those who look themselves up (generator)
};

// Everything of greenlets that belongs to a thread. Lives until the thread is gone and no greenlet of it is left.
struct thread_state {
  greenlet_state* current = nullptr;
  greenlet_state* previous = nullptr;    // who switched away last
  greenlet_state* left_behind = nullptr;  // ended or lost their last handle in a switch; what they sent may still be on their stacks
  greenlet_state* base = nullptr;        // where the running flow began: main, or the running fiber's own greenlet
  greenlet_state main;                   // one reference to it stands for all of `references`
  context::thread_globals globals;
  context::stack_pool* stacks = nullptr;
  base::intrusive_list<greenlet_state, living_link> living;  // begun and not dead; fibers are in their hub's list
  std::atomic<greenlet_state*> dropped{nullptr};  // last handle dropped on another thread, and with it its reference: ours to end
  std::atomic<std::uint32_t> references{1};
  std::atomic<bool> exited{false};
  std::uint64_t next_number = 1;
  trace_state* tracing = nullptr;  // told of each switch; null while it runs itself
  trace_state* tracer = nullptr;

  static thread_state& here();  // made on first use
  static thread_state* here_or_null() noexcept;
  // For a control block that is to run on this thread, too (context::thread_image): there, here() is this thread's. The
  // variable lies in static TLS, at the same distance from every FS base.
  static void show_to(std::uintptr_t fs_base, std::uintptr_t fs_base_now) noexcept;
  // Ends what others have dropped and what the last switch has left behind.
  bool untidy() const noexcept { return left_behind || dropped.load(std::memory_order_relaxed); }
  void tidy() {
    if (untidy()) tidy_slow();
  }
  void tidy_slow();
};

// A block of State (derived from greenlet_state) with room for a body, on a new stack of this thread. Throws no_stack.
template <class State>
State* make_on_stack(thread_state& t, std::size_t body_size, std::size_t body_alignment, std::size_t stack_bytes) {
  context::stack memory = t.stacks->take(stack_bytes);
  char* at = memory.top() - sizeof(State);
  at -= reinterpret_cast<std::uintptr_t>(at) % 64;
  State* made = ::new (at) State;
  at -= body_size;
  at -= reinterpret_cast<std::uintptr_t>(at) % (body_alignment < 16 ? 16 : body_alignment);
  if (at < memory.low() + 4096) {
    made->~State();
    t.stacks->give_back(memory);
    throw context::no_stack("ringlet: what the function captured does not fit its stack; ask for a larger stack_size_bytes");
  }
  made->memory = memory;
  made->body_storage = at;
  made->stack_start = at;
  made->thread = &t;
  memory.set_owner(static_cast<greenlet_state*>(made));
  t.references.fetch_add(1, std::memory_order_relaxed);
  return made;
}

// Runs `target` (suspended, or given its first context) on this thread; returns what the one who resumes the caller
// sends. Inline: this is the switch.
template <context::sides relation = context::sides::strangers>
inline void* switch_greenlet(thread_state& t, greenlet_state& target, void* message) {
  greenlet_state& self = *t.current;
  t.current = &target;
  t.previous = &self;
  const bool last = self.phase == greenlet_phase::dead;
  if (!last) self.phase = greenlet_phase::suspended;
  target.phase = greenlet_phase::running;
  return context::switch_context<relation>(t.globals, self.where, target.where, message, last);
}
// A switch has arrived: the tracer is told, and if it throws, that takes the packet's place.
void trace_packet(thread_state&, packet& came) noexcept;
// The same for a switch without a packet; what the tracer threw, or null.
std::exception_ptr trace_switch(thread_state&) noexcept;
void drop_tracer(thread_state&) noexcept;

void run_body(greenlet_state&, void* message);  // a plain greenlet's first frame
void mark_dead(greenlet_state&);
inline bool has_no_handle(const greenlet_state& g) {
  return g.references.load(std::memory_order_acquire) == g.borrows.load(std::memory_order_relaxed);
}
std::string name_of(const greenlet_state&);
const char* phase_name(const greenlet_state&);
std::string demangled(const char* name);
std::string frame_text(void* address);

void drop_thread_state(thread_state&) noexcept;
// The new parent is counted, the old one let go of.
void set_parent_link(greenlet_state&, greenlet_state* parent);
void give_first_context(greenlet_state&);
// Takes a dead or unstarted one without handles apart and gives its stack back.
void bury(greenlet_state&) noexcept;
// The thread's end: unwinds what still rests on stacks of this thread. After it, nothing is in `living`.
void end_living(thread_state&) noexcept;
void bury_dropped(thread_state&) noexcept;

}  // namespace ringlet::detail
