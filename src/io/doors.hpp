#pragma once
// What the doors (hooks) need of io besides the calls of <ringlet/io.hpp>: may this call park, and what they must tell
// about fds (cheap: each is a few loads when there is nothing to do); and calls that only libc's names have.

#include <cstddef>
#include <sys/types.h>

#include <ringlet/deadline.hpp>

#include "base/shown.hpp"

struct mmsghdr;
struct sembuf;
struct timespec;

namespace ringlet::io {

// True when a blocking call made here and now should go to io: this thread has a hub (or was adopted), a fiber is
// running, and it is neither the hub itself nor a vforked child that borrows the parent's memory.
RINGLET_SHOWN bool may_suspend() noexcept;

// From now on blocking calls of this thread park even before anything was spawned: its flow becomes the main fiber of
// a hub that is made on first need (the preload constructor does this for the main thread).
RINGLET_SHOWN void adopt_thread() noexcept;

// Between vfork and exec the child runs on the parent's memory: it must not touch the parent's hub.
RINGLET_SHOWN void entered_vfork_child() noexcept;
RINGLET_SHOWN void left_vfork_child() noexcept;
RINGLET_SHOWN bool is_vfork_child() noexcept;

// The kernel has just returned this fd number: what was known about the number belongs to a file that is gone.
RINGLET_SHOWN void fd_opened(int fd) noexcept;
// O_NONBLOCK or SO_RCVTIMEO/SO_SNDTIMEO of the fd (and so of its duplicates) were changed.
RINGLET_SHOWN void fd_changed(int fd) noexcept;
// SO_RCVLOWAT of some socket was set: from now on receives ask for it.
RINGLET_SHOWN void low_water_set() noexcept;
// Some file was opened with O_DIRECT, or was given it: from now on reads of files look for it.
RINGLET_SHOWN void cache_bypassed() noexcept;
// Somebody is about to close the number by a way that we do not do ourselves (fclose): its waiters get -EBADF, its
// polls leave the kernel.
RINGLET_SHOWN void fd_closing(int fd) noexcept;
// The hooks report such changes from now on (true), so what the kernel said about an fd may be remembered.
RINGLET_SHOWN void observe_descriptors(bool reported) noexcept;

// Waits until the child has ended; as wait(2), it goes on after a handler that asks for that. 0, or -errno.
RINGLET_SHOWN int wait_for_child(int pidfd) noexcept;

// recvmmsg(2) and sendmmsg(2): how many messages, or -errno as the calls of <ringlet/io.hpp> have it. `until` is the
// timeout as that of recvmmsg(2): looked at after each message only. The vector's own address must be good.
RINGLET_SHOWN int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, deadline until = never) noexcept;
RINGLET_SHOWN int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) noexcept;

// Message queues and semaphore sets, as libc has them.
RINGLET_SHOWN ssize_t mq_receive(int queue, char* buffer, std::size_t size, unsigned* priority) noexcept;
RINGLET_SHOWN ssize_t mq_timedreceive(int queue, char* buffer, std::size_t size, unsigned* priority,
                                      const timespec* until) noexcept;
RINGLET_SHOWN int mq_send(int queue, const char* data, std::size_t size, unsigned priority) noexcept;
RINGLET_SHOWN int mq_timedsend(int queue, const char* data, std::size_t size, unsigned priority,
                               const timespec* until) noexcept;
RINGLET_SHOWN ssize_t msgrcv(int queue, void* message, std::size_t size, long kind, int flags) noexcept;
RINGLET_SHOWN int msgsnd(int queue, const void* message, std::size_t size, int flags) noexcept;
RINGLET_SHOWN int semop(int set, sembuf* steps, std::size_t count) noexcept;
RINGLET_SHOWN int semtimedop(int set, sembuf* steps, std::size_t count, const timespec* timeout) noexcept;

}  // namespace ringlet::io
