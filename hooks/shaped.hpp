#pragma once
// The bodies of the SHAPED and VARIADIC rows: declared by the table, written in time.cpp, poll.cpp, messages.cpp,
// descriptors.cpp, files.cpp, dns.cpp, processes.cpp, locks.cpp, conditions.cpp, c11.cpp and fortified.cpp.
//
// libc dialect: they answer what the replaced function answers, errno included. They run only when their row is active
// and its `when` holds; they call real::… and io::…, never the plain names.

#include "rows.hpp"

namespace ringlet::hooks::shaped {

#define SHAPED(result, name, group, when, parameters, arguments) result name parameters;
#include "calls.def"

// The VARIADIC ones, with what may follow as their last argument.
int open(const char* path, int flags, unsigned mode);
int openat(int directory, const char* path, int flags, unsigned mode);
int fcntl(int fd, int command, void* argument);
int ioctl(int fd, unsigned long request, void* argument);

}  // namespace ringlet::hooks::shaped
