// Files through the calls: what is not in the page cache is read elsewhere, and means the same.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <ringlet/ringlet.hpp>

#include "io/io_support.hpp"

using namespace io_test;
using ringlet::spawn;

namespace {
// Records of 4096 bytes, each with its number in front; none of them in the page cache, if the file system lets go.
owned file_of_records(const std::filesystem::path& path, int count) {
  owned f(::open(path.c_str(), O_RDWR | O_CREAT, 0600));
  std::string record(4096, 'r');
  for (int i = 0; i < count; ++i) {
    record.replace(0, sizeof i, reinterpret_cast<const char*>(&i), sizeof i);
    REQUIRE(::write(f, record.data(), record.size()) == ssize_t(record.size()));
  }
  REQUIRE(::fsync(f) == 0);
  REQUIRE(::lseek(f, 0, SEEK_SET) == 0);
  posix_fadvise(f, 0, 0, POSIX_FADV_DONTNEED);
  return f;
}
}  // namespace

TEST_CASE("regular files: fibers that share a position share the records, each is read once") {
  support::temporary_directory where;
  constexpr int records = 600;
  for (int round = 0; round < 3; ++round) {
    owned f = file_of_records(where.path() / "records", records);
    posix_fadvise(f, 0, 0, POSIX_FADV_RANDOM);  // no reading ahead
    std::vector<int> seen(records, 0);
    int odd = 0;
    std::vector<ringlet::fiber<>> readers;
    for (int i = 0; i < 8; ++i)
      readers.push_back(spawn([&, i] {
        std::string buffer(4096 * 3, 0);
        const std::size_t size = i % 2 ? 4096 : 4096 * 3;
        while (true) {
          const ssize_t got = io::read(f, buffer.data(), size);
          if (got <= 0) break;
          if (got % 4096) ++odd;
          int first = -1;
          for (ssize_t at = 0; at < got; at += 4096) {
            int number = -1;
            std::copy_n(buffer.data() + at, sizeof number, reinterpret_cast<char*>(&number));
            if (number < 0 || number >= records || (first >= 0 && number != first + int(at / 4096))) ++odd;
            else ++seen[std::size_t(number)];
            if (at == 0) first = number;
          }
        }
      }));
    ringlet::joinall(readers);
    CHECK(odd == 0);
    CHECK(std::count(seen.begin(), seen.end(), 1) == records);
  }
}

TEST_CASE("regular files: a read past the page cache (O_DIRECT) keeps no other fiber waiting") {
  const support::temporary_directory usual, on_disk("/var/tmp");
  constexpr int records = 4;
  const auto opened_in = [](const support::temporary_directory& where) {
    const auto file = where.path() / "records";
    file_of_records(file, records);
    return io::openat(AT_FDCWD, file.c_str(), O_RDONLY | O_DIRECT, 0);
  };
  owned f(opened_in(usual));
  if (int(f) == -EINVAL) f = owned(opened_in(on_disk));
  if (int(f) == -EINVAL) RINGLET_SKIP("the file systems of /tmp and of /var/tmp have no O_DIRECT");
  REQUIRE(int(f) >= 0);
  // Aligned, and not on a fiber's stack: its top is no page's.
  const std::unique_ptr<char, decltype(&std::free)> buffer(static_cast<char*>(std::aligned_alloc(4096, 4096)), &std::free);
  const auto number_read = [&](ssize_t got) {
    int number = -1;
    if (got == 4096) std::copy_n(buffer.get(), sizeof number, reinterpret_cast<char*>(&number));
    return number;
  };
  const auto other_runs_meanwhile = [&](auto read) {
    auto reader = spawn([&] { return number_read(read()); });
    ringlet::yield();
    CHECK_FALSE(reader.ready());
    CHECK(ringlet::hub::count().operations == 1);
    return reader.get();
  };
  for (int i = 0; i < records; ++i) {
    CHECK(other_runs_meanwhile([&] { return io::pread(f, buffer.get(), 4096, i * 4096); }) == i);
    CHECK(other_runs_meanwhile([&] { return io::read(f, buffer.get(), 4096); }) == i);
  }
  CHECK(io::pread(f, buffer.get(), 4096, records * 4096) == 0);
  CHECK(io::read(f, buffer.get(), 4096) == 0);
  const ssize_t unaligned = ::pread(f, buffer.get(), 100, 0);  // EINVAL, but of tmpfs
  CHECK(io::pread(f, buffer.get(), 100, 0) == (unaligned < 0 ? -errno : unaligned));
}

TEST_CASE("regular files: a reader that is killed while others wait for the position keeps nobody waiting") {
  support::temporary_directory where;
  owned f = file_of_records(where.path() / "records", 200);
  posix_fadvise(f, 0, 0, POSIX_FADV_RANDOM);
  std::vector<ringlet::fiber<>> readers;
  for (int i = 0; i < 6; ++i)
    readers.push_back(spawn([&] {
      char buffer[4096];
      while (io::read(f, buffer, sizeof buffer) > 0) {
      }
    }));
  for (int i = 0; i < 20; ++i) ringlet::yield();
  readers[0].kill(ringlet::deadline::passed());
  readers[2].kill(ringlet::deadline::passed());
  CHECK(ringlet::joinall(readers, {.until = 20s}).size() == readers.size());
}

TEST_CASE("inotify, signalfd, pidfd: reads and polls park; directories answer EISDIR") {
  support::temporary_directory where;
  owned watch(::inotify_init1(IN_CLOEXEC));
  REQUIRE(::inotify_add_watch(watch, where.path().c_str(), IN_CREATE) >= 0);
  char buffer[4096];
  CHECK(io::read(watch, buffer, sizeof buffer, 2ms) == -ETIMEDOUT);
  auto sees = spawn([&] { return io::read(watch, buffer, sizeof buffer, 5s); });
  REQUIRE(parked_on_fds(1));
  owned created(::open((where.path() / "new").c_str(), O_RDWR | O_CREAT, 0600));
  CHECK(sees.get() > 0);

  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  REQUIRE(pthread_sigmask(SIG_BLOCK, &set, &before) == 0);
  owned signals(::signalfd(-1, &set, SFD_CLOEXEC));
  CHECK(io::read(signals, buffer, sizeof buffer, 2ms) == -ETIMEDOUT);
  auto hears = spawn([&] { return io::read(signals, buffer, sizeof buffer, 5s); });
  REQUIRE(parked_on_fds(1));
  REQUIRE(::syscall(SYS_tgkill, ::getpid(), ::gettid(), SIGUSR2) == 0);
  CHECK(hears.get() == sizeof(signalfd_siginfo));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);

  auto gate = pipe_pair();
  const pid_t child = ::fork();
  if (child == 0) {
    char c;
    ::_exit(::read(gate.a, &c, 1) == 1 ? 0 : 1);
  }
  owned process(int(::syscall(SYS_pidfd_open, child, 0)));
  if (int(process) >= 0) {
    CHECK(io::wait_readable(process, 2ms) == -ETIMEDOUT);
    auto ends = spawn([&] { return io::wait_readable(process, 10s); });
    REQUIRE(parked_on_fds(1));
    CHECK(io::write(gate.b, "x", 1) == 1);
    CHECK(ends.get() == 0);
  } else {
    CHECK(io::write(gate.b, "x", 1) == 1);
  }
  CHECK(::waitpid(child, nullptr, 0) == child);

  owned directory(::open(where.path().c_str(), O_RDONLY | O_DIRECTORY));
  CHECK(io::read(directory, buffer, sizeof buffer) == -EISDIR);
  CHECK(io::pread(directory, buffer, sizeof buffer, 0) == -EISDIR);
}

TEST_CASE("vectors: too many parts, negative counts, impossible lengths are the kernel's to refuse") {
  auto p = stream_pair();
  char c = 0;
  std::vector<iovec> many(2000, iovec{&c, 1});
  CHECK(io::readv(p.a, many.data(), int(many.size())) == -EINVAL);
  CHECK(io::writev(p.a, many.data(), int(many.size())) == -EINVAL);
  CHECK(io::writev(p.a, many.data(), 1024) == 1024);
  CHECK(io::readv(p.b, many.data(), 1024, 1s) == 1024);
  CHECK(io::readv(p.a, many.data(), -1) == -EINVAL);
  CHECK(io::writev(p.a, many.data(), -1) == -EINVAL);
  iovec huge[2] = {{&c, std::size_t(-1) >> 1}, {&c, std::size_t(-1) >> 1}};
  const int refused = ::readv(p.a, huge, 2) < 0 ? -errno : 0;
  CHECK(io::readv(p.a, huge, 2) == refused);
  CHECK(io::writev(p.a, huge, 2) == refused);
  iovec empty[2] = {{nullptr, 0}, {&c, 0}};
  CHECK(io::readv(p.a, empty, 2) == 0);
  CHECK(io::writev(p.a, empty, 2) == 0);
  CHECK(io::writev(p.a, empty, 0) == 0);
}
