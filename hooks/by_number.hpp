#pragma once
// The bodies of syscalls.def's rows that need words: kernel dialect in, kernel dialect out.
//
// Who may call: the dispatcher, inside the runtime, on a thread's own stack. A wait that a signal has ended says -EINTR;
// the dispatcher delivers, and makes the call again where SA_RESTART says so, so bodies keep nothing between.

#include <cstddef>
#include <cstdint>
#include <limits>

#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#include <ringlet/deadline.hpp>

#include "base/moments.hpp"
#include "io/errand.hpp"
#include "patch/patch.hpp"
#include "threads/threads.hpp"

namespace ringlet::by_number {

// The call is the kernel's: the site makes it.
inline constexpr long pass = std::numeric_limits<long>::min();

using mask = std::uint64_t;
struct mask_argument {  // pselect6's sixth
  const mask* set;
  std::size_t size;
};

template <class T>
T* pointer(long word) noexcept {
  return reinterpret_cast<T*>(word);
}
using base::after_milliseconds;
using detail::signal_effect;

long read(int fd, void* buffer, std::size_t size) noexcept;
long write(int fd, const void* data, std::size_t size) noexcept;
long recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) noexcept;
long sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) noexcept;
long send_file(int to, int from, off_t* offset, std::size_t count) noexcept;

long ppoll(pollfd* fds, unsigned long count, timespec* timeout, const mask* blocked) noexcept;
long select(int count, fd_set* in, fd_set* out, fd_set* odd, timeval* timeout) noexcept;
long pselect(int count, fd_set* in, fd_set* out, fd_set* odd, timespec* timeout, const mask_argument* blocked) noexcept;
long epoll(int fd, epoll_event* events, int capacity, deadline until, const mask* blocked) noexcept;
long epoll(int fd, epoll_event* events, int capacity, const timespec* timeout, const mask* blocked) noexcept;
long ring_enter(long fd, long to_submit, long wanted, long flags, long argument, long size) noexcept;
long sleep(clockid_t clock, int flags, const timespec* wanted, timespec* left) noexcept;
long yield() noexcept;

long flock(int fd, int operation) noexcept;
long wait4(int pid, int* status, int flags, rusage* usage) noexcept;
long waitid(int kind, int id, siginfo_t* found, int flags, rusage* usage) noexcept;

long open(int directory, const char* path, int flags, unsigned mode) noexcept;
long close(int fd) noexcept;
long close_range(unsigned first, unsigned last, unsigned flags) noexcept;
long fcntl(int fd, int command, long argument) noexcept;
void both_opened(const int* ends) noexcept;
void changed_by_ioctl(int fd, long request) noexcept;
void changed_by_option(int fd, int level, int name, const void* value, unsigned size) noexcept;

long clone(patch::registers& r, long flags, std::uintptr_t stack, int* parent_id, int* child_id, std::uintptr_t fs_base);
long clone3(patch::registers& r, const clone_args* wanted, std::size_t size);
// A thread's stack, as libc maps it and makes it accessible.
long map(void* at, std::size_t size, int access, int flags, int fd) noexcept;
long protect(void* at, std::size_t size, int access) noexcept;
// After a fork by number: in the child, the thread that forked is the only one.
long forked(long result) noexcept;
// A child is about to run on our memory (vfork): the site makes it.
long shares_memory() noexcept;
long leave(int status) noexcept;
long set_tid_address(int* address) noexcept;
long set_robust_list(void* head, std::size_t size) noexcept;
long get_robust_list(int id, void** head, std::size_t* size) noexcept;
// Is this a thread that the kernel does not know? Its scheduling is the hub's.
bool schedules(long id) noexcept;
long set_affinity(int id, std::size_t size, const void* cpus) noexcept;
long get_affinity(int id, std::size_t size, void* cpus) noexcept;
long prctl(long what, long value) noexcept;
long send(threads::thread_block* to, int signal, const siginfo_t* info) noexcept;  // null: not ours, pass
long timer_create(clockid_t clock, const sigevent* how, int* timer) noexcept;
// Names of threads by /proc: true if it was theirs.
bool open_name_file(const char* path, int flags, int* fd) noexcept;
bool write_to_name_file(int fd, const void* data, std::size_t size, long* result) noexcept;
void forget_name_file(int fd) noexcept;
// Was the call made by syscall(2)?
bool is_bare_call(const patch::registers& r) noexcept;
long stop_for(const char* call) noexcept;
// Ends the process, in words, if other threads would be changed, too.
long guarded(patch::registers& r, const char* name, bool by_libc_for_all) noexcept;
// The call as it stands, while the process has no kernel thread of the watcher's.
long without_watcher(patch::registers& r) noexcept;
long exec(patch::registers& r) noexcept;

}  // namespace ringlet::by_number
