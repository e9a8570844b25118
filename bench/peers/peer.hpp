#pragma once
// What every peer written in C++ has in common: how it is told what to do.
//
//   PEER echo BYTES   An echo server: descriptor 3 is its listening socket, blocking, TCP_NODELAY set (accepted sockets
//                     inherit that); reads into a buffer of BYTES for each connection and writes back what came, until
//                     the client is gone. It ends by a signal.
//   PEER work         Does what lines on standard input ask, `WORKLOAD N`, and answers each with `done OPERATIONS` (at
//                     least N), or `none` if it does not know that workload. Ends with its input.
//
// The workloads (an operation is what the figure is divided by):
//   switch    two contexts that hand the processor to each other by name; one way
//   yield2    two fibers that only yield; one yield
//   yield1000 the same among 1,000
//   spawn     begin one that does nothing, and wait for its end
//   spawn100  begin 100 that do nothing, then wait for all; one of them
//   queue     two fibers, two queues of one place; an item there and one back
//   sleep1000 1,000 fibers that sleep a millisecond again and again; one sleep
//   timer     arm a timer of an hour that calls something, and cancel it, while 10,000 others are armed
//   timeout   the same with what limits a block of the caller's own (a scope, a context)
//
// Whoever asks reads the peer's CPU clock before and after, so a peer measures nothing itself.

#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>

namespace peer {

constexpr int listener = 3;
constexpr std::size_t crowd = 1000, armed = 10'000;

// name -> does at least so many operations, says how many.
using workloads = std::map<std::string, std::function<std::size_t(std::size_t)>>;

inline int work(const workloads& known) {
  char name[64];
  for (std::size_t n; std::scanf("%63s %zu", name, &n) == 2; std::fflush(stdout)) {
    const auto found = known.find(name);
    if (found == known.end()) {
      std::printf("none\n");
    } else {
      std::printf("done %zu\n", found->second(n));
    }
  }
  return 0;
}

// As often as each of `count` must, so that all together do it n times.
inline std::size_t share(std::size_t n, std::size_t count) { return (n + count - 1) / count; }

// Reads and writes by these calls, whose results are read(2)'s, until the end or an error. The buffer is the stack's.
template <class Read, class Write>
void echo(std::size_t bytes, Read read, Write write) {
  char* const buffer = static_cast<char*>(__builtin_alloca(bytes));
  for (ssize_t got; (got = read(buffer, bytes)) > 0;)
    for (ssize_t sent = 0; sent < got;) {
      const ssize_t more = write(buffer + sent, std::size_t(got - sent));
      if (more <= 0) return;
      sent += more;
    }
}

[[noreturn]] inline void fail(const char* what) {
  std::perror(what);
  std::exit(2);
}

// main: `echo BYTES` or `work`; what a peer cannot do, it leaves out.
inline int run(int argc, char** argv, const std::function<void(std::size_t)>& serve, const workloads& known) {
  const std::string how = argc > 1 ? argv[1] : "";
  if (how == "work") return work(known);
  if (how == "echo" && argc > 2 && serve) {
    serve(std::size_t(std::atoll(argv[2])));
    return 0;
  }
  std::fprintf(stderr, "%s work%s\n", argv[0], serve ? " | echo BYTES" : "");
  return 2;
}

}  // namespace peer
