#pragma once
// Does the door work here? Asked once all is patched, before the program runs, on the one thread there is: calls that go
// by patched sites, whose outcome is known from raw calls. If not, the original bytes come back.

#include <string>

#include "patch.hpp"

namespace ringlet::patch {

// Passes every call on, in each of the two ways in turn, and counts them.
void self_test_dispatcher(registers& r);

// With self_test_dispatcher behind the patched sites: what is wrong, or an empty string.
std::string self_test();

}  // namespace ringlet::patch
