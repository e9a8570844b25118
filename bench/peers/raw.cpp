// The limit: no runtime at all. `raw epoll|ring echo BYTES` are the servers of raw_servers.hpp; `raw contexts work` is
// Boost's jump_fcontext with nothing around it, and a kernel timer for timers.

#include <fcntl.h>
#include <sys/timerfd.h>

#include <string>
#include <vector>

#include "../raw_context.hpp"
#include "../raw_servers.hpp"
#include "peer.hpp"

namespace {

std::size_t around(std::size_t n, bench::raw_ring& ring, std::size_t count) {
  for (std::size_t i = 0; i < peer::share(n, count); ++i) ring.turn();
  return peer::share(n, count) * count;
}

void once_and_back(bench::transfer_t t) { bench::jump_fcontext(t.fctx, nullptr); }

int work(int argc, char** argv) {
  bench::raw_pair pair;
  bench::raw_ring two(1), many(peer::crowd - 1);
  bench::raw_stacks stack(1);
  auto begin_and_end = [&](std::size_t n) {
    for (std::size_t i = 0; i < n; ++i)
      bench::jump_fcontext(bench::make_fcontext(stack.top(0), bench::raw_stacks::stride / 2, &once_and_back), nullptr);
    return n;
  };
  const int timer = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  return peer::run(argc, argv, {},
                   {{"switch",
                     [&](std::size_t n) {
                       for (std::size_t i = 0; i < n; i += 2) pair.there_and_back();
                       return n;
                     }},
                    {"yield2", [&](std::size_t n) { return around(n, two, 2); }},
                    {"yield1000", [&](std::size_t n) { return around(n, many, peer::crowd); }},
                    {"spawn", begin_and_end},
                    {"spawn100", begin_and_end},
                    {"queue",
                     [&](std::size_t n) {
                       for (std::size_t i = 0; i < n; ++i) pair.there_and_back();
                       return n;
                     }},
                    {"timer", [timer](std::size_t n) {
                       const itimerspec hour{{}, {3600, 0}}, never{};
                       for (std::size_t i = 0; i < n; ++i) {
                         ::timerfd_settime(timer, 0, &hour, nullptr);
                         ::timerfd_settime(timer, 0, &never, nullptr);
                       }
                       return n;
                     }}});
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "contexts") return work(argc - 1, argv + 1);
  ::fcntl(peer::listener, F_SETFL, O_NONBLOCK);
  if (what == "epoll") {
    bench::raw::epoll_recv_send({}, peer::listener).serve(std::size_t(-1));
  } else if (what == "ring") {
    ::fcntl(peer::listener, F_SETFL, 0);
    bench::raw::ring_server server({}, peer::listener);
    if (!server.works) return 77;
    server.serve(std::size_t(-1));
  }
  return 2;
}
