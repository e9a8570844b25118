// The table and the tests hold each other: every row has a case, or a reason here.

#include "conformance.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <stdexcept>

#include <ringlet/hooks.hpp>

namespace {
// Rows that no case can compare, and why.
const std::map<std::string, std::string> without_case = {};
}  // namespace

TEST_CASE("calls.def: every row has a conformance case, or a reason to have none") {
  const auto tried = conformance::tried_rows();
  const std::set<std::string> cases(tried.begin(), tried.end());
  for (const auto& call : ringlet::hooks::calls()) {
    const bool has_case = cases.count(call.name), has_reason = without_case.count(call.name);
    CHECK_MESSAGE((has_case || has_reason), call.name << " has no case");
    CHECK_MESSAGE(!(has_case && has_reason), call.name << " has a case and a reason to have none");
  }
}

TEST_CASE("calls.def: every row that a case names exists") {
  std::set<std::string> known;
  for (const auto& call : ringlet::hooks::calls()) known.insert(call.name);
  // Called by cases, and left alone by the door.
  const std::set<std::string> passes = {"shutdown"};
  for (const auto& name : conformance::tried_rows()) CHECK_MESSAGE((known.count(name) || passes.count(name)), name);
}

TEST_CASE("known differences: each is of a case that there is, once, and has a reason") {
  std::set<std::string> names, seen;
  for (const auto& each : conformance::cases()) names.insert(each.name);
  for (const auto& known : conformance::known_differences()) {
    CHECK_MESSAGE(names.count(known.name), known.name);
    CHECK_MESSAGE(seen.insert(known.name).second, known.name << " is twice in the list");
    CHECK_MESSAGE((known.by_symbols || known.by_system_calls), known.name);
  }
}

TEST_CASE("calls.def: each name once, each with a group and a verb") {
  std::set<std::string> seen;
  const std::set<std::string> verbs = {"suspends", "shaped", "observes", "offloads", "alias"};
  for (const auto& call : ringlet::hooks::calls()) {
    CHECK_MESSAGE(seen.insert(call.name).second, call.name << " is twice in the table");
    CHECK(call.group);
    CHECK(verbs.count(call.verb));
  }
  CHECK(conformance::cases().size() >= 400);
}

TEST_CASE("hooks: off until enabled, and off again") {
  using namespace ringlet;
  CHECK_FALSE(hooks::enabled());
  for (const auto& call : hooks::calls()) CHECK_FALSE(*call.active);
  hooks::enable();
  CHECK(hooks::enabled());
  for (const auto& call : hooks::calls()) CHECK_MESSAGE(*call.active, call.name);
  hooks::disable();
  CHECK_FALSE(hooks::enabled());
  for (const auto& call : hooks::calls()) CHECK_FALSE(*call.active);
}

TEST_CASE("hooks: groups and single calls can be left out, and added later") {
  using namespace ringlet;
  auto is_on = [](const char* name) {
    for (const auto& call : hooks::calls())
      if (std::strcmp(call.name, name) == 0) return *call.active;
    return false;
  };
  hooks::enable({.leave_out = "dns, recvmsg"});
  CHECK_FALSE(is_on("getaddrinfo"));
  CHECK_FALSE(is_on("recvmsg"));
  CHECK(is_on("recv"));
  hooks::enable({.leave_out = "recvmsg"});
  CHECK(is_on("getaddrinfo"));
  CHECK_FALSE(is_on("recvmsg"));
  hooks::disable();
  hooks::enable({.leave_out = "pread64"});
  CHECK_FALSE(is_on("pread"));
  hooks::disable();
  hooks::enable({.leave_out = ""});
  CHECK(is_on("recvmsg"));
  hooks::disable();
}

TEST_CASE("hooks: an unknown name to leave out is refused, with those that are known, and nothing is switched") {
  using namespace ringlet;
  std::string told;
  try {
    hooks::enable({.leave_out = "dns,nonsense"});
  } catch (const std::invalid_argument& e) {
    told = e.what();
  }
  CHECK(told.find("'nonsense'") != std::string::npos);
  for (const char* group : {"sockets", "files", "time", "poll", "dns", "locks", "descriptors", "queues", "processes"})
    CHECK_MESSAGE(told.find(group) != std::string::npos, group);
  CHECK_FALSE(hooks::enabled());
}
