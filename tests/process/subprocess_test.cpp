// Subprocesses: what they get, what comes back, how they end, and that nothing is left.

#include "ringlet/subprocess.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <ringlet/signals.hpp>

#include "hub/on_hub.hpp"

using namespace hub_test;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// The one after so many more in this thread fails. Negative: none.
static thread_local constinit int allocations_left = -1;
void* operator new(std::size_t size) {
  void* got = allocations_left < 0 || allocations_left-- > 0 ? std::malloc(size ? size : 1) : nullptr;
  if (!got) throw std::bad_alloc();
  return got;
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }

TEST_CASE("subprocess: one that there is no memory for leaves no child and no fd behind") {
  const std::vector<std::string> command{"sleep", "1000"};
  const subprocess_options how{.in = redirect::pipe(), .out = redirect::pipe(), .err = redirect::pipe()};
  subprocess warm_up({"true"}, how);
  warm_up.wait();
  int failures = 0;
  for (bool started = false; !started; ++failures) {
    REQUIRE(failures < 10'000);
    const auto before = std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
    try {
      std::vector<std::string> words = command;
      allocations_left = failures;
      subprocess p(std::move(words), how);
      allocations_left = -1;
      started = true;
    } catch (const std::exception&) {
      allocations_left = -1;
    }
    CAPTURE(failures);
    CHECK(::waitpid(-1, nullptr, WNOHANG | __WALL) == -1);
    CHECK(errno == ECHILD);
    CHECK(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}) == before);
  }
  CHECK(failures > 20);
}
#endif

namespace {

const redirect piped = redirect::pipe();

std::size_t open_fds() {
  return std::size_t(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}
// For a shell of the child's: dash's <& and >& take one digit only.
std::string kept_file(int fd) { return "/proc/self/fd/" + std::to_string(fd); }
bool exists(pid_t pid) { return ::kill(pid, 0) == 0; }
std::string pattern(std::size_t size) {
  std::string s(size, 0);
  for (std::size_t i = 0; i < size; ++i) s[i] = char('a' + (i * 7 + i / 251) % 26);
  return s;
}

}  // namespace

TEST_CASE("run: output, errors and status come back apart") {
  const auto r = run(shell("echo out; echo err >&2; exit 3"));
  CHECK(r.out == "out\n");
  CHECK(r.err == "err\n");
  CHECK(r.status.code == 3);
  CHECK(r.status.number() == 3);
  CHECK_FALSE(r.status.success());
  CHECK(to_string(r.status) == "exited with 3");
  const auto killed = run(shell("kill -TERM $$"));
  CHECK(killed.status.signal == SIGTERM);
  CHECK(killed.status.number() == -SIGTERM);
  CHECK(to_string(killed.status) == "killed by SIGTERM");
  CHECK(run({"cat"}, {.input = "through\n"}).out == "through\n");
  CHECK_THROWS_AS(run({}), std::invalid_argument);
}

TEST_CASE("run: check makes a failure an error that has the last words") {
  try {
    run(shell("echo some; echo bad luck >&2; exit 9"), {.check = true});
    FAIL("no error");
  } catch (const run_error& e) {
    CHECK(contains(e.what(), "exited with 9"));
    CHECK(contains(e.what(), "bad luck"));
    CHECK(e.result().out == "some\n");
    CHECK_FALSE(e.timed_out());
  }
  CHECK(run({"true"}, {.check = true}).status.success());
}

TEST_CASE("run: one that does not end in time is killed with its group, and what it wrote is kept") {
  pid_t grandchild = 0;
  try {
    run(shell("echo begun; sleep 1000 & echo $!; wait"), {.until = 300ms, .process = {.group = 0}});
    FAIL("no error");
  } catch (const run_error& e) {
    CHECK(e.timed_out());
    CHECK(e.result().status.signal == SIGKILL);
    CHECK(e.result().out.starts_with("begun\n"));
    grandchild = std::atoi(e.result().out.substr(6).c_str());
  }
  REQUIRE(grandchild > 0);
  CHECK(soon([&] { return !exists(grandchild) || support::contains(std::string(run({"cat", "/proc/" + std::to_string(grandchild) + "/stat"}).out), ") Z"); }));
}

TEST_CASE("run: an interrupted one is killed at once") {
  std::string pid_file;
  support::temporary_directory directory;
  pid_file = directory.path() / "pid";
  timeout limit(300ms);
  try {
    run(shell("echo $$ > " + pid_file + "; exec sleep 1000"));
    FAIL("it ended");
  } catch (const timeout_expired& e) {
    CHECK(e.is(limit));
  }
  pid_t pid = 0;
  std::ifstream(pid_file) >> pid;
  if (pid > 0) CHECK_FALSE(exists(pid));  // it may not have come so far
}

TEST_CASE("subprocess: others run while one waits") {
  int turns = 0;
  auto other = spawn([&] {
    for (;; ++turns) sleep(1ms);
  });
  CHECK(run({"sleep", "0.05"}).status.success());
  CHECK(turns > 3);
  other.kill();
}

TEST_CASE("subprocess: what cannot be started is told with errno and step, and leaves nothing") {
  run({"true"});
  const std::size_t before = open_fds();
  support::temporary_directory directory;
  const std::string plain = directory.path() / "plain";
  std::ofstream(plain) << "no program\n";
  struct {
    std::vector<std::string> command;
    subprocess_options how;
    int error;
    const char* step;
  } cases[] = {
      {{"/no/such/program"}, {}, ENOENT, "exec"},
      {{"no-such-program-anywhere"}, {}, ENOENT, "exec"},
      {{plain}, {}, EACCES, "exec"},
      {{"true"}, {.directory = "/no/such/directory"}, ENOENT, "chdir"},
      {{"true"}, {.in = redirect::path("/no/such/file")}, ENOENT, "redirect"},
      {{"true"}, {.keep_fds = {9999}}, EBADF, "keep_fds"},
      {{"true"}, {.group = 1}, EPERM, "setpgid"},
      {{""}, {}, ENOENT, "exec"},
  };
  for (auto& c : cases) {
    c.how.out = c.how.err = piped;
    CAPTURE(c.step);
    for (int i = 0; i < 20; ++i) try {
        subprocess p(c.command, c.how);
        FAIL_CHECK("it started");
      } catch (const start_error& e) {
        CHECK(e.code().value() == c.error);
        CHECK(std::string(e.step()) == c.step);
        CHECK(contains(e.what(), c.command[0]));
      }
  }
  REQUIRE(::chmod(plain.c_str(), 0755) == 0);
  try {
    subprocess p({plain});
  } catch (const start_error& e) {
    CHECK(e.code().value() == ENOEXEC);
    CHECK(contains(e.what(), "#!"));
  }
  CHECK(open_fds() == before);
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
  CHECK(errno == ECHILD);
}

TEST_CASE("subprocess: a folder of PATH that may not be entered does not hide a later one") {
  support::temporary_directory directory;
  const std::string program = directory.path() / "here";
  std::ofstream(program) << "#!/bin/sh\necho found\n";
  REQUIRE(::chmod(program.c_str(), 0755) == 0);
  const std::string path = "PATH=/no/such:" + directory.path().string() + ":/bin:/usr/bin";
  CHECK(run({"here"}, {.process = {.environment = {path}}}).out == "found\n");
}

TEST_CASE("subprocess: environment, directory, program, arguments as they are") {
  support::temporary_directory directory;
  const std::string where = std::filesystem::canonical(directory.path());
  CHECK(run({"pwd"}, {.process = {.directory = where}}).out == where + "\n");
  CHECK(run({"printf", "%s|", "", "a b", "$HOME", "*"}).out == "|a b|$HOME|*|");
  CHECK(run({"whoever", "-c", "echo $0"}, {.process = {.program = "sh"}}).out == "whoever\n");
  ::setenv("RINGLET_TEST_A", "ours", 1);
  CHECK(run(shell("echo $RINGLET_TEST_A")).out == "ours\n");
  CHECK(run(shell("echo $RINGLET_TEST_A"), {.process = {.environment = {"RINGLET_TEST_A=theirs"}}}).out == "theirs\n");
  CHECK(run(shell("echo ${RINGLET_TEST_A-none}"), {.process = {.environment = {"RINGLET_TEST_A"}}}).out == "none\n");
  CHECK(run({"/usr/bin/env"}, {.process = {.clean_environment = true, .environment = {"ONLY=this"}}}).out == "ONLY=this\n");
  ::unsetenv("RINGLET_TEST_A");
}

TEST_CASE("subprocess: no descriptor of ours reaches the child, but those it shall keep") {
  auto leaky = support::make_pipe();
  REQUIRE(::fcntl(leaky.first, F_SETFD, 0) == 0);  // not close-on-exec
  REQUIRE(::fcntl(leaky.second, F_SETFD, 0) == 0);
  const auto bare = run({"ls", "/proc/self/fd"});
  CHECK(bare.out == "0\n1\n2\n3\n");  // 3 is ls's own
  const int kept = leaky.second;
  subprocess p(shell("echo through >" + kept_file(kept)), {.keep_fds = {kept}});
  REQUIRE(p.wait(20s)->success());
  char text[16] = {};
  CHECK(::read(leaky.first, text, sizeof text) == 8);
  CHECK(std::string(text) == "through\n");
}

TEST_CASE("subprocess: its streams are blocking, wherever they lead, also to each other") {
  const auto flags = run(shell("for fd in 0 1 2; do grep flags /proc/self/fdinfo/$fd; done"), {.input = "x"});
  for (const auto& line : {flags.out}) CHECK_FALSE(contains(line, "4000"));
  support::temporary_directory directory;
  const std::string file_name = directory.path() / "out";
  run(shell("echo one; echo two >&2"), {.process = {.out = redirect::path(file_name), .err = redirect::to_stdout()}});
  run(shell("echo three"), {.process = {.out = redirect::path(file_name, true)}});
  CHECK(files::read(file_name) == "one\ntwo\nthree\n");
  CHECK(run({"cat"}, {.process = {.in = redirect::path(file_name)}}).out == "one\ntwo\nthree\n");
  CHECK(run(shell("cat; echo x >&2"), {.process = {.in = redirect::null_device(), .err = redirect::null_device()}}).out == "");
  // stdout and stderr changed places: each is the other's source.
  auto first = support::make_pipe(), second = support::make_pipe();
  const int saved_out = ::dup(1), saved_err = ::dup(2);
  REQUIRE(::dup2(first.second, 1) == 1);
  REQUIRE(::dup2(second.second, 2) == 2);
  exit_status crossed;
  {
    subprocess p(shell("echo out; echo err >&2"), {.out = redirect::to(2), .err = redirect::to(1)});
    crossed = *p.wait();
  }
  ::dup2(saved_out, 1);
  ::dup2(saved_err, 2);
  ::close(saved_out);
  ::close(saved_err);
  CHECK(crossed.success());
  char text[8] = {};
  CHECK(::read(first.first, text, sizeof text) == 4);
  CHECK(std::string(text) == "err\n");
}

TEST_CASE("subprocess: signals begin at their defaults and unblocked") {
  sigset_t block, before;
  sigemptyset(&block);
  sigaddset(&block, SIGUSR1);
  REQUIRE(::sigprocmask(SIG_BLOCK, &block, &before) == 0);
  const auto pipe_before = ::signal(SIGPIPE, SIG_IGN), hup_before = ::signal(SIGHUP, SIG_IGN);
  const auto lines = [](const std::string& text, const char* key) {
    const auto at = text.find(key);
    return text.substr(at, text.find('\n', at) - at);
  };
  const auto fresh = run({"cat", "/proc/self/status"}).out;
  CHECK(lines(fresh, "SigBlk") == "SigBlk:\t0000000000000000");
  CHECK(lines(fresh, "SigIgn") == "SigIgn:\t0000000000000001");  // SIGHUP, as nohup wants it
  const auto same = run({"cat", "/proc/self/status"}, {.process = {.keep_signals = true}}).out;
  CHECK(lines(same, "SigBlk") == "SigBlk:\t0000000000000200");
  CHECK(lines(same, "SigIgn") == "SigIgn:\t0000000000001001");
  ::signal(SIGPIPE, pipe_before);
  ::signal(SIGHUP, hup_before);
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
}

TEST_CASE("subprocess: a signal that was ignored before somebody listened for it is ignored in the child") {
  const auto before = ::signal(SIGHUP, SIG_IGN);
  const auto usr_before = ::signal(SIGUSR1, SIG_DFL);
  {
    signals wanted({SIGHUP, SIGUSR1});
    const auto status = run({"grep", "SigIgn", "/proc/self/status"}).out;
    CHECK(status == "SigIgn:\t0000000000000001\n");
  }
  ::signal(SIGHUP, before);
  ::signal(SIGUSR1, usr_before);
}

TEST_CASE("subprocess: one that cannot be started leaves no zombie, whatever signals come meanwhile") {
  struct sigaction ours {}, before {};
  ours.sa_handler = [](int) {};  // without SA_RESTART
  REQUIRE(::sigaction(SIGALRM, &ours, &before) == 0);
  const itimerval often{{0, 50}, {0, 50}}, off{};
  ::setitimer(ITIMER_REAL, &often, nullptr);
  for (int i = 0; i < 2000; ++i) CHECK_THROWS_AS(subprocess({"/no/such/program"}), start_error);
  ::setitimer(ITIMER_REAL, &off, nullptr);
  ::sigaction(SIGALRM, &before, nullptr);
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
  CHECK(errno == ECHILD);
}

TEST_CASE("subprocess: what a zero byte would cut off is refused") {
  const std::string cut("/tmp\0/other", 11);
  CHECK_THROWS_AS(run({"echo", cut}), std::invalid_argument);
  CHECK_THROWS_AS(run({cut}), std::invalid_argument);
  CHECK_THROWS_AS(run({"true"}, {.process = {.program = cut}}), std::invalid_argument);
  CHECK_THROWS_AS(run({"true"}, {.process = {.directory = cut}}), std::invalid_argument);
  CHECK_THROWS_AS(run({"true"}, {.process = {.environment = {"A=" + cut}}}), std::invalid_argument);
  CHECK_THROWS_AS(run({"true"}, {.process = {.out = redirect::path(cut)}}), std::invalid_argument);
}

TEST_CASE("subprocess: sessions and groups of its own") {
  const auto ids = [](const subprocess_options& how) {
    const std::string stat = run({"cat", "/proc/self/stat"}, {.process = how}).out;
    pid_t pid = 0, parent = 0, group = 0, session = 0;
    char state;
    REQUIRE(std::sscanf(stat.c_str(), "%d (cat) %c %d %d %d", &pid, &state, &parent, &group, &session) == 5);
    CHECK(parent == ::getpid());
    return std::tuple(pid, group, session);
  };
  auto [a_pid, a_group, a_session] = ids({});
  CHECK(a_group == ::getpgrp());
  CHECK(a_session == ::getsid(0));
  auto [b_pid, b_group, b_session] = ids({.group = 0});
  CHECK(b_group == b_pid);
  CHECK(b_session == ::getsid(0));
  auto [c_pid, c_group, c_session] = ids({.new_session = true});
  CHECK(c_group == c_pid);
  CHECK(c_session == c_pid);
}

TEST_CASE("communicate: much in both directions neither stalls nor loses a byte") {
  const std::string data = pattern(support::is_instrumented() ? 300'000 : 5'000'000);
  subprocess p(shell("tee /dev/stderr"), {.in = piped, .out = piped, .err = piped});
  CHECK(p.communicate(data, 60s));
  CHECK((p.output() == data));
  CHECK((p.errors() == data));
  CHECK(p.wait()->success());
}

TEST_CASE("communicate: a deadline loses nothing, and the next call goes on") {
  const std::string data = pattern(200'000);
  auto gate = support::make_pipe();
  // It takes some, then waits for us, then takes and returns the rest.
  subprocess p(shell("head -c 1000; read -r go <" + kept_file(gate.first) + "; cat"),
               {.in = piped, .out = piped, .keep_fds = {gate.first}});
  CHECK_FALSE(p.communicate(data, 200ms));
  CHECK(p.output() == data.substr(0, p.output().size()));
  {
    timeout limit(20ms);
    CHECK_THROWS_AS(p.communicate(), timeout_expired);
  }
  REQUIRE(::write(gate.second, "go\n", 3) == 3);
  CHECK(p.communicate({}, 60s));
  // What head had read ahead from the pipe it kept; everything else came through.
  const std::string out = p.take_output();
  CHECK(out.substr(0, 1000) == data.substr(0, 1000));
  CHECK((data.ends_with(out.substr(1000))));
  CHECK(p.wait()->success());
  CHECK(p.output() == "");
}

TEST_CASE("communicate: a child that does not want its input is no error and no signal") {
  subprocess p(shell("exec <&-; echo done"), {.in = piped, .out = piped});
  CHECK(p.communicate(pattern(1'000'000), 20s));
  CHECK(p.output() == "done\n");
  CHECK(run({"true"}, {.input = pattern(1'000'000)}).status.success());
}

TEST_CASE("communicate: no more than allowed") {
  subprocess p({"yes"}, {.out = piped});
  CHECK_THROWS_AS(p.communicate({}, 20s, 100'000), io_error);
  CHECK(p.output().size() < 300'000);
}

TEST_CASE("communicate: output that never stops does not outlast the deadline") {
  subprocess p({"sleep", "1000"}, {.out = piped});
  const auto begun = std::chrono::steady_clock::now();
  const auto late = [&] { return std::chrono::steady_clock::now() - begun > 5s; };
  // A fiber of ours writes in its place whenever it has a turn, so that the pipe is never found empty.
  auto writer = spawn([&] {
    auto end = support::fd(::open(("/proc/" + std::to_string(p.pid()) + "/fd/1").c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    REQUIRE(end >= 0);
    const std::string some(1000, 'x');
    for (; !late(); yield())
      while (::write(end, some.data(), some.size()) > 0) {
      }
  });
  CHECK_FALSE(p.communicate({}, 50ms));
  CHECK_FALSE(p.communicate({}, deadline::passed()));
  CHECK_FALSE(late());
  CHECK(p.output().size() >= 1000);
  writer.kill();
}

TEST_CASE("subprocess: its pipes are streams; a dialogue by lines") {
  subprocess p({"cat"}, {.in = piped, .out = piped});
  for (int i = 0; i < 50; ++i) {
    const std::string line = "line " + std::to_string(i);
    p.in().write(line + "\n");
    CHECK(p.out().read_line(20s) == line);
  }
  CHECK_THROWS_AS(p.out().read_line(1ms), io_error);
  p.in().write("unfinished");
  p.in().close();
  CHECK(p.out().read_line(20s) == "unfinished");
  CHECK(p.out().read_line(20s) == std::nullopt);
  CHECK(p.wait(20s) == exit_status{0, 0, false});
}

TEST_CASE("subprocess: writing to one that has gone is EPIPE, without a SIGPIPE") {
  ::signal(SIGPIPE, SIG_DFL);
  subprocess p({"true"}, {.in = piped});
  p.wait();
  try {
    p.in().write("anybody?");
    FAIL("it was written");
  } catch (const io_error& e) {
    CHECK(e.peer_gone());
  }
  sigset_t pending;
  ::sigpending(&pending);
  CHECK(::sigismember(&pending, SIGPIPE) == 0);
}

TEST_CASE("subprocess: wait has deadlines, many may wait, on any thread, and each gets the status") {
  subprocess p({"sleep", "1000"});
  CHECK(p.poll() == std::nullopt);
  CHECK(p.wait(1ms) == std::nullopt);
  std::vector<fiber<std::optional<exit_status>>> fibers;
  for (int i = 0; i < 5; ++i) fibers.push_back(spawn([&] { return p.wait(20s); }));
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      const auto s = p.wait(20s);
      right += s && s->signal == SIGTERM;
    });
  sleep(5ms);
  CHECK(p.terminate());
  for (auto& f : fibers) CHECK(f.get()->signal == SIGTERM);
  for (auto& t : threads) t.join();
  CHECK(right == 3);
  CHECK(p.poll()->signal == SIGTERM);
  CHECK_FALSE(p.kill());
}

TEST_CASE("subprocess: wait and iwait take it beside other things") {
  subprocess slow({"sleep", "1000"}), quick(shell("exit 4"));
  event never_set;
  CHECK(wait_any({never_set, slow, quick}, 20s) == 2);
  CHECK(quick.poll()->code == 4);
  CHECK(wait_any({slow, quick}, 20s) == 1);
  CHECK(wait_any({slow}, 1ms) == std::nullopt);
}

TEST_CASE("subprocess: it ends with its object, and with its group if it has one") {
  pid_t pid = 0, grandchild = 0;
  {
    subprocess p(shell("sleep 1000 & echo $!; wait"), {.out = piped, .group = 0});
    pid = p.pid();
    grandchild = std::atoi(p.out().read_line(20s)->c_str());
    CHECK(exists(pid));
  }
  CHECK_FALSE(exists(pid));
  CHECK(soon([&] {
    std::ifstream stat("/proc/" + std::to_string(grandchild) + "/stat");
    std::string text;
    return !std::getline(stat, text) || support::contains(text, ") Z");
  }));
  // Assigned over, the old one ends; moved, it lives on.
  subprocess a({"sleep", "1000"});
  pid = a.pid();
  subprocess b = std::move(a);
  CHECK(exists(pid));
  b = subprocess({"true"});
  CHECK_FALSE(exists(pid));
}

TEST_CASE("subprocess: a group can be sent signals after its leader has ended, asked for or not") {
  for (const bool asked : {false, true}) {
    CAPTURE(asked);
    subprocess p(shell("sleep 1000 & sleep 1000 & echo $!"), {.out = piped, .group = 0});
    const pid_t member = std::atoi(p.out().read_line(20s)->c_str());
    REQUIRE(member > 0);
    if (asked) CHECK(p.wait(20s)->success());
    CHECK(p.send_signal_to_group(SIGKILL));
    CHECK(p.out().read_all(20s) == "");  // nobody holds it open any more
    CHECK(p.wait(20s));
    CHECK(soon([&] { return !p.send_signal_to_group(0); }));
  }
}

TEST_CASE("subprocess: a killed fiber's child is killed, too") {
  pid_t pid = 0;
  auto f = spawn([&] {
    subprocess p({"sleep", "1000"});
    pid = p.pid();
    p.wait();
  });
  CHECK(soon([&] { return pid != 0; }));
  f.kill();
  CHECK_FALSE(exists(pid));
}

TEST_CASE("subprocess: a detached one lives on") {
  auto ends = support::make_pipe();
  pid_t pid = 0;
  {
    subprocess p(shell("read -r x; exit 0"), {.in = redirect::to(ends.first)});
    pid = p.pid();
    p.detach();
  }
  CHECK(exists(pid));
  ends.second.reset();
  ends.first.reset();
  int status = -1;
  CHECK(::waitpid(pid, &status, 0) == pid);
}

TEST_CASE("subprocess: a status that somebody else has taken is told as such") {
  subprocess p({"true"});
  int status = 0;
  REQUIRE(::waitpid(p.pid(), &status, 0) == p.pid());
  CHECK(contains(error_of([&] { p.wait(20s); }), "somebody else has taken its status"));
}

TEST_CASE("subprocess: it dies with the thread that started it, if it shall") {
  pid_t pid = 0;
  std::optional<subprocess> p;
  std::thread([&] {
    p.emplace(std::vector<std::string>{"sleep", "1000"}, subprocess_options{.die_with_parent = true});
    pid = p->pid();
  }).join();
  CHECK(p->wait(20s)->signal == SIGKILL);
}

TEST_CASE("subprocess: a forked child does not end its parent's") {
#if defined(__SANITIZE_THREAD__)
  RINGLET_SKIP("ThreadSanitizer does not follow a fork of a process with fibers");
#endif
  auto p = std::make_unique<subprocess>(std::vector<std::string>{"sleep", "1000"});
  const pid_t child = ::fork();
  if (child == 0) {
    p.reset();
    ::_exit(0);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(p->wait(1ms) == std::nullopt);
  // And a child's own are its own.
  const pid_t second = ::fork();
  if (second == 0) {
    int failed = 1;
    try {
      failed = run({"echo", "hello"}).out == "hello\n" ? 0 : 2;
    } catch (...) {
    }
    ::_exit(failed);
  }
  REQUIRE(::waitpid(second, &status, 0) == second);
  CHECK(status == 0);
}

TEST_CASE("subprocess: a hundred at once, from several hubs, leave no descriptor and no child") {
  run({"true"});
  const std::size_t before = open_fds();
  {
    hub_threads hubs(3);
    const std::size_t with_hubs = open_fds();
    std::vector<future<bool>> all;
    for (int i = 0; i < 100; ++i)
      all.push_back(hubs.spawn([i] {
        const auto r = run(shell("read -r line; echo got $line; exit " + std::to_string(i % 5)), {.input = std::to_string(i) + "\n"});
        return r.out == "got " + std::to_string(i) + "\n" && r.status.code == i % 5;
      }));
    int right = 0;
    for (auto& f : all) right += f.get();
    CHECK(right == 100);
    CHECK(open_fds() == with_hubs);
  }
  CHECK(open_fds() == before);
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
}

TEST_CASE("subprocess: a big parent starts one without copying its page tables") {
  if (support::is_instrumented()) RINGLET_SKIP("figures of instrumented programs say nothing");
  const std::size_t size = std::size_t(400) << 20;
  void* big = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(big != MAP_FAILED);
  ::madvise(big, size, MADV_NOHUGEPAGE);
  const auto fastest = [](auto f) {
    auto best = std::chrono::nanoseconds::max();
    for (int i = 0; i < 20; ++i) {
      const auto begun = std::chrono::steady_clock::now();
      f();
      best = std::min<std::chrono::nanoseconds>(best, std::chrono::steady_clock::now() - begun);
    }
    return best;
  };
  const auto start = [] { subprocess p({"/bin/true"}); p.wait(); };
  const auto small = fastest(start);
  for (std::size_t at = 0; at < size; at += 4096) static_cast<char*>(big)[at] = 1;
  const auto large = fastest(start);
  const auto forked = fastest([] {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    ::waitpid(child, nullptr, 0);
  });
  ::munmap(big, size);
  MESSAGE("start and end: " << small.count() / 1000 << " us small, " << large.count() / 1000 << " us with 400 MB; a bare fork: " << forked.count() / 1000 << " us");
  CHECK(large < small + forked);  // a fork's copy is not in it
}
