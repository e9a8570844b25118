// Names of hosts, libraries and threads; processors.

#include <dlfcn.h>
#include <netdb.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <vector>

#include "battery.hpp"

namespace battery {
namespace {

CASE(names_of_hosts) {
  std::atomic<int> found{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 5; ++i)
    threads.emplace_back([&] {
      addrinfo hints{}, *list = nullptr;
      hints.ai_family = AF_INET;
      hints.ai_socktype = SOCK_STREAM;
      if (getaddrinfo("localhost", "80", &hints, &list) == 0) ++found, freeaddrinfo(list);
    });
  for (auto& t : threads) t.join();
  std::printf("found %d\n", found.load());
}

CASE(dlopen_while_threads_run) {
  static std::atomic<bool> go{false};
  static double (*cosine)(double) = nullptr;
  std::vector<std::thread> threads;
  for (int i = 0; i < 5; ++i)
    threads.emplace_back([] {
      CHECK(until([] { return go.load(); }));
      CHECK(cosine(0.0) == 1.0);
    });
  void* library = dlopen("libm.so.6", RTLD_NOW);
  cosine = reinterpret_cast<double (*)(double)>(dlsym(library, "cos"));
  go = true;
  for (auto& t : threads) t.join();
  std::puts("ok");
}

CASE(names_of_threads) {
  static std::atomic<int> step{0};
  pthread_setname_np(pthread_self(), "chief");
  std::thread t([] {
    pthread_setname_np(pthread_self(), "first");
    char name[16];
    prctl(PR_GET_NAME, name);
    std::printf("own %s\n", name);
    step = 1;
    CHECK(until([] { return step == 2; }));
    pthread_getname_np(pthread_self(), name, sizeof name);
    std::printf("given %s\n", name);
  });
  CHECK(until([] { return step == 1; }));
  char name[16];
  CHECK(pthread_getname_np(t.native_handle(), name, sizeof name) == 0);
  std::printf("seen %s\n", name);
  CHECK(pthread_setname_np(t.native_handle(), "second") == 0);
  step = 2;
  t.join();
  pthread_getname_np(pthread_self(), name, sizeof name);
  std::printf("mine %s\n", name);
}

CASE(scheduling) {
  std::thread t([] {
    cpu_set_t cpus;
    CHECK(sched_getaffinity(0, sizeof cpus, &cpus) == 0);
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    CHECK(pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus) == 0);
    CPU_ZERO(&cpus);
    CHECK(pthread_getaffinity_np(pthread_self(), sizeof cpus, &cpus) == 0);
    std::printf("cpus %d\n", CPU_COUNT(&cpus));
    int policy;
    sched_param parameters{};
    CHECK(pthread_getschedparam(pthread_self(), &policy, &parameters) == 0);
    CHECK(pthread_setschedparam(pthread_self(), policy, &parameters) == 0);
    CHECK(sched_getcpu() >= 0);
  });
  t.join();
  cpu_set_t mine;
  sched_getaffinity(0, sizeof mine, &mine);
  std::printf("mine are all %d\n", CPU_COUNT(&mine) == sysconf(_SC_NPROCESSORS_ONLN));
}

}  // namespace
}  // namespace battery
