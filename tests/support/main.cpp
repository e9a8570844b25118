// The main function of the test binaries, and the listener that reports for machines as well as for people.
//
// One line a case on stdout: `PASS name`, `FAIL name`, or `SKIPPED name: reason`; at the end, alone on the last line,
// `RESULT passed=N failed=N skipped=N`, which counts cases. tests/support/plan.sh adds these up; a binary that dies
// before it says RESULT is counted by the lines it did say, plus one failure.
//
// Always true: a case that hangs ends the program with its name (a timer's signal, not a thread: a second thread
// would be a sign of life where the hub looks for deadlocks), and so does one that aborts; stdout is written line by
// line, so what doctest said of a case is there, however it ended; and after each case leak_check has been asked.

// doctest's own crash handlers would take the signal stack that the runtime uses to report overflown stacks.
#define DOCTEST_CONFIG_NO_POSIX_SIGNALS
#define DOCTEST_CONFIG_IMPLEMENT
#include "support.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <ostream>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
// A child that exits from inside a fiber leaves its main stack unseen by the leak check, and all that hangs on it would
// count as lost. So we ask ourselves, once, at the end of main.
extern "C" __attribute__((visibility("default"))) const char* __lsan_default_options() { return "leak_check_at_exit=0"; }
static bool has_leaks() { return __lsan_do_recoverable_leak_check() != 0; }
#else
static bool has_leaks() { return false; }
#endif

namespace support {

std::string (*leak_check)() = nullptr;

namespace {

std::string skip_reason;
char current_case[256];
timer_t case_timer;
bool has_timer = false;
unsigned passed = 0, failed = 0, skipped = 0;

// Between the default real-time signals that libc keeps and those a program would choose first.
int timer_signal() { return SIGRTMAX - 3; }

// In a signal handler; by number, so that no hook takes part.
void fail_at_once(const char* how) {
  auto say = [](const char* text) { (void)!::syscall(SYS_write, 1, text, __builtin_strlen(text)); };
  say("FAIL ");
  say(current_case);
  say(how);
}

void case_hangs(int) {
  fail_at_once(": hangs (killed; RINGLET_CASE_SECONDS sets how long a case may take)\n");
  ::signal(SIGABRT, SIG_DFL);
  ::abort();
}

// It brings no stack for signals: that is the runtime's. A forked child may abort on purpose, and says nothing.
pid_t program = 0;
void case_aborts(int) {
  if (::getpid() == program && current_case[0]) fail_at_once(": aborted\n");
  ::raise(SIGABRT);  // again, by default: when we return
}
void tell_aborts() {
  program = ::getpid();
  struct sigaction action {};
  action.sa_handler = case_aborts;
  action.sa_flags = SA_ONSTACK | int(SA_RESETHAND);
  ::sigaction(SIGABRT, &action, nullptr);
}

unsigned default_seconds() {
  if (const char* text = std::getenv("RINGLET_CASE_SECONDS")) return unsigned(std::atoi(text));
  return is_instrumented() ? 180 : 60;
}

void set_timer(unsigned seconds) {
  if (!has_timer) {
    struct sigaction action {};
    action.sa_handler = case_hangs;
    action.sa_flags = SA_ONSTACK;
    ::sigaction(timer_signal(), &action, nullptr);
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = timer_signal();
    has_timer = ::timer_create(CLOCK_MONOTONIC, &event, &case_timer) == 0;
  }
  itimerspec when{};
  when.it_value.tv_sec = seconds;
  if (has_timer) ::timer_settime(case_timer, 0, &when, nullptr);
}

struct case_reporter : doctest::IReporter {
  const doctest::TestCaseData* case_ = nullptr;
  timespec started_{};

  explicit case_reporter(const doctest::ContextOptions&) {}

  void test_case_start(const doctest::TestCaseData& data) override {
    case_ = &data;
    skip_reason.clear();
    std::snprintf(current_case, sizeof current_case, "%s", data.m_name);
    ::clock_gettime(CLOCK_MONOTONIC, &started_);
    set_timer(default_seconds());
  }

  void test_case_end(const doctest::CurrentTestCaseStats& stats) override {
    std::string left;
    if (leak_check) left = leak_check();
    set_timer(0);
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    const double seconds = double(now.tv_sec - started_.tv_sec) + 1e-9 * double(now.tv_nsec - started_.tv_nsec);
    if (!stats.testCaseSuccess || !left.empty()) {
      ++failed;
      std::printf("FAIL %s%s%s\n", case_->m_name, left.empty() ? "" : ": left behind: ", left.c_str());
    } else if (!skip_reason.empty()) {
      ++skipped;
      std::printf("SKIPPED %s: %s\n", case_->m_name, skip_reason.c_str());
    } else {
      ++passed;
      std::printf(seconds < 0.5 ? "PASS %s\n" : "PASS %s (%.1f s)\n", case_->m_name, seconds);
    }
    std::fflush(stdout);
    current_case[0] = 0;
  }

  void test_case_skipped(const doctest::TestCaseData& data) override {
    if (!data.m_skip) return;  // a filter left it out, not a reason
    ++skipped;
    std::printf("SKIPPED %s: switched off in the source\n", data.m_name);
  }

  void test_run_end(const doctest::TestRunStats&) override {}
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
};

}  // namespace

REGISTER_LISTENER("ringlet", 0, case_reporter);

void skip(std::string_view reason) { skip_reason = reason; }
void allow_seconds(unsigned seconds) { set_timer(is_instrumented() ? 3 * seconds : seconds); }

}  // namespace support

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  support::tell_aborts();
  doctest::Context context(argc, argv);
  context.setOption("no-breaks", true);
  const int status = context.run();
  if (context.shouldExit()) return status;  // --help, --list-test-cases …
  std::printf("RESULT passed=%u failed=%u skipped=%u\n", support::passed, support::failed, support::skipped);
  return status != 0 || support::failed != 0 || has_leaks();
}
