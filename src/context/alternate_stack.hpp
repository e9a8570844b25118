#pragma once
// The alternate signal stack that a stack_pool has put up for its thread (overflow.cpp), for who must be without.

namespace ringlet::context {

// Takes it down again, if it is that one and nobody stands on it. Overflows are then a bare SIGSEGV.
void take_down_alternate_stack_of_thread() noexcept;

}  // namespace ringlet::context
