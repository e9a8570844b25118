// No memory for the layers above: scopes, timers, channels, futures, several hubs, servers, streams, children, signals.

#include <csignal>

#include <mutex>
#include <stdexcept>

#include "io/io_support.hpp"
#include "shortage.hpp"

#include <ringlet/ringlet.hpp>
#include <ringlet/server.hpp>
#include <ringlet/signals.hpp>
#include <ringlet/subprocess.hpp>

using namespace std::chrono_literals;
using faults::act_function;
using faults::sweep;

TEST_CASE("no memory: scopes and timers end all that they have begun") {
  sweep("fiber_scope", [](const act_function& act) {
    int begun = 0, ended = 0;
    struct counted {
      int& ended;
      ~counted() { ++ended; }
    };
    act([&] {
      ringlet::fiber_scope scope;
      for (int i = 0; i < 5; ++i)
        scope.spawn([&] {
          ++begun;
          const counted end{ended};
          ringlet::sleep(50us);
        });
      return true;
    });
    CHECK(begun == ended);
  });
  sweep("a scope that is cancelled", [](const act_function& act) {
    int ended = 0;
    act([&] {
      ringlet::fiber_scope scope;
      for (int i = 0; i < 5; ++i)
        scope.spawn([&] {
          const ringlet::kill_shield none_yet;
          ++ended;
        });
      scope.spawn([] { throw std::out_of_range("one fails"); });
      try {
        scope.join();
      } catch (const std::out_of_range&) {
        return true;
      }
      return false;
    });
  });
  sweep("timer", [](const act_function& act) {
    int calls = 0;
    const bool done = act([&] {
      ringlet::timer t(50us, [&] { ++calls; });
      return t.join(10s);
    });
    ringlet::sleep(200us);
    CHECK(calls <= 1);
    if (done) CHECK(calls == 1);
  });
}

TEST_CASE("no memory: what is sent and promised arrives once") {
  sweep("channel", [](const act_function& act) {
    ringlet::channel<int> c;
    int sum = 0, sent = 0;
    auto receiver = ringlet::spawn([&] {
      while (auto n = c.receive()) sum += *n;
    });
    act([&] {
      for (int i = 1; i <= 20; ++i)
        if (c.send(int(i), 10s)) sent += i;
      return true;
    });
    c.shutdown();
    receiver.join();
    CHECK(sum == sent);
  });
  sweep("async_result, wait", [](const act_function& act) {
    ringlet::async_result<int> a, b;
    auto setter = ringlet::spawn([&] {
      ringlet::sleep(20us);
      a.set(1);
      b.set(2);
    });
    act([&] { return ringlet::wait({ringlet::waitable(a), ringlet::waitable(b)}, {.until = 10s}).size() == 2; });
    setter.join();
    CHECK(a.get() + b.get() == 3);
  });
  sweep("hub_threads", [](const act_function& act) {
    ringlet::hub_threads hubs(2);
    std::atomic<int> runs{0};
    using promised = decltype(hubs.spawn([&] { ++runs; }));
    std::vector<promised> given;
    given.reserve(6);
    act([&] {
      for (int i = 0; i < 6; ++i) given.push_back(hubs.spawn([&] { ++runs; }));
      return true;
    });
    int kept = 0;
    for (auto& future : given) {  // each has an end: it ran, or it says that it never will
      REQUIRE(future.wait(10s));
      kept += !future.exception();
    }
    CHECK(runs == kept);
    CHECK(hubs.shutdown());
  });
}

TEST_CASE("no memory: a server loses a connection at the most, and serves the next") {
  sweep("server", [](const act_function& act) {
    ringlet::server_options how;
    how.shortest_rest = how.longest_rest = 1ms;
    how.on_error = [](const char*, std::exception_ptr) {};
    ringlet::stream_server server(
        ringlet::listener("127.0.0.1:0"),
        [](ringlet::connection& c) {
          while (auto line = c.read_line()) c.write(*line + "\n");
        },
        how);
    server.start();
    const std::string place = "127.0.0.1:" + std::to_string(server.port());
    const std::string line = "a line that is too long for the small string";
    const auto ask = [&] {
      auto c = ringlet::connect_to(place);
      c.write(line + "\n");
      return c.read_line(10s) == line;
    };
    act([&] {
      try {
        return ask();
      } catch (const ringlet::io_error& e) {
        if (!e.peer_gone()) throw;
        return false;
      }
    });
    CHECK(ask());
    CHECK(server.stop(5s));
  });
}

TEST_CASE("no memory: children are started and ended, signals are handed out") {
  sweep("subprocess", [](const act_function& act) { act([] { return ringlet::run({"true"}).status.success(); }); });
  sweep("signal_handler", [](const act_function& act) {
    int calls = 0;
    bool listens = false;
    act([&] {
      ringlet::signal_handler on({SIGUSR2}, [&](const ringlet::signal_info&) { ++calls; });
      listens = true;
      ::raise(SIGUSR2);
      ringlet::yield();  // it is to be told now
      faults::end_shortage();
      return io_test::turn_until([&] { return calls == 1; });
    });
    CHECK(calls == int(listens));
  });
}
