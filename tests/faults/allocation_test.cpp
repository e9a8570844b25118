// Every allocation that the runtime makes is refused once, at every call that makes one: the call that asked says so
// (std::bad_alloc, -ENOMEM), or does without; nobody else's wait is lost, and all is as before.

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <numeric>
#include <thread>

#include "io/io_support.hpp"
#include "shortage.hpp"

#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;
using faults::act_function;
using faults::sweep;
using io_test::owned;
namespace io = ringlet::io;

namespace {

// Refused in the kernel's dialect, or done.
bool is_done(ssize_t got) {
  CHECK((got >= 0 || got == -ENOMEM || got == -EAGAIN));
  return got >= 0;
}

// True when `f` says so, within a bounded number of turns.
template <class Fact>
void until_true(Fact f) {
  REQUIRE(io_test::turn_until(f));
}

}  // namespace

// --- fibers ----------------------------------------------------------------------------------------------------------

TEST_CASE("no memory: a fiber is spawned, or nothing has happened") {
  sweep("spawn", [](const act_function& act) {
    int runs = 0;
    ringlet::fiber<> f;
    const bool done = act([&] {
      f = ringlet::spawn({.name = "a name that does not fit into the small string"}, [&] { ++runs; });
      return true;
    });
    if (done) f.join();
    CHECK(runs == int(done));
  });
  sweep("spawn_later", [](const act_function& act) {
    int runs = 0;
    ringlet::fiber<> f;
    const bool done = act([&] {
      f = ringlet::spawn_later(1ms, [&] { ++runs; });
      return true;
    });
    ringlet::sleep(2ms);
    CHECK(runs == int(done));
  });
}

TEST_CASE("no memory: a thousand fibers that sleep at once all wake") {
  sweep("sleep", [](const act_function& act) {
    constexpr int count = 1000;  // more timers than any heap of the cases before
    int woken = 0;
    std::vector<ringlet::fiber<>> all;
    for (int i = 0; i < count; ++i)
      all.push_back(ringlet::spawn([&, i] {
        ringlet::sleep(std::chrono::microseconds(i % 7));
        ++woken;
      }));
    act([&] {
      ringlet::sleep(1ms);
      return true;
    });
    ringlet::joinall(all);
    CHECK(woken == count);
  });
}

TEST_CASE("no memory: a timeout scope is opened and fires, or is refused") {
  sweep("timeout", [](const act_function& act) {
    act([] {
      std::vector<std::unique_ptr<ringlet::timeout>> none;
      try {
        ringlet::timeout limit(100us);
        ringlet::sleep(10s);
      } catch (const ringlet::timeout_expired&) {
        return true;
      }
      return false;
    });
    ringlet::sleep(200us);  // whatever it left in the heap would fire now
  });
}

TEST_CASE("no memory: kills, links, locals and joins") {
  sweep("kill", [](const act_function& act) {
    bool unwound = false;
    auto f = ringlet::spawn([&] {
      struct at_end {
        bool& flag;
        ~at_end() { flag = true; }
      } end{unwound};
      ringlet::sleep(10s);
    });
    ringlet::yield();
    if (!act([&] { return f.kill(); })) f.kill();
    CHECK(unwound);
  });
  sweep("link", [](const act_function& act) {
    int told = 0;
    auto f = ringlet::spawn([] {});
    const bool done = act([&] { return f.link([&](ringlet::any_fiber) { ++told; }) != 0; });
    f.join();
    for (int i = 0; i < 3; ++i) ringlet::yield();
    CHECK(told == int(done));
  });
  sweep("joinall", [](const act_function& act) {
    std::vector<ringlet::any_fiber> all;
    for (int i = 0; i < 20; ++i) all.push_back(ringlet::spawn([] { ringlet::sleep(10us); }));
    if (!act([&] { return ringlet::joinall(all).size() == 20; })) CHECK(ringlet::joinall(all).size() == 20);
  });
  sweep("local", [](const act_function& act) {
    ringlet::fiber_local<std::string> mine;
    ringlet::spawn([&] {
      const bool done = act([&] {
        *mine = "something that is longer than a small string";
        return true;
      });
      if (done) CHECK(mine->size() == 44);
    }).join();
  });
  sweep("greenlet", [](const act_function& act) {
    act([] {
      int runs = 0;
      ringlet::greenlet g([&] { ++runs; });
      g.switch_to();
      return runs == 1;
    });
  });
}

// --- waiting for each other ------------------------------------------------------------------------------------------

TEST_CASE("no memory: queues, channels and locks lose nothing") {
  sweep("queue", [](const act_function& act) {
    ringlet::queue<int> q;
    int sum = 0, put = 0;
    auto getter = ringlet::spawn([&] {
      for (int n; (n = *q.get()) >= 0;) sum += n;
    });
    ringlet::yield();
    act([&] {
      for (int i = 1; i <= 100; ++i) {
        q.put(i);
        put += i;
      }
      return true;
    });
    q.put(-1);
    getter.join();
    CHECK(sum == put);
  });
  sweep("mutex", [](const act_function& act) {
    ringlet::mutex m;
    int inside = 0, passes = 0;
    std::vector<ringlet::fiber<>> all;
    for (int i = 0; i < 50; ++i)
      all.push_back(ringlet::spawn([&] {
        std::lock_guard hold(m);
        CHECK(++inside == 1);
        ringlet::yield();
        --inside;
        ++passes;
      }));
    if (!act([&] { return ringlet::joinall(all).size() == 50; })) ringlet::joinall(all);
    CHECK(passes == 50);
  });
  sweep("event", [](const act_function& act) {
    ringlet::event e;
    auto setter = ringlet::spawn([&] { e.set(); });
    act([&] { return e.wait(10s); });
    setter.join();
    CHECK(e.wait(10s));
  });
}

TEST_CASE("no memory: groups, pools and posts run each function once, or say that they did not") {
  sweep("pool", [](const act_function& act) {
    ringlet::pool workers(3);
    int runs = 0, given = 0;
    act([&] {
      for (int i = 0; i < 10; ++i, ++given)
        workers.spawn([&] {
          ringlet::yield();
          ++runs;
        });
      return true;
    });
    workers.join();
    CHECK(runs == given);
  });
  sweep("map", [](const act_function& act) {
    ringlet::pool workers(3);
    std::vector<int> numbers(20);
    std::iota(numbers.begin(), numbers.end(), 0);
    std::vector<int> results;
    const bool done = act([&] {
      results = workers.map([](int n) { return n * n; }, numbers);
      return true;
    });
    if (done) CHECK((results.size() == 20 && results[19] == 361));
    CHECK(workers.size() == 0);
  });
  sweep("post", [](const act_function& act) {
    int runs = 0, accepted = 0, failed = 0;
    auto before = ringlet::hub::set_error_handler([&](const ringlet::hub::failure&) { ++failed; });
    act([&] {
      const auto here = ringlet::hub::here();
      for (int i = 0; i < 3; ++i) accepted += here.post([&] { ++runs; });
      ringlet::sleep(100us);
      return true;
    });
    until_true([&] { return runs + failed == accepted; });
    ringlet::hub::set_error_handler(std::move(before));
  });
  sweep("thread_pool", [](const act_function& act) {
    ringlet::thread_pool threads(2);
    std::atomic<int> runs{0};
    int got = 0;
    act([&] {
      for (int i = 0; i < 5; ++i, ++got) threads.apply([&] { ++runs; });
      return true;
    });
    until_true([&] { return runs >= got; });
  });
}

// --- calls -----------------------------------------------------------------------------------------------------------

namespace {
struct tcp_pair {
  owned a, b;
};
tcp_pair connected() {
  auto l = support::listen_on_free_port();
  tcp_pair made;
  made.a = owned(support::connect_to_port(l.port));
  made.b = owned(::accept4(l.socket, nullptr, nullptr, SOCK_CLOEXEC));
  return made;
}
}  // namespace

TEST_CASE("no memory: a receive gets its byte, or is refused and leaves it where it is") {
  sweep("recv", [](const act_function& act) {
    auto ends = connected();
    auto sender = ringlet::spawn([&] {
      ringlet::sleep(50us);
      REQUIRE(::send(ends.b, "x", 1, 0) == 1);
    });
    char c = 0;
    const bool done = act([&] { return is_done(io::recv(ends.a, &c, 1, 0, 10s)); });
    sender.join();
    if (!done) CHECK(io::recv(ends.a, &c, 1, 0, 10s) == 1);
    CHECK(c == 'x');
  });
}

TEST_CASE("no memory: of a long vector so much arrives as the call says") {
  sweep("writev", [](const act_function& act) {
    auto ends = connected();
    const std::string data(1 << 20, 'v');
    std::vector<iovec> parts;
    for (std::size_t at = 0; at < data.size(); at += data.size() / 16)
      parts.push_back({const_cast<char*>(data.data()) + at, data.size() / 16});
    std::size_t arrived = 0;
    auto reader = ringlet::spawn([&] {
      std::vector<char> buffer(100'000);
      for (ssize_t n; (n = io::recv(ends.b, buffer.data(), buffer.size(), 0)) != 0;) {
        if (n > 0) arrived += std::size_t(n);
        REQUIRE((n > 0 || n == -ENOMEM));
      }
    });
    ssize_t sent = 0;
    const bool done = act([&] {
      sent = io::writev(ends.a, parts.data(), int(parts.size()), 20s);
      return is_done(sent);
    });
    CHECK((!done || sent > 0));
    ends.a.close();
    reader.join();
    CHECK(arrived == std::size_t(std::max<ssize_t>(sent, 0)));
  });
}

TEST_CASE("no memory: polls, accepts and connections") {
  sweep("poll", [](const act_function& act) {
    std::vector<io_test::ends> pairs;
    std::vector<pollfd> fds;
    for (int i = 0; i < 20; ++i) {
      pairs.push_back(io_test::pipe_pair());
      fds.push_back({pairs.back().a, POLLIN, 0});
    }
    auto writer = ringlet::spawn([&] {
      ringlet::sleep(50us);
      REQUIRE(::write(pairs[13].b, "x", 1) == 1);
    });
    int found = 0;
    const bool done = act([&] { return is_done(found = io::poll(fds.data(), fds.size(), 10s)); });
    writer.join();
    if (done) CHECK((found == 1 && fds[13].revents == POLLIN));
  });
  sweep("connect, accept", [](const act_function& act) {
    auto l = support::listen_on_free_port();
    owned listener(std::move(l.socket)), client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(l.port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int connection = -1, result = -1;
    auto connecting =
        ringlet::spawn([&] { result = io::connect(client, reinterpret_cast<sockaddr*>(&to), sizeof to, 10s); });
    const bool done =
        act([&] { return is_done(connection = io::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC, 10s)); });
    connecting.join();
    CHECK(is_done(result) == (result == 0));
    owned end(connection);
    if (!done && result == 0) end = owned(io::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC, 10s));
    if (result == 0) CHECK(end >= 0);
  });
}

TEST_CASE("no memory: files are read, synced and opened, or the call is refused") {
  support::temporary_directory folder;
  const std::string path = folder.path() / "file";
  sweep("file", [&](const act_function& act) {
    owned file(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    REQUIRE(::pwrite(file, "0123456789", 10, 0) == 10);
    char text[10];
    act([&] {
      owned again(io::openat(AT_FDCWD, path.c_str(), O_RDONLY | O_CLOEXEC, 0));
      const bool opened = is_done(again), synced = is_done(io::fsync(file));
      const ssize_t got = opened ? io::pread(again, text, 10, 0) : -ENOMEM;
      if (is_done(got)) CHECK((got == 10 && std::string_view(text, 10) == "0123456789"));
      return opened && synced && got == 10;
    });
  });
}

TEST_CASE("no memory: many fds, more than were ever watched") {
  sweep("fds", [](const act_function& act) {
    std::vector<owned> spare;
    for (int i = 0; i < 300; ++i) spare.emplace_back(::fcntl(0, F_DUPFD_CLOEXEC, 3));
    auto ends = io_test::stream_pair();
    const int high = ::fcntl(ends.a, F_DUPFD_CLOEXEC, 900);
    owned end(high);
    spare.clear();
    auto sender = ringlet::spawn([&] { REQUIRE(::send(ends.b, "x", 1, 0) == 1); });
    char c = 0;
    const bool done = act([&] { return is_done(io::recv(end, &c, 1, 0, 10s)); });
    sender.join();
    if (!done) CHECK(io::recv(end, &c, 1, 0, 10s) == 1);
  });
}

TEST_CASE("no memory: a new thread's first call makes its hub, or is refused") {
  sweep("hub", [](const act_function& act) {
    auto ends = io_test::pipe_pair();
    REQUIRE(::write(ends.b, "x", 1) == 1);
    std::thread([&] {
      char c = 0;
      act([&] { return is_done(io::read(ends.a, &c, 1, 10s)); });
    }).join();
  });
}
