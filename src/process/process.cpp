// A child: made by fork, waited for by its pidfd.
//
// The parent's side is a state with the pidfd. Its readiness is what join waits for, on whichever hub it is called; who comes
// first reaps (under the state's lock), the others find the answer. Signals go through the pidfd, too, so a number that the
// system has given to another process is never met.
//
// The child's side goes on where start() was called: in the fiber that forked, the only one it has (hub/fork.cpp). That one
// spawns a new fiber for the function, so that timeout scopes and kills of the forking one and the size of its stack do not
// matter, waits for it behind a shield, and ends the process. First it reads on the start channel, a socket pair, which ends
// of pipes are its own (handles.hpp).
//
// A daemon keeps its end of the start channel as a lifeline: the kernel sends it SIGTERM (O_ASYNC, F_SETSIG) when the parent's
// end is closed, by whatever ends the parent. PR_SET_PDEATHSIG would not do: it fires when the thread that forked ends.

#include <ringlet/process.hpp>

#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <iostream>
#include <poll.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ringlet/io.hpp>
#include <ringlet/timeout.hpp>

#include "base/kernel_action.hpp"
#include "base/lock.hpp"
#include "io/doors.hpp"
#include "process/failures.hpp"
#include "process/handles.hpp"
#include "process/self.hpp"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace ringlet {

namespace detail {
struct process_state : base::list_link {
  process_options how;
  std::unique_ptr<process_body> body;
  std::vector<std::function<void()>> closers;
  int pid = 0;
  int pidfd = -1;
  int started_by = 0;  // the process; 0: not started
  process_detail::handle lifeline;
  base::lock lock;  // over the two below
  bool ended = false;
  int status = 0;
  bool needs_run = false;  // derived
};
}  // namespace detail

namespace {

using detail::hub_state;
using detail::process_state;
using process_detail::fail;

struct family {
  base::lock lock;
  base::intrusive_list<process_state> children;
  process_info self{0, "main", false};
  unsigned long made = 0;
};
family& the_family() {
  static family& f = *[] {  // outlives every static process
    ::pthread_atfork([] { the_family().lock.acquire(); }, [] { the_family().lock.release(); }, [] { the_family().lock.release(); });
    return new family;
  }();
  return f;
}

int own_pid() noexcept { return int(sys::call(SYS_getpid)); }

void flush_streams() noexcept {
  std::fflush(stdout);
  std::fflush(stderr);
  try {
    std::cout.flush();
    std::clog.flush();
  } catch (...) {
  }
}

// As after exec: what handles a signal here belongs to the parent's work. The runtime's own report of overflown stacks stays.
void reset_signals() noexcept {
  for (int n = 1; n <= 64; ++n) {
    if (n == SIGKILL || n == SIGSTOP || n == SIGSEGV || n == SIGBUS) continue;
    const base::kernel_action none;
    base::kernel_action now;
    if (base::set_action(n, nullptr, &now) == 0 && now.has_handler()) base::set_action(n, &none, nullptr);
  }
  const std::uint64_t nothing = 0;
  sys::call(SYS_rt_sigprocmask, SIG_SETMASK, &nothing, nullptr, sizeof nothing);
}

bool read_whole(int fd, void* to, std::size_t size) noexcept {
  auto* at = static_cast<char*>(to);
  while (size > 0) {
    const long got = sys::call(SYS_read, fd, at, size);
    if (got == -EINTR) continue;
    if (got <= 0) return false;
    at += got;
    size -= std::size_t(got);
  }
  return true;
}

void write_whole(int fd, const void* from, std::size_t size) noexcept {
  const auto* at = static_cast<const char*>(from);
  while (size > 0) {
    const long put = sys::call(SYS_sendto, fd, at, size, MSG_NOSIGNAL, nullptr, 0L);
    if (put == -EINTR) continue;
    if (put <= 0) return;  // the child has ended already
    at += put;
    size -= std::size_t(put);
  }
}

void die_with_parent(int lifeline) noexcept {
  sys::call(SYS_fcntl, lifeline, F_SETOWN, own_pid());
  sys::call(SYS_fcntl, lifeline, F_SETSIG, SIGTERM);
  sys::call(SYS_fcntl, lifeline, F_SETFL, O_ASYNC);
  pollfd gone{lifeline, POLLIN, 0};
  const timespec at_once{0, 0};
  if (sys::call(SYS_ppoll, &gone, 1, &at_once, nullptr, 0) > 0) sys::call(SYS_kill, own_pid(), SIGTERM);
}

int report(const process_info& self, const std::string& what) noexcept {
  std::fprintf(stderr, "ringlet: process '%s' (%d) failed: %s\n", self.name.c_str(), own_pid(), what.c_str());
  return 1;
}

// True: it has ended. Asks the system only as long as it has not said so.
bool reap(process_state& s) noexcept {
  base::lock_guard hold(s.lock);
  if (s.ended) return true;
  siginfo_t info{};
  const long result = sys::call(SYS_waitid, P_PIDFD, s.pidfd, &info, WEXITED | WNOHANG, nullptr);
  if (result == 0 && info.si_pid == 0) return false;
  if (result == -EINTR) return false;
  s.status = result != 0 ? process::lost_status : info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
  s.ended = true;
  base::lock_guard of_family(the_family().lock);
  s.unlink();
  return true;
}

void wait_on_this_thread(process_state& s) noexcept {
  while (!reap(s)) {
    pollfd ended{s.pidfd, POLLIN, 0};
    sys::call(SYS_ppoll, &ended, 1, nullptr, nullptr, 0);
  }
}

// For the destructor: nothing interrupts it. False: the deadline passed.
bool wait_out(process_state& s, deadline until) noexcept {
  hub_state* h = hub_state::here_or_null();
  if (!h || !h->can_park()) {
    if (until.is_never()) wait_on_this_thread(s);
    return reap(s);
  }
  try {
    kill_shield shield;
    while (!reap(s)) {
      const int result = io::wait_readable(s.pidfd, until);
      if (result == -ETIMEDOUT) return reap(s);
      if (result < 0 && result != -EINTR) wait_on_this_thread(s);
    }
  } catch (...) {
    wait_on_this_thread(s);
  }
  return true;
}

}  // namespace

void process_detail::set_self(const process_info& self) { the_family().self = self; }

int process_detail::status_of(const std::function<int()>& f) noexcept {
  try {
    return f();
  } catch (const process_exit& e) {
    return e.status;
  } catch (const greenlet_exit&) {
    return 0;
  } catch (const timeout_expired& e) {
    return report(the_family().self, e.what());
  } catch (...) {
    return report(the_family().self, detail::describe_exception(std::current_exception()));
  }
}

process::process(process_options how, std::unique_ptr<detail::process_body> body) : state_(new process_state) {
  state_->how = std::move(how);
  state_->body = std::move(body);
  if (state_->how.name.empty()) {
    base::lock_guard hold(the_family().lock);
    state_->how.name = "process-" + std::to_string(++the_family().made);
  }
}

process::process() : process(process_options{}) {}
process::process(process_options how) : process(std::move(how), std::unique_ptr<detail::process_body>()) { state_->needs_run = true; }
process::process(process&&) noexcept = default;

process::~process() {
  if (!state_) return;
  process_state& s = *state_;
  if (s.started_by == own_pid()) {
    if (!reap(s)) {
      if (s.how.daemon) {
        terminate();
        if (!wait_out(s, std::chrono::seconds(1))) kill();
      }
      wait_out(s, never);
    }
    io::close(s.pidfd);
  }
  process_detail::close(s.lifeline);
}

int process::run() {
  if (!state_->body) throw std::logic_error("ringlet: a class that derives from process and has no function must override run");
  return state_->body->run();
}

void process::hand_over_by(std::function<void()> close_here) { state_->closers.push_back(std::move(close_here)); }

void process::start() {
  detail::require_can_park("process::start");
  process_state& s = *state_;
  if (s.started_by) throw std::logic_error("ringlet: process '" + s.how.name + "' was started already; make another one");
  int ends[2];
  if (const long failed = sys::call(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
    fail(failed, "a process needs a socket pair to start (a limit on open files? see ulimit -n)");
  process_detail::add(s.lifeline, ends[0]);
  flush_streams();
  const int pid = ::fork();
  if (pid == 0) run_in_child(ends[1]);
  const int error = errno;
  sys::call(SYS_close, ends[1]);
  if (pid < 0) {
    process_detail::close(s.lifeline);
    fail(-error, "no process can be made (a limit on processes or memory? see ulimit -u, the cgroup's pids.max)");
  }
  s.pid = pid;
  s.started_by = own_pid();
  s.pidfd = int(sys::call(SYS_pidfd_open, pid, 0));
  {
    base::lock_guard hold(the_family().lock);
    the_family().children.push_back(s);
  }
  if (s.pidfd < 0) {
    // No fd left, or the child has ended and SIGCHLD is ignored. We could not wait for it, so it must not live.
    const int failed = s.pidfd;
    if (failed != -ESRCH) {
      sys::call(SYS_kill, pid, SIGKILL);
      sys::call(SYS_wait4, pid, nullptr, 0, nullptr);
    }
    s.ended = true;
    s.status = failed == -ESRCH ? lost_status : -SIGKILL;
    {
      base::lock_guard hold(the_family().lock);
      s.unlink();
    }
    if (failed != -ESRCH) fail(failed, "a process needs an fd to be waited for (a limit on open files? see ulimit -n); it was killed");
  } else {
    io::fd_opened(s.pidfd);
  }
  std::vector<std::uint64_t> message;
  {
    process_detail::handed_over recorded;
    s.body.reset();
    for (auto& each : std::exchange(s.closers, {})) each();
    message = recorded.numbers();
  }
  message.insert(message.begin(), message.size());
  write_whole(s.lifeline.fd, message.data(), message.size() * sizeof message[0]);
  if (!s.how.daemon) process_detail::close(s.lifeline);
}

void process::run_in_child(int start_channel) {
  process_state& s = *state_;
  reset_signals();
  family& mine = the_family();
  mine.children.forget_all();
  mine.self = {own_pid(), s.how.name, s.how.daemon};
  sys::call(SYS_prctl, PR_SET_NAME, s.how.name.c_str(), 0L, 0L, 0L);
  int status = 1;
  try {
    std::uint64_t count = 0;
    if (!read_whole(start_channel, &count, sizeof count)) ::_exit(1);  // the parent has ended
    std::vector<std::uint64_t> own(count);
    if (!read_whole(start_channel, own.data(), count * sizeof own[0])) ::_exit(1);
    process_detail::keep_only(own);
    if (s.how.daemon)
      die_with_parent(start_channel);
    else
      sys::call(SYS_close, start_channel);

    kill_shield shield;
    auto main = spawn({.name = s.how.name, .stack_size_bytes = std::size_t(8) << 20}, [this] { return run(); });
    status = process_detail::status_of([&main] {
      main.join();
      return main.get();
    });
  } catch (...) {
    status = report(mine.self, detail::describe_exception(std::current_exception()));
  }
  flush_streams();
  ::_exit(status);
}

detail::process_state& process::started_here(const char* verb) const {
  if (!state_->started_by) throw std::logic_error("ringlet: process '" + state_->how.name + "': " + verb + " before start");
  if (state_->started_by != own_pid())
    throw std::logic_error("ringlet: process '" + state_->how.name + "': " + verb + " in another process than the one that started it");
  return *state_;
}

bool process::join(deadline until) {
  process_state& s = started_here("join");
  detail::require_can_park("process::join");
  while (!reap(s)) {
    if (until == deadline::passed()) return false;
    if (!process_detail::waited(io::wait_readable(s.pidfd, until), "process::join")) return reap(s);
  }
  return true;
}

bool process::is_alive() { return state_->started_by == own_pid() && !reap(*state_); }

std::optional<int> process::exit_code() {
  if (!state_->started_by || !reap(started_here("exit_code"))) return std::nullopt;
  return state_->status;
}

bool process::send_signal(int number) {
  process_state& s = started_here("send_signal");
  if (reap(s)) return false;
  const long result = sys::call(SYS_pidfd_send_signal, s.pidfd, number, nullptr, 0L);
  if (result == -ESRCH) return false;
  if (result < 0) fail(result, "signal " + std::to_string(number) + " to process '" + s.how.name + "'");
  return true;
}
bool process::terminate() { return send_signal(SIGTERM); }
bool process::kill() { return send_signal(SIGKILL); }

int process::pid() const noexcept { return state_->pid; }
int process::sentinel() const noexcept { return state_->pidfd; }
const std::string& process::name() const noexcept { return state_->how.name; }
bool process::is_daemon() const noexcept { return state_->how.daemon; }

void process::set_daemon(bool daemon) {
  if (state_->started_by) throw std::logic_error("ringlet: process '" + state_->how.name + "' runs already; it is made a daemon before start");
  state_->how.daemon = daemon;
}
void process::set_name(std::string name) {
  if (state_->started_by) throw std::logic_error("ringlet: process '" + state_->how.name + "' runs already; it is given a name before start");
  state_->how.name = std::move(name);
}

process_info current_process() {
  process_info self = the_family().self;
  self.pid = own_pid();
  return self;
}

std::vector<process_info> active_children() {
  std::vector<process_info> result;
  base::lock_guard hold(the_family().lock);
  the_family().children.for_each([&](process_state& s) {
    // Not through reap, which takes this lock inside of the state's.
    siginfo_t info{};
    const long asked = sys::call(SYS_waitid, P_PIDFD, s.pidfd, &info, WEXITED | WNOHANG | WNOWAIT, nullptr);
    if (s.started_by == own_pid() && asked == 0 && info.si_pid == 0) result.push_back({s.pid, s.how.name, s.how.daemon});
  });
  return result;
}

}  // namespace ringlet
