// The load of load.hpp under each row of a table of faults, by each of its faces: ringlet's calls, libc's names under
// the hooks, and a threaded program under `ringlet run --threads=fibers`. The bare threads are the oracle: what must
// hold, holds there.
//
// Each is a process of its own. RINGLET_SEED repeats one history; RINGLET_STRESS=full tries many.

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "support/support.hpp"

namespace {

bool contains(const std::string& text, const char* part) { return text.find(part) != text.npos; }

struct face {
  const char* name;
  bool plain;  // a program that knows nothing of ringlet
  std::vector<std::string> command() const {
    const std::string program = support::built(plain ? "tests/faults_load_plain" : "tests/faults_load");
    if (std::strcmp(name, "fibers") == 0)
      return {support::built("hooks/launcher/ringlet"), "run", "--threads=fibers", "--", program, "threads"};
    return {program, name};
  }
};
constexpr face all_faces[] = {{"threads", true}, {"io", false}, {"hooked", false}, {"fibers", true}};

std::vector<unsigned> seeds() {
  if (const char* one = std::getenv("RINGLET_SEED")) return {unsigned(std::strtoul(one, nullptr, 10))};
  const char* wanted = std::getenv("RINGLET_STRESS");
  const unsigned count = wanted && std::strcmp(wanted, "full") == 0 ? 50 : support::is_instrumented() ? 1 : 2;
  std::vector<unsigned> all;
  const auto first = unsigned(::getpid());  // others in every run
  for (unsigned i = 0; i < count; ++i) all.push_back(first + i);
  return all;
}

std::string why_no_fibers() {
  if (support::is_instrumented()) return "a sanitizer's program cannot be preloaded into";
  if (::access(support::built("hooks/launcher/ringlet").c_str(), X_OK) != 0) return "there is no launcher";
  return {};
}

struct row {
  const char* fault;
  std::vector<std::string> options;
  std::vector<std::string> environment = {};
  enum {
    all_arrives,
    or_no_hub,
    or_no_threads
  } outcome = all_arrives;  // or: a face that cannot begin, and says why, is right, too
};

void under(const row& r) {
  std::string skipped;
  for (const face& f : all_faces) {
    if (std::strcmp(f.name, "fibers") == 0 && !why_no_fibers().empty()) continue;
    for (const unsigned seed : seeds()) {
      auto command = f.command();
      command.insert(command.end(), r.options.begin(), r.options.end());
      command.push_back("seed=" + std::to_string(seed));
      std::string text;
      for (const auto& word : command) text += " " + word;
      for (const auto& variable : r.environment) text = " " + variable + text;
      INFO("repeat: RINGLET_SEED=", seed, text);
      const auto got = support::run_child(
          command,
          {.environment = r.environment, .timeout = std::chrono::seconds(support::is_instrumented() ? 60 : 30)});
      INFO("it said: ", got.out, got.err.substr(0, 2000));
      if (got.exit_status == 77) {
        skipped = got.out;
        break;
      }
      CHECK_FALSE(got.timed_out);
      CHECK(got.signal == 0);
      if (got.exit_status == 3 && (r.outcome == row::or_no_threads ? f.plain : r.outcome == row::or_no_hub)) {
        CHECK(contains(got.out, f.plain ? "REFUSED: Resource temporarily unavailable" : "REFUSED: ringlet: "));
      } else {
        CHECK(got.exit_status == 0);
        CHECK(contains(got.out, "ARRIVED"));
      }
    }
  }
  if (!skipped.empty()) support::skip(skipped);
}

void under_each(const std::vector<row>& rows) {
  support::allow_seconds(std::getenv("RINGLET_STRESS") ? 1800 : 120);
  for (const row& r : rows) {
    INFO(std::string(r.fault));
    under(r);
  }
}

}  // namespace

TEST_CASE("the load: without a fault, all arrives, and nothing is left") { under({"none", {}}); }

TEST_CASE("signals at random moments end calls as signal(7) says, and lose nothing") {
  under_each({{"handlers that do not restart", {"signals=100"}},
              {"handlers that restart", {"signals=100", "restart"}},
              {"on a stack of their own", {"signals=60", "restart", "stack"}},
              {"children end", {"children=100"}},
              {"both", {"signals=150", "children=50"}}});
}

TEST_CASE("stopped and continued: nothing is lost, and what was due meanwhile happens once and in order") {
  under_each({{"now and then", {"stops=4000", "lanes=20"}},
              {"for longer than all timers", {"sleepers"}},
              {"and signals", {"stops=5000", "signals=200"}}});
}

TEST_CASE("tiny rings: thousands of operations go through a handful of entries") {
  for (const char* entries : {"1", "2", "8"})
    under({"tiny", {"lanes=100", "bytes=3000"}, {std::string("RINGLET_RING_ENTRIES=") + entries}});
}

TEST_CASE("the kernel refuses to submit, to wait or to watch: it is asked again, or the call says so") {
  under_each({{"busy", {"refuse=io_uring_enter:EBUSY:3:8"}},
              {"no memory for requests", {"refuse=io_uring_enter:ENOMEM:4"}},
              {"no request just now", {"refuse=io_uring_enter:EAGAIN:3"}},
              {"the ring's sleep interrupted by nothing", {"refuse=io_uring_enter:EINTR:2"}},
              {"a tiny ring, and busy",
               {"refuse=io_uring_enter:EBUSY:3:8", "lanes=50", "bytes=3000"},
               {"RINGLET_RING_ENTRIES=2"}},
              {"epoll's sleep interrupted by nothing", {"refuse=epoll_pwait2:EINTR:2"}},
              {"the older call, interrupted", {"refuse=epoll_pwait2:ENOSYS", "refuse2=epoll_pwait:EINTR:3"}},
              {"no memory to watch", {"refuse=epoll_ctl:ENOMEM:3:4", "may_refuse"}},
              {"too many are watched", {"refuse=epoll_ctl:ENOSPC:2:4", "may_refuse"}}});
}

TEST_CASE("the kernel refuses stacks and threads: spawn says so, and later all is done") {
  under_each(
      {{"no helper ever", {"refuse=clone3:EAGAIN", "refuse2=clone:EAGAIN", "may_refuse"}, {}, row::or_no_threads},
       {"no guards now and then", {"refuse=madvise:ENOMEM:3:4", "may_refuse"}}});
}

TEST_CASE("the kernel refuses address space: spawn says so, and later all is done") {
  if (support::is_instrumented()) RINGLET_SKIP("a sanitizer needs address space of its own");
  under_each({{"now and then", {"refuse=mmap:ENOMEM:2:30", "may_refuse"}},
              {"never any", {"refuse=mmap:ENOMEM"}, {}, row::or_no_hub}});
}

TEST_CASE("no hub can be made: the call that wanted one says why") {
  under_each({{"no eventfd", {"refuse=eventfd2:EMFILE"}, {}, row::or_no_hub},
              {"no ring", {"refuse=io_uring_setup:ENOMEM"}, {}, row::or_no_hub},
              {"a ring that cannot be entered", {"refuse=io_uring_enter:EPERM"}, {}, row::or_no_hub},
              {"no set", {"refuse=epoll_create1:ENFILE"}, {}, row::or_no_hub},
              {"the second eventfd is refused", {"refuse=eventfd2:ENFILE:1:2"}, {}, row::or_no_hub}});
}

TEST_CASE("limits: descriptors run out in the middle, and come back") {
  if (support::is_instrumented()) RINGLET_SKIP("UndefinedBehaviorSanitizer needs a descriptor to look at an object");
  under_each({{"few", {"files=12", "may_refuse", "lanes=30", "bytes=5000"}},
              {"fewer", {"files=6", "may_refuse", "lanes=12", "bytes=5000"}}});
}

TEST_CASE("limits: nothing may be locked, and nobody's name is root") {
  under({"memlock", {"memlock=0", "unprivileged"}, {}, row::or_no_hub});
}

TEST_CASE("the load under the launcher: threads are fibers there") {
  if (const std::string why = why_no_fibers(); !why.empty()) RINGLET_SKIP(why);
  const auto got = support::run_child({support::built("hooks/launcher/ringlet"), "run", "--threads=fibers", "--",
                                       support::built("tests/faults_load_plain"), "threads"},
                                      {.environment = {"RINGLET_REPORT=1"}});
  INFO(got.out, got.err);
  if (contains(got.err, "threads stay threads of the kernel")) RINGLET_SKIP("the system-call door stays closed here");
  CHECK(got.exit_status == 0);
  CHECK(contains(got.err, "ringlet"));
}
