// `ringlet info`: what decides how well ringlet works here, and why it decided so. Meant to be pasted into a report.

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <elf.h>
#include <fstream>
#include <gnu/libc-version.h>
#include <liburing.h>
#include <string>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "context/stack.hpp"
#include "door.hpp"
#include "elf.hpp"
#include "imports.hpp"
#include "loop/engine.hpp"
#include "target.hpp"
#include "verbs.hpp"

namespace ringlet::launcher {

namespace {

const char help[] =
    "usage: ringlet info            what this system offers: the engine that would be used and why, io_uring, limits\n"
    "       ringlet info PROGRAM    what a program is, which of the blocking calls that it imports are hooked, and what the\n"
    "                               system-call door would do with it\n"
    "       ringlet info --sites PROGRAM    ... with a line for each system call in its libraries\n";

void line(const char* name, const std::string& value) { std::printf("  %-26s %s\n", name, value.c_str()); }
void heading(const char* text) { std::printf("%s\n", text); }

std::string first_line_of(const char* file) {
  std::ifstream in(file);
  std::string text;
  return std::getline(in, text) ? text : "";
}

std::string field_of_status(const std::string& name) {
  std::ifstream in("/proc/self/status");
  for (std::string text; std::getline(in, text);)
    if (text.starts_with(name + ":")) return text.substr(std::min(text.find_first_not_of(" \t", name.size() + 1), text.size()));
  return "";
}

std::string limit_text(int resource, rlim_t unit, const char* unit_name) {
  rlimit limit{};
  if (::getrlimit(resource, &limit) != 0) return "unknown";
  auto one = [&](rlim_t n) { return n == RLIM_INFINITY ? std::string("unlimited") : std::to_string(n / unit) + unit_name; };
  return one(limit.rlim_cur) + " (at most " + one(limit.rlim_max) + ")";
}

// 0, or the errno of io_uring_setup with these flags.
int setup_error(unsigned flags) {
  io_uring_params parameters{};
  parameters.flags = flags;
  const long fd = ::syscall(SYS_io_uring_setup, 4, &parameters);
  if (fd < 0) return errno;
  ::close(int(fd));
  return 0;
}

void tell_setup_flags() {
  // By number: Debian 12's liburing is older than some of them.
  constexpr struct {
    const char* name;
    unsigned flags;
  } kinds[] = {{"plain", 0},
               {"CLAMP", 1u << 4},
               {"SUBMIT_ALL", 1u << 7},
               {"COOP_TASKRUN", 1u << 8},
               {"SINGLE_ISSUER", 1u << 12},
               {"DEFER_TASKRUN", 1u << 12 | 1u << 13},
               {"NO_SQARRAY", 1u << 16}};
  std::string accepted, refused;
  for (const auto& kind : kinds) {
    const int error = setup_error(kind.flags);
    if (error == 0) accepted += std::string(accepted.empty() ? "" : " ") + kind.name;
    else refused += std::string(refused.empty() ? "" : " ") + kind.name + " (" + std::strerror(error) + ")";
  }
  line("setup flags accepted", accepted.empty() ? "none" : accepted);
  if (!refused.empty()) line("setup flags refused", refused);
}

void tell_operations() {
  io_uring ring;
  if (const int error = io_uring_queue_init(4, &ring, 0); error < 0) {
    line("operations", std::string("unknown: no ring can be set up (") + std::strerror(-error) + ")");
    return;
  }
  io_uring_probe* probe = io_uring_get_probe_ring(&ring);
  constexpr struct {
    const char* name;
    int code;
  } operations[] = {{"poll", 6},  {"readv", 1},   {"writev", 2}, {"read", 22},   {"write", 23}, {"fsync", 3},      {"openat", 18}, {"send", 26},
                    {"recv", 27}, {"accept", 13}, {"cancel", 14}, {"msg_ring", 40}, {"waitid", 50}, {"futex_wait", 51}};
  std::string there, missing;
  for (const auto& o : operations) {
    auto& list = probe && io_uring_opcode_supported(probe, o.code) ? there : missing;
    list += std::string(list.empty() ? "" : " ") + o.name;
  }
  line("operations", there.empty() ? "none" : there);
  if (!missing.empty()) line("operations missing", missing);
  io_uring_free_probe(probe);
  io_uring_queue_exit(&ring);
}

void tell_stacks() {
  const std::string maps = first_line_of("/proc/sys/vm/max_map_count");
  line("vm.max_map_count", maps.empty() ? "unknown" : maps);
  if (context::guards() == context::guard_kind::regions) {
    line("guards of stacks", "guard regions (MADV_GUARD_INSTALL)");
    line("limit of fibers", "memory: about 4 KiB for one that is parked");
  } else {
    const long count = maps.empty() ? 65530 : std::atol(maps.c_str());
    line("guards of stacks", "mprotect (guard regions are in Linux 6.13 and later)");
    line("limit of fibers", "about " + std::to_string(count / 2) + ", half of vm.max_map_count; raise it by sysctl for more");
  }
}

int info_of_system() {
  utsname kernel{};
  ::uname(&kernel);
  std::printf("ringlet %s\n", RINGLET_VERSION);
  line("kernel", std::string(kernel.sysname) + ' ' + kernel.release + ' ' + kernel.machine);
  line("libc", std::string("glibc ") + gnu_get_libc_version());

  heading("engine");
  int status = 0;
  try {
    const auto choice = loop::make_engine();
    line("would be used", std::string(choice.made->name()) + ": " + choice.reason);
    line("its setup", choice.made->describe());
  } catch (const std::exception& e) {
    line("would be used", std::string("none: ") + e.what());
    status = status_own_error;
  }

  heading("io_uring");
  const std::string disabled = first_line_of("/proc/sys/kernel/io_uring_disabled");
  line("kernel.io_uring_disabled", disabled.empty()  ? "not there (a kernel before 6.6, or hidden)"
                                   : disabled == "0" ? "0: allowed to all"
                                   : disabled == "1" ? "1: only with CAP_SYS_ADMIN or in kernel.io_uring_group"
                                                     : disabled + ": forbidden to all");
  const std::string seccomp = field_of_status("Seccomp"), filters = field_of_status("Seccomp_filters");
  line("seccomp", seccomp == "0"   ? "0: off"
                  : seccomp == "2" ? "2: a filter is active" + (filters.empty() ? "" : " (" + filters + ")")
                                   : seccomp);
  tell_setup_flags();
  tell_operations();

  heading("limits");
  line("open files", limit_text(RLIMIT_NOFILE, 1, ""));
  line("locked memory", limit_text(RLIMIT_MEMLOCK, 1024, " KiB"));
  tell_stacks();

  heading("processor");
#if defined(__x86_64__)
  constexpr unsigned long has_fsgsbase = 1ul << 1;
  line("FSGSBASE", ::getauxval(AT_HWCAP2) & has_fsgsbase ? "yes: a thread's TLS pointer is switched without a system call" : "no: by arch_prctl");
#else
  line("FSGSBASE", "none on this processor");
#endif
  return status;
}

void tell_calls(const std::map<std::string, std::string>& calls, const std::string& program) {
  // The program's own first, then by library, a line each.
  std::map<std::string, std::string> by_file;
  for (const auto& [name, file] : calls) {
    auto& names = by_file[file == program ? "" : file.substr(file.rfind('/') + 1)];
    names += (names.empty() ? "" : " ") + name;
  }
  if (by_file.empty()) line("none", "");
  for (const auto& [file, names] : by_file) line(file.empty() ? "the program" : file.c_str(), names);
}

int info_of_program(const std::string& name, bool each_site) {
  const auto found = find_program(name);
  if (found.refused && found.refused->status == status_not_found) {
    error("info: '" + name + "': " + found.refused->reason + ". " + found.refused->cure);
    return found.refused->status;
  }
  std::printf("%s\n", found.path.c_str());
  const auto refused = found.refused ? found.refused : why_not_hookable(found.path);
  if (refused) line("ringlet run", "refused: " + refused->reason + ". " + refused->cure);
  else line("ringlet run", "works");
  if (found.refused && found.refused->reason == "it is a directory") return 0;

  const auto facts = read_elf(found.path);
  if (!facts) {
    line("kind", "not ELF; a script, if it begins with #!");
    return 0;
  }
  const bool is_native_static = facts->native && facts->interpreter.empty();
  line("kind", std::to_string(facts->bits) + "-bit " + (facts->type == ET_DYN ? "position-independent " : "") + "ELF for " +
                   machine_name(facts->machine) + (is_native_static ? ", static" : ", dynamic") + (facts->go ? ", Go" : ""));
  if (facts->go) line("", "Go makes its own system calls: few or none of them are seen by hooks");
  if (!facts->interpreter.empty()) line("loader", facts->interpreter);
  const auto secure = secure_execution(found.path);
  line("rights it gains", secure.empty() ? "none" : secure);
  if (!facts->native || facts->interpreter.empty()) return 0;

  const auto imports = blocking_imports_of(found.path);
  line("files looked at", std::to_string(imports.files.size()) + " (it and the libraries that it is linked with; not plugins)");
  heading("blocking calls imported, hooked");
  tell_calls(imports.hooked, found.path);
  heading("blocking calls imported, not hooked");
  tell_calls(imports.not_hooked, found.path);
  auto files = imports.files;
  files.insert(files.end(), imports.libc.begin(), imports.libc.end());
  tell_door(files, each_site);
  return 0;
}

}  // namespace

int verb_info(std::span<char* const> arguments) {
  if (arguments.empty()) return info_of_system();
  const std::string first = arguments[0];
  if (first == "--help" || first == "-h") return std::fputs(help, stdout), 0;
  const bool each_site = first == "--sites";
  if (each_site) arguments = arguments.subspan(1);
  if (!each_site && first.starts_with('-') && first != "--") return error("info: there is no option '" + first + "'" + did_you_mean(first, {"--help", "--sites"}) + "; see `ringlet info --help`");
  const std::size_t at = !arguments.empty() && std::string(arguments[0]) == "--" ? 1 : 0;
  if (arguments.size() != at + 1) return error("info: one PROGRAM, or none for the system; see `ringlet info --help`");
  return info_of_program(arguments[at], each_site);
}

}  // namespace ringlet::launcher
