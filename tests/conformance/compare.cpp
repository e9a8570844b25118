// Each case twice in one process, as doctest's test case: bare in a thread, hooked in a fiber.

#include "conformance.hpp"
#include "support/support.hpp"

#include <ringlet/fiber.hpp>
#include <ringlet/hooks.hpp>

namespace conformance {

bool is_instrumented() { return support::is_instrumented(); }

std::unique_ptr<flow> flow_beside(std::function<void()> run, bool hooked) {
  if (!hooked) return thread_beside(std::move(run));
  struct fiber_flow : flow {
    ringlet::any_fiber fiber;
    void join() override { fiber.join(); }
  };
  auto made = std::make_unique<fiber_flow>();
  made->fiber = ringlet::spawn(std::move(run));
  return made;
}

namespace {

result run_bare(const case_function& f) {
  result r;
  std::thread([&] { r = run_case(f, false); }).join();
  return r;
}

result run_hooked(const case_function& f, place where) {
  result r;
  ringlet::hooks::enable();
  bool done = false;
  auto ticker = ringlet::spawn({.name = "ticker"}, [&] {
    while (!done) {
      ringlet::sleep(1ms);
      ++ticks;
    }
  });
  if (where == place::main_fiber) {
    ringlet::yield();
    r = run_case(f, true);
  } else {
    ringlet::spawn({.name = "case", .stack_size_bytes = 512 * 1024}, [&] { r = run_case(f, true); }).join();
  }
  done = true;
  ticker.join();
  ringlet::hooks::disable();
  return r;
}

void compare(const case_function& f, place where) {
  for (int tries_left = 2, late_ones = 5;; --tries_left) {
    const result bare = run_bare(f);
    if (!bare.not_here.empty()) RINGLET_SKIP(bare.not_here);
    const result hooked = run_hooked(f, where);
    // On a busy machine somebody comes too late, or the kernel is at odds with itself.
    if (bare.text != hooked.text && --late_ones > 0 && (bare.late || hooked.late || run_bare(f).text != bare.text)) continue;
    const bool same = bare.text == hooked.text && bare.complaint.empty() && hooked.complaint.empty();
    if (same && bare.pace != hooked.pace && tries_left > 0) continue;
    CHECK_MESSAGE(bare.text == hooked.text, "bare:\n" << bare.text << "hooked:\n" << hooked.text);
    CHECK_MESSAGE(bare.pace == hooked.pace, "bare:\n" << bare.pace << "hooked:\n" << hooked.pace << "of:\n" << bare.text);
    CHECK_MESSAGE(bare.complaint.empty(), bare.complaint << bare.text);
    CHECK_MESSAGE(hooked.complaint.empty(), hooked.complaint << hooked.text);
    // What was not written down was not compared.
    CHECK_MESSAGE(!bare.text.empty(), "the case saw nothing");
    return;
  }
}

// A difference that is known is there; and nothing else is wrong.
void require_difference(const case_function& f, place where) {
  const result bare = run_bare(f);
  if (!bare.not_here.empty()) RINGLET_SKIP(bare.not_here);
  const result hooked = run_hooked(f, where);
  CHECK_MESSAGE(bare.text != hooked.text, "the same now: take it from known_differences.cpp, and write the table again (./dev compare)\n"
                                           << bare.text << "hooked:\n" << hooked.text);
  CHECK_MESSAGE(bare.complaint.empty(), bare.complaint << bare.text);
  CHECK_MESSAGE(hooked.complaint.empty(), hooked.complaint << hooked.text);
}

// doctest's function of every case; whose turn it is, doctest knows.
void compare_current() {
  const std::string_view name = doctest::getContextOptions()->currentTest->m_name;
  for (const registered& each : cases()) {
    if (each.name != name) continue;
    return known_difference_of(name).by_symbols ? require_difference(each.run, each.where) : compare(each.run, each.where);
  }
  FAIL("no case has that name");
}

}  // namespace

// What doctest's TEST_CASE expands to, for a name that is made when the program starts.
void added(const registered& made) {
  const doctest::detail::TestCase test(&compare_current, made.file, made.line, doctest_detail_test_suite_ns::getCurrentTestSuite());
  doctest::detail::regTest(doctest::detail::TestCase(test) * made.name.c_str());
}

}  // namespace conformance
