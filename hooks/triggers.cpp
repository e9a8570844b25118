// The functions of libc that make threads. The mode is switched on in the first of them that is called: until then a
// program with one thread pays nothing, neither for finding libc's system calls nor for jumps over them.
//
// All of these end in clone3 inside of libc. Whatever makes a thread by another way finds a process that is not changed,
// and is left as it is; the next one here then sees that it comes too late, and says so.

#include <aio.h>
#include <cstddef>
#include <dlfcn.h>
#include <mqueue.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <threads.h>
#include <time.h>

#include <ringlet/export.hpp>

#include "threads_mode.hpp"

#pragma GCC diagnostic ignored "-Wignored-attributes"  // of the headers' declarations: no part of the type

namespace {

template <class Function>
Function* next(const char* name, Function*& known) noexcept {
  Function* found = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (!found) {
    found = reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
    __atomic_store_n(&known, found, __ATOMIC_RELAXED);
  }
  return found;
}

}  // namespace

#define TRIGGER(result, name, parameters, arguments)                                       \
  extern "C" RINGLET_EXPORT result ringlet_trigger_##name parameters asm(#name);           \
  result ringlet_trigger_##name parameters {                                               \
    static result(*known) parameters = nullptr;                                            \
    ringlet::hooks::before_a_thread_is_made();                                             \
    return next(#name, known) arguments;                                                   \
  }

TRIGGER(int, pthread_create, (pthread_t * id, const pthread_attr_t* how, void* (*run)(void*), void* with), (id, how, run, with))
TRIGGER(int, thrd_create, (thrd_t * id, thrd_start_t run, void* with), (id, run, with))
TRIGGER(int, timer_create, (clockid_t clock, struct sigevent* how, timer_t* timer), (clock, how, timer))
TRIGGER(int, mq_notify, (mqd_t queue, const struct sigevent* how), (queue, how))
TRIGGER(int, aio_read, (struct aiocb * what), (what))
TRIGGER(int, aio_write, (struct aiocb * what), (what))
TRIGGER(int, aio_fsync, (int how, struct aiocb* what), (how, what))
TRIGGER(int, aio_read64, (struct aiocb64 * what), (what))
TRIGGER(int, aio_write64, (struct aiocb64 * what), (what))
TRIGGER(int, aio_fsync64, (int how, struct aiocb64* what), (how, what))
TRIGGER(int, lio_listio, (int how, struct aiocb* const list[], int count, struct sigevent* event), (how, list, count, event))
TRIGGER(int, lio_listio64, (int how, struct aiocb64* const list[], int count, struct sigevent* event), (how, list, count, event))
TRIGGER(int, getaddrinfo_a, (int how, struct gaicb* list[], int count, struct sigevent* event), (how, list, count, event))
