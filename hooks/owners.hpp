#pragma once
// Which fiber owns a recursive or error-checking mutex, or writes under a rwlock.
//
// glibc's owner is the thread, and all fibers of a thread are one thread: without a note of our own a second fiber
// would enter a recursive mutex as if it were the first. The note lies in the object itself, in a word that glibc keeps
// for robust mutexes only (its links; a padding word of the rwlock), so it needs no table, no lock, and dies with the
// object. It is believed only while the object's owner is the calling thread, so what others leave there is harmless.
// A null note: locked while the thread had no fibers yet, that is by its main flow.

#include <pthread.h>
#include <unistd.h>

#include "lot.hpp"

namespace ringlet::hooks {

// The kernel's number of this thread; asked once (and again in a forked child).
pid_t own_thread() noexcept;

namespace owners {

// Kinds, as in <pthread.h>: 0 normal, 1 recursive, 2 error-checking, 3 adaptive; above them flags.
inline int kind(const pthread_mutex_t* m) noexcept { return __atomic_load_n(&m->__data.__kind, __ATOMIC_RELAXED); }
inline bool names_its_owner(int kind) noexcept { return (kind & 3) == PTHREAD_MUTEX_RECURSIVE || (kind & 3) == PTHREAD_MUTEX_ERRORCHECK; }
// Robust, priority-inheriting or -protecting, process-shared: the kernel or other processes change it, too.
inline bool changes_silently(int kind) noexcept { return kind & (16 | 32 | 64 | 128); }
// Robust ones use the links themselves: their owner stays the thread.
inline bool is_noted(int kind) noexcept { return names_its_owner(kind) && !(kind & 16); }

inline bool on_this_thread(const pthread_mutex_t* m) noexcept {
  return __atomic_load_n(&m->__data.__owner, __ATOMIC_RELAXED) == own_thread();
}
inline void note(pthread_mutex_t* m, const void* fiber) noexcept {
  m->__data.__list.__next = static_cast<__pthread_internal_list*>(const_cast<void*>(fiber));
}
// With the object owned by this thread: by the running fiber?
inline bool is_mine(const void* noted) noexcept { return noted ? noted == lot::running_fiber() : lot::on_main_fiber(); }
inline bool is_mine(const pthread_mutex_t* m) noexcept { return is_mine(static_cast<const void*>(m->__data.__list.__next)); }

inline bool written_by_this_thread(const pthread_rwlock_t* l) noexcept {
  return __atomic_load_n(&l->__data.__cur_writer, __ATOMIC_RELAXED) == own_thread();
}
inline void note(pthread_rwlock_t* l, const void* fiber) noexcept { l->__data.__pad2 = reinterpret_cast<unsigned long>(fiber); }
inline bool is_mine(const pthread_rwlock_t* l) noexcept { return is_mine(reinterpret_cast<const void*>(l->__data.__pad2)); }

}  // namespace owners
}  // namespace ringlet::hooks
