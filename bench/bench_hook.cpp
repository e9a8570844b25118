// What the hooks cost where they have nothing to do: in a process without a single fiber. And, last, a read among fibers.
//
// Raw is libc's own function, called through a pointer. "linked" is the plain name in a program that links the hooks and
// has not enabled them; "enabled" the same after hooks::enable(). The calls are the cheapest that their names allow, so
// that the difference shows; over a real receive it is a thousandth.

#include <ringlet/fiber.hpp>
#include <ringlet/hooks.hpp>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "harness.hpp"

namespace {

// Enabled only while its row is measured. Switching is a few hundred stores, outside the measured time.
template <class Call>
bench::candidate row(std::string name, bool enabled, Call call) {
  return {std::move(name), [=](std::size_t n) {
            if (enabled) ringlet::hooks::enable();
            const double start = bench::thread_cpu_ns();
            for (std::size_t i = 0; i < n; ++i) bench::keep(call());
            const double ns = bench::thread_cpu_ns() - start;
            if (enabled) ringlet::hooks::disable();
            return bench::sample{ns, double(n)};
          }};
}

template <class Plain, class Bare>
void three(const std::string& what, Plain plain, Bare bare) {
  bench::compare(what + ": ns of CPU a call",
                 {
                     row(what + ", libc's", false, bare),
                     row(what + ", hooks linked", false, plain),
                     row(what + ", hooks enabled", true, plain),
                 },
                 {.rounds = 21, .round_ms = 4});
}

// A byte over a socket pair, in a process with fibers. What must wait is two fibers that answer each other: when one reads, its
// byte is not there yet.
void among_fibers() {
  int near[2], far[2];  // the fiber waits on the second pair, and would take the bytes of the first
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, near) || ::socketpair(AF_UNIX, SOCK_STREAM, 0, far)) return std::perror("socketpair");
  const int ask = far[0], answer = far[1];
  auto* const bare_read = reinterpret_cast<decltype(&::read)>(bench::libc_function("read"));
  auto* const bare_write = reinterpret_cast<decltype(&::write)>(bench::libc_function("write"));
  char byte = 0;
  auto one_way = [&](auto* read) {
    return [&, read](std::size_t n) {
      for (; n; --n) {
        bare_write(near[0], &byte, 1);
        bench::keep(read(near[1], &byte, 1));
      }
    };
  };
  ringlet::hooks::enable();
  // Itself a hooked call, so that it ends when this side closes.
  ringlet::spawn([=] {
    char got;
    while (::read(answer, &got, 1) == 1) bare_write(answer, &got, 1);
  });
  bench::compare("write a byte, read it, in a process with fibers: ns of CPU each",
                 {
                     bench::timed("libc's write, libc's read", one_way(bare_read)),
                     bench::timed("libc's write, hooked read that is ready", one_way(&::read)),
                     bench::timed("libc's write, hooked read that must wait",
                                  [&](std::size_t n) {
                                    for (n = (n + 1) / 2; n; --n) {
                                      bare_write(ask, &byte, 1);
                                      bench::keep(::read(ask, &byte, 1));
                                    }
                                  }),
                 });
  ::close(ask);
  ringlet::hooks::disable();
}

#define LIBC(name) reinterpret_cast<decltype(&::name)>(bench::libc_function(#name))

}  // namespace

int main(int argc, char** argv) {
  bench::begin(argc, argv, "bench_hook");
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
    std::perror("socketpair");
    return 2;
  }
  const int zero = ::open("/dev/zero", O_RDWR | O_CLOEXEC);
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  char byte = 0;

  auto* bare_lock = LIBC(pthread_mutex_lock);
  auto* bare_unlock = LIBC(pthread_mutex_unlock);
  three(
      "pthread_mutex_lock and unlock",
      [] {
        ::pthread_mutex_lock(&mutex);
        return ::pthread_mutex_unlock(&mutex);
      },
      [=] {
        bare_lock(&mutex);
        return bare_unlock(&mutex);
      });
  auto* bare_read = LIBC(read);
  three("read of a byte of /dev/zero", [&] { return ::read(zero, &byte, 1); }, [&, bare_read] { return bare_read(zero, &byte, 1); });
  auto* bare_recv = LIBC(recv);
  three(
      "recv that finds nothing (MSG_DONTWAIT)", [&] { return ::recv(pair[0], &byte, 1, MSG_DONTWAIT); },
      [&, bare_recv] { return bare_recv(pair[0], &byte, 1, MSG_DONTWAIT); });
  auto* bare_poll = LIBC(poll);
  three(
      "poll of one fd, timeout 0",
      [&] {
        pollfd p{pair[0], POLLIN, 0};
        return ::poll(&p, 1, 0);
      },
      [&, bare_poll] {
        pollfd p{pair[0], POLLIN, 0};
        return bare_poll(&p, 1, 0);
      });
  auto* bare_fcntl = LIBC(fcntl);
  three("fcntl(F_GETFL)", [&] { return ::fcntl(pair[0], F_GETFL, 0); }, [&, bare_fcntl] { return bare_fcntl(pair[0], F_GETFL, 0); });

  among_fibers();
}
