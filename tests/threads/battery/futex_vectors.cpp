// futex_waitv(2): one thread waits for any of several words.

#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "battery.hpp"

namespace battery {
namespace {

using word = std::uint32_t;

long wake(word* at, int flag = FUTEX_PRIVATE_FLAG) { return syscall(SYS_futex, at, FUTEX_WAKE | flag, 1); }

struct vector {
  std::vector<futex_waitv> words;
  vector(std::initializer_list<word*> all, std::uint32_t flags = FUTEX_32 | FUTEX_PRIVATE_FLAG) {
    for (word* each : all) {
      futex_waitv w{};
      w.val = *each;
      w.uaddr = reinterpret_cast<std::uintptr_t>(each);
      w.flags = flags;
      words.push_back(w);
    }
  }
  long wait(const timespec* limit = nullptr, int clock = CLOCK_MONOTONIC, unsigned flags = 0) {
    const long result = syscall(SYS_futex_waitv, words.data(), words.size(), flags, limit, clock);
    return result < 0 ? -errno : result;
  }
};

CASE(futex_vectors_refuse_and_time_out) {
  static word a = 0, b = 0;
  const timespec passed{0, 0}, wrong{0, 2'000'000'000};
  vector none({}), many({}), changed({&a, &b}), odd({&a}), nowhere({&a}), no_size({&a}, FUTEX_PRIVATE_FLAG);
  for (int i = 0; i < 129; ++i) many.words.push_back(changed.words[0]);
  changed.words[1].val = 7;
  odd.words[0].uaddr += 1;
  nowhere.words[0].uaddr = 4096;
  std::printf("none %ld, too many %ld, changed %ld, odd %ld, nowhere %ld, no size %ld\n", none.wait(), many.wait(), changed.wait(),
              odd.wait(&passed), nowhere.wait(&passed), no_size.wait(&passed));
  vector two({&a, &b});
  std::printf("flags %ld, clock %ld, time %ld, passed %ld\n", two.wait(nullptr, CLOCK_MONOTONIC, 1), two.wait(&passed, 99),
              two.wait(&wrong), two.wait(&passed));
  for (int clock : {CLOCK_MONOTONIC, CLOCK_REALTIME}) {
    timespec soon;
    clock_gettime(clock, &soon);
    soon.tv_nsec += 20'000'000;
    if (soon.tv_nsec >= 1'000'000'000) ++soon.tv_sec, soon.tv_nsec -= 1'000'000'000;
    timespec now;
    const long ended = two.wait(&soon, clock);
    clock_gettime(clock, &now);
    const bool in_time = now.tv_sec > soon.tv_sec || (now.tv_sec == soon.tv_sec && now.tv_nsec >= soon.tv_nsec);
    std::printf("limit %ld, not before %d\n", ended, in_time);
  }
  // Nobody is left on the lists.
  std::printf("woken %ld %ld\n", wake(&a), wake(&b));
}

CASE(futex_vectors_wake) {
  static std::array<word, 3> words;
  for (std::size_t i = 0; i < words.size(); ++i) {
    long got = -1;
    std::thread waits([&] { got = vector({&words[0], &words[1], &words[2]}).wait(); });
    CHECK(until([&] { return wake(&words[i]) == 1; }));
    waits.join();
    std::printf("by %zu: %ld, others %ld\n", i, got, wake(&words[(i + 1) % 3]) + wake(&words[(i + 2) % 3]));
  }
  // The same word twice; and one that is moved to another list.
  static word other = 0;
  long got = -1;
  std::thread twice([&] { got = vector({&words[0], &words[0]}).wait(); });
  CHECK(until([&] { return wake(&words[0]) == 1; }));
  twice.join();
  std::printf("twice %ld\n", got);
  std::thread moved([&] { got = vector({&words[0], &words[1]}).wait(); });
  CHECK(until([&] { return syscall(SYS_futex, &words[1], FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 0, 1, &other, 0) == 1; }));
  std::printf("from %ld, to %ld", wake(&words[1]), wake(&other));
  moved.join();
  std::printf(", got %ld\n", got);
}

CASE(futex_vectors_lose_no_wake) {
  // A word is taken by one of those who wait for all of them; each change is answered before the next.
  constexpr int rounds = 2000, crew = 3;
  static std::array<word, 5> words;
  static word taken;
  words.fill(0);
  taken = 0;
  static std::atomic<bool> over{false};
  std::vector<std::thread> all;
  for (int i = 0; i < crew; ++i)
    all.emplace_back([] {
      while (!over) {
        vector v({&words[0], &words[1], &words[2], &words[3], &words[4]});
        for (std::size_t k = 0; k < words.size(); ++k) {
          word one = 1;
          if (__atomic_compare_exchange_n(&words[k], &one, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            __atomic_fetch_add(&taken, 1, __ATOMIC_SEQ_CST);
            wake(&taken);
          }
          v.words[k].val = 0;
        }
        v.wait();
      }
    });
  for (int i = 0; i < rounds; ++i) {
    word* const next = &words[std::size_t(i * 7) % words.size()];
    __atomic_store_n(next, 1, __ATOMIC_SEQ_CST);
    wake(next);
    while (__atomic_load_n(&taken, __ATOMIC_SEQ_CST) == word(i)) {
      vector mine({&taken});
      mine.words[0].val = word(i);
      mine.wait();
    }
  }
  over = true;
  for (word& each : words) __atomic_store_n(&each, 2, __ATOMIC_SEQ_CST);
  for (word& each : words)
    for (int i = 0; i < crew; ++i) wake(&each);
  for (auto& t : all) t.join();
  std::printf("taken %u\n", taken);
}

CASE(futex_vectors_of_another_process_and_signals) {
  auto* shared = static_cast<word*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  static word own = 0;
  const pid_t child = fork();
  if (child == 0) {
    __atomic_store_n(&shared[1], 1, __ATOMIC_SEQ_CST);
    wake(&shared[1], 0);
    _exit(0);
  }
  long got = 0;
  std::thread waits([&] {
    while (__atomic_load_n(&shared[1], __ATOMIC_SEQ_CST) == 0) {
      vector v({&own, &shared[0], &shared[1]}, FUTEX_32);
      v.words[2].val = 0;
      got = v.wait();
    }
  });
  waits.join();
  int status;
  waitpid(child, &status, 0);
  std::printf("changed %u, woken in time %d\n", shared[1], got == 2 || got == -EAGAIN || got == 0);

  struct sigaction how {};
  how.sa_handler = [](int) {};
  sigaction(SIGUSR1, &how, nullptr);
  static std::atomic<bool> ended{false};
  std::thread interrupted([&] {
    got = vector({&own}).wait();
    ended = true;
  });
  CHECK(until([&] {
    if (!ended) pthread_kill(interrupted.native_handle(), SIGUSR1);
    return ended.load();
  }));
  interrupted.join();
  std::printf("signal %ld\n", got);
}

}  // namespace
}  // namespace battery
