#include "loop/native_thread.hpp"

#include <pthread.h>
#include <signal.h>

#include <cstdint>

#include "base/sys.hpp"

namespace ringlet::loop {

namespace {
constinit thread_local bool making_thread = false;

// All but the two that glibc itself sends to every thread (cancel, setuid): blocked, setuid() would hang.
std::uint64_t all_signals() {
  constexpr int sigcancel = 32, sigsetxid = 33;
  return ~((std::uint64_t(1) << (sigcancel - 1)) | (std::uint64_t(1) << (sigsetxid - 1)));
}
}  // namespace

int make_native_thread(void* (*run)(void*), void* argument, std::size_t stack_size_bytes, bool quiet) noexcept {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  if (stack_size_bytes) pthread_attr_setstacksize(&attributes, stack_size_bytes);
  // The new thread inherits the mask, so there is no moment at which a program's handler could run on it.
  const std::uint64_t blocked = all_signals();
  std::uint64_t before = 0;
  if (quiet) sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, &before, sizeof before);
  making_thread = true;
  pthread_t id;
  const int error = pthread_create(&id, &attributes, run, argument);
  making_thread = false;
  if (quiet) sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &before, nullptr, sizeof before);
  pthread_attr_destroy(&attributes);
  return error;
}

bool is_making_native_thread() noexcept { return making_thread; }

}  // namespace ringlet::loop
