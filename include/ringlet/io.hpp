#pragma once
// The system calls that may block, each parking the calling fiber instead of its thread.
//
// Kernel dialect: the result is what the system call returns, or -errno; errno itself is left alone and nothing
// throws, so the same functions serve C callers (the hooks) and C++ ones. What each call means is the manual page of
// its name: return value, errors, partial results, O_NONBLOCK, MSG_DONTWAIT, MSG_WAITALL, SO_RCVTIMEO and SO_SNDTIMEO
// (-EAGAIN when they pass). On top of that:
//
//   -ETIMEDOUT  the deadline passed first (data that arrived in time wins)
//   -ECANCELED  the fiber was killed, or a timeout scope around it ran out; so does every further call until the fiber
//               returns, or a C++ call of ringlet throws the reason
//   -EBADF      also: another fiber closed the fd meanwhile
//
// Call them on any thread; a thread without a hub gets one on first use, and its main fiber is what parks. An fd that
// has waited here must be closed with io::close (under the hooks, plain close is that).

#include <cstddef>
#include <sys/types.h>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>

struct iovec;
struct msghdr;
struct pollfd;
struct sockaddr;
struct addrinfo;
struct epoll_event;
struct timespec;

namespace ringlet::io {

// Streams and sockets.
RINGLET_EXPORT ssize_t read(int fd, void* buffer, std::size_t size, deadline until = never) noexcept;
RINGLET_EXPORT ssize_t readv(int fd, const iovec* parts, int count, deadline until = never) noexcept;
RINGLET_EXPORT ssize_t write(int fd, const void* data, std::size_t size, deadline until = never) noexcept;
RINGLET_EXPORT ssize_t writev(int fd, const iovec* parts, int count, deadline until = never) noexcept;
RINGLET_EXPORT ssize_t recv(int fd, void* buffer, std::size_t size, int flags, deadline until = never) noexcept;
RINGLET_EXPORT ssize_t recvfrom(int fd, void* buffer, std::size_t size, int flags, sockaddr* from,
                                unsigned* from_length, deadline until = never) noexcept;
RINGLET_EXPORT ssize_t recvmsg(int fd, msghdr* message, int flags, deadline until = never) noexcept;
RINGLET_EXPORT ssize_t send(int fd, const void* data, std::size_t size, int flags, deadline until = never) noexcept;
RINGLET_EXPORT ssize_t sendto(int fd, const void* data, std::size_t size, int flags, const sockaddr* to,
                              unsigned to_length, deadline until = never) noexcept;
RINGLET_EXPORT ssize_t sendmsg(int fd, const msghdr* message, int flags, deadline until = never) noexcept;
RINGLET_EXPORT int connect(int fd, const sockaddr* to, unsigned to_length, deadline until = never) noexcept;
RINGLET_EXPORT int accept4(int fd, sockaddr* from, unsigned* from_length, int flags, deadline until = never) noexcept;

// Closes fd. Fibers of any hub that wait on it are woken with -EBADF first and the kernel lets go of the file, so the
// peer gets its FIN at once and the fd number can be reused safely.
RINGLET_EXPORT int close(int fd) noexcept;
// Duplicates `from` onto `to` as dup3(2); what waited on `to` is woken with -EBADF first.
RINGLET_EXPORT int dup3(int from, int to, int flags) noexcept;
// dup2(2): as dup3, but equal fds are a checked no-op.
RINGLET_EXPORT int dup2(int from, int to) noexcept;

// Files at a position; regular files are read through the ring when the page cache would miss.
RINGLET_EXPORT ssize_t pread(int fd, void* buffer, std::size_t size, off_t offset, deadline until = never) noexcept;
RINGLET_EXPORT ssize_t pwrite(int fd, const void* data, std::size_t size, off_t offset,
                              deadline until = never) noexcept;
RINGLET_EXPORT int fsync(int fd, deadline until = never) noexcept;
RINGLET_EXPORT int openat(int directory, const char* path, int flags, unsigned mode, deadline until = never) noexcept;

// Readiness of many fds. poll: the count of ready ones, 0 when the deadline passed.
RINGLET_EXPORT int poll(pollfd* fds, unsigned long count, deadline until = never) noexcept;
// epoll_wait(2) with a deadline: parks until the epoll fd is readable; 0 when the deadline passed.
RINGLET_EXPORT int epoll_wait(int epoll_fd, epoll_event* events, int capacity, deadline until = never) noexcept;
// Parks until fd is readable (or writable), without reading: 0, or an error as above.
RINGLET_EXPORT int wait_readable(int fd, deadline until = never) noexcept;
RINGLET_EXPORT int wait_writable(int fd, deadline until = never) noexcept;

// Sleeps until the moment: 0, or -ECANCELED. A deadline that has passed yields once.
RINGLET_EXPORT int sleep_until(deadline moment) noexcept;

// getaddrinfo(3) on a helper thread; one look-up in flight per question, shared by all who ask it meanwhile. Returns
// getaddrinfo's own result (0, EAI_*; EAI_SYSTEM with errno ECANCELED or ETIMEDOUT when interrupted). Free the result with
// io::freeaddrinfo or freeaddrinfo(3).
RINGLET_EXPORT int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** result,
                               deadline until = never) noexcept;

}  // namespace ringlet::io
