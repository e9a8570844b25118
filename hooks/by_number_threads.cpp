// Rows of syscalls.def about threads and processes, in words: birth and end, ids that the kernel must not see, names,
// scheduling, and what cannot be shared between threads.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include <ringlet/io.hpp>

#include "base/sys.hpp"
#include "by_number.hpp"
#include "io/doors.hpp"

namespace ringlet::by_number {

namespace {

// The new thread goes on where its maker stood, on its own stack, with 0 for a result.
void enter_thread(void* frame) { patch::resume(*static_cast<const patch::registers*>(frame)); }

long create(const patch::registers& r, unsigned long flags, std::uintptr_t stack_top, std::uintptr_t fs_base, int* parent_id, int* child_id) {
  patch::registers frame = r;
  frame.rax = 0;
  frame.rsp = stack_top;
  threads::birth wanted;
  wanted.stack_top = stack_top;
  wanted.fs_base = fs_base;
  if (flags & CLONE_PARENT_SETTID) wanted.parent_id = parent_id;
  if (flags & CLONE_CHILD_SETTID) wanted.child_id = child_id;
  if (flags & CLONE_CHILD_CLEARTID) wanted.clear_child_id = child_id;
  wanted.frame = &frame;
  wanted.frame_size = sizeof frame;
  wanted.enter = &enter_thread;
  return threads::create(wanted);
}

constexpr unsigned long thread_flags = CLONE_VM | CLONE_THREAD | CLONE_SETTLS;

}  // namespace

long clone(patch::registers& r, long flags, std::uintptr_t stack, int* parent_id, int* child_id, std::uintptr_t fs_base) {
  const auto bits = static_cast<unsigned long>(flags);
  if ((bits & thread_flags) == thread_flags && !threads::runtime_makes_thread()) return create(r, bits, stack, fs_base, parent_id, child_id);
  if (bits & CLONE_VM) return bits & CLONE_THREAD ? pass : shares_memory();
  patch::pass_through(r);
  return forked(long(r.rax));
}

long clone3(patch::registers& r, const clone_args* wanted, std::size_t size) {
  if (size < CLONE_ARGS_SIZE_VER0) return pass;
  if ((wanted->flags & thread_flags) == thread_flags && !threads::runtime_makes_thread())
    return create(r, wanted->flags, wanted->stack + wanted->stack_size, wanted->tls, pointer<int>(long(wanted->parent_tid)),
                  pointer<int>(long(wanted->child_tid)));
  if (wanted->flags & CLONE_VM) return wanted->flags & CLONE_THREAD ? pass : shares_memory();
  patch::pass_through(r);
  return forked(long(r.rax));
}

long forked(long result) noexcept {
  if (result == 0) threads::after_fork_in_child();
  return result;
}

long shares_memory() noexcept {
  threads::apply_mask();
  io::entered_vfork_child();
  return pass;
}

long leave(int status) noexcept { threads::exit_thread(status); }

long set_tid_address(int* address) noexcept {
  threads::thread_block& self = threads::current();
  self.clear_child_id = address;
  return self.id;
}

long set_robust_list(void* head, std::size_t size) noexcept {
  constexpr std::size_t kernels = 24;
  if (size != kernels) return -EINVAL;
  threads::thread_block& self = threads::current();
  self.robust_list = head;
  return self.is_main ? sys::call(SYS_set_robust_list, head, size) : 0;
}

long get_robust_list(int id, void** head, std::size_t* size) noexcept {
  const threads::thread_block* of = id == 0 ? &threads::current() : threads::find(id);
  if (!of) return pass;
  *head = of->robust_list;
  *size = 24;
  return 0;
}

// --- scheduling -------------------------------------------------------------------------------------------------------

bool schedules(long id) noexcept {
  if (id == 0) return !threads::current().is_main;
  return threads::is_fiber_id(id) && threads::find(int(id));
}

long set_affinity(int id, std::size_t size, const void* cpus) noexcept {
  if (!schedules(id)) return threads::alone() ? pass : id == 0 || id == threads::os_id() ? 0 : pass;
  threads::thread_block* of = id == 0 ? &threads::current() : threads::find(id);
  constexpr std::size_t room = 1024 / 8;
  if (reinterpret_cast<std::uintptr_t>(cpus) < 4096) return -EFAULT;
  if (!of->affinity) {
    const long page = sys::call(SYS_mmap, nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page < 0 && page > -4096) return page;
    of->affinity = pointer<void>(page);
  }
  // Only CPUs that there are, and at least one of them.
  unsigned char allowed[room] = {}, wanted[room] = {};
  sys::call(SYS_sched_getaffinity, 0, sizeof allowed, allowed);
  std::memcpy(wanted, cpus, size < room ? size : room);
  bool any = false;
  for (std::size_t i = 0; i < room; ++i) any |= (wanted[i] = wanted[i] & allowed[i]) != 0;
  if (!any) return -EINVAL;
  std::memcpy(of->affinity, wanted, room);
  return 0;
}

long get_affinity(int id, std::size_t size, void* cpus) noexcept {
  if (!schedules(id)) return pass;
  const threads::thread_block* of = id == 0 ? &threads::current() : threads::find(id);
  const long got = sys::call(SYS_sched_getaffinity, 0, size, cpus);
  if (got > 0 && of->affinity) std::memcpy(cpus, of->affinity, std::size_t(got) < 128 ? std::size_t(got) : 128);
  return got;
}

// --- names ------------------------------------------------------------------------------------------------------------

long prctl(long what, long value) noexcept {
  threads::thread_block& self = threads::current();
  constexpr long get_tid_address = 40, set_vma = 0x53564d41;
  switch (what) {
    case PR_SET_NAME:
      if (self.is_main) return pass;
      std::strncpy(self.name, pointer<const char>(value), sizeof self.name - 1);
      return 0;
    case PR_GET_NAME:
      if (self.is_main) return pass;
      std::memcpy(pointer<char>(value), self.name, sizeof self.name);
      return 0;
    case get_tid_address:
      if (self.is_main) return pass;
      *pointer<int*>(value) = self.clear_child_id;
      return 0;
    case set_vma: return pass;
    case PR_SET_SECCOMP:
      if (threads::living() > 1) return stop_for("prctl(PR_SET_SECCOMP)");
      threads::stop_watcher();
      return pass;
    default: return pass;
  }
}

namespace {
// /proc/self/task/N/comm of a thread that the kernel does not know: a file in memory with the name in it, whose writes are
// the thread's new name. libc's pthread_setname_np and pthread_getname_np open, write or read, and close it.
struct name_file {
  int fd = -1, id = 0;
};
constexpr int most_name_files = 16;
name_file name_files[most_name_files];
int open_name_files = 0;

int id_in_path(const char* path) noexcept {
  constexpr char self[] = "/proc/self/task/";
  const char* at = nullptr;
  if (std::strncmp(path, self, sizeof self - 1) == 0) {
    at = path + sizeof self - 1;
  } else {
    char own[48];
    const int n = std::snprintf(own, sizeof own, "/proc/%ld/task/", sys::call(SYS_getpid));
    if (std::strncmp(path, own, std::size_t(n)) == 0) at = path + n;
  }
  if (!at) return 0;
  long id = 0;
  for (; *at >= '0' && *at <= '9' && id < threads::last_id; ++at) id = id * 10 + (*at - '0');
  return std::strcmp(at, "/comm") == 0 && threads::is_fiber_id(id) ? int(id) : 0;
}
}  // namespace

bool open_name_file(const char* path, int flags, int* fd) noexcept {
  // Most paths differ in the second character.
  if (reinterpret_cast<std::uintptr_t>(path) < 4096 || path[0] != '/' || path[1] != 'p') return false;
  const int id = id_in_path(path);
  if (id == 0) return false;
  threads::thread_block* of = threads::find(id);
  if (!of) {
    *fd = -ENOENT;
    return true;
  }
  *fd = int(sys::call(SYS_memfd_create, "comm", flags & O_CLOEXEC ? MFD_CLOEXEC : 0));
  if (*fd < 0) return true;
  io::fd_opened(*fd);
  char line[sizeof of->name + 1];
  const int n = std::snprintf(line, sizeof line, "%s\n", of->name);
  sys::call(SYS_pwrite64, *fd, line, n, 0);
  for (name_file& each : name_files)
    if (each.fd < 0) {
      each = {*fd, id};
      ++open_name_files;
      break;
    }
  return true;
}

bool write_to_name_file(int fd, const void* data, std::size_t size, long* result) noexcept {
  if (__builtin_expect(open_name_files == 0, 1)) return false;
  for (const name_file& each : name_files)
    if (each.fd == fd && fd >= 0)
      if (threads::thread_block* of = threads::find(each.id)) {
        const std::size_t n = size < sizeof of->name - 1 ? size : sizeof of->name - 1;
        std::memset(of->name, 0, sizeof of->name);
        std::memcpy(of->name, data, n);
        *result = long(size);
        return true;
      }
  return false;
}

void forget_name_file(int fd) noexcept {
  if (__builtin_expect(open_name_files == 0, 1)) return;
  for (name_file& each : name_files)
    if (each.fd == fd) {
      each.fd = -1;
      --open_name_files;
    }
}

// --- signals ----------------------------------------------------------------------------------------------------------

long send(threads::thread_block* to, int signal, const siginfo_t* info) noexcept {
  if (!to || (to->is_main && threads::alone())) return pass;
  return threads::send(*to, signal, info);
}

long timer_create(clockid_t which, const sigevent* how, int* timer) noexcept {
  if (reinterpret_cast<std::uintptr_t>(how) < 4096 || how->sigev_notify != SIGEV_THREAD_ID) return pass;
  const int id = how->_sigev_un._tid;
  if (!threads::is_fiber_id(id)) return pass;
  if (!threads::find(id)) return -EINVAL;
  if (!threads::expect_timer_signal(how->sigev_signo)) return -EAGAIN;
  sigevent kernels = *how;
  kernels._sigev_un._tid = threads::os_id();
  const long result = sys::call(SYS_timer_create, which, &kernels, timer);
  if (result == 0) threads::timer_signals(*timer, id);
  return result;
}

// --- what cannot be shared ---------------------------------------------------------------------------------------------

long stop_for(const char* call) noexcept {
  char text[512];
  const int n = std::snprintf(text, sizeof text,
                              "ringlet: thread %d calls %s, which the kernel keeps for each thread; here all threads of the program share one of "
                              "the kernel's, so it would hold for all of them. That is a matter of security: the program is stopped.\n"
                              "ringlet: cure: run it with its threads as they are: ringlet run --threads=native, or RINGLET_THREADS=native.\n",
                              threads::current().id, call);
  sys::call(SYS_write, 2, text, n);
  sys::call(SYS_exit_group, 125);
  return 0;
}

bool is_bare_call(const patch::registers& r) noexcept {
  constexpr std::uint64_t longest = 64;  // of the function, in bytes
  const auto begin = reinterpret_cast<std::uint64_t>(&::syscall);
  const std::uint64_t at = patch::address_of_site(r);
  return at >= begin && at < begin + longest;
}

long guarded(patch::registers& r, const char* name, bool by_libc_for_all) noexcept {
  // libc's own functions for these ask each thread in turn; a bare syscall(2) means this thread alone.
  if (threads::living() <= 1 || (by_libc_for_all && !is_bare_call(r))) return without_watcher(r);
  return stop_for(name);
}

long exec(patch::registers& r) noexcept {
  threads::ready_for_exec();
  return without_watcher(r);
}

long without_watcher(patch::registers& r) noexcept {
  threads::stop_watcher();
  patch::pass_through(r);
  threads::start_watcher();
  return long(r.rax);
}

}  // namespace ringlet::by_number
