#include "process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace bench {

namespace {

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(2);
}

// Kilobytes, or a count: the number after this word in a file of /proc.
double number_in(pid_t id, const char* file, const std::string& word) {
  std::ifstream in("/proc/" + std::to_string(id) + "/" + file);
  for (std::string line; std::getline(in, line);)
    if (line.rfind(word, 0) == 0) return std::atof(line.c_str() + word.size());
  return 0;
}

}  // namespace

cores::cores() {
  cpu_set_t mine;
  CPU_ZERO(&mine);
  ::sched_getaffinity(0, sizeof mine, &mine);
  for (int i = CPU_SETSIZE - 1; i >= 0; --i)
    if (CPU_ISSET(i, &mine)) peers = i;
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, &mine)) driver = i;
}

void pin_to(int core) {
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(core, &only);
  ::sched_setaffinity(0, sizeof only, &only);
}

process::process(std::vector<std::string> command, const std::vector<std::string>& environment, int core, int listener,
                 bool pipes) {
  int in[2] = {-1, -1}, out[2] = {-1, -1};
  if (pipes && (::pipe2(in, O_CLOEXEC) || ::pipe2(out, O_CLOEXEC))) fail("pipe2");
  const pid_t parent = ::getpid();
  id_ = ::fork();
  if (id_ < 0) fail("fork");
  if (id_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(2);
    pin_to(core);
    if (pipes) {
      ::dup2(in[0], 0);
      ::dup2(out[1], 1);
    }
    if (listener == 3) {
      ::fcntl(3, F_SETFD, 0);
    } else if (listener >= 0) {
      ::dup2(listener, 3);
    }
    for (const auto& setting : environment) ::putenv(const_cast<char*>(setting.c_str()));
    std::vector<char*> words;
    for (auto& word : command) words.push_back(word.data());
    words.push_back(nullptr);
    ::execv(words[0], words.data());
    ::_exit(127);
  }
  if (pipes) {
    ::close(in[0]);
    ::close(out[1]);
    to_ = in[1];
    from_ = out[0];
  }
  if (::clock_getcpuclockid(id_, &clock_)) fail("clock_getcpuclockid");
}

process::~process() {
  for (int fd : {to_, from_})
    if (fd >= 0) ::close(fd);
  ::kill(id_, SIGKILL);
  ::waitpid(id_, nullptr, 0);
}

double process::cpu_ns() const {
  timespec t{};
  ::clock_gettime(clock_, &t);
  return double(t.tv_sec) * 1e9 + double(t.tv_nsec);
}

double process::resident() const { return number_in(id_, "smaps_rollup", "Rss:") * 1024; }
double process::in_kernel() const {
  constexpr double thread_stack = 16 * 1024;
  return number_in(id_, "status", "VmPTE:") * 1024 + number_in(id_, "status", "Threads:") * thread_stack;
}

std::string process::ask(const std::string& line) {
  const std::string order = line + "\n";
  if (::write(to_, order.data(), order.size()) != ssize_t(order.size())) return "";
  std::string answer;
  for (char c; answer.empty() || answer.back() != '\n'; answer += c) {
    pollfd readable{from_, POLLIN, 0};
    if (::poll(&readable, 1, 60'000) != 1 || ::read(from_, &c, 1) != 1) return "";
  }
  answer.pop_back();
  return answer;
}

}  // namespace bench
