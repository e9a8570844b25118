// A thread's life: the mode's begin, birth by clone3, ids, the end by exit(2), and fork.
//
// A new thread's block lies in memory of ours (never given back, used again), not on its stack: the stack belongs to libc,
// which may hand it to the next thread as soon as the id word is cleared. Hence that word is cleared, and its waiters
// woken, only once the stack has been left for good.
//
// The main thread's end (pthread_exit in main) parks its fiber for ever: its stack is the process's, and exit handlers of
// the process may yet need its control block. The last thread's end is the process's.

#include <sys/mman.h>
#include <sys/prctl.h>

#include <new>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "hub/debug.hpp"
#include "hub/fork.hpp"
#include "io/doors.hpp"
#include "loop/entries.hpp"
#include "loop/native_thread.hpp"
#include "threads/state.hpp"

#pragma GCC diagnostic ignored "-Winvalid-offsetof"

namespace ringlet::threads {

volatile bool inside = false;
constinit mode the_mode;

namespace {

constexpr std::size_t id_buckets = 1 << 14;
thread_block* by_id[id_buckets];
thread_fiber* unused = nullptr;

void enter_id(thread_block& b) noexcept {
  thread_block*& head = by_id[std::size_t(b.id) % id_buckets];
  b.next_of_id = head;
  head = &b;
}
void drop_id(thread_block& b) noexcept {
  for (thread_block** at = &by_id[std::size_t(b.id) % id_buckets]; *at; at = &(*at)->next_of_id)
    if (*at == &b) {
      *at = b.next_of_id;
      return;
    }
}

int free_id() noexcept {
  mode& m = the_mode;
  for (int tries = 0; tries < last_id - first_id; ++tries) {
    const int id = m.next_id;
    m.next_id = id == last_id ? first_id : id + 1;
    if (!find(id)) return id;
  }
  return -EAGAIN;
}

// Memory for blocks comes in whole mappings: a thread may end inside of free, so nothing here is free's.
thread_fiber* take_unused() noexcept {
  if (!unused) {
    constexpr std::size_t bytes = 256 * 1024;
    const long at = sys::call(SYS_mmap, nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at < 0 && at > -4096) return nullptr;
    for (char* place = reinterpret_cast<char*>(at); place + sizeof(thread_fiber) <= reinterpret_cast<char*>(at) + bytes;
         place += (sizeof(thread_fiber) + 63) / 64 * 64) {
      auto* f = reinterpret_cast<thread_fiber*>(place);
      f->next_free = unused;
      unused = f;
    }
  }
  thread_fiber* taken = unused;
  unused = taken->next_free;
  return ::new (static_cast<void*>(taken)) thread_fiber;
}

void first_steps(detail::greenlet_state& g, void*) {
  auto& self = static_cast<thread_fiber&>(static_cast<detail::fiber_state&>(g));
  self.hub->arrive_first();
  leave();
  self.enter(self.frame);
  RINGLET_ASSERT(false, "a thread's first frame returned");
}

void give_back(detail::greenlet_state& g) noexcept {
  auto& dead = static_cast<thread_fiber&>(static_cast<detail::fiber_state&>(g));
  if (dead.block.affinity) sys::call(SYS_munmap, dead.block.affinity, 4096);
  dead.~thread_fiber();
  auto* memory = &dead;
  memory->next_free = unused;
  unused = memory;
}

void clear_child_id(thread_block& b) noexcept {
  if (!b.clear_child_id) return;
  __atomic_store_n(b.clear_child_id, 0, __ATOMIC_SEQ_CST);
  wake_word(reinterpret_cast<std::uint32_t*>(b.clear_child_id), std::size_t(-1), ~0u);
  b.clear_child_id = nullptr;
}

void on_stack_left(detail::fiber_state& f) {
  thread_block& b = static_cast<thread_fiber&>(f).block;
  count_out(b);
  drop_id(b);
  --the_mode.living;
  clear_child_id(b);
}

// What the kernel does to a dying thread's robust mutexes (exit_robust_list). The list's layout is the kernel's ABI.
struct robust_node {
  robust_node* next;
};
struct robust_head {
  robust_node list;
  long word_offset;
  robust_node* pending;
};
constexpr std::uint32_t owner_died = 0x40000000, has_waiters = 0x80000000, id_bits = 0x3fffffff;

robust_node* without_flag(robust_node* n) noexcept {  // bit 0 says that the mutex inherits priorities
  return reinterpret_cast<robust_node*>(reinterpret_cast<std::uintptr_t>(n) & ~std::uintptr_t(1));
}

void mark_ownerless(robust_node* n, long word_offset, int id) noexcept {
  auto* word = reinterpret_cast<std::uint32_t*>(reinterpret_cast<char*>(n) + word_offset);
  std::uint32_t held = __atomic_load_n(word, __ATOMIC_SEQ_CST);
  while ((held & id_bits) == std::uint32_t(id)) {
    const std::uint32_t orphaned = (held & has_waiters) | owner_died;
    if (!__atomic_compare_exchange_n(word, &held, orphaned, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) continue;
    if ((held & has_waiters) && wake_word(word, 1, ~0u) == 0) sys::call(SYS_futex, word, 1 /* FUTEX_WAKE */, 1);
    return;
  }
}

void leave_robust_mutexes(thread_block& b) noexcept {
  auto* head = static_cast<robust_head*>(b.robust_list);
  // Only a list inside of the control block, where libc has it: some programs register junk to see what happens.
  const auto distance = std::intptr_t(b.robust_list) - std::intptr_t(b.fs_base);
  if (!head || distance < 0 || distance > 65536) return;
  constexpr int longest = 2048;  // the kernel's own limit
  robust_node* const pending = without_flag(head->pending);
  robust_node* at = without_flag(head->list.next);
  for (int i = 0; at != &head->list && i < longest; ++i) {
    robust_node* const next = without_flag(at->next);
    if (at != pending) mark_ownerless(at, head->word_offset, b.id);
    at = next;
  }
  if (pending) mark_ownerless(pending, head->word_offset, b.id);
}

int* kernels_clear_child_id() noexcept {
  int* address = nullptr;
  return sys::call(SYS_prctl, 40 /* PR_GET_TID_ADDRESS */, &address) == 0 ? address : nullptr;
}

}  // namespace

// --- the mode ---------------------------------------------------------------------------------------------------------

bool begun() noexcept { return the_mode.hub != nullptr; }
std::size_t living() noexcept { return the_mode.living; }
std::uint64_t made() noexcept { return the_mode.made; }
std::uint64_t switches() noexcept { return the_mode.hub ? the_mode.hub->switches : 0; }
std::uint64_t kernel_entries() noexcept { return loop::kernel_entries.load(std::memory_order_relaxed); }
int os_id() noexcept { return the_mode.os_id; }
bool runtime_makes_thread() noexcept { return loop::is_making_native_thread(); }
bool alone() noexcept { return the_mode.living <= 1; }

thread_block& current() noexcept { return *block_of(the_mode.hub->thread.current->where.image); }

thread_block* find(int id) noexcept {
  for (thread_block* b = by_id[std::size_t(unsigned(id)) % id_buckets]; b; b = b->next_of_id)
    if (b->id == id) return b;
  return nullptr;
}

int begin(const char** why) noexcept {
  mode& m = the_mode;
  RINGLET_ASSERT(!m.hub, "the threads mode begins twice");
  detail::hub_state* hub = nullptr;
  try {
    hub = &detail::hub_state::here();
  } catch (const std::exception&) {
    *why = "no engine can be made (`ringlet info` says why)";
    return -ENOSYS;
  }
  if (!context::can_change_images(hub->thread.globals)) {
    *why = "the FS base cannot be moved on this processor";
    return -ENOSYS;
  }
  io::adopt_thread();
  m.process = hub->process;
  m.os_id = int(sys::call(SYS_gettid));
  m.main.fs_base = m.own.fs_base = hub->thread.globals.own_fs_base;
  m.main.is_main = true;
  m.main.fiber = &hub->main_fiber;
  m.main.id = m.os_id;
  m.main.clear_child_id = kernels_clear_child_id();
  std::size_t size = 0;
  sys::call(SYS_get_robust_list, 0, &m.main.robust_list, &size);
  sys::call(SYS_prctl, PR_GET_NAME, m.main.name);
  m.living = 1;
  enter_id(m.main);
  m.hub = hub;
  begin_signals();
  hub->thread.main.where.image = &m.main;
  hub->own->where.image = &m.own;
  hub->thread.globals.changes_to = &take_on;
  hub->never_in_deadlock = true;
  hub->hands_out_signals = [](detail::hub_state& h) { hand_out_signals(h); };
  hub->engine->sleep_mask = &m.sleep_mask;
  detail::ringlet_debug_table.thread = {std::uint32_t(offsetof(thread_block, id)), std::uint32_t(offsetof(thread_block, name)), sizeof m.main.name, 0, &m.own};
  return 0;
}

// --- birth ------------------------------------------------------------------------------------------------------------

long create(const birth& wanted) noexcept {
  mode& m = the_mode;
  RINGLET_ASSERT(wanted.frame_size <= frame_room, "a frame is larger than its room");
  if (__builtin_expect(m.hub->process != m.process, 0)) detail::go_on_in_child();
  m.hub->engine->sleep_mask = &m.sleep_mask;
  const int id = free_id();
  if (id < 0) return id;
  thread_fiber* f = take_unused();
  if (!f) return -EAGAIN;
  const thread_block& parent = current();
  thread_block& b = f->block;
  b.fs_base = wanted.fs_base;
  b.fiber = f;
  b.id = id;
  b.clear_child_id = wanted.clear_child_id;
  b.mask = parent.mask;
  b.alternate.ss_flags = SS_DISABLE;
  __builtin_memcpy(b.name, parent.name, sizeof b.name);
  __builtin_memcpy(f->frame, wanted.frame, wanted.frame_size);
  f->enter = wanted.enter;
  f->run = &first_steps;
  f->destroy = &give_back;
  f->left_stack = &on_stack_left;
  // Its first frames, those of ours, lie where the program's will: they are gone by then. Below the red zone that the
  // program may have put something into.
  constexpr std::uintptr_t red_zone = 128;
  f->stack_start = reinterpret_cast<void*>((wanted.stack_top - red_zone) & ~std::uintptr_t(63));
  detail::hub_state::show_to(wanted.fs_base, parent.fs_base);
  try {
    m.hub->admit(*f);
  } catch (const std::bad_alloc&) {
    give_back(*f);
    return -EAGAIN;
  }
  f->where.image = &b;
  enter_id(b);
  count_in(b);
  ++m.living;
  ++m.made;
  start_watcher();
  if (wanted.parent_id) *wanted.parent_id = id;
  if (wanted.child_id) *wanted.child_id = id;
  return id;
}

// --- the end ----------------------------------------------------------------------------------------------------------

void exit_thread(int status) noexcept {
  mode& m = the_mode;
  thread_block& b = current();
  leave_robust_mutexes(b);
  if (m.living == 1) sys::call(SYS_exit_group, status);
  if (!b.is_main) m.hub->leave_for_good();
  b.is_gone = true;
  count_out(b);
  drop_id(b);
  --m.living;
  clear_child_id(b);
  for (;;) {
    detail::waiter for_ever;
    for_ever.what = "its own end";
    for_ever.interruptible = false;
    m.hub->wait(for_ever);
  }
}

// --- fork -------------------------------------------------------------------------------------------------------------

// libc holds malloc's locks until the child's handlers (pthread_atfork) run, so nothing may be allocated or freed here: the
// hub itself goes on in its own handler, or, for a fork without handlers, when it is first needed. Until then the thread
// is alone, and everything that would wait is the kernel's.
void after_fork_in_child() noexcept {
  mode& m = the_mode;
  thread_block& self = current();
  m.process = int(sys::call(SYS_getpid));
  m.os_id = int(sys::call(SYS_gettid));
  for (auto& head : by_id) head = nullptr;
  self.id = m.os_id;
  self.clear_child_id = kernels_clear_child_id();
  m.living = 1;
  m.main.is_gone = &self != &m.main;
  enter_id(self);
  forget_futexes_after_fork();
  forget_signals_after_fork();
}

}  // namespace ringlet::threads
