#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <unistd.h>

#include "context/stack.hpp"
#include "loop/engine.hpp"
#include "target.hpp"
#include "verbs.hpp"

namespace ringlet::launcher {

namespace {

const char help[] =
    "usage: ringlet run [options] [--] PROGRAM [ARGUMENT]...\n"
    "\n"
    "Starts PROGRAM with its blocking calls hooked: executes it in this process, with libringlet-preload.so put first in\n"
    "LD_PRELOAD. Refuses programs that a preloaded library cannot reach (static, setuid, musl, of another processor).\n"
    "\n"
    "  --engine uring|epoll|auto  how to wait in the kernel       sets RINGLET_ENGINE\n"
    "  --leave-out LIST           groups and calls not to hook    sets RINGLET_LEAVE_OUT  (`ringlet calls` lists them)\n"
    "  --stack-size SIZE          of new fibers: bytes, or 64K, 1M  sets RINGLET_STACK_SIZE\n"
    "  --threads fibers|native    fibers: every thread is a fiber of one hub (docs/threads.md)  sets RINGLET_THREADS\n"
    "  --door symbol|syscall      symbol: libc's names are hooked, threads stay; syscall: libc's system calls, threads are\n"
    "                             fibers (where one cannot be had, it says why)  sets RINGLET_DOOR, RINGLET_THREADS\n"
    "  --report                   tells on stderr, at exit, what threads as fibers did  sets RINGLET_REPORT\n"
    "  --help\n"
    "\n"
    "Exit status: PROGRAM's; 125 if ringlet itself fails, 126 if PROGRAM cannot be executed or hooked, 127 if it is not\n"
    "found. `ringlet info` tells which engine would be used, `ringlet info PROGRAM` which of its calls are hooked.\n";

const std::vector<std::string> known_options = {"--engine", "--leave-out", "--stack-size", "--threads", "--door", "--report", "--help"};

void set_variable(const char* name, const std::string& value) {
  if (::setenv(name, value.c_str(), 1) != 0) throw std::runtime_error(std::string("cannot set ") + name + ": " + std::strerror(errno));
}

void set_engine(const std::string& name) {
  if (name != "uring" && name != "epoll" && name != "auto")
    throw std::runtime_error("--engine " + name + ": engines are uring, epoll and auto" + did_you_mean(name, {"uring", "epoll", "auto"}));
  // Better now and in words than from inside of the program's start.
  std::string why_not;
  if (name == "uring" && !loop::make_uring_engine(&why_not))
    throw std::runtime_error("--engine uring: " + why_not + ". Leave the option out to fall back to epoll.");
  set_variable("RINGLET_ENGINE", name);
}

void set_threads(const std::string& how) {
  if (how != "fibers" && how != "native")
    throw std::runtime_error("--threads " + how + ": threads are fibers or native" + did_you_mean(how, {"fibers", "native"}));
  set_variable("RINGLET_THREADS", how);
  ::unsetenv("RINGLET_DOOR");  // what is asked for here goes before what the environment says
}

// The one door is for threads that stay, the other for threads that are fibers.
void set_door(const std::string& name, const std::string& threads) {
  if (name != "symbol" && name != "syscall")
    throw std::runtime_error("--door " + name + ": doors are symbol and syscall" + did_you_mean(name, {"symbol", "syscall"}));
  const std::string its_threads = name == "symbol" ? "native" : "fibers";
  if (!threads.empty() && threads != its_threads)
    throw std::runtime_error("--door " + name + " is for --threads " + its_threads + ", not for --threads " + threads + ": leave one of the two out");
  set_variable("RINGLET_DOOR", name);
  set_variable("RINGLET_THREADS", its_threads);
}

void set_stack_size(const std::string& text) {
  set_variable("RINGLET_STACK_SIZE", text);
  (void)context::configured_stack_bytes();  // throws, in words, if that is no size
}

void put_first_in_preload(const std::string& object) {
  if (object.find_first_of(": \t\n") != object.npos)
    throw std::runtime_error("LD_PRELOAD cannot name '" + object + "': its path has a space or a colon in it. Move it, or point RINGLET_PRELOAD to a link.");
  const char* before = std::getenv("LD_PRELOAD");
  const std::string others = before ? before : "";
  // Under another `ringlet run` it is there already.
  for (std::size_t begin = 0; begin < others.size();) {
    const auto end = std::min(others.find_first_of(": ", begin), others.size());
    if (others.substr(begin, end - begin) == object) return;
    begin = end + 1;
  }
  set_variable("LD_PRELOAD", others.empty() ? object : object + ':' + others);
}

}  // namespace

std::string preload_object() {
  namespace fs = std::filesystem;
  const std::string file = "libringlet-preload.so";
  if (const char* named = std::getenv("RINGLET_PRELOAD"); named && *named) {
    std::error_code ignored;
    if (!fs::is_regular_file(named, ignored)) throw std::runtime_error(std::string("RINGLET_PRELOAD names ") + named + ", and there is no such file");
    return fs::absolute(named).lexically_normal();
  }
  const auto here = fs::read_symlink("/proc/self/exe").parent_path();
  std::string looked;
  // Never the working directory: it may be somebody else's.
  for (const auto& candidate : {here / file, here.parent_path() / file, here.parent_path() / RINGLET_LIBDIR_NAME / file, fs::path(RINGLET_LIBDIR) / file}) {
    std::error_code ignored;
    if (fs::is_regular_file(candidate, ignored)) return candidate.lexically_normal();
    looked += (looked.empty() ? "" : ", ") + candidate.parent_path().lexically_normal().string();
  }
  throw std::runtime_error("there is no " + file + " in " + looked + ". Build or install ringlet, or set RINGLET_PRELOAD to its path.");
}

int verb_run(std::span<char* const> arguments) {
  std::size_t at = 0;
  std::string door, threads;
  for (; at < arguments.size(); ++at) {
    const std::string_view argument = arguments[at];
    if (argument == "--") {
      ++at;
      break;
    }
    if (!argument.starts_with('-') || argument == "-") break;
    const auto equals = argument.find('=');
    const std::string name(argument.substr(0, equals));
    if (name == "--help" || name == "-h") return std::fputs(help, stdout), 0;
    if (name == "--report" && equals == argument.npos) {
      set_variable("RINGLET_REPORT", "1");
      continue;
    }
    if (std::find(known_options.begin(), known_options.end(), name) == known_options.end())
      return error("run: there is no option '" + name + "'" + did_you_mean(name, known_options) + "; `ringlet run --help` lists them");
    std::string value;
    if (equals != argument.npos) value = argument.substr(equals + 1);
    else if (++at < arguments.size()) value = arguments[at];
    else return error("run: " + name + " wants a value; see `ringlet run --help`");
    if (name == "--engine") set_engine(value);
    if (name == "--leave-out") set_variable("RINGLET_LEAVE_OUT", value);
    if (name == "--stack-size") set_stack_size(value);
    if (name == "--threads") set_threads(threads = value);
    if (name == "--door") door = value;
    if (name == "--report") return error("run: --report takes no value");
  }
  if (!door.empty()) set_door(door, threads);
  if (at >= arguments.size()) return error("run: which program? usage: ringlet run [options] [--] PROGRAM [ARGUMENT]...");

  const std::string name = arguments[at];
  auto refuse = [&](const refusal& no) {
    error("cannot run '" + name + "': " + no.reason + "." + (no.cure.empty() ? "" : " " + no.cure));
    return no.status;
  };
  const auto found = find_program(name);
  if (found.refused) return refuse(*found.refused);
  if (const auto no = why_not_hookable(found.path)) return refuse(*no);

  put_first_in_preload(preload_object());
  ::execv(found.path.c_str(), const_cast<char**>(&arguments[at]));  // argv ends in a null pointer, and so does its tail
  const int failed = errno;
  error("cannot run '" + name + "': " + std::strerror(failed));
  return failed == ENOENT ? status_not_found : status_cannot_execute;
}

}  // namespace ringlet::launcher
