// Processes that a thread begins or ends, and what belongs to the process.

#include <semaphore.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "battery.hpp"

namespace battery {
namespace {

CASE(fork_from_a_thread) {
  static sem_t over;
  sem_init(&over, 0, 0);
  std::thread keeps([] {
    while (sem_wait(&over) != 0) {
    }
  });
  std::thread forks([] {
    const pid_t child = fork();
    if (child == 0) {
      CHECK(gettid() == getpid());
      int sum = 0;
      std::thread inside([&] {
        usleep(1000);  // that one can wait in the child is the case
        sum += 20;
      });
      inside.join();
      std::thread again([&] { sum += 3; });
      again.join();
      _exit(sum);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    std::printf("child's status %d\n", WEXITSTATUS(status));
  });
  forks.join();
  sem_post(&over);
  keeps.join();
}

CASE(children_of_all_kinds) {
  std::vector<std::thread> threads;
  static std::atomic<int> good{0};
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([i] {
      FILE* p = popen(("echo popen " + std::to_string(i)).c_str(), "r");
      char line[100] = "";
      if (fgets(line, sizeof line, p) && std::string(line) == "popen " + std::to_string(i) + "\n") ++good;
      pclose(p);
      if (WEXITSTATUS(system("exit 3")) == 3) ++good;
      pid_t child;
      char* const arguments[] = {const_cast<char*>("sh"), const_cast<char*>("-c"),
                                 const_cast<char*>("sleep 0.05; exit 4") /* most often we wait before it ends */,
                                 nullptr};
      int status = 0;
      if (posix_spawnp(&child, "sh", nullptr, nullptr, arguments, environ) == 0 &&
          waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 4)
        ++good;
      const pid_t borrowed = vfork();
      if (borrowed == 0) _exit(6);
      if (waitpid(borrowed, &status, 0) == borrowed && WEXITSTATUS(status) == 6) ++good;
    });
  for (auto& t : threads) t.join();
  std::printf("good %d\n", good.load());
}

CASE(exit_from_a_thread) {
  std::atexit([] { std::puts("at exit"); });
  static const pid_t chief = gettid();
  std::thread t([] {
    CHECK(until([] { return asleep(chief); }));
    std::exit(5);
  });
  pause();
}

CASE(main_leaves_by_pthread_exit) {
  static pthread_t chief = pthread_self();
  pthread_t t;
  pthread_create(
      &t, nullptr,
      [](void*) -> void* {
        void* result;
        CHECK(pthread_join(chief, &result) == 0);
        std::printf("main gave %ld\n", long(result));
        std::fflush(stdout);
        return nullptr;
      },
      nullptr);
  pthread_exit(reinterpret_cast<void*>(9));
}

CASE(setuid_reaches_all_threads) {
  static std::atomic<bool> go{false};
  std::vector<std::thread> threads;
  static std::atomic<int> same{0};
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([] {
      CHECK(until([] { return go.load(); }));
      if (getuid() == geteuid()) ++same;
    });
  CHECK(setuid(getuid()) == 0);
  CHECK(setgid(getgid()) == 0);
  go = true;
  for (auto& t : threads) t.join();
  std::printf("same %d\n", same.load());
}

}  // namespace
}  // namespace battery
