// read, write, recv, send and their vectors on pipes and stream sockets: waiting, partial results, full counts, ends.

#include "conformance.hpp"

#include <csignal>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <numeric>

namespace {

using conformance::trace;

void set_nonblocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK); }
void set_timeout(int fd, int which, int ms) {
  const timeval t{ms / 1000, ms % 1000 * 1000};
  ::setsockopt(fd, SOL_SOCKET, which, &t, sizeof t);
}
std::vector<char> pattern(std::size_t size) {
  std::vector<char> v(size);
  for (std::size_t i = 0; i < size; ++i) v[i] = char(i * 31 + i / 251);
  return v;
}
// Reads until the end or `most` bytes.
std::vector<char> drain(int fd, std::size_t most) {
  std::vector<char> got(most);
  std::size_t have = 0;
  while (have < most) {
    const ssize_t n = ::read(fd, got.data() + have, most - have);
    if (n <= 0) break;
    have += std::size_t(n);
  }
  got.resize(have);
  return got;
}
// No SIGPIPE ends the run; how many came.
std::atomic<int> pipe_signals{0};
struct count_sigpipe {
  struct sigaction before {};
  count_sigpipe() {
    pipe_signals = 0;
    struct sigaction now {};
    now.sa_handler = [](int) { ++pipe_signals; };
    ::sigaction(SIGPIPE, &now, &before);
  }
  ~count_sigpipe() { ::sigaction(SIGPIPE, &before, nullptr); }
};
char buffer[64];

}  // namespace

CONFORMANCE("read: a pipe's data is there at once", "read write pipe2") {
  auto p = t.pipe();
  t.did("write", ::write(p.b, "hello", 5));
  t.at_once([&] { t.did("read", ::read(p.a, buffer, sizeof buffer)); });
  t.bytes("data", buffer, 5);
}

CONFORMANCE("read: waits for a pipe's data", "read write") {
  auto p = t.pipe();
  t.meanwhile([&] { t.did("write", ::write(p.b, "late", 4)); });
  char got[8]{};
  const ssize_t n = ::read(p.a, got, sizeof got);
  t.join();
  t.did("read", n);
  t.bytes("data", got, 4);
  t.join();
}

CONFORMANCE("read: the end of a pipe is 0", "read close") {
  auto p = t.pipe();
  t.disown(p.b);
  t.did("close", ::close(p.b));
  t.at_once([&] { t.did("read", ::read(p.a, buffer, 1)); });
}

CONFORMANCE("read: waits for the end of a pipe", "read close") {
  auto p = t.pipe();
  t.disown(p.b);
  t.meanwhile([&] { ::close(p.b); });
  t.did("read", ::read(p.a, buffer, 1));
  t.join();
}

CONFORMANCE("read: no bytes wanted from an empty pipe is 0 at once", "read") {
  auto p = t.pipe();
  t.at_once([&] { t.did("read", ::read(p.a, buffer, 0)); });
}

CONFORMANCE("read: O_NONBLOCK by fcntl gives EAGAIN", "read fcntl") {
  auto p = t.pipe();
  set_nonblocking(p.a);
  t.at_once([&] { t.did("read", ::read(p.a, buffer, 1)); });
  t.saw("flags", ::fcntl(p.a, F_GETFL) & O_NONBLOCK);
}

CONFORMANCE("read: O_NONBLOCK by ioctl gives EAGAIN, and its end waits again", "read ioctl") {
  auto p = t.pipe();
  int on = 1;
  t.did("ioctl", ::ioctl(p.a, FIONBIO, &on));
  t.at_once([&] { t.did("read", ::read(p.a, buffer, 1)); });
  on = 0;
  t.did("ioctl", ::ioctl(p.a, FIONBIO, &on));
  t.meanwhile([&] { ::write(p.b, "x", 1); });
  t.did("read", ::read(p.a, buffer, 1));
  t.join();
}

CONFORMANCE("read: O_NONBLOCK set on a duplicate counts, after a wait too", "read dup fcntl") {
  auto p = t.pipe();
  t.meanwhile([&] { ::write(p.b, "x", 1); });
  t.did("read", ::read(p.a, buffer, 1));
  t.join();
  const int twin = t.own(::dup(p.a));
  set_nonblocking(twin);
  t.at_once([&] { t.did("read", ::read(p.a, buffer, 1)); });
  t.join();
}

CONFORMANCE("read: a closed descriptor is EBADF", "read close") {
  auto p = t.pipe();
  t.disown(p.a);
  ::close(p.a);
  t.did("read", ::read(p.a, buffer, 1));
  t.did("read -1", ::read(-1, buffer, 1));
}

CONFORMANCE("read: the writing end is EBADF", "read") {
  auto p = t.pipe();
  t.did("read", ::read(p.b, buffer, 1));
}

CONFORMANCE("read: a bad buffer is EFAULT", "read write recv send") {
  auto p = t.pipe();
  ::write(p.b, "x", 1);
  t.did("read", ::read(p.a, conformance::nowhere(), 1));
  t.did("write", ::write(p.b, conformance::nowhere(), 1));
  auto s = t.stream();
  ::write(s.b, "x", 1);
  t.did("recv", ::recv(s.a, conformance::nowhere(), 1, 0));
  t.did("send", ::send(s.a, conformance::nowhere(), 1, 0));
}

CONFORMANCE("read: a directory is EISDIR", "read open") {
  const int d = t.own(::open("/", O_RDONLY | O_DIRECTORY));
  t.did("read", ::read(d, buffer, 1));
}

CONFORMANCE("read: an eventfd waits for its count", "read eventfd write") {
  const int e = t.own(::eventfd(0, 0));
  t.meanwhile([&] {
    const std::uint64_t three = 3;
    ::write(e, &three, sizeof three);
  });
  std::uint64_t count = 0;
  t.did("read", ::read(e, &count, sizeof count));
  t.saw("count", long(count));
  t.join();
}

// After a wait: the fd is then known to be empty, but the kernel looks at the size first.
CONFORMANCE("read: too little room for an eventfd's count is EINVAL, also when it is empty", "read eventfd") {
  const int e = t.own(::eventfd(0, 0));
  t.meanwhile([&] {
    const std::uint64_t three = 3;
    ::write(e, &three, sizeof three);
  });
  std::uint64_t count = 0;
  t.did("read", ::read(e, &count, sizeof count));
  t.meanwhile([&] {
    const std::uint64_t three = 3;
    ::write(e, &three, sizeof three);
  });
  t.did("too small", ::read(e, &count, 4));
  t.join();
}

CONFORMANCE("read: a nonblocking eventfd is EAGAIN", "read eventfd") {
  const int e = t.own(::eventfd(0, EFD_NONBLOCK));
  std::uint64_t count = 0;
  t.at_once([&] { t.did("read", ::read(e, &count, sizeof count)); });
}

CONFORMANCE("write: a full eventfd waits for a reader", "write eventfd") {
  const int e = t.own(::eventfd(0, 0));
  const std::uint64_t most = ~0ull - 1, one = 1;
  ::write(e, &most, sizeof most);
  t.meanwhile([&] {
    std::uint64_t count;
    ::read(e, &count, sizeof count);
  });
  t.did("write", ::write(e, &one, sizeof one));
  t.join();
}

CONFORMANCE("read: a timerfd waits for its time", "read timerfd_create") {
  const int f = t.own(::timerfd_create(CLOCK_MONOTONIC, 0));
  itimerspec when{};
  when.it_value.tv_nsec = 60000000;
  ::timerfd_settime(f, 0, &when, nullptr);
  std::uint64_t count = 0;
  t.waits(55ms, [&] { t.did("read", ::read(f, &count, sizeof count)); });
  t.saw("count", long(count));
}

CONFORMANCE("readv: fills one part after the other", "readv writev") {
  auto p = t.pipe();
  char a[3]{}, b[8]{};
  iovec out[2] = {{const_cast<char*>("abc"), 3}, {const_cast<char*>("defg"), 4}};
  iovec in[3] = {{a, 3}, {nullptr, 0}, {b, 8}};
  t.meanwhile([&] { ::writev(p.b, out, 2); });
  t.did("readv", ::readv(p.a, in, 3));
  t.bytes("a", a, 3);
  t.bytes("b", b, 8);
  t.join();
}

CONFORMANCE("readv: wrong counts are EINVAL", "readv writev") {
  auto p = t.pipe();
  char a[1];
  iovec one{a, 1};
  t.did("readv -1", ::readv(p.a, &one, conformance::opaque(-1)));
  t.did("readv 1025", ::readv(p.a, &one, conformance::opaque(1025)));
  t.did("readv 0", ::readv(p.a, &one, 0));
  t.did("writev -1", ::writev(p.b, &one, conformance::opaque(-1)));
}

CONFORMANCE("write: a big blocking write to a pipe gives the full count", "write read") {
  auto p = t.pipe();
  const auto data = pattern(600000);
  std::vector<char> got;
  t.meanwhile([&] { got = drain(p.a, data.size()); });
  t.did("write", ::write(p.b, data.data(), data.size()));
  t.join();
  t.bytes("data", got.data(), got.size());
  t.join();
}

CONFORMANCE("send: a big blocking send to a socket gives the full count", "send read") {
  auto s = t.stream();
  const auto data = pattern(1500000);
  std::vector<char> got;
  t.meanwhile([&] { got = drain(s.a, data.size()); });
  t.did("send", ::send(s.b, data.data(), data.size(), 0));
  t.join();
  t.bytes("data", got.data(), got.size());
  t.join();
}

CONFORMANCE("writev: a big blocking writev gives the full count", "writev read") {
  auto s = t.tcp();
  auto data = pattern(3000000);
  std::vector<char> got;
  iovec parts[3] = {{data.data(), 1000000}, {data.data() + 1000000, 500000}, {data.data() + 1500000, 1500000}};
  t.meanwhile([&] { got = drain(s.a, data.size()); });
  t.did("writev", ::writev(s.b, parts, 3));
  t.join();
  t.bytes("data", got.data(), got.size());
  t.join();
}

CONFORMANCE("sendmsg: a big blocking sendmsg gives the full count", "sendmsg read") {
  auto s = t.tcp();
  auto data = pattern(3000000);
  std::vector<char> got;
  iovec part{data.data(), data.size()};
  msghdr m{};
  m.msg_iov = &part;
  m.msg_iovlen = 1;
  t.meanwhile([&] { got = drain(s.a, data.size()); });
  t.did("sendmsg", ::sendmsg(s.b, &m, 0));
  t.join();
  t.bytes("data", got.data(), got.size());
  t.join();
}

CONFORMANCE("write: a nonblocking write to a full pipe is partial, then EAGAIN", "write") {
  auto p = t.pipe();
  set_nonblocking(p.b);
  const auto data = pattern(1000000);
  t.at_once([&] { t.did("write", ::write(p.b, data.data(), data.size())); });
  t.did("again", ::write(p.b, data.data(), data.size()));
}

CONFORMANCE("send: MSG_DONTWAIT to a full socket is EAGAIN", "send") {
  auto s = t.stream();
  const auto data = pattern(4000000);
  ssize_t n, total = 0;
  while ((n = ::send(s.a, data.data(), 10000, MSG_DONTWAIT)) > 0) total += n;
  t.did("last", n);
  t.saw("filled", total > 0);
}

CONFORMANCE("write: SO_SNDTIMEO gives what was written, then EAGAIN", "write setsockopt") {
  auto s = t.stream();
  set_timeout(s.a, SO_SNDTIMEO, 60);
  const auto data = pattern(4000000);
  ssize_t n = 0;
  t.waits(50ms, [&] { n = ::write(s.a, data.data(), data.size()); });
  t.saw("partial", n > 0 && n < 4000000);
  t.waits(50ms, [&] { t.did("again", ::write(s.a, data.data(), data.size())); });
}

CONFORMANCE("write: a pipe without readers is EPIPE and SIGPIPE", "write") {
  count_sigpipe count;
  auto p = t.pipe();
  t.disown(p.a);
  ::close(p.a);
  t.did("write", ::write(p.b, "x", 1));
  t.saw("signals", pipe_signals);
}

CONFORMANCE("write: readers that go away end a wait with EPIPE and SIGPIPE", "write close") {
  count_sigpipe count;
  auto p = t.pipe();
  set_nonblocking(p.b);
  const auto data = pattern(100000);
  while (::write(p.b, data.data(), 4096) > 0) {
  }
  ::fcntl(p.b, F_SETFL, 0);
  t.disown(p.a);
  t.meanwhile([&] { ::close(p.a); });
  t.did("write", ::write(p.b, "x", 1));
  t.saw("signals", pipe_signals);
  t.join();
}

CONFORMANCE("send: a closed peer is EPIPE, MSG_NOSIGNAL keeps the signal away", "send sendmsg") {
  count_sigpipe count;
  auto s = t.stream();
  t.disown(s.b);
  ::close(s.b);
  t.did("send", ::send(s.a, "x", 1, MSG_NOSIGNAL));
  t.saw("signals", pipe_signals);
  t.did("send", ::send(s.a, "x", 1, 0));
  t.saw("signals", pipe_signals);
}

CONFORMANCE("write: no bytes is 0 at once", "write send") {
  auto p = t.pipe();
  t.did("write", ::write(p.b, "", 0));
  auto s = t.stream();
  t.did("send", ::send(s.a, "", 0, 0));
}

CONFORMANCE("recv: waits for the peer", "recv send") {
  auto s = t.tcp();
  t.meanwhile([&] { ::send(s.b, "word", 4, 0); });
  t.did("recv", ::recv(s.a, buffer, sizeof buffer, 0));
  t.bytes("data", buffer, 4);
  t.join();
}

CONFORMANCE("recv: MSG_DONTWAIT is EAGAIN", "recv") {
  auto s = t.stream();
  t.at_once([&] { t.did("recv", ::recv(s.a, buffer, 1, MSG_DONTWAIT)); });
}

CONFORMANCE("recv: MSG_PEEK leaves the data, and waits for it", "recv") {
  auto s = t.stream();
  t.meanwhile([&] { ::send(s.b, "peek", 4, 0); });
  char got[8]{};
  t.did("peek", ::recv(s.a, got, 2, MSG_PEEK));
  t.bytes("data", got, 2);
  t.did("recv", ::recv(s.a, got, 8, 0));
  t.bytes("data", got, 4);
  t.join();
}

CONFORMANCE("recv: MSG_WAITALL waits for all of it", "recv") {
  auto s = t.stream();
  t.meanwhile([&] {
    ::send(s.b, "abc", 3, 0);
    int untaken = 0;
    conformance::until([&] { return ::ioctl(s.a, FIONREAD, &untaken) == 0 && untaken == 0; });
    ::send(s.b, "defg", 4, 0);
  });
  char got[8]{};
  t.did("recv", ::recv(s.a, got, 7, MSG_WAITALL));
  t.bytes("data", got, 7);
  t.join();
}

CONFORMANCE("recv: MSG_WAITALL gives what came before the end", "recv shutdown") {
  auto s = t.tcp();
  t.meanwhile([&] {
    ::send(s.b, "abc", 3, 0);
    ::shutdown(s.b, SHUT_WR);
  });
  t.did("recv", ::recv(s.a, buffer, 7, MSG_WAITALL));
  t.join();
}

CONFORMANCE("recv: MSG_WAITALL gives what came before SO_RCVTIMEO", "recv setsockopt") {
  auto s = t.tcp();
  set_timeout(s.a, SO_RCVTIMEO, 60);
  ::send(s.b, "abc", 3, 0);
  t.waits(50ms, [&] { t.did("recv", ::recv(s.a, buffer, 7, MSG_WAITALL)); });
  t.waits(50ms, [&] { t.did("recv", ::recv(s.a, buffer, 7, MSG_WAITALL)); });
}

CONFORMANCE("recv: SO_RCVTIMEO gives EAGAIN in time", "recv setsockopt") {
  auto s = t.tcp();
  set_timeout(s.a, SO_RCVTIMEO, 60);
  t.waits(50ms, [&] { t.did("recv", ::recv(s.a, buffer, 1, 0)); });
  set_timeout(s.a, SO_RCVTIMEO, 0);
  t.meanwhile([&] { ::send(s.b, "x", 1, 0); });
  t.did("without", ::recv(s.a, buffer, 1, 0));
  t.join();
}

CONFORMANCE("read: SO_RCVTIMEO counts for read and readv", "read readv setsockopt") {
  auto s = t.stream();
  set_timeout(s.a, SO_RCVTIMEO, 60);
  t.waits(50ms, [&] { t.did("read", ::read(s.a, buffer, 1)); });
  iovec one{buffer, 1};
  t.waits(50ms, [&] { t.did("readv", ::readv(s.a, &one, 1)); });
}

CONFORMANCE("recv: shutdown by the peer is the end", "recv shutdown") {
  auto s = t.tcp();
  t.meanwhile([&] { ::shutdown(s.b, SHUT_WR); });
  t.did("recv", ::recv(s.a, buffer, 1, 0));
  t.did("recv", ::recv(s.a, buffer, 1, 0));
  t.did("other way", ::send(s.a, "x", 1, 0));
  t.join();
}

CONFORMANCE("recv: one's own shutdown ends the wait", "recv shutdown") {
  auto s = t.tcp();
  t.meanwhile([&] { ::shutdown(s.a, SHUT_RD); });
  t.did("recv", ::recv(s.a, buffer, 1, 0));
  t.join();
}

CONFORMANCE("recv: a reset connection is ECONNRESET", "recv close") {
  auto s = t.tcp();
  const linger now{1, 0};
  ::setsockopt(s.b, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  t.disown(s.b);
  t.meanwhile([&] { ::close(s.b); });
  t.did("recv", ::recv(s.a, buffer, 1, 0));
  t.did("then", ::recv(s.a, buffer, 1, 0));
  t.join();
}

CONFORMANCE("recv: no socket is ENOTSOCK", "recv send") {
  auto p = t.pipe();
  t.did("recv", ::recv(p.a, buffer, 1, 0));
  t.did("send", ::send(p.b, buffer, 1, 0));
}

CONFORMANCE("recv: an unconnected socket is ENOTCONN", "recv send socket") {
  const int s = t.own(::socket(AF_INET, SOCK_STREAM, 0));
  t.did("recv", ::recv(s, buffer, 1, 0));
  t.did("send", ::send(s, buffer, 1, MSG_NOSIGNAL));
}

CONFORMANCE("recv: a socket made nonblocking is EAGAIN", "recv socketpair socket") {
  int both[2];
  t.did("socketpair", ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, both));
  t.own(both[0]);
  t.own(both[1]);
  t.at_once([&] { t.did("recv", ::recv(both[0], buffer, 1, 0)); });
}

CONFORMANCE("recv: out-of-band data", "recv send") {
  auto s = t.tcp();
  t.did("nothing", ::recv(s.a, buffer, 1, MSG_OOB));
  t.did("send", ::send(s.b, "ab!", 3, MSG_OOB));
  t.did("recv", ::recv(s.a, buffer, 8, MSG_WAITALL | MSG_PEEK));
  t.did("urgent", ::recv(s.a, buffer, 1, MSG_OOB));
  t.bytes("urgent", buffer, 1);
}

CONFORMANCE("errno: a call that succeeds leaves it alone", "read write recv send poll") {
  auto p = t.pipe();
  errno = ENOTTY;
  t.meanwhile([&] { ::read(-1, buffer, 1), ::write(p.b, "x", 1); });
  ::read(p.a, buffer, 1);
  t.saw("errno", errno);
  t.join();
}

CONFORMANCE("recv: one reader and one writer on a socket", "recv send") {
  auto s = t.tcp();
  const auto data = pattern(2000000);
  std::vector<char> got;
  t.meanwhile([&] { t.saw("reader", long(::recv(s.a, buffer, 1, 0))); });
  t.meanwhile([&] {
    got = drain(s.b, data.size());
    ::send(s.b, "!", 1, 0);
  });
  const ssize_t n = ::send(s.a, data.data(), data.size(), 0);
  t.join();
  t.did("send", n);
  t.bytes("data", got.data(), got.size());
  t.join();
}
