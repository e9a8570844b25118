// Messages from one process to another: one way, and there and back; against a raw socket pair and against Python's
// multiprocessing, in one run.
//
// Raw is what one would write by hand: a stream of lengths and bytes on a socketpair, blocking writev and read, no fibers. The
// sender is a child that waits to be told how many to send, so nothing is started within a round. Python's figure is taken
// by the same plan in a python3 that this program starts, and comes back as nanoseconds. What counts is the CPU time of both
// processes together; the wall clock stands beside, and depends on who else runs.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <ringlet/ipc/message.hpp>
#include <ringlet/ipc/queue.hpp>
#include <ringlet/process.hpp>
#include <ringlet/ringlet.hpp>

#include "harness.hpp"

namespace {

// CPU time of this process and of its partner.
double cpu_ns(pid_t partner) {
  clockid_t clock;
  timespec t{};
  if (::clock_getcpuclockid(partner, &clock) == 0) ::clock_gettime(clock, &t);
  return bench::process_cpu_ns() + double(t.tv_sec) * 1e9 + double(t.tv_nsec);
}
template <class Body>
bench::candidate with_partner(std::string name, pid_t partner, Body body) {
  return {std::move(name), [body = std::move(body), partner](std::size_t n) mutable {
            const double start = cpu_ns(partner), wall_start = bench::wall_ns();
            body(n);
            return bench::sample{cpu_ns(partner) - start, double(n), bench::wall_ns() - wall_start};
          }};
}

// --- by hand ---------------------------------------------------------------------------------------------------------

void put(int fd, const void* data, std::uint32_t size) {
  iovec parts[] = {{&size, sizeof size}, {const_cast<void*>(data), size}};
  std::size_t left = sizeof size + size;
  iovec* at = parts;
  int count = 2;
  while (left > 0) {
    ssize_t done = ::writev(fd, at, count);
    if (done <= 0) std::_Exit(0);
    left -= std::size_t(done);
    while (count > 0 && std::size_t(done) >= at->iov_len) done -= ssize_t(at->iov_len), ++at, --count;
    if (count > 0) at->iov_base = static_cast<char*>(at->iov_base) + done, at->iov_len -= std::size_t(done);
  }
}
bool get_whole(int fd, void* to, std::size_t size) {
  auto* at = static_cast<char*>(to);
  while (size > 0) {
    const ssize_t got = ::read(fd, at, size);
    if (got <= 0) return false;
    at += got, size -= std::size_t(got);
  }
  return true;
}
bool get(int fd, std::string& to) {
  std::uint32_t size;
  if (!get_whole(fd, &size, sizeof size)) return false;
  to.resize(size);
  return get_whole(fd, to.data(), size);
}

// Its child does f(fd) until the pair is closed.
class raw_pair {
 public:
  template <class F>
  explicit raw_pair(F f) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
    std::fflush(stdout);
    child_ = ::fork();
    if (child_ == 0) {
      ::close(ends[0]);
      f(ends[1]);
      std::_Exit(0);
    }
    ::close(ends[1]);
    fd = ends[0];
  }
  ~raw_pair() {
    ::close(fd);
    ::waitpid(child_, nullptr, 0);
  }
  pid_t child() const { return child_; }
  int fd;

 private:
  pid_t child_;
};

// --- Python ----------------------------------------------------------------------------------------------------------

const char* const python_program = R"(
import sys, time, multiprocessing as mp
mp.set_start_method("fork")
size = int(sys.argv[1])
data = b"x" * size
def send(c, q):
    while True:
        how, n = c.recv()
        if how == "end": return
        for _ in range(n):
            if how == "pipe": c.send_bytes(data)
            elif how == "queue": q.put(data)
            else: c.send_bytes(c.recv_bytes())
a, b = mp.Pipe()
q = mp.Queue()
p = mp.Process(target=send, args=(b, q))
p.start()
b.close()
def cpu(): return time.process_time_ns() + time.clock_gettime_ns((~p.pid << 3) | 2)
for line in sys.stdin:
    how, n = line.split()
    n = int(n)
    begin, begin_wall = cpu(), time.perf_counter_ns()
    a.send((how, n))
    for _ in range(n):
        if how == "pipe": a.recv_bytes()
        elif how == "queue": q.get()
        else:
            a.send_bytes(data)
            a.recv_bytes()
    print(cpu() - begin, time.perf_counter_ns() - begin_wall, flush=True)
a.send(("end", 0))
p.join()
)";

class python {
 public:
  explicit python(std::size_t size) {
    int in[2], out[2];
    if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0) std::abort();
    std::fflush(stdout);
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(in[0], 0);
      ::dup2(out[1], 1);
      ::execlp("python3", "python3", "-c", python_program, std::to_string(size).c_str(), nullptr);
      std::_Exit(127);
    }
    ::close(in[0]);
    ::close(out[1]);
    to_ = ::fdopen(in[1], "w");
    from_ = ::fdopen(out[0], "r");
  }
  ~python() {
    std::fclose(to_);
    std::fclose(from_);
    ::waitpid(child_, nullptr, 0);
  }
  bench::sample run(const char* how, std::size_t n) {
    char line[64];
    std::fprintf(to_, "%s %zu\n", how, n);
    if (std::fflush(to_) != 0 || !std::fgets(line, sizeof line, from_)) {
      std::fputs("python3 does not answer; is it installed?\n", stderr);
      std::exit(1);
    }
    char* end = nullptr;
    const double cpu = std::strtod(line, &end);
    return {cpu, double(n), std::strtod(end, nullptr)};
  }

 private:
  pid_t child_;
  std::FILE *to_, *from_;
};

bench::candidate of_python(std::string name, std::shared_ptr<python> p, const char* how) {
  return {std::move(name), [p, how](std::size_t n) { return p->run(how, n); }};
}

// --- ours ------------------------------------------------------------------------------------------------------------

// A child that is told how many to send, and how.
struct ours {
  ringlet::ipc::queue<std::string> queue;
  ringlet::ipc::end end;
  ringlet::process child;

  explicit ours(std::size_t size) : ours(size, ringlet::ipc::duplex()) {}
  ours(std::size_t size, ringlet::ipc::duplex_ends ends)
      : end(std::move(ends.first)), child([this, size](ringlet::ipc::end to) { serve(size, to); }, std::move(ends.second)) {
    child.start();
  }
  ~ours() {
    end.close();
    child.join();
  }
  void serve(std::size_t size, ringlet::ipc::end& to) {
    const std::string data(size, 'x');
    try {
      while (true) {
        auto [how, n] = *to.receive<std::pair<int, std::size_t>>();
        for (; n; --n) {
          if (how == 0)
            to.send_bytes(data);
          else if (how == 1)
            to.send(data);
          else if (how == 2)
            queue.put(data);
          else
            to.send_bytes(*to.receive_bytes());
        }
      }
    } catch (const ringlet::ipc::end_of_pipe&) {
    }
  }
};

void one_way(std::size_t size) {
  auto raw = std::make_shared<raw_pair>([size](int fd) {
    const std::string data(size, 'x');
    for (std::uint64_t n; get_whole(fd, &n, sizeof n);)
      for (; n; --n) put(fd, data.data(), std::uint32_t(size));
  });
  auto us = std::make_shared<ours>(size);
  auto py = std::make_shared<python>(size);
  const auto from_us = [us](int how, auto receive) {
    return [us, how, receive](std::size_t n) {
      us->end.send(std::pair<int, std::size_t>(how, n));
      for (; n; --n) receive(*us);
    };
  };
  bench::compare("one way, " + std::to_string(size) + " bytes each: CPU ns a message, of both sides",
                 {
                     with_partner("raw: a stream socket pair", raw->child(),
                             [raw, into = std::string()](std::size_t n) mutable {
                               const std::uint64_t count = n;
                               if (::write(raw->fd, &count, sizeof count) < 0) std::abort();
                               for (; n; --n) get(raw->fd, into);
                             }),
                     with_partner("ringlet: pipe, bytes", us->child.pid(), from_us(0, [into = std::make_shared<std::string>()](ours& o) { o.end.receive_into(*into); })),
                     with_partner("ringlet: pipe, typed", us->child.pid(), from_us(1, [](ours& o) { bench::keep(o.end.receive<std::string>()); })),
                     with_partner("ringlet: queue, typed", us->child.pid(), from_us(2, [](ours& o) { bench::keep(o.queue.get()); })),
                     of_python("python: Pipe, bytes", py, "pipe"),
                     of_python("python: Queue", py, "queue"),
                 },
                 {.round_ms = 25});
}

void there_and_back(std::size_t size) {
  auto raw = std::make_shared<raw_pair>([](int fd) {
    for (std::string data; get(fd, data);) put(fd, data.data(), std::uint32_t(data.size()));
  });
  auto us = std::make_shared<ours>(size);
  auto py = std::make_shared<python>(size);
  bench::compare("there and back, " + std::to_string(size) + " bytes: CPU ns, of both sides",
                 {
                     with_partner("raw: a stream socket pair", raw->child(),
                             [raw, data = std::string(size, 'x')](std::size_t n) mutable {
                               for (; n; --n) {
                                 put(raw->fd, data.data(), std::uint32_t(data.size()));
                                 get(raw->fd, data);
                               }
                             }),
                     with_partner("ringlet: pipe, bytes", us->child.pid(),
                             [us, data = std::string(size, 'x')](std::size_t n) mutable {
                               us->end.send(std::pair<int, std::size_t>(3, n));
                               for (; n; --n) {
                                 us->end.send_bytes(data);
                                 us->end.receive_into(data);
                               }
                             }),
                     of_python("python: Pipe, bytes", py, "back"),
                 },
                 {.round_ms = 25});
}

}  // namespace

int main(int argc, char** argv) {
  bench::begin(argc, argv, "bench_ipc");
  for (std::size_t size : {16, 4096, 65536, 1 << 20}) one_way(size);
  there_and_back(16);
}
