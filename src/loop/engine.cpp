// Which engine a hub gets, and why. io_uring is tried by really setting up a ring: versions lie (backports, seccomp,
// sysctls, gVisor). A refusal is not silent: one line a process says the cause, because the operator who sees other
// performance than expected should not have to guess.

#include "loop/engine.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include <atomic>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <system_error>

#include "base/sys.hpp"
#include "loop/offload.hpp"
#include "loop/refusal.hpp"

namespace ringlet::loop {
namespace {

std::string contents_of(const char* path) {
  const long fd = sys::call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  char all[8192];  // more than these files have; and what may be refused comes after the close
  std::size_t size = 0;
  for (long n; size < sizeof all && (n = sys::call(SYS_read, fd, all + size, sizeof all - size)) > 0;) size += std::size_t(n);
  sys::call(SYS_close, fd);
  return std::string(all, size);
}

bool seccomp_filter_is_active() {
  const std::string status = contents_of("/proc/self/status");
  const auto at = status.find("\nSeccomp:");
  return at != std::string::npos && status.compare(at, 11, "\nSeccomp:\t2") == 0;
}

std::string in_kib(unsigned long long bytes) {
  return bytes == RLIM_INFINITY ? "unlimited" : std::to_string(bytes / 1024) + " KiB";
}

const char* name_of(int error) {
  const char* name = ::strerrorname_np(error);
  return name ? name : "an unknown error";
}

void say_once(const std::string& line) {
  static std::atomic<bool> said{false};
  if (!said.exchange(true)) sys::call(SYS_write, 2, line.data(), line.size());
}

}  // namespace

refusal diagnose(const char* call, int error) {
  refusal r{std::string(call) + ": " + name_of(error), "Use RINGLET_ENGINE=epoll.", error};
  const bool filtered = seccomp_filter_is_active();
  const char* allow_in_profile =
      "Allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile (docker: --security-opt "
      "seccomp=FILE; Kubernetes: a Localhost seccompProfile), or use RINGLET_ENGINE=epoll.";
  switch (error) {
    case EPERM:
    case EACCES: {
      const std::string disabled = contents_of("/proc/sys/kernel/io_uring_disabled");
      if (disabled.starts_with("2")) {
        r.cause += "; kernel.io_uring_disabled=2 forbids it to everybody";
        r.cure = "sysctl kernel.io_uring_disabled=0, or use RINGLET_ENGINE=epoll.";
      } else if (disabled.starts_with("1") && !filtered) {
        r.cause +=
            "; kernel.io_uring_disabled=1 forbids it to processes without CAP_SYS_ADMIN outside kernel.io_uring_group";
        r.cure =
            "Join the group of kernel.io_uring_group, or sysctl kernel.io_uring_disabled=0, or use "
            "RINGLET_ENGINE=epoll.";
      } else if (filtered) {
        r.cause += "; a seccomp filter is active, as in Docker's default profile";
        if (disabled.starts_with("1")) r.cause += ", and kernel.io_uring_disabled=1";
        r.cure = allow_in_profile;
      } else {
        r.cause +=
            "; no seccomp filter and no sysctl forbids it, so perhaps a security module (SELinux, AppArmor) does";
        r.cure = "Look for a denial in the audit log, or use RINGLET_ENGINE=epoll.";
      }
      break;
    }
    case ENOSYS: {
      utsname kernel{};
      ::uname(&kernel);
      if (filtered) {
        r.cause += "; a seccomp filter is active and may answer so, or kernel " + std::string(kernel.release) +
                   " has no io_uring";
        r.cure = allow_in_profile;
      } else {
        r.cause += "; kernel " + std::string(kernel.release) +
                   " has no io_uring (CONFIG_IO_URING, Linux 5.1; or a sandbox such as gVisor answers)";
        r.cure = "Use RINGLET_ENGINE=epoll.";
      }
      break;
    }
    case ENOMEM: {
      rlimit limit{};
      ::getrlimit(RLIMIT_MEMLOCK, &limit);
      r.cause += "; RLIMIT_MEMLOCK is " + in_kib(limit.rlim_cur) + " and all rings of this user are charged to it";
      r.cure = "Raise the limit (ulimit -l; LimitMEMLOCK= in a systemd unit), use fewer hubs, or RINGLET_ENGINE=epoll.";
      break;
    }
    case EMFILE: {
      rlimit limit{};
      ::getrlimit(RLIMIT_NOFILE, &limit);
      r.cause += "; RLIMIT_NOFILE is " + std::to_string(limit.rlim_cur) + " and all numbers are taken";
      r.cure = "Raise the limit (ulimit -n) or close files.";
      break;
    }
    case ENFILE:
      r.cause += "; the whole machine has no open file left (fs.file-max)";
      r.cure = "Raise fs.file-max.";
      break;
    case EINVAL:
      r.cause += "; this kernel knows io_uring but not the plain flags that are asked for (Linux 5.6)";
      break;
  }
  return r;
}

std::optional<unsigned> number_from_environment(const char* name, unsigned least, unsigned most) {
  const char* text = std::getenv(name);
  if (!text || !*text) return std::nullopt;
  unsigned value = 0;
  const char* end = text + std::strlen(text);
  const auto [stopped, error] = std::from_chars(text, end, value);
  if (error != std::errc{} || stopped != end || value < least || value > most)
    throw std::runtime_error(std::string("ringlet: ") + name + "=\"" + text + "\" is not a number from " +
                             std::to_string(least) + " to " + std::to_string(most) + ".");
  return value;
}

std::unique_ptr<engine> make_uring_engine(std::string* why_not) {
  refusal r;
  auto made = set_up_uring_engine(r);
  if (!made && why_not) *why_not = r.cause;
  return made;
}

engine_choice make_engine() {
  check_offload_settings();
  const char* variable = std::getenv("RINGLET_ENGINE");
  const std::string_view asked = variable ? variable : "";
  if (asked == "epoll") return {make_epoll_engine(), "RINGLET_ENGINE=epoll"};
  if (!asked.empty() && asked != "auto" && asked != "uring")
    throw std::runtime_error("ringlet: RINGLET_ENGINE=\"" + std::string(asked) +
                             "\" names no engine; allowed are uring, epoll and auto.");

  refusal refused;
  if (auto made = set_up_uring_engine(refused))
    return {std::move(made), asked == "uring" ? "RINGLET_ENGINE=uring" : "io_uring works"};
  if (asked == "uring")
    throw std::system_error(refused.error, std::generic_category(),
                            "ringlet: RINGLET_ENGINE=uring, but io_uring is refused (" + refused.cause + "). " + refused.cure);

  engine_choice choice{make_epoll_engine(), refused.cause};
  say_once("ringlet: io_uring is refused (" + refused.cause +
           "): using the epoll engine. RINGLET_ENGINE=epoll silences this line.\n");
  return choice;
}

}  // namespace ringlet::loop
