// Each shape of site in a library made for it: what the planner sees, and what the calls do once they are patched.

#include <cerrno>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>

#include "patch/patch.hpp"
#include "support/support.hpp"

namespace patch = ringlet::patch;
using patch::shape;

extern "C" {
long shape_number_before(long);
long shape_number_above(long);
long shape_before_rip_relative(long, long);
long shape_after(long);
long shape_after_branch(long, long);
long shape_around(long);
long shape_jump_table(long, long);
long shape_entered_from_elsewhere(long);
long shape_enters_elsewhere(long);
long shape_padding(long, long);
long shape_stack_pointer(long);
long shape_keeps_flags(long, long, long);
long shape_keeps_registers(long);
long shape_keeps_vectors(long);
long shape_cold_part(long);
long shape_no_system_call();
long unpatchable_entered_everywhere(long, long);
long unpatchable_neighbour();
}

namespace {

constexpr long made_up = 1000, answer = 4711;
unsigned long reached = 0;

// Answers getppid and one number that the kernel doesn't know. On its way it changes what a C++ function may.
void answering(patch::registers& r) {
  ++reached;
  asm volatile(
      "pcmpeqd %%xmm0, %%xmm0\n movdqa %%xmm0, %%xmm1\n movdqa %%xmm0, %%xmm2\n movdqa %%xmm0, %%xmm3\n movdqa %%xmm0, %%xmm4\n"
      "movdqa %%xmm0, %%xmm5\n movdqa %%xmm0, %%xmm6\n movdqa %%xmm0, %%xmm7\n movdqa %%xmm0, %%xmm8\n movdqa %%xmm0, %%xmm9\n"
      "movdqa %%xmm0, %%xmm10\n movdqa %%xmm0, %%xmm11\n movdqa %%xmm0, %%xmm12\n movdqa %%xmm0, %%xmm13\n movdqa %%xmm0, %%xmm14\n"
      "movdqa %%xmm0, %%xmm15\n"
      :
      :
      : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  asm volatile("" : : : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
  if (long(r.rax) == made_up || r.rax == SYS_getppid) r.rax = std::uint64_t(answer);
  else patch::pass_through(r);
}
void passing_through(patch::registers& r) { ++reached; patch::pass_through(r); }
void passing_at_site(patch::registers& r) { ++reached; patch::pass_at_site(r); }

patch::plan plan_of_shapes() { return patch::make_plan(reinterpret_cast<const void*>(&shape_number_before), patch::number_set::all()); }

std::map<std::string, patch::site> by_function(const patch::plan& p) {
  std::map<std::string, patch::site> sites;
  for (const auto& s : p.sites) sites[s.function] = s;
  return sites;
}

// Patched as long as it lives.
class patched {
 public:
  explicit patched(patch::dispatcher d) : plan_(plan_of_shapes()) {
    REQUIRE(plan_.refused == "");
    REQUIRE(patch::apply(plan_, d) == "");
    reached = 0;
  }
  ~patched() { CHECK(patch::restore(plan_) == ""); }
  const patch::plan& plan() const { return plan_; }

 private:
  patch::plan plan_;
};

// All the shapes, with the number that is made up. `raw` is what the call gives.
void check_all(long raw) {
  const unsigned long before = reached;
  CHECK(shape_after(made_up) == (raw < 0 ? -1 : raw));
  CHECK(shape_after(-made_up) == (raw < 0 ? -1 : raw));
  CHECK(shape_after_branch(made_up, 0) == (raw < 0 ? -2 : raw));
  CHECK(shape_after_branch(-made_up, 1) == (raw < 0 ? -2 : raw));
  CHECK(shape_around(made_up) == raw);
  CHECK(shape_jump_table(made_up, 0) == raw);
  CHECK(shape_jump_table(made_up, 1) == raw);
  CHECK(shape_entered_from_elsewhere(made_up) == raw);
  CHECK(shape_enters_elsewhere(made_up) == raw);
  CHECK(shape_padding(made_up, 0) == raw);
  CHECK(shape_padding(made_up, 1) == made_up);  // jumps over it
  CHECK(shape_stack_pointer(made_up) == raw);
  CHECK(shape_keeps_registers(made_up) == 0);
  CHECK(shape_keeps_vectors(made_up) == 0);
  CHECK(shape_cold_part(made_up) == 77);
  CHECK(shape_no_system_call() == 0x050f);
  CHECK(reached - before == 15);
}

}  // namespace

TEST_CASE("shapes: each is seen as what it is") {
  const auto p = plan_of_shapes();
  REQUIRE(p.refused == "");
  auto sites = by_function(p);
  CHECK(sites.at("shape_number_before").how == shape::number_before);
  CHECK(sites.at("shape_number_before").number == SYS_getppid);
  CHECK(sites.at("shape_number_above").how == shape::before);
  CHECK(sites.at("shape_number_above").number == SYS_getppid);
  CHECK(sites.at("shape_before_rip_relative").how == shape::before);
  CHECK(sites.at("shape_before_rip_relative").number == patch::variable_number);
  CHECK(sites.at("shape_after").how == shape::after);
  CHECK(sites.at("shape_after_branch").how == shape::after);
  CHECK(sites.at("shape_around").how == shape::around);
  CHECK(sites.at("shape_jump_table").how == shape::after);
  CHECK(sites.at("shape_entered_from_elsewhere").how == shape::after);
  CHECK(sites.at("shape_padding").how == shape::padding);
  CHECK(sites.at("shape_stack_pointer").how == shape::after);
  CHECK(sites.at("shape_keeps_vectors").has_vectors);
  CHECK_FALSE(sites.at("shape_keeps_registers").has_vectors);
  CHECK_FALSE(sites.contains("shape_no_system_call"));
}

TEST_CASE("shapes: unpatched, all do what they are made for") {
  CHECK(shape_number_before(0) == ::getppid());
  reached = 14;  // nobody counts
  const unsigned long before = reached;
  CHECK(shape_after(made_up) == -1);
  CHECK(shape_around(SYS_getpid) == ::getpid());
  CHECK(shape_keeps_registers(SYS_getpid) == 0);
  CHECK(shape_keeps_vectors(SYS_getpid) == 0);
  CHECK(reached == before);
}

TEST_CASE("shapes: a call that is answered has the answer as its result, whatever its shape") {
  patched on(answering);
  CHECK(shape_number_before(0) == answer);
  CHECK(shape_number_above(0) == answer);
  check_all(answer);
}

TEST_CASE("shapes: a call that is passed through has the kernel's result") {
  patched on(passing_through);
  CHECK(shape_number_before(0) == ::getppid());
  CHECK(shape_number_above(0) == ::getppid());
  check_all(-ENOSYS);
}

TEST_CASE("shapes: a call that is passed at its site has the kernel's result") {
  patched on(passing_at_site);
  CHECK(shape_number_before(0) == ::getppid());
  CHECK(shape_number_above(0) == ::getppid());
  check_all(-ENOSYS);
}

TEST_CASE("shapes: a moved instruction still finds what it names") {
  for (const auto d : {passing_through, passing_at_site}) {
    patched on(d);
    auto pipe = support::make_pipe();
    CHECK(shape_before_rip_relative(SYS_write, pipe.second) == 5);
    char text[6] = {};
    CHECK(::read(pipe.first, text, 5) == 5);
    CHECK(std::string(text) == "hello");
  }
}

TEST_CASE("shapes: arithmetic flags and red zone survive a call") {
  const long pairs[][2] = {{0, 0}, {1, 2}, {2, 1}, {-1, 1}, {1, -1}, {0x7fffffffffffffff, -1}, {-0x7fffffffffffffff - 1, 1}, {0x10, 0x01}, {3, 0}};
  for (const auto& pair : pairs) {
    const long a = pair[0], b = pair[1];
    CAPTURE(a);
    CAPTURE(b);
    const long raw = shape_keeps_flags(SYS_getpid, a, b);
    REQUIRE(raw != -1);
    for (const auto d : {answering, passing_through, passing_at_site}) {
      patched on(d);
      CHECK(shape_keeps_flags(SYS_getpid, a, b) == raw);
    }
  }
}

TEST_CASE("shapes: restore brings every byte back") {
  auto p = plan_of_shapes();
  auto bytes = [&] { return std::string(reinterpret_cast<const char*>(&shape_number_before), 700); };
  const std::string before = bytes();
  REQUIRE(patch::apply(p, answering) == "");
  CHECK(bytes() != before);
  CHECK(p.applied);
  REQUIRE(patch::restore(p) == "");
  CHECK(bytes() == before);
  CHECK_FALSE(p.applied);
  CHECK(shape_number_before(0) == ::getppid());
}

TEST_CASE("shapes: one site that can't be patched leaves its library whole") {
  auto p = patch::make_plan(reinterpret_cast<const void*>(&unpatchable_neighbour), patch::number_set::all());
  CHECK(p.refused.find("unpatchable_") != std::string::npos);
  auto sites = by_function(p);
  CHECK(sites.at("unpatchable_wide_vectors").refused.find("AVX") != std::string::npos);
  CHECK(sites.at("unpatchable_not_understood").refused.find("not understood") != std::string::npos);
  CHECK(sites.at("unpatchable_entered_everywhere").refused.find("jumps into them") != std::string::npos);
  CHECK(sites.at("unpatchable_neighbour").refused == "");
  CHECK(patch::apply(p, answering) == p.refused);
  CHECK_FALSE(p.applied);
  CHECK(unpatchable_neighbour() == ::getppid());
  CHECK(unpatchable_entered_everywhere(SYS_getppid, 0) == ::getppid());
}

TEST_CASE("shapes: code that somebody changed meanwhile is not patched") {
  auto p = plan_of_shapes(), late = plan_of_shapes();
  REQUIRE(patch::apply(p, answering) == "");
  CHECK(patch::apply(late, passing_through).find("somebody else") != std::string::npos);
  CHECK(shape_number_before(0) == answer);
  REQUIRE(patch::restore(p) == "");
}
