// What a process does while its threads compute: none of these spins gives the processor up by itself.

#include <dirent.h>
#include <sys/wait.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "battery.hpp"

namespace battery {
namespace {

CASE(exceptions_and_malloc_of_those_who_compute) {
  static std::atomic<bool> stop{false};
  static std::atomic<int> wrong{0};
  std::vector<std::thread> all;
  for (int i = 0; i < 4; ++i)
    all.emplace_back([i] {
      for (long n = 0; !stop.load(std::memory_order_relaxed); ++n) {
        try {
          std::vector<std::string> some(std::size_t(n % 7 + 1), std::string(std::size_t(40 + n % 200), char('a' + i)));
          if (some.back().front() != 'a' + i) ++wrong;
          throw std::runtime_error(some.back());
        } catch (const std::runtime_error& e) {
          if (e.what()[39] != 'a' + i) ++wrong;
        }
        errno = i;
        for (volatile int spin = 0; spin < 500; spin = spin + 1) {
        }
        if (errno != i) ++wrong;
      }
    });
  for (int i = 0; i < 50; ++i) {
    usleep(2000);  // with those who compute taking turns meanwhile
    std::string mine(std::size_t(i) * 100, 'm');
    if (mine.size() != std::size_t(i) * 100) ++wrong;
  }
  stop = true;
  for (auto& t : all) t.join();
  std::printf("wrong %d\n", wrong.load());
}

// The watcher's signal must not reach the new program: many rounds, each with arguments that take the kernel long to
// copy.
CASE(exec_beside_spinners) {
  const char* const before = getenv("ROUND");
  const int round = before ? std::atoi(before) : 0;
  if (round == 12) {
    std::puts("twelve rounds");
    return;
  }
  setenv("ROUND", std::to_string(round + 1).c_str(), 1);
  for (int i = 0; i < 2; ++i)
    std::thread([] {
      for (volatile bool ever = true; ever;) {
      }
    }).detach();
  std::vector<std::string> words(16, std::string(100'000, 'x'));
  char name[] = "battery", itself[] = "exec_beside_spinners";
  std::vector<char*> arguments{name, itself};
  for (std::string& w : words) arguments.push_back(w.data());
  arguments.push_back(nullptr);
  execv("/proc/self/exe", arguments.data());
  std::printf("exec: %s\n", strerror(errno));
}

CASE(privileges_given_up_beside_spinners) {
  static std::atomic<bool> stop{false}, spins{false};
  std::thread spinner([] {
    spins = true;
    while (!stop.load(std::memory_order_relaxed)) {
    }
  });
  CHECK(until([] { return spins.load(); }));
  constexpr unsigned nobody = 65534;
  const unsigned wanted = geteuid() == 0 ? nobody : geteuid();
  CHECK(setresuid(wanted, wanted, wanted) == 0);
  int other = 0;
  DIR* tasks = opendir("/proc/self/task");
  CHECK(tasks);
  while (const dirent* task = tasks ? readdir(tasks) : nullptr) {
    if (task->d_name[0] == '.') continue;
    char path[300], line[200];
    std::snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
    FILE* f = fopen(path, "r");
    CHECK(f);
    unsigned real, effective, saved, files;
    while (f && fgets(line, sizeof line, f))
      if (std::sscanf(line, "Uid: %u %u %u %u", &real, &effective, &saved, &files) == 4)
        other += real != wanted || effective != wanted || saved != wanted || files != wanted;
    if (f) fclose(f);
  }
  if (tasks) closedir(tasks);
  stop = true;
  spinner.join();
  std::printf("tasks of another user: %d\n", other);
}

CASE(fork_beside_spinners) {
  static std::atomic<bool> stop{false};
  static std::atomic<int> begun{0};
  auto spin = [] {
    ++begun;
    while (!stop.load(std::memory_order_relaxed)) {
    }
  };
  std::thread a(spin), b(spin);
  CHECK(until([] { return begun == 2; }));
  for (int i = 0; i < 5; ++i) {
    usleep(3000);  // the fork comes at another moment of theirs each time
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      std::thread again(spin);
      CHECK(until([] { return begun == 3; }));  // so it gave way
      stop = true;
      again.join();
      _exit(7);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    std::printf("child %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  }
  stop = true;
  a.join();
  b.join();
}

}  // namespace
}  // namespace battery
