// Processes that start afresh: the program is executed anew, and runs a function instead of main. So nothing of the parent's memory
// is in them: here, a global that main has set.
//
// Prints expected/spawned.txt.

#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include <fcntl.h>

#include <ringlet/ipc/message.hpp>
#include <ringlet/ipc/spawn.hpp>
#include <ringlet/process.hpp>
#include <ringlet/ringlet.hpp>

namespace {

int set_by_main = 0;

int add(const std::vector<int>& numbers, const std::string& unit, ringlet::ipc::end out) {
  int sum = 0;
  for (int n : numbers) sum += n;
  auto text = ringlet::spawn([&] { return std::to_string(sum) + " " + unit; });  // it has a hub, too
  out.send(ringlet::current_process().name + " says " + text.get());
  return set_by_main;
}

// Those that a program has from the one that started it, standard ones not counted.
int fds_over_exec() {
  int count = 0;
  for (int fd = 3; fd < 1000; ++fd) {
    const int flags = fcntl(fd, F_GETFD);
    if (flags >= 0 && !(flags & FD_CLOEXEC)) ++count;
  }
  return count;
}

int status_of(ringlet::process p) {
  p.start();
  p.join();
  return *p.exit_code();
}

}  // namespace

int main() {
  ringlet::ipc::run_if_spawned();  // the first thing
  set_by_main = 7;

  auto [in, out] = ringlet::ipc::pipe();
  auto adder = ringlet::ipc::spawned({.name = "adder"}, add, std::vector<int>{1, 2, 3}, "apples", std::move(out));
  adder.start();
  std::printf("%s\n", in.receive<std::string>()->c_str());
  adder.join();
  std::printf("the global is %d here, and %d there\n", set_by_main, *adder.exit_code());
  try {
    in.receive<std::string>();
  } catch (const ringlet::ipc::end_of_pipe&) {
    std::puts("and its end of the pipe is closed");
  }

  std::printf("a fork has the global: %d\n", status_of(ringlet::process([] { return set_by_main; })));
  std::printf("a lambda, spawned: %d\n", status_of(ringlet::ipc::spawned({}, [](int a, int b) { return a * b; }, 6, 7)));
  std::printf("one that leaves: %d\n", status_of(ringlet::ipc::spawned({}, [](int status) { throw ringlet::process_exit{status}; }, 3)));
  const int given = fds_over_exec();  // by whoever has started us
  std::printf("no fd of the parent's: %s\n", status_of(ringlet::ipc::spawned({}, [](int n) { return fds_over_exec() - n; }, given)) == 0 ? "yes" : "no");
}
