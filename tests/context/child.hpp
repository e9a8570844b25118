#pragma once
// A test case that must happen in a process of its own: it dies, exits, or needs the environment from the start.
//
//   TEST_CASE("stack: overflow dies by SIGSEGV") {
//     if (child_part("overflow")) { ...; std::exit(0); }
//     auto r = run_this_case("overflow");
//
// run_this_case runs this very program again with this case only; there child_part says true.

#include <cstdlib>
#include <string>
#include <string_view>
#include <unistd.h>

#include "support/support.hpp"

namespace support {

inline bool child_part(std::string_view name) {
  const char* part = std::getenv("RINGLET_TEST_CHILD");
  return part && name == part;
}

inline child_result run_this_case(std::string_view part, std::vector<std::string> environment = {}) {
  std::string name;
  for (const char* c = doctest::getContextOptions()->currentTest->m_name; *c; ++c) {
    if (*c == ',') name += '\\';  // a comma would begin another filter
    name += *c;
  }
  environment.push_back("RINGLET_TEST_CHILD=" + std::string(part));
  child_options how;
  how.environment = std::move(environment);
  how.timeout = std::chrono::seconds(is_instrumented() ? 120 : 30);
  char self[4096];
  const ssize_t length = ::readlink("/proc/self/exe", self, sizeof self);
  return run_child({std::string(self, length > 0 ? std::size_t(length) : 0), "--test-case=" + name}, how);
}

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

}  // namespace support
