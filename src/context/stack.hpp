#pragma once
// Stacks: slots of slabs of reserved address space, a guard at each slot's low end, kept and reused by their thread.
//
// A slot is `stride` bytes (a power of two, guard page included); pages that were never touched cost nothing, so a large stack
// is only address space. Guards are guard regions (MADV_GUARD_INSTALL, Linux 6.13: no extra mapping, a million of
// them) or mprotect'ed pages, of which vm.max_map_count allows about 32,700; then the error says so. The top word of a slot names
// its owner, for the overflow report. What lives at a slot's top is shifted by a multiple of 64 bytes from slot to
// slot ("coloured"), else all tops would share a few cache sets.
//
// One pool per thread, used on it only, except release of the last slots after its thread has gone (see retire).

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>

namespace ringlet::context {

// No stack can be had; what() names the limit that was met and how to raise it.
class no_stack : public std::bad_alloc {
 public:
  explicit no_stack(std::string why) : why_(std::move(why)) {}
  const char* what() const noexcept override { return why_.c_str(); }

 private:
  std::string why_;
};

struct stack {
  char* base = nullptr;       // of the slot: its guard page
  std::size_t stride = 0;     // of the slot, guard included
  char* low() const noexcept; // lowest usable byte
  char* top() const noexcept; // below the owner word and the colour; 64-byte aligned
  void set_owner(const void* owner) const noexcept;
};

inline constexpr std::size_t default_stack_bytes = 64 * 1024;
inline constexpr std::size_t smallest_stack_bytes = 16 * 1024;
inline constexpr std::size_t largest_stack_bytes = std::size_t(1) << 30;

class stack_pool {
 public:
  stack_pool();
  // A slot of at least so many bytes, guard included (0: the default). Throws no_stack.
  stack take(std::size_t bytes);
  void give_back(const stack&) noexcept;
  // The thread ends: slots are no longer kept for reuse, and may be given back on any thread.
  void stop_reuse() noexcept { retired_.store(true, std::memory_order_release); }
  // Then: frees the slabs now, or when the last slot has come back (from whichever thread).
  static void retire(stack_pool*) noexcept;
  std::size_t in_use() const noexcept { return in_use_.load(std::memory_order_relaxed) - 1; }

 private:
  struct slab;
  struct size_class {
    void* free = nullptr;  // most recently used first, linked through the slots' top words
    std::size_t free_count = 0;
    slab* newest = nullptr;
  };
  ~stack_pool();
  void add_slab(size_class&, std::size_t stride);
  static constexpr unsigned classes = 17;  // 16 KiB … 1 GiB
  size_class classes_[classes];
  std::atomic<std::size_t> in_use_{1};  // slots, and one for the thread until it retires the pool
  std::atomic<bool> retired_{false};
  friend struct slab_registry;
};

// RINGLET_STACK_SIZE in bytes (k and M as suffixes), else 64 KiB. Throws std::runtime_error for a value it cannot use.
std::size_t configured_stack_bytes();

enum class guard_kind { regions, mprotect };
// Probed once; RINGLET_GUARDS=regions or mprotect decides instead. Throws std::runtime_error for another value.
guard_kind guards();

// The stack whose guard page holds this address, for the overflow report: its owner word, or null. Async-signal-safe.
bool find_guard(const void* address, const void** owner, std::size_t* stride) noexcept;
// Reports overflows by name on SIGSEGV, then lets the signal do what it did before. `describe` writes the owner's
// name, in the signal handler; the first one given stays unless a later one knows better.
void install_overflow_report(void (*describe)(const void* owner, char* text, std::size_t size),
                             bool knows_better = false) noexcept;
void install_alternate_stack_for_thread() noexcept;

}  // namespace ringlet::context
