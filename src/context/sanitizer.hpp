#pragma once
// What AddressSanitizer, ThreadSanitizer and Valgrind must hear of stacks and switches. Boost's fcontext tells them
// nothing, so each switch does, here. In a plain build every function is empty.

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define RINGLET_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RINGLET_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define RINGLET_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RINGLET_TSAN 1
#endif
#endif

#if RINGLET_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif
#if RINGLET_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#if RINGLET_HAVE_VALGRIND
#include <valgrind/valgrind.h>
#endif

namespace ringlet::context::sanitizer {

#if RINGLET_ASAN
inline void leaving(void** fake_stack, const void* bottom, std::size_t size) {
  __sanitizer_start_switch_fiber(fake_stack, bottom, size);
}
inline void arrived(void* fake_stack, const void** old_bottom, std::size_t* old_size) {
  __sanitizer_finish_switch_fiber(fake_stack, old_bottom, old_size);
}
inline void clean_stack(void* low, std::size_t size) { __asan_unpoison_memory_region(low, size); }
// What only a resting stack refers to is no leak.
inline void look_for_pointers_in(const void* low, std::size_t size) { __lsan_register_root_region(low, size); }
inline void look_no_more_in(const void* low, std::size_t size) { __lsan_unregister_root_region(low, size); }
#else
inline void leaving(void**, const void*, std::size_t) {}
inline void arrived(void*, const void**, std::size_t*) {}
inline void clean_stack(void*, std::size_t) {}
inline void look_for_pointers_in(const void*, std::size_t) {}
inline void look_no_more_in(const void*, std::size_t) {}
#endif

#if RINGLET_TSAN
inline void* make_fiber() { return __tsan_create_fiber(0); }
inline void* this_fiber() { return __tsan_get_current_fiber(); }
inline void drop_fiber(void* f) { __tsan_destroy_fiber(f); }
inline void switch_fiber(void* f) { __tsan_switch_to_fiber(f, 0); }
#else
inline void* make_fiber() { return nullptr; }
inline void* this_fiber() { return nullptr; }
inline void drop_fiber(void*) {}
inline void switch_fiber(void*) {}
#endif

#if RINGLET_HAVE_VALGRIND
inline unsigned register_stack(void* low, void* high) { return VALGRIND_STACK_REGISTER(low, high); }
inline void forget_stack(unsigned id) { VALGRIND_STACK_DEREGISTER(id); }
inline bool under_valgrind() { return RUNNING_ON_VALGRIND != 0; }
#else
inline unsigned register_stack(void*, void*) { return 0; }
inline void forget_stack(unsigned) {}
inline bool under_valgrind() { return false; }
#endif

}  // namespace ringlet::context::sanitizer
