/* ringlet from C, and from whatever can call C: fibers and greenlets, flat. C11 and C++.
 *
 *   static void *work(void *argument) { ringlet_sleep(1000000); return argument; }
 *   ringlet_fiber *f = ringlet_spawn(work, "hello", NULL);
 *   void *result;
 *   if (ringlet_join(f, -1, &result) == 0) puts(result);
 *   ringlet_fiber_release(f);
 *
 * Results are 0 or more, or a negative errno; nothing is thrown through a C frame:
 *   -ECANCELED  the caller was killed (for whatever reason), or a timeout around it ran out: clean up and return
 *   -ETIMEDOUT  the deadline passed
 *   -EPERM      it belongs to another thread, or to the hub
 *   -EDEADLK    nothing is left that could end the wait
 *   -EINVAL     a null handle, a wait for oneself, a parent that would make a cycle
 *   -ENOMEM     no stack or memory
 *   -EMFILE, -ENFILE  no file descriptor for the thread's hub; -ENOTSUP: RINGLET_ENGINE asks for one that cannot be had
 *   others      what a std::system_error had that was thrown into the caller
 * Durations are nanoseconds from now; negative: for ever. Handles are counted: one that is given out is released once.
 * Everything is of the calling thread unless it says otherwise. In full: fiber.hpp and greenlet.hpp. */
#ifndef RINGLET_H
#define RINGLET_H

#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

#if defined(__GNUC__)
#define RINGLET_C_EXPORT __attribute__((visibility("default")))
#else
#define RINGLET_C_EXPORT
#endif

/* --- fibers -------------------------------------------------------------------------------------------------------- */

typedef struct ringlet_fiber ringlet_fiber;

typedef struct ringlet_spawn_options {
  const char *name;         /* NULL: fiber-7 */
  size_t stack_size_bytes;  /* 0: the default */
} ringlet_spawn_options;

/* Queues f(argument) as a fiber; nothing runs until the caller waits. NULL, and errno, if it cannot. options may be NULL. */
RINGLET_C_EXPORT ringlet_fiber *ringlet_spawn(void *(*f)(void *argument), void *argument, const ringlet_spawn_options *options);
/* Waits for its end: 0, and its result (NULL if it was killed or failed) in *result, if that is not NULL. */
RINGLET_C_EXPORT int ringlet_join(ringlet_fiber *f, int64_t timeout_ns, void **result);
/* Makes the wait in which it is return -ECANCELED (C++ frames unwind), or keeps it from beginning; then as join. */
RINGLET_C_EXPORT int ringlet_kill(ringlet_fiber *f, int64_t timeout_ns);
RINGLET_C_EXPORT int ringlet_is_finished(const ringlet_fiber *f);
RINGLET_C_EXPORT ringlet_fiber *ringlet_current_fiber(void); /* to be released */
RINGLET_C_EXPORT void ringlet_fiber_release(ringlet_fiber *f); /* a running one runs on; any thread */

RINGLET_C_EXPORT int ringlet_sleep(int64_t duration_ns); /* 0: lets all that are ready run first */
RINGLET_C_EXPORT int ringlet_yield(void);

/* --- greenlets ----------------------------------------------------------------------------------------------------- */

typedef struct ringlet_greenlet ringlet_greenlet;

/* Will run f(value of the first switch); what f returns goes to the parent, the current greenlet. NULL, and errno. */
RINGLET_C_EXPORT ringlet_greenlet *ringlet_greenlet_new(void *(*f)(void *first), size_t stack_size_bytes);
/* Sends the value, runs it, and gives what arrives here next in *came, if that is not NULL: what somebody sends, or NULL from
 * one that was thrown out of its frames. */
RINGLET_C_EXPORT int ringlet_switch(ringlet_greenlet *to, void *value, void **came);
/* Makes the switch in which it waits return -ECANCELED (C++ frames unwind); one that never ran dies. */
RINGLET_C_EXPORT int ringlet_throw(ringlet_greenlet *into, void **came);
RINGLET_C_EXPORT ringlet_greenlet *ringlet_current(void);                         /* to be released */
RINGLET_C_EXPORT ringlet_greenlet *ringlet_parent(const ringlet_greenlet *g);     /* to be released; NULL for main */
RINGLET_C_EXPORT int ringlet_set_parent(ringlet_greenlet *g, const ringlet_greenlet *parent);
RINGLET_C_EXPORT int ringlet_is_started(const ringlet_greenlet *g);               /* begun and not dead */
RINGLET_C_EXPORT int ringlet_is_dead(const ringlet_greenlet *g);
/* The last release of a suspended one throws into it: see ringlet_throw. */
RINGLET_C_EXPORT void ringlet_greenlet_release(ringlet_greenlet *g);

#if defined(__cplusplus)
}
#endif

#endif
