#pragma once
// What the tests of the door share: libc patched as long as an object lives, and dispatchers that pass everything on.

#include <gnu/libc-version.h>

#include "patch/patch.hpp"
#include "support/support.hpp"

namespace patched {

inline const void* in_libc() { return reinterpret_cast<const void*>(&::gnu_get_libc_version); }

// Patches the library that an address lies in; all its sites, if nothing else is said.
class library {
 public:
  library(const void* address, ringlet::patch::dispatcher d, const ringlet::patch::number_set& wanted = ringlet::patch::number_set::all())
      : plan_(ringlet::patch::make_plan(address, wanted)) {
    REQUIRE(plan_.refused == "");
    REQUIRE(ringlet::patch::apply(plan_, d) == "");
  }
  ~library() { CHECK(ringlet::patch::restore(plan_) == ""); }
  library(const library&) = delete;
  const ringlet::patch::plan& plan() const noexcept { return plan_; }

 private:
  ringlet::patch::plan plan_;
};

inline unsigned long reached = 0;
inline void passing_through(ringlet::patch::registers& r) {
  ++reached;
  // These share the stack or the memory of two, or end on a stack of their own: only the site itself can make them.
  const auto number = r.rax;
  if (number == 56 /* clone */ || number == 435 /* clone3 */ || number == 58 /* vfork */ || number == 60 /* exit */) return ringlet::patch::pass_at_site(r);
  ringlet::patch::pass_through(r);
}
inline void passing_at_site(ringlet::patch::registers& r) {
  ++reached;
  ringlet::patch::pass_at_site(r);
}

// Sanitizers read the code of libc for themselves, or can't follow a stack that is left by resume.
#define SKIP_UNDER_SANITIZERS() \
  if (support::is_instrumented()) RINGLET_SKIP("patches libc under a sanitizer, whose own calls would come to the dispatcher")

}  // namespace patched
