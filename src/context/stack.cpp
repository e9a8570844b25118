#include "context/stack.hpp"

#include <sys/mman.h>
#include <sys/prctl.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string_view>

#include "base/assert.hpp"
#include "base/sys.hpp"
#include "context/sanitizer.hpp"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

namespace ringlet::context {

namespace {
constexpr std::size_t slab_bytes = std::size_t(64) << 20;
constexpr std::size_t page = 4096;
constexpr std::size_t colours = 16, colour_bytes = 64;
constexpr std::size_t top_reserve = 64;  // the owner word's cache line
// So many freed stacks of a size stay as they are; beyond that, all but the top page goes back to the kernel.
constexpr std::size_t warm_limit = 1024;

struct top_word {  // the last bytes of a slot
  void* next_free;
  const void* owner;
  unsigned valgrind_id;
};
top_word* top_of(char* base, std::size_t stride) { return reinterpret_cast<top_word*>(base + stride) - 1; }

long advise(void* at, std::size_t bytes, int advice) { return sys::call(SYS_madvise, at, bytes, advice); }
}  // namespace

char* stack::low() const noexcept { return base + page; }
char* stack::top() const noexcept {
  const std::size_t index = reinterpret_cast<std::uintptr_t>(base) / stride;
  return base + stride - top_reserve - (index % colours) * colour_bytes;
}
void stack::set_owner(const void* owner) const noexcept { top_of(base, stride)->owner = owner; }

// Every slab of the process, for the signal handler: a list that only grows; a slab that was unmapped leaves an empty entry.
struct stack_pool::slab {
  std::atomic<char*> base{nullptr};
  std::size_t bytes = 0;
  std::size_t stride = 0;
  std::size_t used = 0;  // slots handed out at least once; only these have guards
  slab* older = nullptr;  // of the same pool and class
  slab* next = nullptr;   // of the registry
};

struct slab_registry {
  static inline std::atomic<stack_pool::slab*> first{nullptr};
  static void add(stack_pool::slab* s) {
    s->next = first.load(std::memory_order_relaxed);
    while (!first.compare_exchange_weak(s->next, s, std::memory_order_release)) {
    }
  }
};

guard_kind guards() {
  static const guard_kind kind = [] {
    // For tests, and where guard regions are to be suspected: RINGLET_GUARDS=mprotect.
    const char* variable = std::getenv("RINGLET_GUARDS");
    const std::string_view asked = variable ? variable : "";
    if (asked == "mprotect") return guard_kind::mprotect;
    if (!asked.empty() && asked != "auto" && asked != "regions")
      throw std::runtime_error("ringlet: RINGLET_GUARDS=" + std::string(asked) + " is no kind of guard; allowed are auto, regions (Linux 6.13) and mprotect.");
    void* probe = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (probe == MAP_FAILED) return guard_kind::mprotect;
    const bool works = advise(probe, page, MADV_GUARD_INSTALL) == 0;
    ::munmap(probe, page);
    if (!works && asked == "regions") throw std::runtime_error("ringlet: RINGLET_GUARDS=regions, but this kernel has no guard regions (Linux 6.13 has).");
    return works ? guard_kind::regions : guard_kind::mprotect;
  }();
  return kind;
}

stack_pool::stack_pool() { install_alternate_stack_for_thread(); }

stack_pool::~stack_pool() {
  for (auto& c : classes_)
    for (slab* s = c.newest; s; s = s->older) {
      char* base = s->base.exchange(nullptr, std::memory_order_acq_rel);
      if (sanitizer::under_valgrind())
        for (std::size_t i = 0; i < s->used; ++i) sanitizer::forget_stack(top_of(base + i * s->stride, s->stride)->valgrind_id);
      ::munmap(base, s->bytes);
    }
}

void stack_pool::retire(stack_pool* pool) noexcept {
  pool->stop_reuse();
  if (pool->in_use_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete pool;
}

void stack_pool::add_slab(size_class& c, std::size_t stride) {
  std::size_t bytes = std::max(slab_bytes, stride * 4);
  auto made = std::make_unique<slab>();
  void* at = MAP_FAILED;
  while (true) {
    at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at != MAP_FAILED) break;
    if (bytes / 2 < stride)
      throw no_stack("ringlet: no address space for another fiber stack of " + std::to_string(stride / 1024) +
                     " KiB (mmap: " + std::strerror(errno) +
                     "). Likely cause: a limit on address space (ulimit -v), vm.overcommit_memory=2, or vm.max_map_count. "
                     "Cure: raise it, use smaller stacks (RINGLET_STACK_SIZE), or keep fewer fibers at a time.");
    bytes /= 2;
  }
  advise(at, bytes, MADV_NOHUGEPAGE);  // EINVAL without THP: nothing to forbid then
  ::prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, at, bytes, "ringlet stacks");
  slab* s = made.release();
  s->bytes = bytes;
  s->stride = stride;
  s->older = c.newest;
  s->base.store(static_cast<char*>(at), std::memory_order_release);
  c.newest = s;
  slab_registry::add(s);
}

stack stack_pool::take(std::size_t bytes) {
  static const std::size_t configured = configured_stack_bytes();
  if (bytes == 0) bytes = configured;
  if (bytes > largest_stack_bytes)
    throw no_stack("ringlet: a stack of " + std::to_string(bytes) + " bytes was asked for; the largest is 1 GiB");
  const std::size_t stride = std::bit_ceil(std::max(bytes, smallest_stack_bytes));
  size_class& c = classes_[std::countr_zero(stride) - std::countr_zero(smallest_stack_bytes)];
  stack got;
  got.stride = stride;
  if (c.free) {
    got.base = static_cast<char*>(c.free);
    c.free = top_of(got.base, stride)->next_free;
    --c.free_count;
  } else {
    if (!c.newest || (c.newest->used + 1) * stride > c.newest->bytes) add_slab(c, stride);
    slab& s = *c.newest;
    got.base = s.base.load(std::memory_order_relaxed) + s.used * stride;
    const long failed = guards() == guard_kind::regions ? advise(got.base, page, MADV_GUARD_INSTALL)
                                                        : sys::call(SYS_mprotect, got.base, page, PROT_NONE);
    if (failed)
      throw no_stack("ringlet: no guard for another fiber stack (" + std::string(std::strerror(int(-failed))) + "). " +
                     (guards() == guard_kind::mprotect
                          ? "Without guard regions (Linux 6.13 has them, unless RINGLET_GUARDS=mprotect) each guarded stack costs two mappings, and "
                            "vm.max_map_count (65530 by default) allows about 32,700. Cure: sysctl vm.max_map_count=…"
                          : "Likely cause: the process is out of memory or has called mlockall."));
    ++s.used;
    if (sanitizer::under_valgrind()) top_of(got.base, stride)->valgrind_id = sanitizer::register_stack(got.low(), got.base + stride);
  }
  in_use_.fetch_add(1, std::memory_order_relaxed);
  sanitizer::look_for_pointers_in(got.low(), stride - page);
  return got;
}

void stack_pool::give_back(const stack& s) noexcept {
  sanitizer::look_no_more_in(s.low(), s.stride - page);
  sanitizer::clean_stack(s.low(), s.stride - page);  // what is mapped here next begins clean, too
  if (retired_.load(std::memory_order_acquire)) {
    if (in_use_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
    return;
  }
  size_class& c = classes_[std::countr_zero(s.stride) - std::countr_zero(smallest_stack_bytes)];
  if (c.free_count >= warm_limit) advise(s.low(), s.stride - 2 * page, MADV_DONTNEED);
  top_word* top = top_of(s.base, s.stride);
  top->owner = nullptr;
  top->next_free = c.free;
  c.free = s.base;
  ++c.free_count;
  in_use_.fetch_sub(1, std::memory_order_relaxed);
}

std::size_t configured_stack_bytes() {
  const char* text = std::getenv("RINGLET_STACK_SIZE");
  if (!text || !*text) return default_stack_bytes;
  std::size_t value = 0;
  const char* const stop = text + std::strlen(text);
  auto [end, error] = std::from_chars(text, stop, value);  // no sign, no blanks, no overflow
  unsigned shift = 0;
  if (end != stop && (*end == 'k' || *end == 'K')) shift = 10, ++end;
  else if (end != stop && (*end == 'm' || *end == 'M')) shift = 20, ++end;
  if (error != std::errc{} || value > largest_stack_bytes >> shift) end = text;
  value <<= shift;
  if (end != stop || value < smallest_stack_bytes || value > largest_stack_bytes)
    throw std::runtime_error(std::string("ringlet: RINGLET_STACK_SIZE=") + text +
                             " is not a stack size; give bytes from 16384 (16k) to 1073741824 (1024M)");
  return value;
}

bool find_guard(const void* address, const void** owner, std::size_t* stride) noexcept {
  const char* at = static_cast<const char*>(address);
  for (auto* s = slab_registry::first.load(std::memory_order_acquire); s; s = s->next) {
    char* base = s->base.load(std::memory_order_acquire);
    if (!base || at < base || at >= base + s->bytes) continue;
    const std::size_t offset = std::size_t(at - base);
    if (offset % s->stride >= page) return false;
    char* slot = base + offset / s->stride * s->stride;
    *owner = top_of(slot, s->stride)->owner;
    *stride = s->stride;
    return true;
  }
  return false;
}

}  // namespace ringlet::context
