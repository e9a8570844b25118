#pragma once
// subprocess: another program, its streams and its end, waited for by the fiber.
//
//   auto listing = ringlet::run({"ls", "-l", path});                     // waits, collects, checks nothing
//   if (listing.status.success()) use(listing.out);
//
//   ringlet::subprocess filter({"sort", "-u"}, {.in = ringlet::redirect::pipe(), .out = ringlet::redirect::pipe()});
//   filter.communicate("b\na\n", 5s);                                    // and filter.out() is "a\nb\n"
//
// The program is started as posix_spawn does it (the memory is shared until exec), so a big parent starts it as fast as a small
// one. What cannot be started is a start_error with the errno and the step, and leaves nothing behind. No descriptor of ours reaches
// the child but its three streams and `keep_fds`; its streams are blocking, its signals at their defaults and unblocked (what
// the parent ignores stays ignored, but for SIGPIPE and SIGXFSZ).
//
// A child ends with its object: if it still runs at the destructor it is killed (SIGKILL, with its group if it has one of its own) and
// waited for (10 s at the most: one that hangs in the kernel is left), unless detach was called. Its status is taken by waitid(2) on its pidfd (Linux 5.4) when somebody asks, so nothing else of the
// program's is disturbed; a SIGCHLD handler of the program's that takes any child's status takes ours, too: wait says so.
//
// wait, status, poll, send_signal, kill may be called on any thread, by many at once. The streams and communicate belong to one fiber
// at a time. In a forked child the object is nobody's parent: it does nothing. Semantics: Python's subprocess.

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/types.h>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/file.hpp>
#include <ringlet/wait.hpp>

namespace ringlet {

// How a process has ended.
struct exit_status {
  int code = -1;             // what it exited with; -1 if a signal killed it
  int signal = 0;            // what killed it, or 0
  bool core_dumped = false;
  bool success() const noexcept { return code == 0; }
  // As Python has it: the code, or the negative signal.
  int number() const noexcept { return signal ? -signal : code; }
  bool operator==(const exit_status&) const noexcept = default;
};
// "exited with 3", "killed by SIGTERM".
RINGLET_EXPORT std::string to_string(const exit_status&);

// It never ran: code() is the errno, step() says of what.
class RINGLET_EXPORT start_error : public io_error {
 public:
  start_error(int error_number, const char* step, const std::string& what) : io_error(error_number, what), step_(step) {}
  const char* step() const noexcept { return step_; }  // "exec", "chdir", "clone", "pipe", "setpgid", "redirect" …

 private:
  const char* step_;
};

// Where one of the child's streams leads.
class redirect {
 public:
  enum class kind { inherit, pipe, null_device, descriptor, file, to_stdout };
  redirect() noexcept = default;  // the parent's own
  static redirect inherit() noexcept { return {}; }
  static redirect pipe() { return redirect(kind::pipe); }
  static redirect null_device() { return redirect(kind::null_device); }
  static redirect to(int fd) { return redirect(kind::descriptor, fd); }          // stays the caller's
  static redirect to(const class file& f) { return redirect(kind::descriptor, f.fd()); }
  // Opened for reading as stdin; else made, or emptied (append: not).
  static redirect path(std::string name, bool append = false) {
    redirect r(kind::file);
    r.name_ = std::move(name);
    r.append_ = append;
    return r;
  }
  static redirect to_stdout() { return redirect(kind::to_stdout); }              // of stderr: wherever stdout goes

  kind where() const noexcept { return kind_; }
  int fd() const noexcept { return fd_; }
  const std::string& name() const noexcept { return name_; }
  bool append() const noexcept { return append_; }

 private:
  explicit redirect(kind k, int fd = -1) noexcept : kind_(k), fd_(fd) {}
  kind kind_ = kind::inherit;
  int fd_ = -1;
  std::string name_;
  bool append_ = false;
};

struct subprocess_options {
  redirect in = {}, out = {}, err = {};
  std::string program = {};                 // what is executed, if not command[0]; sought in PATH if it has no slash
  std::string directory = {};               // its working directory
  bool clean_environment = false;           // begin with nothing instead of ours
  std::vector<std::string> environment = {};  // "NAME=value" sets, "NAME" removes
  std::vector<int> keep_fds = {};           // stay open in the child, under their numbers
  bool new_session = false;                 // setsid(2): no terminal; its own group
  std::optional<pid_t> group = {};          // setpgid(2): 0 is a new one, of its own number
  bool die_with_parent = false;             // SIGKILL when the thread that started it ends (PR_SET_PDEATHSIG)
  bool keep_signals = false;                // ignored and blocked signals as they are here
};

class RINGLET_EXPORT subprocess {
 public:
  // Starts it: command[0] and its arguments, no shell. start_error; std::invalid_argument for an empty command and for
  // zero bytes, which a program cannot be given.
  explicit subprocess(std::vector<std::string> command, const subprocess_options& how = {});
  subprocess(subprocess&&) noexcept;
  subprocess& operator=(subprocess&&) noexcept;
  // Kills what still runs, and waits for it.
  ~subprocess();

  pid_t pid() const noexcept;
  // What was asked to be a pipe; else streams that are not open. Close `in` to tell the child that there is no more.
  file& in() noexcept;
  file& out() noexcept;
  file& err() noexcept;

  // Waits for its end; nothing: the deadline passed first. io_error with ECHILD: somebody else has taken its status.
  std::optional<exit_status> wait(deadline until = never);
  // Without waiting.
  std::optional<exit_status> poll() { return wait(deadline::passed()); }

  // Writes `input` to its stdin and closes it, collects stdout and stderr (those that are pipes) to their ends, waits for its end.
  // False: the deadline passed first. Whatever ends it early, nothing is lost: output() and errors() have what came so far, and
  // another call goes on, with the rest of the first one's input (its own is appended to it, if stdin is still open).
  // most_bytes: so much of each at the most, then io_error with EMSGSIZE. Not mixed with reading the streams by hand.
  bool communicate(std::string input = {}, deadline until = never, std::size_t most_bytes = static_cast<std::size_t>(-1));
  const std::string& output() const noexcept;
  const std::string& errors() const noexcept;
  std::string take_output() noexcept;
  std::string take_errors() noexcept;

  // False if it has ended already: never to a stranger that has got its number (pidfd_send_signal(2)).
  bool send_signal(int number);
  bool terminate();  // SIGTERM
  bool kill();       // SIGKILL
  // The same to all of its group, if it was given one of its own, also to those it has left behind; else to itself.
  bool send_signal_to_group(int number);
  // It may outlive this object from now on.
  void detach() noexcept;

  // wait, iwait and wait_any take subprocesses, too.
  bool add_listener(detail::listener&);
  void remove_listener(detail::listener&) noexcept;

 private:
  struct impl;
  std::shared_ptr<impl> impl_;
};

struct run_options {
  std::string input = {};          // to its stdin, which then is a pipe
  bool capture = true;             // stdout and stderr, where they are not redirected
  bool check = false;              // an unsuccessful end is a run_error
  deadline until = never;          // then it is killed, with its group: run_error
  std::size_t most_bytes = static_cast<std::size_t>(-1);
  subprocess_options process = {};
};
struct completed {
  exit_status status;
  std::string out, err;
};
class RINGLET_EXPORT run_error : public std::runtime_error {
 public:
  run_error(const std::string& what, completed so_far, bool timed_out) : std::runtime_error(what), so_far_(std::move(so_far)), timed_out_(timed_out) {}
  bool timed_out() const noexcept { return timed_out_; }
  const completed& result() const noexcept { return so_far_; }  // with the output until then

 private:
  completed so_far_;
  bool timed_out_;
};
// Runs it to its end. Interrupted, it kills it, with its group if it has one.
RINGLET_EXPORT completed run(std::vector<std::string> command, const run_options& how = {});
// The command for a shell: run(shell("ls | wc -l")).
RINGLET_EXPORT std::vector<std::string> shell(std::string line);

}  // namespace ringlet
