#pragma once
// Everything of libc that calls.def speaks about, in one include, plus the names that libc exports but no header
// declares (the fortified ones are declared by its headers only under _FORTIFY_SOURCE, with these same signatures).
//
// Fortified headers define some names inline, which would hide the functions we replace; hence the #undef: include
// this first.

#undef _FORTIFY_SOURCE

#include <fcntl.h>
#include <mqueue.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // sigset and siginterrupt: old programs call them

extern "C" {
ssize_t __read_chk(int, void*, size_t, size_t);
ssize_t __recv_chk(int, void*, size_t, size_t, int);
ssize_t __recvfrom_chk(int, void*, size_t, size_t, int, sockaddr*, socklen_t*);
ssize_t __pread_chk(int, void*, size_t, off_t, size_t);
int __poll_chk(pollfd*, nfds_t, int, size_t);
int __ppoll_chk(pollfd*, nfds_t, const timespec*, const sigset_t*, size_t);
int __open_2(const char*, int);
int __openat_2(int, const char*, int);
[[noreturn]] void __chk_fail() noexcept;  // libc's own end of a program whose buffer is too small
}

static_assert(sizeof(off_t) == 8 && sizeof(time_t) == 8, "the 64-bit names are aliases: 32-bit systems need rows of their own");
