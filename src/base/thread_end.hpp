#pragma once
// To be called when this thread ends: as a thread_local's destructor would be, last registered first called, but also when it is
// registered while such destructors already run.

#include <cxxabi.h>

extern "C" __attribute__((visibility("hidden"))) void* __dso_handle;

namespace ringlet::base {

inline void at_thread_end(void (*call)(void*), void* argument) noexcept { abi::__cxa_thread_atexit(call, argument, &__dso_handle); }

}  // namespace ringlet::base
