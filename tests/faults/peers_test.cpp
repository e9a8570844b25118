// Peers that reset, half-close, dawdle, do not read, die or were never there. Each scene is played by bare threads
// first, and what its calls said there is what they must say by ringlet's calls and by libc's names under the hooks.

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "faces.hpp"
#include "shortage.hpp"
#include "support/support.hpp"

using namespace faults;

namespace {

// What the calls of a scene said, in its own order.
using account = std::vector<std::string>;
std::string text_of(ssize_t got) { return got < 0 ? ::strerrorname_np(int(-got)) : std::to_string(got); }

struct connection {
  support::fd ours, theirs;
};
connection connected(int receive_buffer = 0) {
  auto l = support::listen_on_free_port();
  if (receive_buffer) ::setsockopt(l.socket, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  connection made;
  made.ours = support::connect_to_port(l.port);
  made.theirs = support::fd(::accept4(l.socket, nullptr, nullptr, SOCK_CLOEXEC));
  return made;
}
// The peer's part, by bare system calls, whoever else has libc's names.
void reset(support::fd& end) {
  const linger at_once{1, 0};
  ::setsockopt(end, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  ::syscall(SYS_close, end.release());
}
ssize_t give(int fd, const void* from, std::size_t size) {
  return ::syscall(SYS_sendto, fd, from, size, MSG_NOSIGNAL, nullptr, 0);
}
ssize_t take(int fd, void* to, std::size_t size) {
  return ::syscall(SYS_recvfrom, fd, to, size, MSG_DONTWAIT, nullptr, nullptr);
}
// All that is on its way, until the end or an error; for a peer whose other side has sent all it will.
std::size_t take_all(int fd) {
  std::vector<char> buffer(1 << 16);
  std::size_t sum = 0;
  for (;;) {
    const ssize_t got = take(fd, buffer.data(), buffer.size());
    if (got > 0) {
      sum += std::size_t(got);
      continue;
    }
    if (got == 0 || errno != EAGAIN) return sum;
    pollfd p{fd, POLLIN, 0};
    const timespec most{5, 0};
    if (::syscall(SYS_ppoll, &p, 1, &most, nullptr, 0) != 1) return sum;
  }
}

template <class Face>
void pause_for(long long nanoseconds) {
  const long long until = now_ns() + nanoseconds;
  while (Face::sleep_until(until) == -EINTR) {
  }
}

// Until the sender at this end waits for room: something is under way, and no more comes.
template <class Face>
void until_stuck(int fd) {
  int before = 0, now = 0, same = 0;
  for (int rounds = 0; rounds < 5000 && same < 20; ++rounds) {
    pause_for<Face>(1'000'000);
    ::ioctl(fd, SIOCOUTQ, &now);
    same = now > 0 && now == before ? same + 1 : 0;
    before = now;
  }
}

template <class Face>
struct scenes {
  using task = typename Face::task;

  static account reset_while_receiving() {
    auto c = connected();
    char byte;
    account said;
    task receiver = Face::start([&] {
      said.push_back(text_of(Face::recv(c.ours, &byte, 1)));
      said.push_back(text_of(Face::recv(c.ours, &byte, 1)));
      said.push_back(text_of(Face::send(c.ours, "x", 1)));
    });
    pause_for<Face>(2'000'000);
    reset(c.theirs);
    receiver.join();
    return said;
  }

  static account reset_behind_data() {
    auto c = connected();
    give(c.theirs, "hello", 5);
    reset(c.theirs);
    pollfd p{c.ours, POLLRDHUP, 0};
    ::syscall(SYS_ppoll, &p, 1, nullptr, nullptr, 0);
    char bytes[8];
    account said;
    for (int i = 0; i < 3; ++i) said.push_back(text_of(Face::recv(c.ours, bytes, 4)));
    return said;
  }

  static account half_closed() {
    auto c = connected();
    account said;
    task receiver = Face::start([&] {
      std::vector<char> buffer(5000);
      std::size_t sum = 0;
      for (ssize_t n; (n = Face::recv(c.ours, buffer.data(), buffer.size())) > 0;) sum += std::size_t(n);
      said.push_back(std::to_string(sum));
      said.push_back(text_of(Face::recv(c.ours, buffer.data(), 1)));
      said.push_back(text_of(Face::send(c.ours, "still", 5)));
    });
    const std::string data(30'000, 'h');
    for (int i = 0; i < 3; ++i) {
      give(c.theirs, data.data(), data.size());
      pause_for<Face>(500'000);
    }
    ::shutdown(c.theirs, SHUT_WR);
    receiver.join();
    char back[8];
    said.push_back(std::to_string(take(c.theirs, back, sizeof back)));
    return said;
  }

  static account one_byte_at_a_time() {
    auto c = connected();
    account said;
    task receiver = Face::start([&] {
      char bytes[64];
      std::string all;
      for (ssize_t n; (n = Face::recv(c.ours, bytes, sizeof bytes)) > 0;) all.append(bytes, std::size_t(n));
      said.push_back(all);
    });
    for (const char letter : std::string("slowly but surely, byte for byte")) {
      give(c.theirs, &letter, 1);
      pause_for<Face>(100'000);
    }
    c.theirs.reset();
    receiver.join();
    return said;
  }

  static account never_reads_until_the_timeout() {
    auto c = connected();
    const timeval limit{0, 50'000};
    ::setsockopt(c.ours, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    const std::vector<char> data(32 << 20, 'n');
    const ssize_t first = Face::send(c.ours, data.data(), data.size());
    ssize_t sum = first, last = 0;
    for (int more = 0; more < 100 && (last = Face::send(c.ours, data.data(), data.size())) > 0; ++more)
      sum += last;  // the window may grow
    Face::close(c.ours.release());
    const std::size_t arrived = take_all(c.theirs);
    return {first > 0 && std::size_t(first) < data.size() ? "in part" : text_of(first), text_of(last),
            arrived == std::size_t(sum) ? "all that was told" : std::to_string(arrived)};
  }

  static account small_window() {
    auto c = connected(4096);
    account said;
    const std::vector<char> data(300'000, 'w');
    task sender = Face::start([&] {
      said.push_back(text_of(Face::send(c.ours, data.data(), data.size())));
      Face::close(c.ours.release());
    });
    std::size_t sum = 0;
    char piece[3000];
    for (int idle = 0; idle < 20'000;) {  // now and then, and never all
      const ssize_t got = take(c.theirs, piece, sizeof piece);
      if (got == 0) break;
      if (got > 0) {
        sum += std::size_t(got);
        if (sum % 7 == 0) pause_for<Face>(50'000);
        continue;
      }
      ++idle;
      pause_for<Face>(200'000);
    }
    sender.join();
    said.push_back(std::to_string(sum));
    return said;
  }

  static account peer_is_killed() {
    auto c = connected();
    const pid_t peer = ::fork();
    if (peer == 0) {  // reads a little, and then no more
      char byte[1000];
      ::syscall(SYS_close, c.ours.get());
      for (int i = 0; i < 5; ++i) ::syscall(SYS_recvfrom, c.theirs.get(), byte, sizeof byte, 0, nullptr, nullptr);
      for (;;) ::syscall(SYS_pause);
    }
    c.theirs.reset();
    account said;
    task sender = Face::start([&] {
      const std::vector<char> data(64 << 20, 'k');
      const ssize_t first = Face::send(c.ours, data.data(), data.size());
      const ssize_t second = Face::send(c.ours, data.data(), data.size());
      said.push_back(first > 0 && std::size_t(first) < data.size() ? "in part" : text_of(first));
      said.push_back(text_of(second));
    });
    until_stuck<Face>(c.ours);
    ::kill(peer, SIGKILL);
    sender.join();
    int status = 0;
    while (::waitpid(peer, &status, 0) < 0 && errno == EINTR) {
    }
    return said;
  }

  static account listener_goes_with_its_queue() {
    auto l = support::listen_on_free_port();
    std::vector<support::fd> clients;
    for (int i = 0; i < 10; ++i) clients.push_back(support::connect_to_port(l.port));
    account said(clients.size());
    std::vector<task> receivers;
    for (std::size_t i = 0; i < clients.size(); ++i)
      receivers.push_back(Face::start([&, i] {
        char byte;
        said[i] = text_of(Face::recv(clients[i], &byte, 1));
      }));
    pause_for<Face>(2'000'000);
    Face::close(l.socket.release());
    for (auto& r : receivers) r.join();
    return said;
  }

  static account refused_by_all() {
    auto l = support::listen_on_free_port();
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(l.port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    l.socket.reset();
    account said;
    std::vector<task> callers;
    std::atomic<int> refused{0};
    for (int i = 0; i < 20; ++i)
      callers.push_back(Face::start([&] {
        for (int n = 0; n < 20; ++n) {
          support::fd s(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
          refused += Face::connect(s, reinterpret_cast<sockaddr*>(&to), sizeof to) == -ECONNREFUSED;
          Face::close(s.release());
        }
      }));
    for (auto& c : callers) c.join();
    return {std::to_string(refused)};
  }

  static account path_is_gone() {
    support::temporary_directory folder;
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    const std::string path = folder.path() / "s";
    std::copy(path.begin(), path.end(), to.sun_path);
    const auto call = [&](int type) {
      support::fd s(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
      const std::string said = text_of(Face::connect(s, reinterpret_cast<sockaddr*>(&to), sizeof to));
      Face::close(s.release());
      return said;
    };
    account said{call(SOCK_STREAM), call(SOCK_DGRAM)};
    support::fd l(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::bind(l, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0 || ::listen(l, 1) != 0) return {"no listener"};
    said.push_back(call(SOCK_STREAM));
    l.reset();  // the name stays, and nobody listens
    said.push_back(call(SOCK_STREAM));
    ::unlink(path.c_str());
    said.push_back(call(SOCK_STREAM));
    return said;
  }
};

std::string joined(const account& said) {
  std::string text;
  for (const auto& word : said) text += word + " ";
  return text;
}

#define SCENE(name) \
  { #name, &scenes < threads_face> ::name, &scenes < io_face> ::name, &scenes < hooked_face> ::name }
struct scene {
  const char* name;
  account (*bare)();
  account (*direct)();
  account (*hooked)();
};
constexpr scene all_scenes[] = {SCENE(reset_while_receiving),
                                SCENE(reset_behind_data),
                                SCENE(half_closed),
                                SCENE(one_byte_at_a_time),
                                SCENE(never_reads_until_the_timeout),
                                SCENE(small_window),
                                SCENE(peer_is_killed),
                                SCENE(listener_goes_with_its_queue),
                                SCENE(refused_by_all),
                                SCENE(path_is_gone)};

}  // namespace

TEST_CASE("peers: whatever they do, the calls say what they say to a thread") {
  for (const scene& s : all_scenes) {
    INFO(std::string(s.name));
    const std::string bare = joined(s.bare());
    ringlet::yield();
    const std::size_t descriptors = open_descriptors();
    CHECK(joined(s.direct()) == bare);
    ringlet::hooks::enable();
    CHECK(joined(s.hooked()) == bare);
    ringlet::hooks::disable();
    CHECK(open_descriptors() == descriptors);
    CHECK(left_on_hub() == "");
  }
}

// What a kill, a timeout scope or a deadline leaves in the middle of a transfer: the call tells how much has gone, and
// just that much arrives.
TEST_CASE("peers that do not read: a transfer that is ended in the middle tells how much has gone") {
  using ringlet::io::send;
  const std::vector<char> data(32 << 20, 'm');
  enum class end { by_deadline, by_kill, by_timeout };
  for (const end how : {end::by_deadline, end::by_kill, end::by_timeout})
    for (const bool hooked : {false, true}) {
      INFO("way ", int(how), ", hooked ", hooked);
      if (hooked && how == end::by_deadline) continue;  // libc's names have none
      auto c = connected();
      ssize_t told = 0, next = 0;
      auto f = ringlet::spawn([&] {
        const auto both = [&] {
          if (hooked) {
            told = libc_calls::send(c.ours, data.data(), data.size());
            next = libc_calls::send(c.ours, data.data(), data.size());
          } else {
            const ringlet::deadline until =
                how == end::by_deadline ? ringlet::deadline(std::chrono::milliseconds(30)) : ringlet::never;
            told = send(c.ours, data.data(), data.size(), MSG_NOSIGNAL, until);
            next = send(c.ours, data.data(), data.size(), MSG_NOSIGNAL, until);
          }
        };
        if (how != end::by_timeout) return both();
        try {
          ringlet::timeout limit(std::chrono::milliseconds(30));
          both();
          ringlet::yield();
        } catch (const ringlet::timeout_expired&) {
        }
      });
      if (hooked) ringlet::hooks::enable();
      if (how == end::by_kill) {
        ringlet::sleep(std::chrono::milliseconds(30));
        f.kill();
      }
      f.join();
      if (hooked) ringlet::hooks::disable();
      CHECK(told > 0);
      CHECK(told < ssize_t(data.size()));
      CHECK(next == (how == end::by_deadline ? -ETIMEDOUT : -ECANCELED));
      ringlet::io::close(c.ours.release());
      CHECK(take_all(c.theirs) == std::size_t(told));
    }
}
