// Files: reads of a page from the cache and from the disk, and many small files.
//
// From the cache, what counts is what a read costs more than libc's own, in a process with a fiber: CPU time. From the
// disk it is the wall clock of many that wait at once, against one thread that waits for each: page by page in random
// order, past the cache (O_DIRECT), or through it after it has forgotten the file (POSIX_FADV_DONTNEED, before each go
// and not timed; no read-ahead). A ring by hand and 16 threads of the kernel's are the limit there. The file lies in
// TMPDIR or /var/tmp, which is a disk where /tmp is memory; a file system without O_DIRECT has rows that say so.

#include <ringlet/ringlet.hpp>

#include <fcntl.h>
#include <liburing.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "harness.hpp"

namespace {

constexpr std::size_t page = 4096, at_once = 16, small_files = 1000;

#define LIBC(name) reinterpret_cast<decltype(&::name)>(bench::libc_function(#name))
auto* const libc_pread = LIBC(pread);
auto* const libc_read = LIBC(read);
auto* const libc_open = LIBC(open);
auto* const libc_close = LIBC(close);
#undef LIBC

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(2);
}

struct free_it {
  void operator()(char* at) const { std::free(at); }
};
using page_buffer = std::unique_ptr<char, free_it>;
page_buffer make_page() { return page_buffer(static_cast<char*>(std::aligned_alloc(page, page))); }

// A directory of its own, gone with it.
struct place {
  std::string path;
  std::vector<std::string> files;

  place() {
    const char* given = std::getenv("TMPDIR");
    path = std::string(given && *given ? given : "/var/tmp") + "/ringlet-bench.XXXXXX";
    if (!::mkdtemp(path.data())) fail(path.c_str());
  }
  ~place() {
    for (const auto& name : files) ::unlink(name.c_str());
    ::rmdir(path.c_str());
  }
  std::string add(const std::string& name, std::size_t bytes) {
    files.push_back(path + "/" + name);
    const int fd = libc_open(files.back().c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    const std::vector<char> data(std::min<std::size_t>(bytes, 1 << 20), 'd');
    for (std::size_t done = 0; done < bytes;) {
      const ssize_t more = ::write(fd, data.data(), std::min(data.size(), bytes - done));
      if (more <= 0) fail(files.back().c_str());
      done += std::size_t(more);
    }
    if (::fsync(fd) || libc_close(fd)) fail("fsync");
    return files.back();
  }
};

std::vector<off_t> random_pages(std::size_t bytes) {
  std::vector<off_t> all(bytes / page);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = off_t(i * page);
  std::shuffle(all.begin(), all.end(), std::mt19937_64(2024));
  return all;
}

// --- from the cache --------------------------------------------------------------------------------------------------

ssize_t io_pread(int fd, void* to, std::size_t n, off_t at) { return ringlet::io::pread(fd, to, n, at); }
// What it takes to ask for no more than the cache has: the least for who must not wait for the disk.
ssize_t cache_only(int fd, void* to, std::size_t n, off_t at) {
  const iovec part{to, n};
  return ::syscall(SYS_preadv2, fd, &part, 1, at, 0L, RWF_NOWAIT);
}
ssize_t cache_only_onward(int fd, void* to, std::size_t n) { return cache_only(fd, to, n, -1); }

void cached(const std::string& file, std::size_t bytes) {
  const int fd = libc_open(file.c_str(), O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) fail(file.c_str());
  std::shared_ptr<char> buffer = make_page();
  const auto pages = std::make_shared<std::vector<off_t>>(random_pages(bytes));
  for (off_t at : *pages) libc_pread(fd, buffer.get(), page, at);
  const auto here = [=](auto read_at) {
    return [=](std::size_t n) {
      for (std::size_t i = 0; i < n; ++i)
        if (read_at(fd, buffer.get(), page, (*pages)[i % pages->size()]) != ssize_t(page)) fail("pread");
    };
  };
  const auto onward = [=](auto read) {  // from where the last one ended
    return [=](std::size_t n) {
      for (std::size_t i = 0; i < n; ++i) {
        if (i % pages->size() == 0) ::lseek(fd, 0, SEEK_SET);
        if (read(fd, buffer.get(), page) != ssize_t(page)) fail("read");
      }
    };
  };
  bench::compare("file reads of 4 KB, cached, pread: ns of CPU each",
                 {bench::timed("raw pread", here(libc_pread)), bench::timed("raw preadv2(RWF_NOWAIT)", here(&cache_only)),
                  bench::timed("hooked pread", here(&::pread)),
                  bench::timed("io::pread", here(&io_pread))});
  bench::compare("file reads of 4 KB, cached, read: ns of CPU each",
                 {bench::timed("raw read", onward(libc_read)), bench::timed("raw preadv2(RWF_NOWAIT)", onward(&cache_only_onward)),
                  bench::timed("hooked read", onward(&::read))});
  libc_close(fd);
}

// --- from the disk ---------------------------------------------------------------------------------------------------

enum class past { direct, dropped };

struct disk_file {
  int fd = -1;
  past how;
  std::vector<off_t> pages;

  disk_file(const std::string& file, std::size_t bytes, past the_cache) : how(the_cache), pages(random_pages(bytes)) {
    fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | (how == past::direct ? O_DIRECT : 0));  // seen by the hooks
    if (how == past::dropped) ::posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
  }
  ~disk_file() {
    if (fd >= 0) libc_close(fd);
  }
  void forget() const {
    if (how == past::dropped) ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  }
};

using go = void (*)(const disk_file&, std::size_t reads);

template <class Read>
void read_some(const disk_file& f, std::size_t& next, std::size_t reads, Read read) {
  const page_buffer buffer = make_page();
  for (std::size_t i; (i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < reads;)
    if (read(f.fd, buffer.get(), page, f.pages[i]) != ssize_t(page)) fail("pread");
}

void by_one(const disk_file& f, std::size_t reads) {
  std::size_t next = 0;
  read_some(f, next, reads, libc_pread);
}
void by_fibers(const disk_file& f, std::size_t reads) {
  std::size_t next = 0;
  std::vector<ringlet::any_fiber> all;
  for (std::size_t i = 0; i < at_once; ++i)
    all.push_back(ringlet::spawn([&] { read_some(f, next, reads, &::pread); }));
  ringlet::joinall(all);
}
void by_threads(const disk_file& f, std::size_t reads) {
  std::size_t next = 0;
  std::vector<std::thread> all;
  for (std::size_t i = 0; i < at_once; ++i) all.emplace_back([&] { read_some(f, next, reads, libc_pread); });
  for (auto& t : all) t.join();
}
void by_a_ring(const disk_file& f, std::size_t reads) {
  io_uring ring;
  if (io_uring_queue_init(at_once, &ring, 0)) fail("io_uring_queue_init");
  page_buffer buffers[at_once];
  std::size_t next = 0;
  const auto begin_one = [&](std::size_t place) {
    if (next == reads) return false;
    io_uring_sqe* sqe = io_uring_get_sqe(&ring);
    io_uring_prep_read(sqe, f.fd, buffers[place].get(), page, std::uint64_t(f.pages[next++]));
    io_uring_sqe_set_data64(sqe, place);
    return true;
  };
  std::size_t under_way = 0;
  for (std::size_t i = 0; i < at_once; ++i) {
    buffers[i] = make_page();
    under_way += begin_one(i);
  }
  while (under_way > 0) {
    io_uring_submit_and_wait(&ring, 1);
    unsigned head, seen = 0;
    io_uring_cqe* cqe;
    io_uring_for_each_cqe(&ring, head, cqe) {
      ++seen;
      if (cqe->res != int(page)) fail("a read on the ring");
      if (!begin_one(cqe->user_data)) --under_way;
    }
    io_uring_cq_advance(&ring, seen);
  }
  io_uring_queue_exit(&ring);
}

bool has_ring() {
  io_uring trial;
  if (io_uring_queue_init(2, &trial, 0)) return false;
  io_uring_queue_exit(&trial);
  return true;
}

void uncached(const std::string& file, std::size_t bytes, past the_cache) {
  const auto f = std::make_shared<disk_file>(file, bytes, the_cache);
  const std::string missing =
      f->fd < 0 ? std::string("not possible on this file system: ") + std::strerror(errno) : std::string();
  const auto row = [&](const char* name, go run, std::string why = {}) {
    return bench::candidate{name,
                            [f, run](std::size_t n) {
                              f->forget();
                              const double start = bench::wall_ns();
                              run(*f, n);
                              return bench::sample{bench::wall_ns() - start, double(n)};
                            },
                            missing.empty() ? std::move(why) : missing};
  };
  bench::compare(std::string("file reads of 4 KB, uncached, ") + (the_cache == past::direct ? "O_DIRECT" : "DONTNEED") +
                     ": ns of wall clock each",
                 {row("raw pread, one thread", &by_one),
                  row("raw ring, 16 at once", &by_a_ring, has_ring() ? "" : "no io_uring"),
                  row("pread, 16 threads", &by_threads), row("hooked pread, 16 fibers", &by_fibers)},
                 {.rounds = 7, .round_ms = 60, .most_operations = f->pages.size()});
}

// --- many small ones -------------------------------------------------------------------------------------------------

template <class Open, class Read, class Close>
void look_into(const std::string& name, Open open, Read read, Close close) {
  char content[2048];
  const int fd = open(name.c_str(), O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0 || read(fd, content, sizeof content) <= 0 || close(fd)) fail(name.c_str());
}

void many_files(std::shared_ptr<std::vector<std::string>> names) {
  const auto raw = [](const std::string& name) { look_into(name, libc_open, libc_read, libc_close); };
  const auto hooked = [](const std::string& name) { look_into(name, &::open, &::read, &::close); };
  const auto each = [names](auto look) {
    return [=](std::size_t n) {
      for (std::size_t i = 0; i < n; ++i) look((*names)[i % names->size()]);
    };
  };
  // CPU of the process: a file that is not opened at once is opened by a thread of the ring's, or a helper.
  bench::compare(
      "small files, cached: open, read, close: ns of CPU each",
      {bench::timed_process("raw", each(raw)), bench::timed_process("hooked", each(hooked)),
       bench::timed_process("hooked, 16 fibers", [=](std::size_t n) {
         std::size_t next = 0;
         std::vector<ringlet::any_fiber> all;
         for (std::size_t i = 0; i < at_once; ++i)
           all.push_back(ringlet::spawn([&, names, n] {
             while (next < n) hooked((*names)[next++ % names->size()]);
           }));
         ringlet::joinall(all);
       })});
}

}  // namespace

int main(int argc, char** argv) {
  bench::begin(argc, argv, "bench_file");
  place here;
  const std::size_t bytes = bench::asked().quick ? 4 << 20 : 64 << 20;
  const std::string big = here.add("big", bytes);
  const auto names = std::make_shared<std::vector<std::string>>();
  for (std::size_t i = 0; i < small_files; ++i) names->push_back(here.add("small" + std::to_string(i), 1024));

  ringlet::hooks::enable();
  ringlet::event never_set;  // without a fiber the hooks would have nothing to do
  const auto other = ringlet::spawn([&] { never_set.wait(); });
  cached(big, bytes);
  uncached(big, bytes, past::direct);
  uncached(big, bytes, past::dropped);
  many_files(names);
  other.kill();
}
