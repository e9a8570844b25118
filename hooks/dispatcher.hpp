#pragma once
// Where every wanted system call of a patched library arrives.

#include "patch/patch.hpp"

namespace ringlet::dispatcher {

// The numbers of syscalls.def.
patch::number_set wanted_numbers();
// On the caller's stack, instead of the call. It may be left by cancellation and by a handler's longjmp.
void dispatch(patch::registers& r);

// What has happened, for the report at exit.
struct counts {
  unsigned long long dispatched = 0;
};
// From now on it is counted which calls park.
void count_parks() noexcept;
counts count() noexcept;
// Of each row that has waited: its name and how often. `each` is called in the order of the table.
void each_wait(void (*each)(const char* name, unsigned long long times, void* with), void* with);

}  // namespace ringlet::dispatcher
