// Starting this program anew. The forked child executes /proc/self/exe (the file that runs, even if another has taken its name)
// with an fd of a memfd in its environment; in that lie the function's place in the program, the process's name and the
// packed arguments. Code lies at another address in each process, but at the same distance from the program's beginning.

#include <ringlet/ipc/spawn_core.hpp>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <ringlet/process.hpp>

#include "process/failures.hpp"
#include "process/self.hpp"

namespace ringlet::ipc {

namespace detail {

namespace {
constexpr const char* variable = "RINGLET_SPAWNED";

// The program is the first in the linker's list.
struct program {
  std::uint64_t base = 0, size = 0;
  program() {
    ::dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* to) {
          auto& self = *static_cast<program*>(to);
          self.base = info->dlpi_addr;
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const auto& part = info->dlpi_phdr[i];
            if (part.p_type == PT_LOAD) self.size = std::max<std::uint64_t>(self.size, part.p_vaddr + part.p_memsz);
          }
          return 1;
        },
        this);
  }
};

void put(std::string& to, std::uint64_t n) { to.append(reinterpret_cast<const char*>(&n), sizeof n); }
}  // namespace

std::uint64_t place_in_program(const void* function) {
  const program here;
  const std::uint64_t place = reinterpret_cast<std::uint64_t>(function) - here.base;
  if (place >= here.size)
    throw std::logic_error("ringlet: a spawned process can run functions of the program itself only, not of a shared library: wrap it in a function of the program");
  return place;
}

const void* function_at(std::uint64_t place) { return reinterpret_cast<const void*>(program().base + place); }

int execute_again(std::uint64_t place, const std::string& arguments) {
  const std::string name = current_process().name;
  std::string all;
  put(all, place);
  put(all, name.size());
  all += name + arguments;
  const long fd = sys::call(SYS_memfd_create, "ringlet spawn", 0L);
  if (fd < 0) process_detail::fail(fd, "a spawned process needs a memfd (a limit on open files? see ulimit -n)");
  for (std::size_t at = 0; at < all.size();) {
    const long put_in = sys::call(SYS_write, fd, all.data() + at, all.size() - at);
    if (put_in < 0) process_detail::fail(put_in, "a spawned process's arguments");
    at += std::size_t(put_in);
  }
  ::setenv(variable, std::to_string(fd).c_str(), 1);
  char* const argv[] = {::program_invocation_name, nullptr};
  ::execv("/proc/self/exe", argv);
  process_detail::fail(-errno, "this program cannot be executed again");
}

}  // namespace detail

void run_if_spawned() {
  const char* given = std::getenv(detail::variable);
  if (!given) return;
  const int fd = std::atoi(given);
  ::unsetenv(detail::variable);
  std::string all;
  char buffer[4096];
  for (long got; (got = sys::call(SYS_pread64, fd, buffer, sizeof buffer, all.size())) > 0;) all.append(buffer, std::size_t(got));
  sys::call(SYS_close, fd);
  std::uint64_t place = 0, length = 0;
  if (all.size() < sizeof place + sizeof length) {
    std::fprintf(stderr, "ringlet: %s is set, but not by a program that spawns itself\n", detail::variable);
    std::exit(1);
  }
  std::memcpy(&place, all.data(), sizeof place);
  std::memcpy(&length, all.data() + sizeof place, sizeof length);
  const std::string name = all.substr(sizeof place + sizeof length, length);
  sys::call(SYS_prctl, PR_SET_NAME, name.c_str(), 0L, 0L, 0L);
  process_detail::set_self({int(sys::call(SYS_getpid)), name, false});
  const auto function = reinterpret_cast<detail::spawned_function>(const_cast<void*>(detail::function_at(place)));
  std::exit(process_detail::status_of([&] { return function(std::string_view(all).substr(sizeof place + sizeof length + length)); }));
}

}  // namespace ringlet::ipc
