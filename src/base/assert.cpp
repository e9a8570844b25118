#include "base/assert.hpp"

#include <cstdio>
#include <cstdlib>

#include "base/sys.hpp"

namespace ringlet::base {

void assertion_failed(const char* expression, const char* message, const char* file, int line) noexcept {
  char text[512];
  int n = std::snprintf(text, sizeof text, "ringlet: broken: %s\n  (%s) is false at %s:%d. This is a bug in ringlet; please report it.\n",
                        message, expression, file, line);
  sys::call(SYS_write, 2, text, n < int(sizeof text) ? n : int(sizeof text) - 1);
  std::abort();
}

void misused(const char* message) noexcept {
  char text[512];
  int n = std::snprintf(text, sizeof text, "ringlet: misused: %s\n", message);
  sys::call(SYS_write, 2, text, n < int(sizeof text) ? n : int(sizeof text) - 1);
  std::abort();
}

}  // namespace ringlet::base
