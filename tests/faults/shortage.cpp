#include "shortage.hpp"

#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <limits>
#include <new>
#include <system_error>

#include <ringlet/ringlet.hpp>

#include "support/support.hpp"

namespace faults {

namespace {
std::atomic<int> what_is_short{-1};
std::atomic<unsigned long> requests{0}, first_refused{0}, most_refused{0}, refused{0};

bool is_refused(resource r) noexcept {
  if (what_is_short.load(std::memory_order_relaxed) != int(r)) return false;
  const unsigned long number = requests.fetch_add(1, std::memory_order_relaxed) + 1;
  if (number < first_refused.load(std::memory_order_relaxed)) return false;
  if (number - first_refused.load(std::memory_order_relaxed) >= most_refused.load(std::memory_order_relaxed))
    return false;
  refused.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void* allocate_or_null(std::size_t size, std::size_t alignment) noexcept {
  if (is_refused(resource::memory)) return nullptr;
  return alignment ? std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment)
                   : std::malloc(size ? size : 1);
}
void* allocate(std::size_t size, std::size_t alignment) {
  void* got = allocate_or_null(size, alignment);
  if (!got) throw std::bad_alloc();
  return got;
}

// What this thread's hub still has; a poll of an open fd may stay armed, and warm stacks are the pool's.
std::string still_there() {
  const ringlet::hub::counts c = ringlet::hub::count();
  std::string text;
  for (const auto& [n, name] : {std::pair{c.fibers, "fibers"},
                                {c.ready, "ready"},
                                {c.timers, "timers"},
                                {c.operations, "operations"},
                                {c.fd_waits, "waits on fds"},
                                {c.stacks, "stacks"}})
    if (n) text += std::to_string(n) + " " + name + "; ";
  return text;
}

// What was started and has not ended yet: helpers, killed fibers, links.
std::string left_behind() {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!still_there().empty() && std::chrono::steady_clock::now() < give_up)
    ringlet::sleep(std::chrono::microseconds(100));
  return still_there();
}

void sweep_once(const char* what, const std::function<void(const act_function&)>& run, resource r,
                unsigned long count) {
  constexpr unsigned long too_many = 20'000;
  for (unsigned long nth = 1; nth < too_many; ++nth) {
    INFO(std::string(what), ", refused from request ", nth, " on, ", count, " in all");
    unsigned long met = 0;
    const std::size_t descriptors = open_descriptors();
    const std::size_t living = ringlet::living_greenlets();
    bool has_acted = false;
    run([&](const std::function<bool()>& act) {
      bool done = false;
      make_short(r, nth, count);
      try {
        done = act();
      } catch (const std::bad_alloc&) {
      } catch (const std::system_error& e) {  // no helper thread, say
        if (e.code().value() != EAGAIN && e.code().value() != ENOMEM) throw;
      }
      met = end_shortage();
      has_acted = true;
      if (met == 0) CHECK(done);
      return done;
    });
    REQUIRE(has_acted);
    CHECK(left_behind() == "");
    CHECK(open_descriptors() == descriptors);
    CHECK(ringlet::living_greenlets() == living);
    if (met == 0) return;
  }
  FAIL("the path never ends without a refusal");
}
}  // namespace

void make_short(resource r, unsigned long nth, unsigned long count) {
  requests = refused = 0;
  first_refused = nth;
  most_refused = count;
  what_is_short = int(r);
}

unsigned long end_shortage() {
  what_is_short = -1;
  return refused;
}

void sweep(const char* what, const std::function<void(const act_function&)>& run, resource r) {
  ringlet::yield();  // the hub itself is made, if there is none
  sweep_once(what, run, r, 1);
  sweep_once(what, run, r, std::numeric_limits<unsigned long>::max());
}

std::size_t open_descriptors() {
  std::size_t count = 0;
  DIR* list = ::opendir("/proc/self/fd");
  while (list && ::readdir(list)) ++count;
  if (list) ::closedir(list);
  return count;
}

}  // namespace faults

using faults::resource;

void* operator new(std::size_t size) { return faults::allocate(size, 0); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return faults::allocate(size, std::size_t(alignment));
}
// A sanitizer has its own of each, so each is here.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return faults::allocate_or_null(size, 0); }
void* operator new[](std::size_t size) { return faults::allocate(size, 0); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return faults::allocate_or_null(size, 0); }
void operator delete(void* at, const std::nothrow_t&) noexcept { std::free(at); }
void operator delete[](void* at) noexcept { std::free(at); }
void operator delete[](void* at, std::size_t) noexcept { std::free(at); }
void operator delete[](void* at, const std::nothrow_t&) noexcept { std::free(at); }
void operator delete(void* at) noexcept { std::free(at); }
void operator delete(void* at, std::size_t) noexcept { std::free(at); }
void operator delete(void* at, std::align_val_t) noexcept { std::free(at); }
void operator delete(void* at, std::size_t, std::align_val_t) noexcept { std::free(at); }

// Found by the runtime's libraries before libc's own.
extern "C" __attribute__((visibility("default"))) void* mmap(void* at, std::size_t size, int protection, int flags,
                                                             int fd, off_t offset) noexcept {
  if (faults::is_refused(resource::address_space)) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  return reinterpret_cast<void*>(::syscall(SYS_mmap, at, size, protection, flags, fd, offset));
}

extern "C" __attribute__((visibility("default"))) int pthread_create(pthread_t* id, const pthread_attr_t* attributes,
                                                                     void* (*run)(void*), void* argument) noexcept {
  static const auto real = reinterpret_cast<decltype(&pthread_create)>(::dlsym(RTLD_NEXT, "pthread_create"));
  return faults::is_refused(resource::threads) ? EAGAIN : real(id, attributes, run, argument);
}
