// Random calls between two peers, the same ones from the same seed: what each call gave goes into a trace. Bare, the peers
// are threads; under the launcher the same program's threads are fibers; linked with the hooks (RANDOM_CALLS_FIBERS) they are
// fibers of ringlet's own. The traces of a seed must be equal (random_test.py).
//
//   random_calls [--threads-are-fibers] [--show] FIRST-SEED SEQUENCES STEPS
//
// How it is the same in every run: a step is begun only when each peer is done or really waits (bare: the kernel says that
// its thread sleeps; else: it has had its turns). What a step does depends on the seed and on who waits for what, never on
// a clock: a call with a time limit is waited out. How much of a stream fits while its writer waits is the kernel's own
// affair, so a peer of a waiting writer only drains; TCP's writers are kept from filling it.
//
// That nothing is lost is told by the bytes: each is what its place in its stream makes it.

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <csignal>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/sockios.h>
#include <linux/tcp.h>

#include "support/thread_state.hpp"

#ifdef RANDOM_CALLS_FIBERS
#include <ringlet/fiber.hpp>
#include <ringlet/hooks.hpp>
#endif

namespace {

bool threads_are_fibers = false, show = false;

[[noreturn]] void give_up(const char* what) {
  std::fflush(stdout);
  std::fprintf(stderr, "random_calls: %s: %s\n", what, std::strerror(errno));
  std::_Exit(3);
}

// SplitMix64: a few lines, and the same everywhere, which the standard's distributions are not.
struct dice {
  std::uint64_t state;
  std::uint64_t next() {
    std::uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  int below(int n) { return int(next() % std::uint64_t(n)); }
  bool one_in(int n) { return below(n) == 0; }
  template <class T, std::size_t N>
  T of(const T (&all)[N]) { return all[below(N)]; }
};

enum class kind { stream, datagram, packet, tcp, pipe, counter, file };
constexpr const char* kind_names[] = {"stream", "datagram", "packet", "tcp", "pipe", "eventfd", "file"};

std::uint8_t byte_at(int direction, std::uint64_t place) { return std::uint8_t(place * 131 + place / 251 + std::uint64_t(direction) * 77); }

// One thing with two ends; end 0 is peer 0's. A pipe's end 0 reads and end 1 writes, or the other way round.
struct object {
  kind is{};
  int ends[2] = {-1, -1};
  int copies[2] = {-1, -1};               // by dup
  std::uint64_t written[2] = {}, read[2] = {};  // by end 0 and end 1: places in the streams
  std::uint64_t count = 0;                // of an eventfd: what the calls that ended made it
  bool flipped = false;
  bool has_bytes_of_a_stream() const { return is == kind::stream || is == kind::tcp || is == kind::pipe; }
  bool is_socket() const { return is != kind::pipe && is != kind::counter && is != kind::file; }
};

object make(kind is, bool flipped) {
  object o;
  o.is = is;
  o.flipped = flipped;
  auto pair = [&](int type) {
    if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, o.ends) != 0) give_up("socketpair");
  };
  switch (is) {
    case kind::stream: pair(SOCK_STREAM); break;
    case kind::datagram: pair(SOCK_DGRAM); break;
    case kind::packet: pair(SOCK_SEQPACKET); break;
    case kind::pipe:
      if (::pipe2(o.ends, O_CLOEXEC) != 0) give_up("pipe2");
      if (flipped) std::swap(o.ends[0], o.ends[1]);
      break;
    case kind::counter:
      o.ends[0] = ::eventfd(0, EFD_CLOEXEC | (flipped ? EFD_SEMAPHORE : 0));
      if (o.ends[0] < 0) give_up("eventfd");
      o.ends[1] = ::dup(o.ends[0]);
      break;
    case kind::file: {
      char path[] = "/tmp/ringlet-random-XXXXXX";
      o.ends[0] = ::mkstemp(path);
      if (o.ends[0] < 0) give_up("mkstemp");
      o.ends[1] = ::open(path, O_RDWR | O_CLOEXEC);
      ::unlink(path);
      break;
    }
    case kind::tcp: {
      const int door = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in at{};
      at.sin_family = AF_INET;
      at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      socklen_t size = sizeof at;
      auto* const address = reinterpret_cast<sockaddr*>(&at);
      if (::bind(door, address, size) != 0 || ::listen(door, 1) != 0 || ::getsockname(door, address, &size) != 0) give_up("listen");
      o.ends[0] = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (::connect(o.ends[0], address, size) != 0) give_up("connect");
      o.ends[1] = ::accept(door, nullptr, nullptr);
      if (o.ends[1] < 0) give_up("accept");
      for (int fd : o.ends) {
        const int one = 1;
        ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      }
      ::close(door);
      break;
    }
  }
  return o;
}

void destroy(object& o) {
  for (int* fds : {o.ends, o.copies})
    for (int end = 0; end < 2; ++end)
      if (fds[end] >= 0) ::close(std::exchange(fds[end], -1));
}

// --- peers -----------------------------------------------------------------------------------------------------------

// Runs what it is given, one after the other.
class peer {
 public:
  void begin(std::function<void()> work) {
    std::lock_guard hold(lock_);
    work_ = std::move(work);
    done_.store(false);
    changed_.notify_one();
  }
  bool done() const { return done_.load(); }
  bool is_there() const { return thread_id_.load() != 0; }
  // Bare: its thread sleeps in the kernel.
  bool asleep() const {
    const char state = support::state_of(thread_id_.load());
    if (state == 0) give_up("the state of a peer's thread");
    return state == 'S';
  }
  void run() {
    thread_id_ = int(::syscall(SYS_gettid));
    for (;;) {
      std::function<void()> work;
      {
        std::unique_lock hold(lock_);
        changed_.wait(hold, [&] { return over_ || work_; });
        if (!work_) return;
        work.swap(work_);
      }
      work();
      done_.store(true);
    }
  }
  void end() {
    std::lock_guard hold(lock_);
    over_ = true;
    changed_.notify_one();
  }

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  std::function<void()> work_;
  bool over_ = false;
  std::atomic<bool> done_{true};
  std::atomic<int> thread_id_{0};
};

void let_others_run() {
#ifdef RANDOM_CALLS_FIBERS
  ringlet::yield();
#else
  if (threads_are_fibers) {
    ::sched_yield();
  } else {  // on a busy machine one who yields waits for everybody, one who wakes up comes first
    const timespec moment{0, 30'000};
    ::nanosleep(&moment, nullptr);
  }
#endif
}

// --- one sequence ----------------------------------------------------------------------------------------------------

constexpr int tcp_closed = 7;  // TCP_CLOSE; <netinet/tcp.h>, which has it, and <linux/tcp.h>, which has all of tcp_info, exclude each other
constexpr int biggest = 300'000;

// So often the others have had their turn, and the loop has looked for news more than once (it does each 64 turns).
constexpr int enough_turns = 300;

class sequence {
 public:
  sequence(std::uint64_t seed, int steps, peer (&peers)[2]) : dice_{seed * 1000003 + 17}, steps_(steps), peers_(peers) {
    const kind all[] = {kind::stream, kind::datagram, kind::packet, kind::tcp, kind::pipe, kind::pipe, kind::counter, kind::file};
    // Two or three things, so that waiting for several has a meaning.
    const int count = 2 + dice_.below(2);
    for (int i = 0; i < count; ++i) objects_.push_back(make(dice_.of(all), dice_.one_in(2)));
  }
  ~sequence() {
    for (auto& o : objects_) destroy(o);
  }

  std::string run() {
    results_.resize(std::size_t(steps_) + 8);
    for (at_ = 0; at_ < steps_; ++at_) step();
    // Nobody may wait when it ends.
    if (anybody_waits()) rescue();
    std::string whole;
    for (std::size_t i = 0; i < objects_.size(); ++i) whole += std::to_string(i) + ": " + kind_names[int(objects_[i].is)] + "\n";
    for (std::size_t i = 0; i < results_.size(); ++i)
      if (!results_[i].empty()) whole += std::to_string(i) + " " + results_[i] + "\n";
    return whole;
  }
  static std::uint64_t calls;

 private:
  struct waiting {
    int object = -1;
    bool writes = false, polls = false;
    std::uint64_t goal = 0;  // the place in the stream at which a writer ends; what is added to an eventfd
  };

  void step() {
    int who = dice_.below(2);
    if (waits_[who].object >= 0) who = 1 - who;
    if (waits_[who].object >= 0) {  // both wait
      rescue();
      return;
    }
    const int index = dice_.below(int(objects_.size()));
    object& o = objects_[std::size_t(index)];
    const waiting& other = waits_[1 - who];
    if (other.object == index && other.writes) {
      if (o.has_bytes_of_a_stream()) return drain(who, index, other.goal);
      if (o.is_socket()) return read_one(who, index);
    }
    if (dice_.one_in(40) && other.object != index && !other.polls) {
      destroy(o);
      o = make(o.is, o.flipped);
      note("made anew " + std::to_string(index));
      return;
    }
    switch (o.is) {
      case kind::counter: return on_counter(who, index);
      case kind::file: return on_file(who, index);
      default: return on_stream(who, index);
    }
  }

  // --- running one call ---

  void note(std::string text) { results_[std::size_t(at_)] += std::move(text); }

  struct call_options {
    bool writes = false, timed = false, polls = false;
    std::uint64_t goal = 0;
  };
  // Begins a call on the peer, and returns when everybody is done or waits.
  void call(int who, int index, std::string name, call_options how, std::function<std::string()> f) {
    ++calls;
    std::string& into = results_[std::size_t(at_)];
    into = "peer " + std::to_string(who) + " " + name;
    peers_[who].begin([&into, f = std::move(f)] {
      const std::string got = f();
      into += ": " + got;
    });
    waits_[who] = {index, how.writes, how.polls, how.goal};
    settle(how.timed ? who : -1);
    if (waits_[who].object >= 0) into += " (waits)";
  }
  // must: this one ends by itself.
  void settle(int must) {
    const auto& o = objects_;
    for (const auto& each : o)
      if (each.is == kind::tcp) wait_for_delivery(each);
    // Most calls end at once.
    if (!threads_are_fibers)
      for (int i = 0; i < 20000 && !(peers_[0].done() && peers_[1].done()); ++i) asm volatile("" ::: "memory");
    int turns = 0;
    const auto last = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < last) {
      bool settled = true;
      for (int i = 0; i < 2; ++i) {
        if (peers_[i].done()) {
          waits_[i] = {};
          continue;
        }
        if (i == must) settled = false;
        else if (threads_are_fibers) settled = settled && turns > enough_turns;
        else settled = settled && peers_[i].asleep() && !peers_[i].done();
      }
      // Who adds to a full eventfd is waiting in a helper thread of ringlet's, which takes real time to end.
      if (settled && !counters_are_settled()) {
        const timespec moment{0, 100'000};
        ::nanosleep(&moment, nullptr);
        continue;
      }
      if (settled && (threads_are_fibers || turns > 0)) {
        for (int i = 0; i < 2; ++i)
          if (peers_[i].done()) waits_[i] = {};
        return;
      }
      turns = threads_are_fibers ? turns + 1 : settled;
      if (must >= 0 && threads_are_fibers && turns > enough_turns && !peers_[must].done()) {
        const timespec moment{0, 200'000};
        ::nanosleep(&moment, nullptr);
      }
      let_others_run();
    }
    for (int i = 0; i < 2; ++i)
      if (!peers_[i].done()) std::printf("peer %d has not ended; step %d: %s; waits for %d\n", i, at_, results_[std::size_t(std::min(at_, steps_))].c_str(), waits_[i].object);
    for (const auto& each : results_) if (show && !each.empty()) std::printf("%s\n", each.c_str());
    errno = ETIMEDOUT;
    give_up("a call neither ended nor waited");
  }
  bool is_adder(const waiting& w) const { return w.object >= 0 && w.writes && objects_[std::size_t(w.object)].is == kind::counter; }
  // What an eventfd holds is what the calls that ended made it, and has no room for what a peer waits to add.
  bool counters_are_settled() {
    for (std::size_t i = 0; i < objects_.size(); ++i) {
      object& o = objects_[i];
      if (o.is != kind::counter) continue;
      const std::uint64_t now = count_in(o.ends[0]);
      if (now != std::atomic_ref(o.count)) return false;
      for (const waiting& w : waits_)
        if (w.object == int(i) && w.writes && w.goal < UINT64_MAX - now) return false;
    }
    return true;
  }
  static std::uint64_t count_in(int eventfd) {
    std::ifstream info("/proc/self/fdinfo/" + std::to_string(eventfd));
    for (std::string word; info >> word;)
      if (word == "eventfd-count:" && info >> word) return std::stoull(word, nullptr, 16);
    give_up("an eventfd's count is not told");
  }
  // What is on its way would wake somebody at any time later. So all that one end sent must have come to the other.
  static void wait_for_delivery(const object& o) {
    const auto is_there = [&](int from) {
      int unsent = 0;
      tcp_info sender{}, receiver{};
      socklen_t size = sizeof sender;
      if (::syscall(SYS_ioctl, o.ends[from], SIOCOUTQNSD, &unsent) != 0) return true;
      if (::syscall(SYS_getsockopt, o.ends[from], IPPROTO_TCP, TCP_INFO, &sender, &size) != 0) return true;
      if (::syscall(SYS_getsockopt, o.ends[1 - from], IPPROTO_TCP, TCP_INFO, &receiver, &size) != 0) return true;
      if (sender.tcpi_state == tcp_closed && receiver.tcpi_state == tcp_closed) return true;  // reset: what was sent is no more
      return unsent == 0 && receiver.tcpi_bytes_received + sender.tcpi_bytes_retrans >= sender.tcpi_bytes_sent;
    };
    for (int from = 0; from < 2; ++from)
      for (int tries = 0; tries < 20'000 && !is_there(from); ++tries) let_others_run();
  }

  static std::string answer(long result) {
    const int error = errno;
    return result < 0 ? std::string("-1 ") + ::strerrorname_np(error) : std::to_string(result);
  }

  // --- bytes ---

  std::shared_ptr<std::vector<std::uint8_t>> to_write(const object& o, int who, int size) {
    auto data = std::make_shared<std::vector<std::uint8_t>>(std::size_t(size));
    for (int i = 0; i < size; ++i) (*data)[std::size_t(i)] = byte_at(who, o.written[who] + std::uint64_t(i));
    return data;
  }
  // Whether what was read is what stands there in the stream.
  static std::string right(object& o, int reader, const std::uint8_t* data, long size, bool peeked) {
    if (size <= 0) return "";
    if (!o.has_bytes_of_a_stream()) {
      std::uint64_t hash = 14695981039346656037u;
      for (long i = 0; i < size; ++i) hash = (hash ^ data[i]) * 1099511628211u;
      return " #" + std::to_string(hash % 100000);
    }
    const int writer = 1 - reader;
    for (long i = 0; i < size; ++i)
      if (data[i] != byte_at(writer, o.read[reader] + std::uint64_t(i))) return " WRONG BYTES at " + std::to_string(o.read[reader] + std::uint64_t(i));
    if (!peeked) o.read[reader] += std::uint64_t(size);
    return "";
  }

  // --- calls on sockets and pipes ---

  int fd_of(const object& o, int who) { return o.copies[who] >= 0 && dice_.one_in(2) ? o.copies[who] : o.ends[who]; }

  int some_size(const object& o) {
    if (dice_.one_in(12)) return 0;
    if (dice_.one_in(6)) return 1;
    if (o.is == kind::datagram || o.is == kind::packet) return 1 + dice_.below(3000);
    if (o.is == kind::tcp) return 1 + dice_.below(2000);
    return dice_.one_in(15) ? 1 + dice_.below(biggest) : 1 + dice_.below(6000);
  }

  bool has_time_limit(int fd, int option) {
    timeval limit{};
    socklen_t size = sizeof limit;
    return ::getsockopt(fd, SOL_SOCKET, option, &limit, &size) == 0 && (limit.tv_sec || limit.tv_usec);
  }

  void on_stream(int who, int index) {
    object& o = objects_[std::size_t(index)];
    const bool reads_pipe = o.is == kind::pipe && who == (o.flipped ? 1 : 0), writes_pipe = o.is == kind::pipe && !reads_pipe;
    switch (dice_.below(14)) {
      case 0: case 1: case 2: case 3:
        if (!reads_pipe) return write_some(who, index);
        return read_some(who, index);
      case 4: case 5: case 6: case 7:
        if (!writes_pipe) return read_some(who, index);
        return write_some(who, index);
      case 8: return poll_some(who, index);
      case 9: return flags(who, index);
      case 10: return limits(who, index);
      case 11: return copies(who, index);
      case 12: return odd_ones(who, index);
      default: return shut(who, index);
    }
  }

  void write_some(int who, int index) {
    object& o = objects_[std::size_t(index)];
    int size = some_size(o);
    // TCP's room is not to be run out of (see the head); nor is that of datagrams, whose number is limited.
    const std::uint64_t unread = o.written[who] - o.read[1 - who];
    if (o.is == kind::tcp && unread + std::uint64_t(size) > 16'000) return note("full enough");
    const int fd = fd_of(o, who);
    auto data = to_write(o, who, size);
    const int way = dice_.below(o.is_socket() ? 6 : 2);
    const int flag_choices[] = {0, 0, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_DONTWAIT | MSG_NOSIGNAL};
    const int flags = dice_.of(flag_choices);
    const int parts = 1 + dice_.below(4);
    static constexpr const char* names[] = {"write", "writev", "send", "sendto", "sendmsg", "sendmmsg"};
    std::string name = std::string(names[way]) + " " + std::to_string(index) + " " + std::to_string(size);
    if (way >= 2) name += " flags " + std::to_string(flags);
    call_options how{.writes = true, .timed = o.is_socket() && has_time_limit(fd, SO_SNDTIMEO), .goal = o.written[who] + std::uint64_t(size)};
    call(who, index, name, how, [=, &o]() -> std::string {
      std::vector<iovec> pieces;
      const std::size_t each = data->size() / std::size_t(parts);
      for (int i = 0; i < parts; ++i)
        pieces.push_back({data->data() + each * std::size_t(i), i + 1 < parts ? each : data->size() - each * std::size_t(i)});
      msghdr message{};
      message.msg_iov = pieces.data();
      message.msg_iovlen = pieces.size();
      mmsghdr two[1] = {{message, 0}};
      long n = -1;
      switch (way) {
        case 0: n = ::write(fd, data->data(), data->size()); break;
        case 1: n = ::writev(fd, pieces.data(), parts); break;
        case 2: n = ::send(fd, data->data(), data->size(), flags); break;
        case 3: n = ::sendto(fd, data->data(), data->size(), flags, nullptr, 0); break;
        case 4: n = ::sendmsg(fd, &message, flags); break;
        default: n = ::sendmmsg(fd, two, 1, flags);
      }
      std::string told = answer(n);
      if (way == 5 && n == 1) told += " of " + std::to_string(n = long(two[0].msg_len));
      if (n > 0) o.written[who] += std::uint64_t(n);
      return told;
    });
  }

  void read_some(int who, int index) {
    object& o = objects_[std::size_t(index)];
    const int size = some_size(o);
    const int fd = fd_of(o, who);
    const int way = dice_.below(o.is_socket() ? 6 : 2);
    const int flag_choices[] = {0, 0, 0, MSG_DONTWAIT, MSG_PEEK, MSG_PEEK | MSG_DONTWAIT, MSG_WAITALL, MSG_WAITALL | MSG_DONTWAIT, MSG_WAITALL | MSG_PEEK};
    int flags = dice_.of(flag_choices);
    // What waits for a peeked whole spins bare on a socket that holds a part.
    if ((flags & (MSG_WAITALL | MSG_PEEK)) == (MSG_WAITALL | MSG_PEEK) && o.is != kind::stream) flags &= ~MSG_WAITALL;
    const int parts = 1 + dice_.below(4);
    static constexpr const char* names[] = {"read", "readv", "recv", "recvfrom", "recvmsg", "recvmmsg"};
    std::string name = std::string(names[way]) + " " + std::to_string(index) + " " + std::to_string(size);
    if (way >= 2) name += " flags " + std::to_string(flags);
    const bool peeks = way >= 2 && (flags & MSG_PEEK);
    call(who, index, name, {.timed = o.is_socket() && has_time_limit(fd, SO_RCVTIMEO)}, [=, &o]() -> std::string {
      std::vector<std::uint8_t> data(std::size_t(size) + 1);
      std::vector<iovec> pieces;
      const std::size_t each = std::size_t(size) / std::size_t(parts);
      for (int i = 0; i < parts; ++i)
        pieces.push_back({data.data() + each * std::size_t(i), i + 1 < parts ? each : std::size_t(size) - each * std::size_t(i)});
      msghdr message{};
      message.msg_iov = pieces.data();
      message.msg_iovlen = pieces.size();
      mmsghdr one[1] = {{message, 0}};
      long n = -1;
      std::string more;
      switch (way) {
        case 0: n = ::read(fd, data.data(), std::size_t(size)); break;
        case 1: n = ::readv(fd, pieces.data(), parts); break;
        case 2: n = ::recv(fd, data.data(), std::size_t(size), flags); break;
        case 3: n = ::recvfrom(fd, data.data(), std::size_t(size), flags, nullptr, nullptr); break;
        case 4:
          n = ::recvmsg(fd, &message, flags);
          more = " told " + std::to_string(message.msg_flags & ~MSG_CMSG_CLOEXEC);
          break;
        default: n = ::recvmmsg(fd, one, 1, flags, nullptr);
      }
      std::string told = answer(n) + (n >= 0 ? more : "");
      if (way == 5 && n == 1) told += " of " + std::to_string(n = long(one[0].msg_len));
      return told + right(o, who, data.data(), n, peeks);
    });
  }

  // Another's datagram: makes room for one who waits to send.
  void read_one(int who, int index) {
    object& o = objects_[std::size_t(index)];
    call(who, index, "recv " + std::to_string(index) + " one", {}, [&o, who, fd = o.ends[who]]() -> std::string {
      std::vector<std::uint8_t> data(4096);
      const long n = ::recv(fd, data.data(), data.size(), MSG_DONTWAIT);
      return answer(n) + right(o, who, data.data(), n, false);
    });
  }

  // Reads on until the writer that waits is through.
  void drain(int who, int index, std::uint64_t goal) {
    object& o = objects_[std::size_t(index)];
    call(who, index, "drain " + std::to_string(index), {.timed = true}, [&o, who, goal, fd = o.ends[who]]() -> std::string {
      std::vector<std::uint8_t> data(70'000);
      const std::uint64_t begin = o.read[who];
      while (o.read[who] < goal) {
        pollfd p{fd, POLLIN, 0};
        if (::poll(&p, 1, 5000) != 1) return "nothing came after " + std::to_string(o.read[who] - begin) + " of " + std::to_string(goal - begin);
        const long n = ::read(fd, data.data(), std::min<std::uint64_t>(data.size(), goal - o.read[who]));
        if (n <= 0) return answer(n) + " after " + std::to_string(o.read[who] - begin);
        if (const auto wrong = right(o, who, data.data(), n, false); !wrong.empty()) return wrong;
      }
      return std::to_string(goal - begin) + " bytes";
    });
  }

  void poll_some(int who, int index) {
    const int way = dice_.below(4);
    const short events_choices[] = {POLLIN, POLLOUT, POLLIN | POLLOUT, POLLIN | POLLRDHUP, POLLPRI, 0};
    const short events = dice_.of(events_choices);
    // For ever only for what may come: a pipe's end is for one direction.
    const bool may_come = std::any_of(objects_.begin(), objects_.end(), [&](const object& each) {
      if (each.is != kind::pipe) return true;
      return bool(events & (who == (each.flipped ? 1 : 0) ? POLLIN : POLLOUT));
    });
    const bool waits = dice_.one_in(3) && events != 0 && events != POLLPRI && may_come;
    std::vector<pollfd> all;
    for (auto& each : objects_) all.push_back({each.ends[who], events, 0});
    if (dice_.one_in(4)) all.push_back({-1, POLLIN, 0});
    if (dice_.one_in(8)) all.push_back({99'999, POLLIN, 0});
    static constexpr const char* names[] = {"poll", "ppoll", "select", "pselect"};
    // select's sets end at 1024, and are told of no descriptor that isn't open.
    if (way >= 2) all.resize(objects_.size());
    call(who, index, std::string(names[way]) + " events " + std::to_string(events) + (waits ? " for ever" : " at once"), {.polls = true},
         [this, all, way, waits, events]() mutable -> std::string {
           const timespec none{0, 0};
           timeval no_time{0, 0};
           fd_set in, out;
           FD_ZERO(&in);
           FD_ZERO(&out);
           int highest = -1;
           if (way >= 2)
             for (const auto& each : all) {
               if (each.fd >= FD_SETSIZE) return "too high";
               if (events & POLLIN) FD_SET(each.fd, &in);
               if (events & POLLOUT) FD_SET(each.fd, &out);
               highest = std::max(highest, each.fd);
             }
           long n = 0;
           switch (way) {
             case 0: n = ::poll(all.data(), all.size(), waits ? -1 : 0); break;
             case 1: n = ::ppoll(all.data(), all.size(), waits ? nullptr : &none, nullptr); break;
             case 2: n = ::select(highest + 1, &in, &out, nullptr, waits ? nullptr : &no_time); break;
             default: n = ::pselect(highest + 1, &in, &out, nullptr, waits ? nullptr : &none, nullptr);
           }
           if (rescuing_) return "rescued";  // whether it still saw what another took is chance
           std::string told = answer(n);
           for (const auto& each : all)
             told += " " + (way < 2 ? std::to_string(each.revents) : std::to_string(FD_ISSET(each.fd, &in) + 2 * FD_ISSET(each.fd, &out)));
           return told;
         });
  }

  void flags(int who, int index) {
    object& o = objects_[std::size_t(index)];
    // A helper that has not begun to add yet would find the new ones; nothing tells when it has.
    if (is_adder(waits_[1 - who]) && waits_[1 - who].object == index) return note("somebody adds");
    const int fd = fd_of(o, who), way = dice_.below(4);
    const bool on = dice_.one_in(3);
    call(who, index, "flags " + std::to_string(index) + " way " + std::to_string(way) + (on ? " on" : " off"), {}, [=]() -> std::string {
      const int before = ::fcntl(fd, F_GETFL);
      int value = on;
      switch (way) {
        case 0: return answer(before);
        case 1: return answer(::ioctl(fd, FIONBIO, &value));
        default: return answer(::fcntl(fd, F_SETFL, on ? before | O_NONBLOCK : before & ~O_NONBLOCK)) + " " + answer(::fcntl(fd, F_GETFL));
      }
    });
  }

  void limits(int who, int index) {
    object& o = objects_[std::size_t(index)];
    const int fd = fd_of(o, who);
    const int option = dice_.one_in(2) ? SO_RCVTIMEO : SO_SNDTIMEO;
    const timeval limit{0, dice_.one_in(3) ? 4000 : 0};
    call(who, index, "limit " + std::to_string(index) + " " + std::to_string(option) + " " + std::to_string(limit.tv_usec), {}, [=]() -> std::string {
      std::string told = answer(::setsockopt(fd, SOL_SOCKET, option, &limit, sizeof limit));
      timeval now{};
      socklen_t size = sizeof now;
      told += " " + answer(::getsockopt(fd, SOL_SOCKET, option, &now, &size)) + " " + std::to_string(now.tv_usec);
      int waiting = -1;
      return told + " " + answer(::ioctl(fd, FIONREAD, &waiting)) + " " + std::to_string(waiting);
    });
  }

  void copies(int who, int index) {
    object& o = objects_[std::size_t(index)];
    const int way = dice_.below(3);
    call(who, index, "copy " + std::to_string(index) + " way " + std::to_string(way), {}, [=, &o]() -> std::string {
      int& copy = o.copies[who];
      if (copy >= 0) return answer(::close(std::exchange(copy, -1))) + " closed";
      switch (way) {
        case 0: copy = ::dup(o.ends[who]); break;
        case 1: copy = ::fcntl(o.ends[who], F_DUPFD_CLOEXEC, 100); break;
        default: copy = ::dup3(o.ends[who], 600 + 2 * index + who, O_CLOEXEC);
      }
      return copy >= 0 ? "copied" : answer(copy);
    });
  }

  void odd_ones(int who, int index) {
    object& o = objects_[std::size_t(index)];
    const int fd = fd_of(o, who), way = dice_.below(6);
    call(who, index, "odd " + std::to_string(index) + " way " + std::to_string(way), {.timed = true}, [=, &o]() -> std::string {
      void* const nowhere = reinterpret_cast<void*>(std::uintptr_t(8));
      char c = 0;
      int error = -1;
      socklen_t size = sizeof error;
      switch (way) {
        case 0: return answer(::write(fd, nowhere, 0));
        case 1: return answer(::recv(fd, &c, 0, MSG_DONTWAIT | MSG_PEEK)) + (o.is_socket() ? "" : " no socket");
        case 2: return answer(::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size)) + " " + std::to_string(error);
        case 3: return answer(::readv(fd, static_cast<iovec*>(nowhere), 1));
        case 4: return answer(::lseek(fd, 0, SEEK_CUR));
        default: return answer(::pread(fd, &c, 1, 0));
      }
    });
  }

  void shut(int who, int index) {
    object& o = objects_[std::size_t(index)];
    if (!o.is_socket() || !dice_.one_in(4)) return flags(who, index);
    const int how = dice_.below(3);
    call(who, index, "shutdown " + std::to_string(index) + " how " + std::to_string(how), {}, [=, &o]() -> std::string {
      std::string told = answer(::shutdown(o.ends[who], how));
      // The end of a TCP stream is on its way for a moment.
      if (o.is == kind::tcp && how != SHUT_RD) {
        pollfd other{o.ends[1 - who], POLLRDHUP, 0};
        ::syscall(SYS_poll, &other, 1, 200);
      }
      return told;
    });
  }

  // --- eventfds and files ---

  void on_counter(int who, int index) {
    object& o = objects_[std::size_t(index)];
    const int fd = fd_of(o, who), way = dice_.below(8);
    const std::uint64_t values[] = {0, 1, 2, 3, UINT64_MAX - 1, UINT64_MAX};
    std::uint64_t value = dice_.of(values);
    if (o.flipped && value == UINT64_MAX - 1) value = 4;  // a semaphore's takers could never make room for it
    if (way == 6) return flags(who, index);
    if (way == 7) return poll_some(who, index);
    if (way < 3)
      return call(who, index, "eventfd " + std::to_string(index) + " add " + std::to_string(value), {.writes = true, .goal = value},
                  [=, &o] {
                    const long n = ::write(fd, &value, 8);
                    const std::string told = answer(n);
                    if (n == 8) std::atomic_ref(o.count) += value;
                    return told;
                  });
    call(who, index, "eventfd " + std::to_string(index) + " take", {}, [=, &o]() -> std::string {
      std::uint64_t got = 77;
      const long n = ::read(fd, &got, way == 3 ? 4 : 8);
      const std::string told = answer(n);
      if (n == 8) std::atomic_ref(o.count) -= got;
      return told + " " + std::to_string(got);
    });
  }

  void on_file(int who, int index) {
    object& o = objects_[std::size_t(index)];
    const int fd = fd_of(o, who), way = dice_.below(10), size = some_size(o);
    const off_t at = dice_.below(20'000);
    auto data = std::make_shared<std::vector<std::uint8_t>>(std::size_t(size) + 1, std::uint8_t(size));
    static constexpr const char* names[] = {"read", "write", "pread", "pwrite", "lseek", "ftruncate", "fsync", "size", "readv", "flags"};
    if (way == 9) return flags(who, index);
    call(who, index, std::string("file ") + std::to_string(index) + " " + names[way] + " " + std::to_string(size) + " at " + std::to_string(at), {.timed = true},
         [=]() -> std::string {
           struct stat about {};
           iovec two[2] = {{data->data(), std::size_t(size) / 2}, {data->data() + size / 2, std::size_t(size) - std::size_t(size) / 2}};
           long n = 0;
           switch (way) {
             case 0: n = ::read(fd, data->data(), std::size_t(size)); break;
             case 1: return answer(::write(fd, data->data(), std::size_t(size)));
             case 2: n = ::pread(fd, data->data(), std::size_t(size), at); break;
             case 3: return answer(::pwrite(fd, data->data(), std::size_t(size), at));
             case 4: return answer(::lseek(fd, at - 100, SEEK_SET));
             case 5: return answer(::ftruncate(fd, at));
             case 6: return answer(::fsync(fd));
             case 7: return answer(::fstat(fd, &about)) + " " + std::to_string(about.st_size);
             default: n = ::readv(fd, two, 2);
           }
           std::uint64_t hash = 1;
           for (long i = 0; i < n; ++i) hash = (hash ^ (*data)[std::size_t(i)]) * 1099511628211u;
           return answer(n) + " #" + std::to_string(hash % 100000);
         });
  }

  // --- who waits in vain ---

  bool anybody_waits() const { return waits_[0].object >= 0 || waits_[1].object >= 0; }

  // Ends all waits from outside, whatever they are for; then everything is made anew. Nothing is closed under a waiter: that
  // is where fibers are meant to differ from threads.
  void rescue() {
    if (at_ < steps_) note("rescued");
    rescuing_ = true;
    for (int turn = 0; turn < 12 && anybody_waits(); ++turn)
      for (object& o : objects_) {
        if (!anybody_waits()) break;
        const int writes = o.flipped ? 0 : 1;  // a pipe's end
        if (o.is == kind::counter) {
          // One more, then one less: one that takes, one that adds. Neither waits.
          const std::uint64_t one = 1, count = count_in(o.ends[0]);
          std::uint64_t taken = 0;
          if (turn % 2 == 0 && count < UINT64_MAX - 1 && ::write(o.ends[0], &one, 8) == 8) std::atomic_ref(o.count) += one;
          if (turn % 2 == 1 && count > 0 && ::read(o.ends[0], &taken, 8) == 8) std::atomic_ref(o.count) -= taken;
        } else if (o.is == kind::pipe && turn % 2 == 0) {
          pollfd room{o.ends[writes], POLLOUT, 0};
          const std::uint8_t next = byte_at(writes, o.written[writes]);
          const bool in_use = waits_[writes].writes && waits_[writes].object >= 0 && &o == &objects_[std::size_t(waits_[writes].object)];
          if (!in_use && ::syscall(SYS_poll, &room, 1, 0) == 1 && ::write(o.ends[writes], &next, 1) == 1) ++o.written[writes];
        } else if (o.is == kind::pipe) {
          std::vector<char> taken(1 << 16);
          pollfd full{o.ends[1 - writes], POLLIN, 0};
          for (int i = 0; i < 100 && ::syscall(SYS_poll, &full, 1, 0) == 1; ++i) {
            (void)!::read(o.ends[1 - writes], taken.data(), taken.size());
            settle(-1);
          }
        } else if (o.is_socket() && turn % 2 == 0) {
          ::shutdown(o.ends[0], SHUT_RDWR);
          ::shutdown(o.ends[1], SHUT_RDWR);
        } else if (o.is_socket()) {
          // Full of unread bytes it is not writable, even shut down, and a hang-up is nothing that select's second set waits for.
          std::vector<char> taken(1 << 16);
          for (const int end : o.ends)
            for (int i = 0; i < 100 && ::recv(end, taken.data(), taken.size(), MSG_DONTWAIT) > 0; ++i) settle(-1);
        }
        settle(-1);
      }
    for (int i = 0; i < 2; ++i)
      if (waits_[i].object >= 0) settle(i);
    rescuing_ = false;
    for (object& o : objects_) {
      destroy(o);
      o = make(o.is, o.flipped);
    }
  }

  dice dice_;
  int steps_, at_ = 0;
  peer (&peers_)[2];
  std::vector<object> objects_;
  waiting waits_[2];
  std::atomic<bool> rescuing_{false};
  std::vector<std::string> results_;
};
std::uint64_t sequence::calls = 0;

void run_all(std::uint64_t first, int sequences, int steps, peer (&peers)[2]) {
  while (!peers[0].is_there() || !peers[1].is_there()) let_others_run();
  for (int i = 0; i < sequences; ++i) {
    const std::uint64_t seed = first + std::uint64_t(i);
    const std::string whole = sequence(seed, steps, peers).run();
    if (show) std::printf("%s", whole.c_str());
    std::printf("%llu %016zx\n", static_cast<unsigned long long>(seed), std::hash<std::string>{}(whole));
  }
  std::printf("calls %llu\n", static_cast<unsigned long long>(sequence::calls));
}

}  // namespace

int main(int count, char** words) {
  std::vector<std::uint64_t> numbers;
  for (int i = 1; i < count; ++i) {
    const std::string_view word = words[i];
    if (word == "--show") show = true;
    else if (word == "--threads-are-fibers") threads_are_fibers = true;
    else numbers.push_back(std::strtoull(words[i], nullptr, 10));
  }
  if (numbers.size() != 3) {
    std::fprintf(stderr, "usage: random_calls [--threads-are-fibers] [--show] FIRST-SEED SEQUENCES STEPS\n");
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  ::signal(SIGPIPE, SIG_IGN);
  ::prctl(PR_SET_TIMERSLACK, 1);
  static peer peers[2];
#ifdef RANDOM_CALLS_FIBERS
  threads_are_fibers = true;
  ringlet::hooks::enable();
  ringlet::any_fiber fibers[2];
  for (int i = 0; i < 2; ++i) fibers[i] = ringlet::spawn({.stack_size_bytes = 256 * 1024}, [i] { peers[i].run(); });
  run_all(numbers[0], int(numbers[1]), int(numbers[2]), peers);
  for (auto& p : peers) p.end();
  for (auto& f : fibers) f.join();
#else
  std::thread threads[2];
  for (int i = 0; i < 2; ++i) threads[i] = std::thread([i] { peers[i].run(); });
  run_all(numbers[0], int(numbers[1]), int(numbers[2]), peers);
  for (auto& p : peers) p.end();
  for (auto& t : threads) t.join();
#endif
  return 0;
}
