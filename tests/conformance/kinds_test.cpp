// Each reading and writing call on each kind of file: waiting, ends, nothing, more than the kernel moves, memory that ends.

#include "kinds.hpp"

#include <csignal>
#include <poll.h>
#include <sys/mman.h>

namespace {

using namespace conformance;

char buffer[256];

// Three bytes that may be read and written, then none.
struct cliff {
  static constexpr std::size_t page = 4096;
  char* base = static_cast<char*>(::mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  char* edge = base + page - 3;
  cliff() {
    ::mprotect(base + page, page, PROT_NONE);
    std::memcpy(edge, "abc", 3);
  }
  ~cliff() { ::munmap(base, 2 * page); }
  cliff(const cliff&) = delete;
};

void fill(int fd) {
  set_nonblocking(fd);
  static const char data[1024]{};
  for (std::size_t size : {sizeof data, std::size_t(1)})
    while (::write(fd, data, size) > 0) {
    }
  set_blocking(fd);
}
// All that is there, without waiting for more.
long take_all(int fd) {
  long taken = 0;
  pollfd p{fd, POLLIN, 0};
  for (char some[4096]; ::poll(&p, 1, 0) > 0 && (p.revents & POLLIN);) {
    const ssize_t n = ::read(fd, some, sizeof some);
    if (n <= 0) break;
    taken += n;
  }
  return taken;
}

}  // namespace

CONFORMANCE_EACH("reading: each call waits for data on {0}", rows_of_readings, kinds)(trace& t, const kind& of) {
  auto f = of.make(t);
  each_call(readings, of, [&](const reading& call) {
    t.meanwhile([&] { ::write(f.b, "some words", 10); });
    t.did(call.name, call.call(f.a, buffer, sizeof buffer));
    t.join();
    t.bytes("data", buffer, 10);
  });
};

CONFORMANCE_EACH("reading: in two pieces from {0}", rows_of_readings, pipes_and_sockets)(trace& t, const kind& of) {
  auto f = of.make(t);
  each_call(readings, of, [&](const reading& call) {
    ::write(f.b, "some words", 10);
    t.did(call.name, call.call(f.a, buffer, 4));
    ::write(f.b, "!", 1);
    pollfd there{f.a, POLLIN, 0};
    ::poll(&there, 1, 1000);
    t.did(call.name, call.call(f.a, buffer, sizeof buffer));
    t.bytes("data", buffer, 7);
    t.saw("left", take_all(f.a));
  });
};

CONFORMANCE_EACH("reading: each call at the end of {0}", rows_of_readings, together(pipes, {sockets[0], sockets[2], sockets[3], sockets[4]}))
(trace& t, const kind& of) {
  each_call(readings, of, [&](const reading& call) {
    auto f = of.make(t);
    ::write(f.b, "x", 1);
    t.disown(f.b);
    t.did("close", ::close(f.b));
    t.did(call.name, call.call(f.a, buffer, sizeof buffer));
    t.did("at the end", call.call(f.a, buffer, sizeof buffer));
    t.did("again", call.call(f.a, buffer, sizeof buffer));
  });
};

CONFORMANCE_EACH("reading: each call waits for the end of {0}", rows_of_readings, kinds)(trace& t, const kind& of) {
  each_call(readings, of, [&](const reading& call) {
    auto f = of.make(t);
    if (of.is_socket) set_time_limit(f.a, SO_RCVTIMEO, 30);  // datagrams have no end
    t.disown(f.b);
    t.meanwhile([&] { ::close(f.b); });
    t.did(call.name, call.call(f.a, buffer, sizeof buffer));
    t.join();
    t.did("again", call.call(f.a, buffer, sizeof buffer));
  });
};

CONFORMANCE_EACH("reading: of nothing from {0}, empty and not", rows_of_readings, pipes_and_sockets)(trace& t, const kind& of) {
  each_call(readings, of, [&](const reading& call) {
    auto f = of.make(t);
    if (of.is_socket) set_time_limit(f.a, SO_RCVTIMEO, 30);
    t.did(call.name, call.call(f.a, buffer, 0));
    ::write(f.b, "ab", 2);
    t.did("with data", call.call(f.a, buffer, 0));
    set_nonblocking(f.a);
    t.did("the data", call.call(f.a, buffer, sizeof buffer));
  });
};

// The kernel cuts a size to what it moves at most; one whose low half is small must not be taken for that.
CONFORMANCE_EACH("reading: sizes beyond what is moved at once, from {0}", rows_of_readings, kinds)(trace& t, const kind& of) {
  auto f = of.make(t);
  each_call(readings, of, [&](const reading& call) {
    for (std::size_t size : {std::size_t(1) << 31, (std::size_t(1) << 32) + 2, ~std::size_t(0) >> 1, ~std::size_t(0)}) {
      // AddressSanitizer would look at as many bytes.
      if (is_instrumented() && call.only_sockets) continue;
      ::write(f.b, "some words", 10);
      t.did(call.name, call.call(f.a, buffer, size));
      take_all(f.a);
      if (size > ~std::size_t(0) >> 1) continue;  // refused at once, by some
      if (of.is_socket) set_time_limit(f.a, SO_RCVTIMEO, 2000);
      t.meanwhile([&] { ::write(f.b, "more words", 10); });
      t.did("waiting", call.call(f.a, buffer, size));
      t.join();
      take_all(f.a);
    }
  });
};

CONFORMANCE_EACH("reading: into memory that ends in the midst, from {0}", rows_of_readings, kinds)(trace& t, const kind& of) {
  if (is_instrumented()) throw not_here{"a sanitizer looks at the memory first"};
  each_call(readings, of, [&](const reading& call) {
    auto f = of.make(t);
    cliff memory;
    ::write(f.b, "0123456789", 10);
    t.did(call.name, call.call(f.a, memory.edge, 10));
    t.saw("left", take_all(f.a));
    t.meanwhile([&] { ::write(f.b, "0123456789", 10); });
    t.did("after a wait", call.call(f.a, memory.edge, 10));
    t.join();
    t.saw("left", take_all(f.a));
  });
};

CONFORMANCE_EACH("reading: a vector whose second part is bad, from {0}", "readv recvmsg", kinds)(trace& t, const kind& of) {
  if (is_instrumented()) throw not_here{"a sanitizer looks at the memory first"};
  auto f = of.make(t);
  char first[3]{};
  iovec parts[3] = {{first, 3}, {nowhere(), 3}, {buffer, 5}};
  ::write(f.b, "0123456789", 10);
  t.did("readv", ::readv(f.a, parts, 3));
  t.bytes("first", first, 3);
  t.saw("left", take_all(f.a));
  if (!of.is_socket) return;
  msghdr m{};
  m.msg_iov = parts;
  m.msg_iovlen = 3;
  ::write(f.b, "0123456789", 10);
  t.did("recvmsg", ::recvmsg(f.a, &m, 0));
  t.saw("left", take_all(f.a));
  ::write(f.b, "01234", 5);
  t.did("all", ::recvmsg(f.a, &m, MSG_WAITALL));
  t.saw("left", take_all(f.a));
};

CONFORMANCE_EACH("writing: from memory that ends in the midst, to {0}", rows_of_writings, kinds)(trace& t, const kind& of) {
  if (is_instrumented()) throw not_here{"a sanitizer looks at the memory first"};
  each_call(writings, of, [&](const writing& call) {
    auto f = of.make(t);
    cliff memory;
    t.did(call.name, call.call(f.b, memory.edge, 10));
    t.saw("arrived", take_all(f.a));
  });
};

CONFORMANCE_EACH("writing: each call waits for room in {0}", rows_of_writings, fillable)(trace& t, const kind& of) {
  each_call(writings, of, [&](const writing& call) {
    auto f = of.make(t);
    fill(f.b);
    long taken = 0;
    std::atomic<bool> has_room{false};
    t.meanwhile([&] {
      set_nonblocking(f.a);
      pollfd there{f.a, POLLIN, 0};
      // On a busy machine what TCP has taken arrives in more goes than one.
      for (char some[4096]; !has_room;) {
        const ssize_t n = ::read(f.a, some, sizeof some);
        if (n > 0) taken += n;
        else if (n == 0 || errno != EAGAIN) break;
        else ::poll(&there, 1, 5);
      }
    });
    t.did(call.name, call.call(f.b, "word", 4));
    has_room = true;
    t.join();
    t.saw("some were taken", taken > 0);
  });
};

CONFORMANCE_EACH("writing: each call to {0} that nobody reads any more", rows_of_writings, pipes_and_sockets)(trace& t, const kind& of) {
  ignored_sigpipe ignored;
  each_call(writings, of, [&](const writing& call) {
    auto f = of.make(t);
    t.disown(f.a);
    ::close(f.a);
    t.did(call.name, call.call(f.b, "word", 4));
    t.did("again", call.call(f.b, "word", 4));
    t.did("nothing", call.call(f.b, "", 0));
  });
};

CONFORMANCE_EACH("writing: the reader of {0} goes while one waits for room", rows_of_writings, together(pipes, {sockets[0], sockets[1], sockets[2]}))(trace& t, const kind& of) {
  ignored_sigpipe ignored;
  each_call(writings, of, [&](const writing& call) {
    auto f = of.make(t);
    fill(f.b);
    t.disown(f.a);
    t.meanwhile([&] { ::close(f.a); });
    t.did(call.name, call.call(f.b, "word", 4));
    t.join();
    t.did("again", call.call(f.b, "word", 4));
  });
};

CONFORMANCE_EACH("writing: of nothing to {0}, with room and without", rows_of_writings, fillable)(trace& t, const kind& of) {
  each_call(writings, of, [&](const writing& call) {
    auto f = of.make(t);
    t.did(call.name, call.call(f.b, "", 0));
    pollfd there{f.a, POLLIN, 0};
    t.saw("arrived", ::poll(&there, 1, 0));
    fill(f.b);
    if (of.is_socket) set_time_limit(f.b, SO_SNDTIMEO, 30);
    t.did("full", call.call(f.b, "", 0));
  });
};

CONFORMANCE_EACH("writing: more than {0} holds goes in whole or not at all", rows_of_writings, fillable)(trace& t, const kind& of) {
  each_call(writings, of, [&](const writing& call) {
    auto f = of.make(t);
    const std::vector<char> much(300'000, 'm');
    std::atomic<long> got{0};
    std::atomic<bool> done{false};
    t.meanwhile([&] {
      set_time_limit(f.a, SO_RCVTIMEO, 50);
      pollfd there{f.a, POLLIN, 0};
      for (char some[8192]; !done || ::poll(&there, 1, 0) > 0;) {
        if (::poll(&there, 1, 5) <= 0) continue;
        const ssize_t n = ::read(f.a, some, sizeof some);
        if (n <= 0) break;
        got += n;
      }
    });
    const ssize_t n = call.call(f.b, much.data(), much.size());
    done = true;
    t.did(call.name, n);
    t.join();
    t.saw("arrived", got);
  });
};
