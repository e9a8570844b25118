// Calls that libc seldom or never makes, by their numbers: those that wait, and those about threads and who one is.
// coverage_test.py asks that every row of hooks/syscalls.def is made by some case, bare.

#include <fcntl.h>
#include <grp.h>
#include <linux/aio_abi.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <mqueue.h>
#include <poll.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "battery.hpp"

namespace battery {
namespace {

// Runs `waits` in a thread, and `ends_it` as soon as that one is asleep.
template <class Waits, class EndsIt>
void while_it_waits(Waits waits, EndsIt ends_it) {
  std::atomic<pid_t> tid{0};
  std::thread other([&] {
    tid = gettid();
    waits();
  });
  CHECK(until([&] { return tid != 0 && asleep(tid); }));
  ends_it();
  other.join();
}

struct pipe_ends {
  int ends[2];
  pipe_ends() { CHECK(syscall(SYS_pipe, ends) == 0); }
  ~pipe_ends() {
    close(ends[0]);
    close(ends[1]);
  }
  void write(char c) { CHECK(::write(ends[1], &c, 1) == 1); }
};

struct message {
  long type;
  char text[4096];
};

CASE(message_queues_by_number) {
  const int queue = msgget(IPC_PRIVATE, 0600);
  CHECK(queue >= 0);
  message got{}, sent{1, "hello"};
  while_it_waits([&] { CHECK(syscall(SYS_msgrcv, queue, &got, sizeof got.text, 0, 0) == 6); },
                 [&] { CHECK(syscall(SYS_msgsnd, queue, &sent, 6, 0) == 0); });
  std::printf("got %s\n", got.text);
  CHECK(syscall(SYS_msgrcv, queue, &got, sizeof got.text, 0, IPC_NOWAIT) == -1 && errno == ENOMSG);
  int fit = 0;
  while (syscall(SYS_msgsnd, queue, &sent, sizeof sent.text, IPC_NOWAIT) == 0) ++fit;
  CHECK(fit > 0 && errno == EAGAIN);
  while_it_waits([&] { CHECK(syscall(SYS_msgsnd, queue, &sent, sizeof sent.text, 0) == 0); },
                 [&] { CHECK(syscall(SYS_msgrcv, queue, &got, sizeof got.text, 0, 0) == long(sizeof got.text)); });
  CHECK(msgctl(queue, IPC_RMID, nullptr) == 0);
  // A receiver ends by the removal if its call is inside of the kernel by then. As a fiber it waits for a thread of ringlet's to
  // make it, of which nothing tells: one that comes too late finds no such queue, and is asked again.
  int error = EINVAL;
  for (int tries = 0; error == EINVAL && tries < 100; ++tries) {
    const int next = msgget(IPC_PRIVATE, 0600);
    while_it_waits([&] { error = syscall(SYS_msgrcv, next, &got, sizeof got.text, 0, 0) < 0 ? errno : 0; },
                   [&] { CHECK(msgctl(next, IPC_RMID, nullptr) == 0); });
  }
  std::printf("ended by %s\n", error == EIDRM ? "its removal" : std::strerror(error));
}

CASE(semaphores_by_number) {
  const int set = semget(IPC_PRIVATE, 1, 0600);
  CHECK(set >= 0);
  sembuf take{0, -1, 0}, give{0, 1, 0};
  while_it_waits([&] { CHECK(syscall(SYS_semop, set, &take, 1) == 0); }, [&] { CHECK(syscall(SYS_semop, set, &give, 1) == 0); });
  const timespec soon{0, 20'000'000}, long_time{20, 0};
  CHECK(syscall(SYS_semtimedop, set, &take, 1, &soon) == -1 && errno == EAGAIN);
  while_it_waits([&] { CHECK(syscall(SYS_semtimedop, set, &take, 1, &long_time) == 0); }, [&] { CHECK(semop(set, &give, 1) == 0); });
  while_it_waits([&] { std::printf("removed: %ld", syscall(SYS_semop, set, &take, 1)), std::printf(" %d\n", errno == EIDRM); },
                 [&] {
                   CHECK(until([&] { return semctl(set, 0, GETNCNT) == 1; }));
                   CHECK(semctl(set, 0, IPC_RMID) == 0);
                 });
}

CASE(posix_queues_by_number) {
  const std::string name = "/ringlet-battery-" + std::to_string(getpid());
  mq_attr how{};
  how.mq_maxmsg = 1;
  how.mq_msgsize = 8;
  const mqd_t queue = mq_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600, &how);
  CHECK(queue >= 0);
  mq_unlink(name.c_str());
  char got[8] = "";
  unsigned priority = 0;
  while_it_waits([&] { CHECK(syscall(SYS_mq_timedreceive, queue, got, sizeof got, &priority, nullptr) == 3); },
                 [&] { CHECK(syscall(SYS_mq_timedsend, queue, "abc", 3L, 7L, nullptr) == 0); });
  std::printf("got %.3s of priority %u\n", got, priority);
  CHECK(syscall(SYS_mq_timedsend, queue, "def", 3L, 1L, nullptr) == 0);
  while_it_waits([&] { CHECK(syscall(SYS_mq_timedsend, queue, "ghi", 3L, 1L, nullptr) == 0); },
                 [&] { CHECK(syscall(SYS_mq_timedreceive, queue, got, sizeof got, nullptr, nullptr) == 3); });
  CHECK(mq_receive(queue, got, sizeof got, nullptr) == 3);
  timespec past{1, 0};
  CHECK(syscall(SYS_mq_timedreceive, queue, got, sizeof got, nullptr, &past) == -1 && errno == ETIMEDOUT);
  mq_close(queue);
}

CASE(tee_and_select_by_number) {
  pipe_ends from, to;
  while_it_waits([&] { CHECK(syscall(SYS_tee, from.ends[0], to.ends[1], 10L, 0L) == 1); }, [&] { from.write('t'); });
  char one = 0, other = 0;
  CHECK(read(from.ends[0], &one, 1) == 1 && read(to.ends[0], &other, 1) == 1);
  std::printf("both: %c%c\n", one, other);
  const auto select_by_number = [&](timeval* limit) {
    fd_set in;
    FD_ZERO(&in);
    FD_SET(from.ends[0], &in);
    return syscall(SYS_select, from.ends[0] + 1, &in, nullptr, nullptr, limit);
  };
  while_it_waits([&] { CHECK(select_by_number(nullptr) == 1); }, [&] { from.write('s'); });
  CHECK(read(from.ends[0], &one, 1) == 1);
  timeval short_time{0, 20'000};
  CHECK(select_by_number(&short_time) == 0);
  std::printf("left: %ld %ld\n", long(short_time.tv_sec), long(short_time.tv_usec));
}

// A pipe that somebody will write to, asked of the kernel's two other queues.
CASE(asynchronous_reads_by_number) {
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, 4, &context) != 0) {
    std::printf("no kernel aio: %s\n", std::strerror(errno));
    return;
  }
  pipe_ends p;
  iocb look{};
  look.aio_lio_opcode = IOCB_CMD_POLL;
  look.aio_fildes = std::uint32_t(p.ends[0]);
  look.aio_buf = POLLIN;
  look.aio_data = 42;
  iocb* list[] = {&look};
  CHECK(syscall(SYS_io_submit, context, 1L, list) == 1);
  io_event event{};
  while_it_waits([&] { CHECK(syscall(SYS_io_getevents, context, 1L, 1L, &event, nullptr) == 1); }, [&] { p.write('a'); });
  std::printf("told of %d, readable: %d\n", int(event.data), bool(event.res & POLLIN));
  syscall(SYS_io_destroy, context);
}

CASE(a_ring_of_its_own_by_number) {
  io_uring_params how{};
  const int ring = int(syscall(SYS_io_uring_setup, 2, &how));
  if (ring < 0) {
    std::printf("no io_uring: %s\n", std::strerror(errno));
    return;
  }
  const std::size_t size = how.cq_off.cqes + how.cq_entries * sizeof(io_uring_cqe) + 4096;
  auto* const both = static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING));
  auto* const entries =
      static_cast<io_uring_sqe*>(mmap(nullptr, how.sq_entries * sizeof(io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES));
  CHECK(both != MAP_FAILED && entries != MAP_FAILED);
  pipe_ends p;
  io_uring_sqe& look = entries[0];
  look.opcode = IORING_OP_POLL_ADD;
  look.fd = p.ends[0];
  look.poll32_events = POLLIN;
  look.user_data = 42;
  reinterpret_cast<std::uint32_t*>(both + how.sq_off.array)[0] = 0;
  __atomic_store_n(reinterpret_cast<std::uint32_t*>(both + how.sq_off.tail), 1u, __ATOMIC_RELEASE);
  CHECK(syscall(SYS_io_uring_enter, ring, 1, 0, 0, nullptr, 0L) == 1);
  while_it_waits([&] { CHECK(syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, nullptr, 0L) == 0); }, [&] { p.write('r'); });
  const auto& told = *reinterpret_cast<io_uring_cqe*>(both + how.cq_off.cqes);
  std::printf("told of %d, readable: %d\n", int(told.user_data), bool(told.res & POLLIN));
  close(ring);
}

CASE(files_and_children_by_number) {
  const int null = int(syscall(SYS_open, "/dev/null", O_RDONLY | O_CLOEXEC, 0));
  char c;
  CHECK(null >= 0 && read(null, &c, 1) == 0);
  close(null);
  CHECK(syscall(SYS_open, "/nowhere", O_RDONLY, 0) == -1 && errno == ENOENT);
  // In a thread, with others alive.
  pipe_ends p;
  std::thread reads([&] { CHECK(read(p.ends[0], &c, 1) == 1); });
  std::thread([&] {
    const pid_t child = pid_t(syscall(SYS_fork));
    if (child == 0) {
      const char* arguments[] = {"sh", "-c", "exit 7", nullptr};
      syscall(SYS_execveat, AT_FDCWD, "/bin/sh", arguments, environ, 0);
      _exit(1);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    std::printf("the child exited with %d\n", WEXITSTATUS(status));
  }).join();
  p.write('x');
  reads.join();
}

CASE(scheduling_by_number) {
  std::thread([] {
    const pid_t self = gettid();
    sched_param none{};
    std::printf("sched_setparam %ld\n", syscall(SYS_sched_setparam, self, &none));
    struct {
      std::uint32_t size, policy;
      std::uint64_t flags;
      std::int32_t nice;
      std::uint32_t priority;
      std::uint64_t times[3];
    } attributes{};
    CHECK(syscall(SYS_sched_getattr, self, &attributes, sizeof attributes, 0) == 0);
    std::printf("policy %u, nice %d\n", attributes.policy, attributes.nice);
    std::printf("sched_setattr %ld\n", syscall(SYS_sched_setattr, self, &attributes, 0));
    timespec slice;
    std::printf("sched_rr_get_interval %ld\n", syscall(SYS_sched_rr_get_interval, self, &slice));
    const long before = syscall(SYS_getpriority, 0 /* PRIO_PROCESS */, self);  // 20 - nice
    std::printf("setpriority %ld\n", syscall(SYS_setpriority, 0, self, 20 - before));
    CHECK(syscall(SYS_getpriority, 0, self) == before);
    const long class_and_level = syscall(SYS_ioprio_get, 1 /* IOPRIO_WHO_PROCESS */, self);
    CHECK(class_and_level >= 0);
    std::printf("ioprio_set %ld\n", syscall(SYS_ioprio_set, 1, self, class_and_level));
    CHECK(syscall(SYS_getpriority, 0, 0x7ffffff0) == -1 && errno == ESRCH);
    void* head = nullptr;
    std::size_t size = 0;
    CHECK(syscall(SYS_get_robust_list, self, &head, &size) == 0);
    std::printf("robust list: %d of %zu bytes\n", head != nullptr, size);
  }).join();
}

CASE(tkill_by_number) {
  install(SIGUSR1, &count_signal);
  std::thread([] {
    CHECK(syscall(SYS_tkill, gettid(), SIGUSR1) == 0);
    std::printf("here %d\n", handled_here);
  }).join();
  std::printf("all %d\n", handled.load());
  CHECK(syscall(SYS_tkill, -1, SIGUSR1) == -1 && errno == EINVAL);
}

// Nothing is changed by these; libc's functions ask every thread, the others are made while there is one thread.
CASE(who_one_is_by_number) {
  std::printf("setfsuid %d\n", syscall(SYS_setfsuid, -1) == long(geteuid()));
  std::printf("setfsgid %d\n", syscall(SYS_setfsgid, -1) == long(getegid()));
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct may[2];
  CHECK(syscall(SYS_capget, &header, may) == 0);
  std::printf("capset %ld\n", syscall(SYS_capset, &header, may));
  std::printf("unshare %ld\n", syscall(SYS_unshare, 0));
  CHECK(syscall(SYS_setns, -1, 0) == -1 && errno == EBADF);
  const long filters = syscall(SYS_seccomp, 99, 0, nullptr);
  std::printf("seccomp %ld %d\n", filters, errno);
  const long rules = syscall(SYS_landlock_restrict_self, -1, 0);
  std::printf("landlock %ld %d\n", rules, errno);
  pipe_ends p;
  char c;
  std::thread reads([&] { CHECK(read(p.ends[0], &c, 1) == 1); });
  std::printf("setreuid %d, setregid %d, setresgid %d\n", setreuid(uid_t(-1), uid_t(-1)), setregid(gid_t(-1), gid_t(-1)),
              setresgid(gid_t(-1), gid_t(-1), gid_t(-1)));
  gid_t groups[1024];
  const int count = getgroups(1024, groups);
  CHECK(count >= 0);
  const int set = setgroups(std::size_t(count), groups);
  std::printf("setgroups %d %d\n", set, set ? errno : 0);
  p.write('x');
  reads.join();
}

}  // namespace
}  // namespace battery
