// faults_load FACE [OPTION=VALUE]...: the load, with what is to happen to it. faults_load_plain: the same on threads, a
// program that knows nothing of ringlet.
//
//   seed, lanes, bytes, sleeps    of the load
//   signals=US                    SIGUSR1 about every so many microseconds, at random moments
//   restart, stack                its handler has SA_RESTART, SA_ONSTACK
//   children=N                    so many children end meanwhile, each with its SIGCHLD, whose handler restarts
//   stops=US                      the process is stopped about every so many microseconds, for a while
//   sleepers                      no load, but sleepers, and a stop that is longer than their sleeps
//   refuse=CALL:ERROR[:EVERY…]    refusals.hpp; may_refuse: what a call may then say, it may
//   files=N                       so many more descriptors than there are, and no more
//   unprivileged, memlock=BYTES   as nobody, with that much locked memory
//
// Status 0 and "ARRIVED" if all that must be is so; 3 and "REFUSED" with the reason if there is no hub; 77 if a fault
// cannot be had here.

#include <dirent.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <map>
#include <new>

#include "load.hpp"
#include "refusals.hpp"

#if defined(__SANITIZE_ADDRESS__)
// What is left is counted by ourselves; the leak check wants threads and memory of its own, which may be refused here.
extern "C" __attribute__((visibility("default"))) const char* __lsan_default_options() {
  return "leak_check_at_exit=0";
}
#endif

namespace faults {

std::atomic<unsigned long> handled{0};

namespace {

std::map<std::string, std::string> options;
unsigned long number(const char* name, unsigned long otherwise = 0) {
  const auto found = options.find(name);
  return found == options.end() ? otherwise : std::strtoul(found->second.c_str(), nullptr, 10);
}
bool has(const char* name) { return options.count(name) != 0; }

[[noreturn]] void cannot(const char* what) {
  std::printf("CANNOT: %s: %s\n", what, std::strerror(errno));
  std::fflush(stdout);
  ::_exit(77);
}

std::size_t descriptors() {
  std::size_t count = 0;
  DIR* list = ::opendir("/proc/self/fd");
  while (list && ::readdir(list)) ++count;
  if (list) ::closedir(list);
  return count;
}

// --- signals
// -------------------------------------------------------------------------------------------------------------

timer_t timer;
std::atomic<bool> timer_goes{false};
std::atomic<unsigned> lots{1};

// Half of it to one and a half.
long about(unsigned long mean) {
  lots = lots * 1664525u + 1013904223u;
  return long(mean / 2 + (lots >> 8) % (mean + 1));
}
void arm_timer() {
  itimerspec next{};
  next.it_value.tv_nsec = about(number("signals")) * 1000;
  ::timer_settime(timer, 0, &next, nullptr);
}

unsigned long mean_pause = 0;
void on_signal(int) {
  const int saved = errno;
  ++handled;
  if (timer_goes) {
    itimerspec next{};
    next.it_value.tv_nsec = about(mean_pause) * 1000;
    ::timer_settime(timer, 0, &next, nullptr);
  }
  errno = saved;
}
void on_child(int) { ++handled; }

void begin_signals() {
  if (has("stack")) {
    static char memory[1 << 16];
    stack_t s{};
    s.ss_sp = memory;
    s.ss_size = sizeof memory;
    ::sigaltstack(&s, nullptr);
  }
  struct sigaction action {};
  action.sa_handler = &on_signal;
  action.sa_flags = (has("restart") ? SA_RESTART : 0) | (has("stack") ? SA_ONSTACK : 0);
  ::sigaction(SIGUSR1, &action, nullptr);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR1;
  mean_pause = number("signals");
  if (::timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) cannot("a timer");
  timer_goes = true;
  arm_timer();
}
void end_signals() {
  timer_goes = false;
  ::timer_delete(timer);
  ::signal(SIGUSR1, SIG_IGN);
}

// A process of its own that does something to this one, until it is told that all is over. It ends between two acts only: one that was
// killed would leave this one stopped.
std::atomic<bool>* over = nullptr;
pid_t beside(void (*act)(pid_t)) {
  void* const shared = ::mmap(nullptr, sizeof *over, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) cannot("shared memory");
  over = new (shared) std::atomic<bool>(false);
  const pid_t parent = ::getpid(), made = ::fork();
  if (made < 0) cannot("a process");
  if (made > 0) return made;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  while (!*over) act(parent);
  ::_exit(0);
}
void stop_now_and_then(pid_t parent) {
  ::usleep(unsigned(about(number("stops"))));
  ::kill(parent, SIGSTOP);
  ::usleep(unsigned(about(number("stops"))));
  ::kill(parent, SIGCONT);
}
void go_on_later(pid_t parent) {
  ::usleep(400'000);
  ::kill(parent, SIGCONT);
}

// Children that end as soon as they begin.
template <class Face>
typename Face::task begin_children() {
  struct sigaction action {};
  action.sa_handler = &on_child;
  action.sa_flags = SA_RESTART | SA_NOCLDSTOP;
  ::sigaction(SIGCHLD, &action, nullptr);
  return Face::start([] {
    static unsigned long i;  // vfork returns twice, and a local might be forgotten
    for (i = 0; i < number("children"); ++i) {
      const pid_t child = ::vfork();
      if (child == 0) ::_exit(int(i % 100));
      if (child < 0) wrong("vfork", -errno, 0);
      int status = 0;
      pid_t ended;
      while ((ended = ::waitpid(child, &status, 0)) < 0 && errno == EINTR) ++interrupted;
      must_be("the child that ended", ended, child);
      must_be("its status", WEXITSTATUS(status), long(i % 100));
    }
  });
}

// --- limits
// --------------------------------------------------------------------------------------------------------------

void set_limits() {
  if (has("memlock")) {
    rlimit limit{number("memlock"), number("memlock")};
    if (::setrlimit(RLIMIT_MEMLOCK, &limit) != 0) cannot("RLIMIT_MEMLOCK");
  }
  if (has("unprivileged") && ::getuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) cannot("another user");
}

template <class Face>
void limit_files() {
  const rlim_t most = descriptors() - 3 + number("files");  // ., .., the directory's own
  const rlimit limit{most, most};
  if (has("files") && ::setrlimit(RLIMIT_NOFILE, &limit) != 0) cannot("RLIMIT_NOFILE");
}

template <class Face>
int run(const load_options& how) {
  std::vector<refusal_rule> rules;
  for (const auto& [name, value] : options)
    if (name.rfind("refuse", 0) == 0) rules.push_back(parse_rule(value));
  set_limits();
  pid_t other = -1;
  if (has("stops")) other = beside(&stop_now_and_then);
  if (has("sleepers")) other = beside(&go_on_later);
  if (!rules.empty() && !install_refusals(rules)) cannot("a seccomp filter");
  try {
    Face::begin();
  } catch (const std::exception& e) {
    std::printf("REFUSED: %s\n", e.what());
    return 3;
  }
  const std::size_t before = descriptors();
  limit_files<Face>();
  if (has("signals")) begin_signals();
  load<Face> l(how);
  if (has("sleepers")) {
    l.wake_in_order([] { ::kill(::getpid(), SIGSTOP); });
  } else {
    std::vector<typename Face::task> children;
    if (has("children")) children.push_back(begin_children<Face>());
    l.run();
    for (auto& c : children) c.join();
    must_be("bytes that arrived", long(transferred), long((how.lanes + 1) * how.bytes));
  }
  if (has("signals")) end_signals();
  if (other > 0) *over = true;
  while (other > 0 && ::waitpid(other, nullptr, 0) < 0 && errno == EINTR) {
  }
  const std::string left = Face::left();
  if (!left.empty()) {
    std::printf("WRONG: left behind: %s\n", left.c_str());
    return 1;
  }
  if (!has("files")) must_be("descriptors at the end", long(descriptors()), long(before));
  std::printf("ARRIVED: %lu bytes, %lu handlers, %lu interrupted, %lu refusals made, %lu told\n", transferred.load(),
              handled.load(), interrupted.load(), refusals_made(), refused_calls.load());
  std::fflush(stdout);
  return 0;
}

}  // namespace
}  // namespace faults

int main(int argc, char** argv) {
  using namespace faults;
  if (argc < 2) return 2;
  for (int i = 2; i < argc; ++i) {
    const std::string word = argv[i];
    const auto equals = word.find('=');
    options[word.substr(0, equals)] = equals == word.npos ? "1" : word.substr(equals + 1);
  }
  load_options how;
  how.seed = unsigned(number("seed", 1));
  lots = how.seed;
  how.lanes = unsigned(number("lanes", how.lanes));
  how.bytes = number("bytes", how.bytes);
  how.sleeps = unsigned(number("sleeps", how.sleeps));
  how.restarts = has("restart");
  how.may_refuse = has("may_refuse");
  const std::string face = argv[1];
#ifdef FAULTS_PLAIN
  if (face == "threads") return run<threads_face>(how);
#else
  if (face == "io") return run<io_face>(how);
  if (face == "hooked") return run<hooked_face>(how);
#endif
  return 2;
}
