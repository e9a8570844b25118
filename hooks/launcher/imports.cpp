#include "imports.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <iterator>
#include <spawn.h>
#include <stdexcept>
#include <string_view>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include "calls.hpp"
#include "elf.hpp"

extern char** environ;

namespace ringlet::launcher {

namespace {

// Known to block inside of libc, where no symbol reaches. stdio is the big one: it reads by internal names.
constexpr std::string_view known_blocking[] = {
    "__fgets_chk", "__fread_chk", "__getdelim", "__isoc23_fscanf", "__isoc23_scanf", "__isoc99_fscanf", "__isoc99_scanf",
    "aio_suspend", "copy_file_range", "fflush", "fgetc", "fgets", "flockfile", "fread", "fscanf", "fwrite", "getc", "getchar",
    "getdelim", "getgrnam", "getline", "getpwnam", "getrandom", "io_getevents", "mq_receive", "mq_send", "mq_timedreceive",
    "mq_timedsend", "msgrcv", "msgsnd", "msync", "pause", "pclose", "popen", "posix_fallocate", "preadv", "preadv2",
    "pthread_barrier_wait", "pthread_clockjoin_np", "pthread_timedjoin_np", "pwritev", "pwritev2", "res_nquery", "res_query",
    "res_search", "scanf", "semop", "semtimedop", "sigpause", "sigsuspend", "sigtimedwait", "sigwait", "sigwaitinfo", "sync",
    "sync_file_range", "syncfs", "syscall", "system", "tcdrain", "tee", "vmsplice"};

std::string output_of(std::vector<std::string> command) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category(), "pipe2");
  std::vector<char*> arguments;
  for (auto& word : command) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  pid_t child = -1;
  const int failed = ::posix_spawn(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  std::string all;
  char part[4096];
  if (!failed)
    for (ssize_t n; (n = ::read(ends[0], part, sizeof part)) > 0 || (n < 0 && errno == EINTR);)
      if (n > 0) all.append(part, std::size_t(n));
  ::close(ends[0]);
  if (failed) return {};
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return all;
}

// Lines such as "\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f…)".
std::vector<std::string> libraries_of(const std::string& program) {
  std::vector<std::string> found;
  const auto self = read_elf("/proc/self/exe");
  if (!self || self->interpreter.empty()) return found;
  const std::string list = output_of({self->interpreter, "--list", program.find('/') == program.npos ? "./" + program : program});
  for (std::size_t begin = 0; begin < list.size();) {
    const auto end = std::min(list.find('\n', begin), list.size());
    const std::string_view line(list.data() + begin, end - begin);
    begin = end + 1;
    const auto arrow = line.find("=> /");
    const auto space = line.rfind(" (0x");
    if (arrow != line.npos && space != line.npos && space > arrow + 3) found.emplace_back(line.substr(arrow + 3, space - arrow - 3));
  }
  return found;
}

}  // namespace

blocking_imports blocking_imports_of(const std::string& program) {
  blocking_imports result;
  result.files.push_back(program);
  for (auto& library : libraries_of(program)) {
    if (library.find("/libringlet") != library.npos) continue;
    // libc's own imports are its own affair.
    auto& list = library.find("/libc.so.") == library.npos ? result.files : result.libc;
    list.push_back(std::move(library));
  }
  for (const auto& file : result.files) {
    const auto facts = read_elf(file);
    if (!facts) continue;
    for (const auto& name : facts->imports) {
      if (find_hooked(name)) result.hooked.emplace(name, file);
      else if (std::find(std::begin(known_blocking), std::end(known_blocking), name) != std::end(known_blocking)) result.not_hooked.emplace(name, file);
    }
  }
  return result;
}

}  // namespace ringlet::launcher
