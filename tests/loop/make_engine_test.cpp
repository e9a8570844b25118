// Which engine is chosen, and what is said when a wish cannot be granted.

#include <stdexcept>

#include "engines.hpp"
#include "loop/refusal.hpp"

using namespace loop_test;

namespace {
std::string error_of(void (*call)()) {
  try {
    call();
  } catch (const std::runtime_error& e) {
    return e.what();
  }
  return {};
}
bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }
}  // namespace

TEST_CASE("make_engine: RINGLET_ENGINE=epoll gives epoll") {
  variable_set set("RINGLET_ENGINE", "epoll");
  const auto choice = make_engine();
  CHECK(choice.made->name() == "epoll");
  CHECK(choice.reason == "RINGLET_ENGINE=epoll");
}

TEST_CASE("make_engine: unset, empty and auto give the ring where there is one, else epoll and the cause") {
  for (const char* value : {static_cast<const char*>(nullptr), "", "auto"}) {
    variable_set set("RINGLET_ENGINE", value);
    std::string why_not;
    const bool works = make_uring_engine(&why_not) != nullptr;
    if (has(why_not, "ENOMEM")) RINGLET_SKIP("another ring may or may not fit the limit");
    const auto choice = make_engine();
    CHECK(choice.made->name() == (works ? "uring" : "epoll"));
    CHECK(choice.reason == (works ? "io_uring works" : why_not));
  }
}

TEST_CASE("make_engine: RINGLET_ENGINE=uring gives the ring, or an error with cause and cure") {
  variable_set set("RINGLET_ENGINE", "uring");
  if (make_uring_engine(nullptr)) {
    CHECK(make_engine().made->name() == "uring");
    CHECK(has(make_engine().made->describe(), "CQ"));
  } else {
    const auto error = error_of([] { make_engine(); });
    CHECK(has(error, "RINGLET_ENGINE=uring"));
    CHECK(has(error, "RINGLET_ENGINE=epoll"));
  }
}

TEST_CASE("make_engine: an unknown engine is an error that names it and what is allowed") {
  variable_set set("RINGLET_ENGINE", "kqueue");
  const auto error = error_of([] { make_engine(); });
  for (const char* part : {"RINGLET_ENGINE", "kqueue", "uring", "epoll", "auto"}) CHECK(has(error, part));
}

TEST_CASE("make_engine: a bad RINGLET_RING_ENTRIES is an error that names it and its range") {
  variable_set engine("RINGLET_ENGINE", "auto");
  for (const char* bad : {"0", "32769", "-1", "many", "12 ", "99999999999999999999"}) {
    CAPTURE(bad);
    variable_set set("RINGLET_RING_ENTRIES", bad);
    const auto error = error_of([] { make_engine(); });
    CHECK(has(error, "RINGLET_RING_ENTRIES"));
    CHECK(has(error, bad));
    CHECK(has(error, "1 to 32768"));
  }
}

TEST_CASE("make_engine: RINGLET_RING_ENTRIES sizes the ring") {
  variable_set engine("RINGLET_ENGINE", nullptr);
  variable_set set("RINGLET_RING_ENTRIES", "4");
  std::string why_not;
  const auto e = make_uring_engine(&why_not);
  if (!e) RINGLET_SKIP("no ring: " + why_not);
  CHECK(has(e->describe(), "SQ 4, CQ 16"));
}

TEST_CASE("refusal: every likely errno has a cause and a cure") {
  for (int error : {EPERM, ENOSYS, ENOMEM, EMFILE, ENFILE, EINVAL, EIO}) {
    const refusal r = diagnose("io_uring_setup", error);
    CHECK(r.cause.starts_with("io_uring_setup: E"));
    CHECK_FALSE(r.cure.empty());
  }
  CHECK(has(diagnose("io_uring_setup", ENOMEM).cause, "RLIMIT_MEMLOCK is "));
  CHECK(has(diagnose("io_uring_setup", EMFILE).cause, "RLIMIT_NOFILE is "));
}
