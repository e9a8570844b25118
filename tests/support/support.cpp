#include "support.hpp"

#include <netdb.h>
#include <arpa/inet.h>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <spawn.h>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#if defined(RINGLET_HAVE_VALGRIND)
#include <valgrind/valgrind.h>
#endif

extern char** environ;

namespace support {

namespace {
[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }
int checked(int result, const char* what) {
  if (result < 0) fail(what);
  return result;
}
}  // namespace

bool is_instrumented() noexcept {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return true;
#endif
#endif
#if defined(RINGLET_HAVE_VALGRIND)
  return RUNNING_ON_VALGRIND != 0;
#else
  return false;
#endif
}

void fd::reset() noexcept {
  if (number_ >= 0) ::close(std::exchange(number_, -1));
}

fd_pair make_socketpair(int type) {
  int ends[2];
  checked(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends), "socketpair");
  return {fd(ends[0]), fd(ends[1])};
}

fd_pair make_pipe() {
  int ends[2];
  checked(::pipe2(ends, O_CLOEXEC), "pipe2");
  return {fd(ends[0]), fd(ends[1])};
}

listener listen_on_free_port(int backlog) {
  listener made;
  made.socket = fd(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  checked(::bind(made.socket, generic, length), "bind");
  checked(::listen(made.socket, backlog), "listen");
  checked(::getsockname(made.socket, generic, &length), "getsockname");
  made.port = ntohs(address.sin_port);
  return made;
}

fd connect_to_port(unsigned short port) {
  fd made(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  checked(::connect(made, reinterpret_cast<sockaddr*>(&address), sizeof address), "connect");
  return made;
}

temporary_directory::temporary_directory(const std::filesystem::path& where) {
  std::string pattern = (where / "ringlet-test.XXXXXX").string();
  if (!::mkdtemp(pattern.data())) fail("mkdtemp");
  path_ = pattern;
}

temporary_directory::~temporary_directory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

child_result run_child(const std::vector<std::string>& command, const child_options& how) {
  if (command.empty()) throw std::invalid_argument("run_child: no command");

  std::vector<std::string> variables;
  auto name_of = [](std::string_view variable) { return variable.substr(0, variable.find('=')); };
  for (char** v = environ; *v; ++v) {
    bool replaced = false;
    for (const auto& own : how.environment) replaced |= name_of(own) == name_of(*v);
    if (!replaced) variables.push_back(*v);
  }
  for (const auto& own : how.environment)
    if (own.find('=') != std::string::npos) variables.push_back(own);
  auto pointers = [](const std::vector<std::string>& texts) {
    std::vector<char*> made;
    for (const auto& t : texts) made.push_back(const_cast<char*>(t.c_str()));
    made.push_back(nullptr);
    return made;
  };
  auto arguments = pointers(command), environment = pointers(variables);

  fd_pair in = make_pipe(), out = make_pipe(), err = make_pipe();
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.first, 0);
  posix_spawn_file_actions_adddup2(&actions, out.second, 1);
  posix_spawn_file_actions_adddup2(&actions, err.second, 2);
  pid_t child = -1;
  const int failed = ::posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed) throw std::system_error(failed, std::generic_category(), "posix_spawn " + command[0]);
  in.first.reset(), out.second.reset(), err.second.reset();

  // All three streams at once: a child that waits for us to read must not wait for ever.
  child_result result;
  const auto end = std::chrono::steady_clock::now() + how.timeout;
  std::size_t sent = 0;
  auto read_some = [](fd& from, std::string& into) {
    char buffer[4096];
    const ssize_t n = ::read(from, buffer, sizeof buffer);
    if (n > 0) into.append(buffer, std::size_t(n));
    else if (n == 0 || errno != EINTR) from.reset();
  };
  struct sigaction ignore_pipe {}, before {};
  ignore_pipe.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore_pipe, &before);
  while (out.first >= 0 || err.first >= 0) {
    if (in.second >= 0 && sent == how.input.size()) in.second.reset();
    pollfd fds[3] = {{out.first, POLLIN, 0}, {err.first, POLLIN, 0}, {in.second, POLLOUT, 0}};
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    if (left <= 0) {
      result.timed_out = true;
      ::kill(child, SIGKILL);
      break;
    }
    if (::poll(fds, 3, int(left) + 1) <= 0) continue;
    if (fds[0].revents) read_some(out.first, result.out);
    if (fds[1].revents) read_some(err.first, result.err);
    if (fds[2].revents) {
      const ssize_t n = ::write(in.second, how.input.data() + sent, how.input.size() - sent);
      if (n > 0) sent += std::size_t(n);
      else if (errno != EINTR) in.second.reset();
    }
  }
  ::sigaction(SIGPIPE, &before, nullptr);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) fail("waitpid");
  if (WIFEXITED(status)) result.exit_status = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  return result;
}

std::string built(std::string_view relative) {
  if (const char* top = std::getenv("RINGLET_BUILD_DIR")) return std::string(top) + '/' + std::string(relative);
  // Test programs sit in <build>/tests.
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / relative).string();
}

bool localhost_resolves() {
  addrinfo* found = nullptr;
  if (::getaddrinfo("localhost", "80", nullptr, &found) != 0) return false;
  ::freeaddrinfo(found);
  return true;
}

}  // namespace support
