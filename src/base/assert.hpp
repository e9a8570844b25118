#pragma once
// Asserts stay in release, at every boundary. They are for us: the message says what of ringlet is broken. What a user
// can get wrong is an error (an exception or -errno), never an assert; where no error can be given, RINGLET_REQUIRE.

#include "base/shown.hpp"

namespace ringlet::base {
[[noreturn, gnu::cold]] RINGLET_SHOWN void assertion_failed(const char* expression, const char* message, const char* file, int line) noexcept;
[[noreturn, gnu::cold]] RINGLET_SHOWN void misused(const char* message) noexcept;
}

#define RINGLET_ASSERT(condition, message) \
  (__builtin_expect(!(condition), 0) ? ::ringlet::base::assertion_failed(#condition, message, __FILE__, __LINE__) : void())

// A user's mistake where no error can be given (a destructor): the message is the user's, and the process ends.
#define RINGLET_REQUIRE(condition, message) (__builtin_expect(!(condition), 0) ? ::ringlet::base::misused(message) : void())
