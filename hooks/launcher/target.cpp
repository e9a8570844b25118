#include "target.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <string_view>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <system_error>
#include <unistd.h>

#include "elf.hpp"

namespace ringlet::launcher {

namespace {

constexpr int interpreters_at_most = 5;  // as the kernel

// 0, or why execve would not take it: EACCES also for what is no regular file.
int executable(const std::string& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0) return errno;
  if (S_ISDIR(s.st_mode)) return EISDIR;
  if (!S_ISREG(s.st_mode)) return EACCES;
  return ::access(path.c_str(), X_OK) == 0 ? 0 : errno;
}

refusal refuse_by(int error, const std::string& path) {
  switch (error) {
    case EISDIR: return {status_cannot_execute, "it is a directory", "Name the program in it."};
    case EACCES:
      return {status_cannot_execute, "it is not executable for this user",
              "If it is a program, `chmod +x " + path + "`; if it is a script, start it by its interpreter."};
    case ENOENT:
    case ENOTDIR: return {status_not_found, "there is no such file", ""};
    default: return {status_cannot_execute, std::strerror(error), ""};
  }
}

std::string first_line(const std::string& path) {
  char buffer[256] = {};
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  const ssize_t n = ::read(fd, buffer, sizeof buffer);
  ::close(fd);
  const std::string_view text(buffer, n > 0 ? std::size_t(n) : 0);
  return std::string(text.substr(0, text.find('\n')));
}

std::string_view word_of(std::string_view& line) {
  const auto begin = line.find_first_not_of(" \t\r");
  if (begin == line.npos) return line = {};
  const auto end = line.find_first_of(" \t\r", begin);
  const auto word = line.substr(begin, end - begin);
  line = end == line.npos ? std::string_view() : line.substr(end);
  return word;
}

std::optional<refusal> judge(const std::string& path, int depth);

std::optional<refusal> judge_script(const std::string& path, std::string_view line, int depth) {
  line.remove_prefix(2);
  const std::string interpreter(word_of(line));
  if (interpreter.empty()) return refusal{status_cannot_execute, "its first line is #! and names no interpreter", ""};
  if (depth == 0) return refusal{status_cannot_execute, "its interpreters are scripts of scripts without end", ""};
  if (const int error = executable(interpreter))
    return refusal{status_cannot_execute, "its interpreter " + interpreter + " cannot be run: " + refuse_by(error, interpreter).reason,
                   "Install it, or mend the first line of " + path + "."};
  if (auto no = judge(interpreter, depth - 1)) {
    no->reason = "its interpreter " + interpreter + ": " + no->reason;
    return no;
  }
  // `#!/usr/bin/env python3`: the program that matters is the next word.
  if (interpreter.ends_with("/env")) {
    auto next = word_of(line);
    if (next == "-S") next = word_of(line);
    if (next.empty() || next.front() == '-' || next.find('=') != next.npos) return std::nullopt;
    const auto found = find_program(std::string(next));
    if (found.refused)
      return refusal{status_not_found, "its interpreter " + std::string(next) + ": " + found.refused->reason, found.refused->cure};
    return judge(found.path, depth - 1);
  }
  return std::nullopt;
}

std::optional<refusal> judge_elf(const std::string& path, const elf_facts& facts) {
  if (!facts.native)
    return refusal{status_cannot_execute,
                   "it is a " + std::to_string(facts.bits) + "-bit program for " + machine_name(facts.machine) + ", and ringlet here is for " +
                       machine_name(native_machine()),
                   "Use the program's build for this processor."};
  if (facts.type != ET_EXEC && facts.type != ET_DYN)
    return refusal{status_cannot_execute, "it is an ELF file, but not a program (an object file or a core dump)", ""};
  if (facts.interpreter.empty())
    return refusal{status_cannot_execute,
                   facts.go ? "it is a static Go program: no library can be preloaded into it, and Go has fibers of its own"
                            : "it is a static program: no library can be preloaded into it",
                   facts.go ? "" : "Use a dynamically linked build of it (Debian's packages are), or link it with ringlet."};
  if (facts.interpreter.find("/ld-musl") != std::string::npos)
    return refusal{status_cannot_execute, "its libc is musl (" + facts.interpreter + "), and ringlet's preloaded object is made for glibc",
                   "Use a glibc build of it."};
  struct stat s {};
  if (::stat(facts.interpreter.c_str(), &s) != 0)
    return refusal{status_cannot_execute, "its loader " + facts.interpreter + " is not on this system", "Install the C library that it was built for."};
  if (const auto secure = secure_execution(path); !secure.empty())
    return refusal{status_cannot_execute, secure + ", and the loader ignores LD_PRELOAD for such programs",
                   "Run it as the user it changes to, or run a copy without these rights."};
  return std::nullopt;
}

std::optional<refusal> judge(const std::string& path, int depth) {
  if (::access(path.c_str(), R_OK) != 0) {
    // What may be executed but not read cannot be looked at, except for its rights.
    if (const auto secure = secure_execution(path); !secure.empty())
      return refusal{status_cannot_execute, secure + ", and the loader ignores LD_PRELOAD for such programs", ""};
    return std::nullopt;
  }
  if (const auto line = first_line(path); line.starts_with("#!")) return judge_script(path, line, depth);
  if (const auto facts = read_elf(path)) return judge_elf(path, *facts);
  return refusal{status_cannot_execute, "it is neither an ELF program nor a script that begins with #!",
                 "If it is a shell script: `ringlet run sh " + path + "`."};
}

}  // namespace

found_program find_program(const std::string& name) {
  if (name.empty()) return {name, refusal{status_not_found, "the name is empty", ""}};
  if (name.find('/') != name.npos) {
    const int error = executable(name);
    return {name, error ? std::optional(refuse_by(error, name)) : std::nullopt};
  }
  const char* set = std::getenv("PATH");
  const std::string path = set ? set : "/bin:/usr/bin";
  std::optional<found_program> unfit;
  for (std::size_t begin = 0; begin <= path.size();) {
    const auto end = std::min(path.find(':', begin), path.size());
    const auto directory = path.substr(begin, end - begin);
    const auto candidate = directory.empty() ? "./" + name : directory + '/' + name;
    const int error = executable(candidate);
    if (error == 0) return {candidate, std::nullopt};
    // As execvp: what is there but cannot be executed is remembered, and the search goes on.
    if (error != ENOENT && error != ENOTDIR && !unfit) unfit = {candidate, refuse_by(error, candidate)};
    begin = end + 1;
  }
  if (unfit) return *unfit;
  return {name, refusal{status_not_found, "it is in no directory of PATH", "Is it installed? PATH is " + path + "."}};
}

std::optional<refusal> why_not_hookable(const std::string& path) {
  try {
    return judge(path, interpreters_at_most);
  } catch (const std::system_error& e) {
    return refusal{status_cannot_execute, e.what(), ""};
  }
}

std::string secure_execution(const std::string& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0) return {};
  // Where these rights are ignored, they do no harm: no_new_privs, a file system mounted nosuid.
  struct statvfs mount {};
  if (::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) return {};
  if (::statvfs(path.c_str(), &mount) == 0 && (mount.f_flag & ST_NOSUID)) return {};
  if ((s.st_mode & S_ISUID) && (s.st_uid != ::geteuid() || s.st_uid != ::getuid())) return "it is setuid to user " + std::to_string(s.st_uid);
  // Without the group's x bit, setgid once meant mandatory locking.
  if ((s.st_mode & S_ISGID) && (s.st_mode & S_IXGRP) && (s.st_gid != ::getegid() || s.st_gid != ::getgid()))
    return "it is setgid to group " + std::to_string(s.st_gid);
  if (::getuid() != 0 && ::getxattr(path.c_str(), "security.capability", nullptr, 0) > 0) return "it has file capabilities";
  return {};
}

}  // namespace ringlet::launcher
