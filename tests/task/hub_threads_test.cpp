// hub_threads: where fibers run, what comes back, how servers are spread, and that nothing is left afterwards.

#include "ringlet/hub_threads.hpp"

#include <arpa/inet.h>
#include <atomic>
#include <filesystem>
#include <csignal>
#include <fstream>
#include <limits>
#include <netinet/in.h>
#include <set>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "hub/on_hub.hpp"
#include "task/processors.hpp"

using namespace hub_test;

namespace {

long thread_id() { return ::syscall(SYS_gettid); }
std::size_t threads_now() { return std::size_t(std::distance(std::filesystem::directory_iterator("/proc/self/task"), {})); }

}  // namespace

TEST_CASE("hub_threads: each hub is a thread of its own, and a fiber stays on the one it was spawned on") {
  hub_threads hubs(3);
  CHECK(hubs.size() == 3);
  CHECK(hubs.here() == 3);
  std::set<long> ids;
  for (std::size_t i = 0; i < 3; ++i) {
    auto [before, after, at] = hubs.spawn_on(i, [&] {
      const long id = thread_id();
      sleep(1ms);
      auto child = spawn([] { return thread_id(); });
      return std::tuple(id, child.get(), hubs.here());
    }).get();
    CHECK(before == after);
    CHECK(before != thread_id());
    CHECK(at == i);
    ids.insert(before);
  }
  CHECK(ids.size() == 3);
  CHECK_THROWS_AS(hubs.spawn_on(3, [] {}), std::out_of_range);
  CHECK_THROWS_AS(hub_threads(0), std::invalid_argument);
  CHECK(usable_processors() >= 1);
}

TEST_CASE("hub_threads: results and errors come back to whoever asks, from any thread") {
  hub_threads hubs(2);
  CHECK(hubs.spawn([](std::string s) { return s + "!"; }, "there").get() == "there!");
  auto failing = hubs.spawn([] { throw std::runtime_error("lost"); });  // kept: ThreadSanitizer knows no exception's count
  CHECK(error_of([&] { failing.get(); }) == "lost");
  CHECK(*hubs.spawn([] { return std::make_unique<int>(8); }).get() == 8);
  int foreign = 0;
  std::thread([&] { foreign = hubs.spawn([] { sleep(1ms); return 5; }).get(); }).join();
  CHECK(foreign == 5);
  const int nested = hubs.spawn_on(0, [&] { return hubs.spawn_on(1, [&] { return hubs.spawn_on(0, [] { return 3; }).get(); }).get(); }).get();
  CHECK(nested == 3);
  std::vector<std::size_t> each;
  for (auto& f : hubs.spawn_on_each([](std::size_t i) { return 10 * i; })) each.push_back(f.get());
  CHECK(each == std::vector<std::size_t>{0, 10});
}

TEST_CASE("hub_threads: spawn takes the hub with the least to do") {
  hub_threads hubs(3);
  event go;
  std::vector<future<std::size_t>> all;
  auto waits = [&] {
    go.wait();
    return hubs.here();
  };
  for (int i = 0; i < 5; ++i) all.push_back(hubs.spawn_on(0, waits));
  for (int i = 0; i < 10; ++i) all.push_back(hubs.spawn(waits));
  CHECK(hubs.load(0) == 5);
  CHECK(hubs.load(1) == 5);
  CHECK(hubs.load(2) == 5);
  go.set();
  std::vector<int> on(3);
  for (auto& f : all) ++on[f.get()];
  CHECK(on == std::vector{5, 5, 5});
  CHECK(soon([&] { return hubs.load(0) + hubs.load(1) + hubs.load(2) == 0; }));
}

TEST_CASE("hub_threads: join waits for all fibers of all hubs, also those that were spawned there and on each other") {
  hub_threads hubs(2);
  CHECK(hubs.join());
  std::atomic<int> ended{0};
  hubs.spawn_on(1, [&] {
    spawn([&] {
      sleep(5ms);
      hubs.spawn_on(0, [&] {
        sleep(5ms);
        ++ended;
      });
      ++ended;
    });
  });
  CHECK(hubs.join());
  CHECK(ended == 2);
  event go;
  hubs.spawn([&] { go.wait(); });
  CHECK_FALSE(hubs.join(3ms));
  go.set();
  CHECK(hubs.join(10s));
  auto inside = hubs.spawn([&] { hubs.join(); });
  CHECK(contains(error_of([&] { inside.get(); }), "on one of its own hubs"));
}

TEST_CASE("hub_threads: shutdown kills what runs, waits for its unwinding and for the threads") {
  const std::size_t before = threads_now();
  std::atomic<int> unwound{0};
  {
    hub_threads hubs(3);
    CHECK(threads_now() >= 4);
    std::vector<future<>> all;
    for (int i = 0; i < 30; ++i)
      all.push_back(hubs.spawn([&] {
        struct counts {
          std::atomic<int>& n;
          ~counts() {
            sleep(1ms);  // cleaning up may wait
            ++n;
          }
        } at_end{unwound};
        sleep(never);
      }));
    for (std::size_t i = 0; i < 3; ++i) hubs.spawn_on(i, [] {}).get();
    CHECK(hubs.shutdown());
    CHECK(unwound == 30);
    CHECK(error_of([&] { all[0].get(); }) == "ringlet::greenlet_exit");
    CHECK_THROWS_AS(hubs.spawn([] {}), std::runtime_error);
    CHECK(hubs.shutdown());
    CHECK_FALSE(hubs.hub(0).post([] {}));
  }
  CHECK(soon([&] { return threads_now() <= before; }));
}

TEST_CASE("hub_threads: a shutdown may be given a deadline; its end waits for the rest") {
  event go;
  bool ended = false;
  auto hubs = std::make_unique<hub_threads>(1);
  event resists;
  hubs->spawn([&] {
    try {
      sleep(never);
    } catch (const greenlet_exit&) {
      resists.set();
    }
    go.wait();
    ended = true;
  });
  hubs->spawn([] {}).get();
  CHECK_FALSE(hubs->shutdown(5ms));
  resists.wait();
  go.set();
  hubs.reset();
  CHECK(ended);
}

TEST_CASE("hub_threads: errors that nobody asks for go to the handler, with the hub's index") {
  std::atomic<int> told{0};
  std::string text;
  event done;
  {
    hub_threads_options how;
    how.on_error = [&](std::size_t index, const hub::failure& f) {
      text = std::to_string(index) + " " + f.fiber + " " + error_of([&] { std::rethrow_exception(f.error); });
      ++told;
      done.set();
    };
    hub_threads hubs(2, how);
    hubs.spawn_on(1, [] { spawn({.name = "unasked"}, [] { throw std::runtime_error("oops"); }); });
    CHECK(done.wait(10s));
    CHECK(hubs.spawn_on(1, [] { return 1; }).get() == 1);  // the hub goes on
  }
  CHECK(told == 1);
  CHECK(text == "1 unasked oops");
}

HUB_CASE("hub: an error handler is told instead of stderr; what it throws is told there") {
  std::vector<std::string> told;
  auto before = hub::set_error_handler([&](const hub::failure& f) { told.push_back(f.fiber); });
  CHECK_FALSE(before);
  captured_stderr said;
  spawn({.name = "one"}, [] { throw std::runtime_error("first"); });
  yield();
  yield();
  CHECK(told == std::vector<std::string>{"one"});
  hub::set_error_handler([](const hub::failure&) { throw std::runtime_error("handler broke"); });
  spawn({.name = "two"}, [] { throw std::runtime_error("second"); });
  yield();
  yield();
  CHECK(hub::set_error_handler({}));
  spawn({.name = "three"}, [] { throw std::runtime_error("third"); });
  yield();
  yield();
  const std::string text = said.end();
  CHECK_FALSE(contains(text, "first"));
  CHECK(contains(text, "handler broke"));
  CHECK(contains(text, "second"));
  CHECK(contains(text, "third"));
}

TEST_CASE("hub_threads: at_start runs first on each hub, and its error is the constructor's") {
  const std::size_t before = threads_now();
  std::atomic<int> started{0};
  {
    hub_threads hubs(2, {.at_start = [&](std::size_t) { ++started; }, .on_error = {}});
    CHECK(started == 2);
  }
  CHECK(error_of([] { hub_threads broken(3, {.at_start = [](std::size_t i) { if (i == 1) throw std::runtime_error("no start"); }, .on_error = {}}); }) ==
        "no start");
  CHECK(soon([&] { return threads_now() <= before; }));
}

TEST_CASE("hub_threads: made and destroyed many times, with work half done") {
  const int rounds = support::is_instrumented() ? 10 : 50;
  const std::size_t before = threads_now();
  for (int i = 0; i < rounds; ++i) {
    std::atomic<int> ran{0};
    hub_threads hubs(2);
    for (int j = 0; j < 20; ++j)
      hubs.spawn([&] {
        ++ran;
        yield();
        ++ran;
      });
  }
  CHECK(soon([&] { return threads_now() <= before; }));
}

TEST_CASE("hub_threads: a forked child has none of them, and says so") {
  if (has_background_thread()) RINGLET_SKIP("ThreadSanitizer lets no forked child of several threads make threads");
  hub_threads hubs(2);
  hubs.spawn([] {}).get();
  const pid_t child = ::fork();
  if (child == 0) {
    const bool refused = contains(error_of([&] { hubs.spawn([] {}); }), "forked child");
    hub_threads fresh(1);
    ::_exit(refused && fresh.spawn([] { return 4; }).get() == 4 ? 7 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 7);
}

TEST_CASE("hub_threads: ten thousand fibers and a queue over four hubs and foreign threads, every item once") {
  const std::size_t fibers = support::is_instrumented() ? 200 : 10'000;
  const int items = support::is_instrumented() ? 20 : 1'000;
  const int hub_count = 4;
  support::allow_seconds(300);
  queue<int> q(1000);
  std::atomic<long long> sum{0};
  std::atomic<long> taken{0};
  const long total = long(fibers) / 2 * items;
  std::thread foreign_putter([&] {
    for (int i = 0; i < items; ++i) q.put(1'000'000);
  });
  std::thread foreign_getter([&] {
    for (int i = 0; i < items; ++i) {
      sum += *q.get();
      ++taken;
    }
  });
  {
    hub_threads hubs(hub_count);
    std::vector<future<>> all;
    all.reserve(fibers);
    for (std::size_t f = 0; f < fibers; ++f)
      all.push_back(f % 2 ? hubs.spawn([&] {
        for (int i = 0; i < items; ++i) q.put(int(i));
      })
                          : hubs.spawn([&] {
        long long mine = 0;
        for (int i = 0; i < items; ++i) mine += *q.get();
        sum += mine;
        taken += items;
      }));
    for (auto& f : all) f.get();
  }
  foreign_putter.join();
  foreign_getter.join();
  CHECK(taken == total + items);
  CHECK(q.empty());
  const long long expected = static_cast<long long>(fibers / 2) * items * (items - 1) / 2 + 1'000'000LL * items;
  CHECK(sum == expected);
}

// --- servers ---------------------------------------------------------------------------------------------------------

namespace {

support::listener listen_shared(unsigned short port) {
  support::listener made;
  made.socket = support::fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  REQUIRE(::setsockopt(made.socket, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  REQUIRE(::bind(made.socket, generic, length) == 0);
  REQUIRE(::listen(made.socket, 512) == 0);
  REQUIRE(::getsockname(made.socket, generic, &length) == 0);
  made.port = ntohs(address.sin_port);
  return made;
}

// Says which hub serves it, once for each byte that comes.
void serve(int client, hub_threads& hubs) {
  char byte;
  while (io::read(client, &byte, 1) == 1) {
    byte = char(hubs.here());
    if (io::write(client, &byte, 1) != 1) break;
  }
  io::close(client);
}

// So many clients at once, as fibers of this thread, who stay until all have had their answers; how many were served by each hub.
std::vector<int> ask(unsigned short port, int clients, std::size_t hubs) {
  std::vector<int> served(hubs + 1);
  int answered = 0;
  event all_are;
  group g;
  for (int i = 0; i < clients; ++i)
    g.spawn([&] {
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_port = htons(port);
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      support::fd s(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (io::connect(s, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return;
      char first = 100, again = 100;
      for (char* answer : {&first, &again})
        if (io::write(s, "?", 1) != 1 || io::read(s, answer, 1) != 1) return;
      if (first == again && std::size_t(first) < hubs) ++served[std::size_t(first)];
      if (++answered == clients) all_are.set();
      all_are.wait(20s);
      io::close(s.release());
    });
  g.join();
  return served;
}

}  // namespace

TEST_CASE("server: with SO_REUSEPORT the kernel spreads connections over the hubs, and each is served where it was accepted") {
  constexpr std::size_t count = 3;
  constexpr int clients = 200;
  hub_threads hubs(count);
  support::listener first = listen_shared(0);
  std::vector<support::fd> listeners;
  const unsigned short port = first.port;
  listeners.push_back(std::move(first.socket));
  for (std::size_t i = 1; i < count; ++i) listeners.push_back(listen_shared(port).socket);
  std::vector<future<>> servers;
  for (std::size_t i = 0; i < count; ++i)
    servers.push_back(hubs.spawn_on(i, [&hubs, listener = listeners[i].get()] {
      for (;;) {
        const int client = io::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        if (client < 0) {
          io::close(listener);
          return sleep(never);  // killed: throws it
        }
        spawn([client, &hubs] { serve(client, hubs); });
      }
    }));
  const auto served = ask(port, clients, count);
  int sum = 0;
  for (std::size_t i = 0; i < count; ++i) {
    CHECK(served[i] > 0);
    sum += served[i];
  }
  CHECK(sum == clients);
  for (auto& l : listeners) l.release();
  CHECK(hubs.shutdown());
  for (auto& s : servers) CHECK(error_of([&] { s.get(); }) == "ringlet::greenlet_exit");
}

TEST_CASE("server: accepted sockets are handed to the hub with the least to do") {
  constexpr std::size_t count = 3;
  constexpr int clients = 90;
  hub_threads hubs(count);
  support::listener l = support::listen_on_free_port(512);
  auto acceptor = spawn([&] {
    for (;;) {
      const int client = io::accept4(l.socket, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) return;
      hubs.spawn([client, &hubs] { serve(client, hubs); });
    }
  });
  const auto served = ask(l.port, clients, count);
  for (std::size_t i = 0; i < count; ++i) CHECK(served[i] == clients / int(count));
  CHECK(hubs.join(10s));  // the clients have gone, so has everybody who served them
  acceptor.kill();
  io::close(l.socket.release());
}

// --- a hub that is hurt ----------------------------------------------------------------------------------------------

TEST_CASE("hub: its descriptors closed behind its back are survived, which the epoll engine tells") {
  if (support::child_part("closed")) {
    ringlet::sleep(1ms);
    ::syscall(SYS_close_range, 3, ~0u, 0);
    for (int i = 0; i < 3; ++i) ringlet::sleep(1ms);
    auto pipe = support::make_pipe();
    auto reader = spawn([&] {
      char byte = 0;
      return io::read(pipe.first, &byte, 1);
    });
    ringlet::sleep(1ms);
    const bool written = ::write(pipe.second, "x", 1) == 1;
    std::_Exit(written && reader.get(5s) == 1 ? 7 : 1);
  }
  const bool on_ring = hub::engine_name() == "uring";
  const auto got = support::run_this_case("closed");
  CHECK(got.exit_status == 7);
  CHECK(contains(got.err, "were closed by the program") != on_ring);
}

TEST_CASE("usable_processors: heeds the quota of its control group, and of those above it") {
  const std::filesystem::path root = std::filesystem::temp_directory_path() / ("ringlet-cgroup-" + std::to_string(::getpid()));
  struct removed {
    const std::filesystem::path& what;
    ~removed() { std::filesystem::remove_all(what); }
  } at_end{root};
  auto write = [&](const std::string& where, const std::string& text) {
    std::filesystem::create_directories((root / where).parent_path());
    std::ofstream(root / where) << text;
  };
  const std::size_t none = std::numeric_limits<std::size_t>::max();
  auto by_quota = [&](const std::string& own) { return detail::processors_by_quota(own, root.string()); };
  CHECK(by_quota("0::/\n") == none);
  CHECK(by_quota("") == none);
  CHECK(by_quota("nonsense") == none);
  write("a/b/cpu.max", "max 100000\n");
  CHECK(by_quota("0::/a/b\n") == none);
  write("a/cpu.max", "250000 100000\n");
  CHECK(by_quota("0::/a/b\n") == 3);
  write("a/b/cpu.max", "50000 100000\n");
  CHECK(by_quota("0::/a/b\n") == 1);
  CHECK(by_quota("0::/a\n") == 3);
  write("cpu/x/cpu.cfs_quota_us", "400000\n");
  write("cpu/x/cpu.cfs_period_us", "100000\n");
  CHECK(by_quota("5:cpuset:/x\n4:cpu,cpuacct:/x\n") == 4);
  write("cpu/x/cpu.cfs_quota_us", "-1\n");
  CHECK(by_quota("4:cpu,cpuacct:/x\n") == none);
}
