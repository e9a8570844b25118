// Other programs: starting them, their end, their streams.
//
// Nobody watches a child in the background. Who wants to know its end waits until its pidfd is readable, on whatever hub, and then
// asks for the status, under the lock, without waiting; the first one gets it for all. Only a listener (wait, iwait) needs
// somebody who asks: then a daemon fiber of the listener's thread does.

#include <ringlet/subprocess.hpp>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include <ringlet/fiber.hpp>
#include <ringlet/io.hpp>
#include <ringlet/timeout.hpp>

#include "base/sys.hpp"
#include "hub/hub.hpp"
#include "io/doors.hpp"
#include "process/start.hpp"
#include "process/subprocess_state.hpp"

namespace ringlet {

std::string to_string(const exit_status& s) {
  if (!s.signal) return "exited with " + std::to_string(s.code);
  const char* name = ::sigabbrev_np(s.signal);
  return "killed by " + (name ? "SIG" + std::string(name) : "signal " + std::to_string(s.signal)) + (s.core_dumped ? " (core dumped)" : "");
}

// --- starting --------------------------------------------------------------------------------------------------------

namespace {

// Ends of pipes and opened files, until they have an owner or the child has its copies.
class fd_holder {
 public:
  fd_holder() = default;
  fd_holder(const fd_holder&) = delete;
  ~fd_holder() { reset(-1); }
  void reset(int fd) {
    if (fd_ >= 0) io::close(fd_);
    fd_ = fd;
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

std::vector<std::string> environment_of(const subprocess_options& how) {
  std::vector<std::string> all;
  if (!how.clean_environment)
    for (char** one = ::environ; one && *one; ++one) all.emplace_back(*one);
  for (const std::string& change : how.environment) {
    const auto equals = change.find('=');
    const std::string_view name = std::string_view(change).substr(0, equals);
    std::erase_if(all, [&](const std::string& one) { return one.size() > name.size() && one.starts_with(name) && one[name.size()] == '='; });
    if (equals != change.npos) all.push_back(change);
  }
  return all;
}

// Where execvp(3) would look, in the environment that the program will have.
std::vector<std::string> candidates_of(const std::string& program, const std::vector<std::string>& environment) {
  if (program.find('/') != program.npos) return {program};
  std::string_view path = "/bin:/usr/bin";
  for (const std::string& one : environment)
    if (one.starts_with("PATH=")) path = std::string_view(one).substr(5);
  std::vector<std::string> all;
  for (std::size_t at = 0; at <= path.size();) {
    const std::size_t end = std::min(path.find(':', at), path.size());
    const std::string_view folder = path.substr(at, end - at);
    all.push_back((folder.empty() ? "." : std::string(folder)) + "/" + program);
    at = end + 1;
  }
  return all;
}

[[noreturn]] void cannot_start(const std::string& shown, int error, const char* step, const std::string& more) {
  throw start_error(error, step, "starting " + shown + more);
}

}  // namespace

// A C string ends there: the program would get less than it was given.
static void refuse_zero_byte(const std::string& text, const char* what) {
  if (text.find('\0') != text.npos) throw std::invalid_argument(std::string("ringlet: a zero byte in a subprocess's ") + what + ", which no program can be given");
}

void subprocess::impl::start(std::vector<std::string>& command, const subprocess_options& how) {
  for (const auto& each : command) refuse_zero_byte(each, "command");
  for (const auto& each : how.environment) refuse_zero_byte(each, "environment");
  for (const auto* each : {&how.in, &how.out, &how.err}) refuse_zero_byte(each->name(), "redirection");
  refuse_zero_byte(how.program, "program");
  refuse_zero_byte(how.directory, "directory");
  const std::string program = how.program.empty() ? command[0] : how.program;
  shown = "'" + program + "'";
  const std::vector<std::string> environment = environment_of(how);
  detail::start_plan plan;
  if (!program.empty()) plan.candidates = candidates_of(program, environment);
  for (const auto& each : command) plan.arguments.push_back(each.c_str());
  plan.arguments.push_back(nullptr);
  for (const auto& each : environment) plan.environment.push_back(each.c_str());
  plan.environment.push_back(nullptr);
  if (!how.directory.empty()) plan.directory = how.directory.c_str();
  plan.keep_fds = how.keep_fds;
  plan.new_session = how.new_session;
  plan.set_group = how.group.has_value();
  plan.group = how.group.value_or(0);
  plan.die_with_parent = how.die_with_parent;
  plan.keep_signals = how.keep_signals;
  plan.ignored = detail::ignored_beneath_listeners();

  fd_holder theirs[3], ours[3];
  const redirect* wanted[3] = {&how.in, &how.out, &how.err};
  for (int i = 0; i < 3; ++i) {
    const redirect& r = *wanted[i];
    switch (r.where()) {
      case redirect::kind::inherit: continue;
      case redirect::kind::descriptor:
        if (r.fd() < 0) cannot_start(shown, EBADF, "redirect", ": a stream is redirected to a closed file");
        plan.streams[i] = r.fd();
        continue;
      case redirect::kind::to_stdout:
        if (i != 2) throw std::invalid_argument("ringlet: only stderr may be redirected to_stdout");
        plan.streams[2] = plan.streams[1] >= 0 ? plan.streams[1] : 1;
        continue;
      case redirect::kind::pipe: {
        int ends[2];
        if (const long failed = sys::call(SYS_pipe2, ends, O_CLOEXEC); failed < 0) cannot_start(shown, int(-failed), "pipe", "");
        for (int fd : ends) io::fd_opened(fd);
        theirs[i].reset(ends[i == 0 ? 0 : 1]);
        ours[i].reset(ends[i == 0 ? 1 : 0]);
        break;
      }
      default: {
        const bool is_null = r.where() == redirect::kind::null_device;
        const std::string path = is_null ? "/dev/null" : r.name();
        const int flags = is_null ? O_RDWR : i == 0 ? O_RDONLY : O_WRONLY | O_CREAT | (r.append() ? O_APPEND : O_TRUNC);
        int fd;
        do fd = io::openat(AT_FDCWD, path.c_str(), flags | O_CLOEXEC, 0666);
        while (fd == -EINTR);
        if (fd == -ECANCELED) detail::throw_io_failure(fd, "opening '" + path + "'");
        if (fd < 0) cannot_start(shown, -fd, "redirect", ": a stream is redirected to '" + path + "'");
        theirs[i].reset(fd);
      }
    }
    plan.streams[i] = theirs[i].get();
  }

  // Before there is a child: with it, nothing may throw any more.
  static constexpr const char* names[] = {"the stdin of ", "the stdout of ", "the stderr of "};
  for (int i = 0; i < 3; ++i)
    if (ours[i].get() >= 0) {
      std::string name = names[i] + shown;
      streams[i] = file::adopt(ours[i].release(), std::move(name));
    }

  const detail::start_result made = detail::start_program(plan);
  if (made.error) {
    std::string more = std::string(", ") + made.step;
    if (plan.directory && std::string_view(made.step) == "chdir") more += " to '" + how.directory + "'";
    if (std::string_view(made.step) == "exec" && made.error == ENOENT && plan.candidates.size() > 1) more += " (it is in no folder of PATH)";
    if (std::string_view(made.step) == "exec" && made.error == ENOEXEC) more += " (a script needs a first line such as #!/bin/sh)";
    cannot_start(shown, made.error, made.step, more);
  }
  pid = made.pid;
  pidfd = made.pidfd;
  io::fd_opened(pidfd);
  own_group = how.new_session || (how.group && *how.group == 0);
}

// --- ending ----------------------------------------------------------------------------------------------------------

void subprocess::impl::end() noexcept {
  if (detached || pid < 0 || !is_ours()) return;
  for (file& each : streams) each.close();
  {
    base::lock_guard hold(lock);
    if (!status && !lost) {  // perhaps it has ended, but its number is still its own
      sys::call(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);
      if (own_group) sys::call(SYS_kill, -pid, SIGKILL);
    }
  }
  // One that hangs in the kernel cannot be waited for to the end.
  constexpr auto longest = std::chrono::seconds(10);
  const deadline give_up(longest);
  if (ask()) return;
  try {
    if (auto* hub = detail::hub_state::here_or_null(); hub && hub->can_park()) {
      const kill_shield to_the_end;
      while (wait_for_end(give_up) == -ECANCELED && wait_plainly(give_up) != -ETIMEDOUT) {
      }
      return;
    }
  } catch (const std::bad_alloc&) {  // then as where nobody can be parked
  }
  wait_plainly(give_up);
  ask();
}

subprocess::subprocess(std::vector<std::string> command, const subprocess_options& how) : impl_(std::make_shared<impl>()) {
  if (command.empty()) throw std::invalid_argument("ringlet: a subprocess without a command");
  impl_->start(command, how);
}
subprocess::subprocess(subprocess&&) noexcept = default;
subprocess& subprocess::operator=(subprocess&& other) noexcept {
  if (this == &other) return *this;
  if (impl_) impl_->end();
  impl_ = std::move(other.impl_);
  return *this;
}
subprocess::~subprocess() {
  if (impl_) impl_->end();
}

pid_t subprocess::pid() const noexcept { return impl_->pid; }
file& subprocess::in() noexcept { return impl_->streams[0]; }
file& subprocess::out() noexcept { return impl_->streams[1]; }
file& subprocess::err() noexcept { return impl_->streams[2]; }
void subprocess::detach() noexcept { impl_->detached = true; }
bool subprocess::send_signal(int number) { return impl_->signal(number, false); }
bool subprocess::terminate() { return send_signal(SIGTERM); }
bool subprocess::kill() { return send_signal(SIGKILL); }
bool subprocess::send_signal_to_group(int number) { return impl_->signal(number, true); }

std::optional<exit_status> subprocess::wait(deadline until) {
  const auto self = impl_;
  if (!self->is_ours()) throw std::logic_error("ringlet: a forked child waits for a subprocess of its parent's, " + self->shown);
  const int waited = self->wait_for_end(until);
  if (waited == -ETIMEDOUT) return std::nullopt;
  if (waited < 0) detail::throw_io_failure(waited, "waiting for " + self->shown);
  base::lock_guard hold(self->lock);
  if (self->lost)
    throw io_error(ECHILD, "waiting for " + self->shown + ": somebody else has taken its status. Likely causes: a SIGCHLD handler of the program's "
                                                           "that waits for any child, or SIGCHLD ignored");
  return self->status;
}

bool subprocess::add_listener(detail::listener& l) {
  const auto self = impl_;
  base::lock_guard hold(self->lock);
  if (self->ask_with_lock()) return false;
  if (!self->watched) {
    spawn({.name = "end of " + self->shown, .daemon = true}, [self] {
      struct at_end {
        impl& of;
        ~at_end() {
          base::lock_guard held(of.lock);
          of.watched = false;
        }
      } mark{*self};
      if (const int waited = self->wait_for_end(never); waited == -ECANCELED) detail::throw_io_failure(waited, "waiting for " + self->shown);
    });
    self->watched = true;
  }
  self->listeners.add(l);
  return true;
}
void subprocess::remove_listener(detail::listener& l) noexcept {
  base::lock_guard hold(impl_->lock);
  impl_->listeners.remove(l);
}

}  // namespace ringlet
