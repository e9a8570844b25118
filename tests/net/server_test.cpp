// The stream server: who is served, how many at once, what a shortage does, and how it ends.

#include "ringlet/server.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "hub/on_hub.hpp"
#include "io/io_support.hpp"

using namespace hub_test;
using io_test::turn_until;

namespace {

void echo(connection& c) {
  while (auto line = c.read_line()) c.write(*line + "\n");
}
std::string place_of(const stream_server& s) { return "127.0.0.1:" + std::to_string(s.port()); }
std::string asked(connection& c, const std::string& line) {
  c.write(line + "\n");
  return c.read_line(10s).value_or("the end");
}

}  // namespace

TEST_CASE("stream_server: each connection has a fiber and is closed when its handler returns") {
  stream_server server(listener("127.0.0.1:0"), [](connection& c) {
    CHECK(c.peer().to_string().starts_with("127.0.0.1:"));
    echo(c);
    c.write("goodbye\n");
  });
  CHECK(server.port() != 0);
  CHECK_FALSE(server.accepting());
  server.start();
  CHECK(server.accepting());
  CHECK_THROWS_AS(server.start(), std::logic_error);
  auto a = connect_to(place_of(server)), b = connect_to(place_of(server), 10s);
  CHECK(asked(b, "second") == "second");
  CHECK(asked(a, "first") == "first");
  CHECK(server.counts().open == 2);
  a.shutdown_writing();
  CHECK(a.read_line(10s) == "goodbye");
  CHECK(a.read_line(10s) == std::nullopt);
  CHECK(turn_until([&] { return server.counts().open == 1; }));
  CHECK(asked(b, "still") == "still");
  b.close();
  CHECK(server.stop(10s));
  CHECK(server.counts().accepted == 2);
  CHECK(server.counts().open == 0);
  CHECK(server.stop());
  CHECK_THROWS_AS(connect_to(server.address(), 10s), io_error);
}

TEST_CASE("stream_server: a full one leaves the others in the kernel's queue and goes on when one has ended") {
  std::size_t now_open = 0, most = 0;
  stream_server server(listener("127.0.0.1:0"),
                       [&](connection& c) {
                         most = std::max(most, ++now_open);
                         echo(c);
                         --now_open;
                       },
                       {.most_connections = 2});
  server.start();
  std::vector<connection> clients;
  for (int i = 0; i < 5; ++i) clients.push_back(connect_to(place_of(server)));
  CHECK(asked(clients[0], "a") == "a");
  CHECK(asked(clients[1], "b") == "b");
  CHECK(server.full());
  clients[2].write("c\n");
  CHECK_THROWS_AS(clients[2].read_line(5ms), io_error);
  CHECK(server.counts().accepted == 2);
  clients[0].close();
  CHECK(clients[2].read_line(10s) == "c");
  for (int i : {1, 2}) clients[std::size_t(i)].close();
  CHECK(asked(clients[3], "d") == "d");
  CHECK(asked(clients[4], "e") == "e");
  clients.clear();
  CHECK(turn_until([&] { return server.counts().open == 0; }));
  CHECK_FALSE(server.full());
  CHECK(most == 2);
  CHECK(server.stop(10s));
}

TEST_CASE("stream_server: out of descriptors it rests, tells once, and goes on as soon as a connection has ended") {
#ifdef __SANITIZE_ADDRESS__
  RINGLET_SKIP("UBSan, which is built in with ASan, looks at exceptions through a pipe, and here no descriptor is left for one");
#else
  std::vector<std::string> told;
  stream_server server(listener("127.0.0.1:0"), echo,
                       {.shortest_rest = 1h, .longest_rest = 1h, .on_error = [&](const char* what, std::exception_ptr e) {
                          told.push_back(std::string(what) + ": " + error_of([&] { std::rethrow_exception(e); }));
                        }});
  server.start();
  auto first = connect_to(place_of(server));
  CHECK(asked(first, "x") == "x");
  auto second = connect_to(place_of(server));
  // Every number below the limit is taken by the time that the second is to be accepted.
  CHECK(asked(second, "y") == "y");
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  std::vector<support::fd> taken;
  server.pause();
  auto third = connect_to(place_of(server));
  const int highest = ::dup(0);
  REQUIRE(highest >= 0);
  taken.emplace_back(highest);
  rlimit low{rlim_t(highest + 1), before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &low) == 0);
  for (int extra; (extra = ::dup(0)) >= 0;) taken.emplace_back(extra);
  server.resume();
  CHECK(turn_until([&] { return server.counts().rests == 1; }));
  third.write("z\n");
  CHECK_THROWS_AS(third.read_line(5ms), io_error);
  CHECK(server.counts().accepted == 2);
  first.shutdown_writing();  // the server's end of it is a number to be had again
  CHECK(third.read_line(10s) == "z");
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  REQUIRE(told.size() == 1);
  CHECK(contains(told[0], "accept: "));
  CHECK(contains(told[0], "ulimit -n"));
#endif
}

TEST_CASE("stream_server: stop serves whoever is connected already, waits for the handlers, and frees the port") {
  event go;
  int served = 0;
  auto server = std::make_unique<stream_server>(listener("127.0.0.1:0"), [&](connection& c) {
    const auto line = c.read_line();
    go.wait();
    c.write(*line + "!\n");
    ++served;
  });
  server->start();
  server->pause();
  auto waiting = connect_to(place_of(*server));  // in the queue
  waiting.write("late\n");
  auto stopper = spawn([&] { return server->stop(20s); });
  CHECK(turn_until([&] { return server->counts().open == 1; }));
  CHECK_THROWS_AS(connect_to(server->address(), 10s), io_error);
  CHECK_FALSE(stopper.ready());
  go.set();
  CHECK(stopper.get());
  CHECK(waiting.read_line(10s) == "late!");
  CHECK(served == 1);
  const std::string place = place_of(*server);
  server.reset();
  listener again(place);
  CHECK(again.is_open());
}

TEST_CASE("stream_server: stop serves the queue also beyond the limit at once, as far as its deadline allows") {
  support::temporary_directory directory;
  for (const std::string& place : {std::string("127.0.0.1:0"), "unix:" + (directory.path() / "s").string()}) {
    CAPTURE(place);
    std::size_t now_open = 0, most = 0;
    event go;
    stream_server server(listener(place),
                         [&](connection& c) {
                           most = std::max(most, ++now_open);
                           go.wait();
                           yield();
                           c.write("served\n");
                           --now_open;
                         },
                         {.most_connections = 2});
    server.start();
    std::vector<connection> clients;
    for (int i = 0; i < 20; ++i) clients.push_back(connect_to(server.address(), 10s));
    CHECK(turn_until([&] { return now_open == 2; }));
    auto stopper = spawn([&] { return server.stop(20s); });
    for (int i = 0; i < 20; ++i) yield();
    go.set();
    for (auto& c : clients) CHECK(c.read_line(20s) == "served");
    CHECK(stopper.get());
    CHECK(most == 2);
  }
}

TEST_CASE("stream_server: a full one's stop does not wait for a place that nobody wants, nor past its deadline") {
  for (const bool somebody : {false, true}) {
    CAPTURE(somebody);
    event go;
    stream_server server(listener("127.0.0.1:0"), [&](connection&) { go.wait(); }, {.most_connections = 1});
    server.start();
    auto served = connect_to(place_of(server), 10s);
    CHECK(turn_until([&] { return server.full(); }));
    std::optional<connection> queued;
    if (somebody) queued = connect_to(place_of(server), 10s);
    auto stopper = spawn([&] { return server.stop(somebody ? deadline(5ms) : deadline(20s)); });
    if (!somebody) {
      for (int i = 0; i < 50; ++i) yield();
      CHECK_THROWS_AS(connect_to(server.address(), 10s), io_error);
      go.set();
    }
    CHECK(stopper.get() == !somebody);
    CHECK(served.read_line(10s) == std::nullopt);
    CHECK(server.counts().accepted == 1);
    if (somebody) CHECK_THROWS_AS(queued->read_line(10s), io_error);
  }
}

TEST_CASE("stream_server: stop kills the handlers that are left at its deadline, and their connections end") {
  bool unwound = false;
  stream_server server(listener("127.0.0.1:0"), [&](connection& c) {
    struct at_end {
      bool& flag;
      ~at_end() { flag = true; }
    } mark{unwound};
    c.write("here\n");
    sleep(never);
  });
  server.start();
  auto c = connect_to(place_of(server));
  CHECK(c.read_line(10s) == "here");
  CHECK_FALSE(server.stop(1ms));
  CHECK(unwound);
  CHECK(c.read_line(10s) == std::nullopt);
  // A destroyed one does the same.
  unwound = false;
  {
    stream_server second(listener("127.0.0.1:0"), [&](connection& d) {
      d.write("here\n");
      try {
        sleep(never);
      } catch (...) {
        unwound = true;
        throw;
      }
    });
    second.start();
    c = connect_to(place_of(second));
    CHECK(c.read_line(10s) == "here");
  }
  CHECK(unwound);
}

TEST_CASE("stream_server: serve ends by request_stop, also from a handler, which cannot stop it itself") {
  stream_server* self = nullptr;
  std::string refused;
  stream_server server(listener("127.0.0.1:0"), [&](connection& c) {
    refused = error_of([&] { self->stop(); });
    self->request_stop();
    c.write("stopping\n");
  });
  self = &server;
  auto client = spawn([&] { return connect_to(place_of(server)).read_all(); });
  CHECK(server.serve(10s));
  CHECK(client.get() == "stopping\n");
  CHECK(contains(refused, "request_stop"));
}

TEST_CASE("stream_server: an interrupted serve stops, with its grace, before it throws on") {
  int finished = 0;
  stream_server server(listener("127.0.0.1:0"), [&](connection& c) {
    c.write("here\n");
    c.read_line();
    ++finished;
  });
  auto serving = spawn([&] { server.serve(10s); });
  auto c = connect_to(place_of(server));
  CHECK(c.read_line(10s) == "here");
  CHECK_FALSE(serving.kill(deadline::passed()));
  yield();
  CHECK_FALSE(server.accepting());
  CHECK_FALSE(serving.ready());
  c.write("done\n");
  CHECK(serving.join(10s));
  CHECK(finished == 1);
}

TEST_CASE("stream_server: a handler's error is told and ends its connection only; a peer that goes is no error") {
  std::vector<std::string> told;
  stream_server server(listener("127.0.0.1:0"),
                       [](connection& c) {
                         const auto line = c.read_line(5s);
                         if (line == "throw") throw std::runtime_error("the handler's own");
                         if (line == "slow") c.read_line(1ms);
                         echo(c);
                       },
                       {.on_error = [&](const char* what, std::exception_ptr e) {
                          told.push_back(std::string(what) + ": " + error_of([&] { std::rethrow_exception(e); }));
                        }});
  server.start();
  auto bad = connect_to(place_of(server)), slow = connect_to(place_of(server)), good = connect_to(place_of(server));
  good.write("hello\n");
  slow.write("slow\n");
  bad.write("throw\n");
  CHECK(bad.read_line(10s) == std::nullopt);
  CHECK(slow.read_line(10s) == std::nullopt);
  CHECK(told == std::vector<std::string>{"handler: the handler's own"});
  CHECK(server.counts().failed == 1);
  CHECK(server.counts().left_early == 1);
  const linger at_once{1, 0};
  auto gone = connect_to(place_of(server));
  CHECK(asked(good, "lives on") == "lives on");
  REQUIRE(::setsockopt(gone.fd(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
  gone.close();  // a reset
  CHECK(turn_until([&] { return server.counts().left_early == 2; }));
  CHECK(told.size() == 1);
  good.close();
  CHECK(server.stop(10s));
}

TEST_CASE("stream_server: a paused one lets connections wait, and serves them when it goes on") {
  stream_server server(listener("127.0.0.1:0"), echo);
  server.start();
  server.pause();
  CHECK_FALSE(server.accepting());
  auto c = connect_to(place_of(server));
  c.write("patience\n");
  CHECK_THROWS_AS(c.read_line(5ms), io_error);
  server.resume();
  CHECK(c.read_line(10s) == "patience");
  c.close();
  CHECK(server.stop(10s));
  CHECK_THROWS_AS(server.resume(), std::logic_error);
}

TEST_CASE("stream_server: a listener that stops listening ends serve with the reason") {
  std::vector<std::string> told;
  listener l("127.0.0.1:0");
  const int fd = l.fd();
  stream_server server(std::move(l), echo, {.on_error = [&](const char* what, std::exception_ptr) { told.push_back(what); }});
  auto breaker = spawn([&] {
    CHECK(turn_until([&] { return server.accepting(); }));
    yield();
    ::shutdown(fd, SHUT_RDWR);
  });
  CHECK(contains(error_of([&] { server.serve(); }), "accepting on 127.0.0.1:"));
  CHECK(told == std::vector<std::string>{"accept"});
  breaker.join();
}

TEST_CASE("stream_server: on several hubs all of them serve, however connections are spread, and stop ends them all") {
  for (const spread by : {spread::reuse_port, spread::shared, spread::hand_off, spread::best}) {
    CAPTURE(int(by));
    hub_threads hubs(3);
    std::atomic<int> ended{0};
    stream_server server(listener("127.0.0.1:0", {.reuse_port = by == spread::reuse_port}),
                         [&](connection& c) {
                           struct at_end {
                             std::atomic<int>& n;
                             ~at_end() { ++n; }
                           } count{ended};
                           while (auto line = c.read_line()) c.write(std::to_string(hubs.here()) + "\n");
                         },
                         {.hubs = &hubs, .by = by});
    server.start();
    std::set<std::string> served_by;
    std::vector<connection> clients;
    constexpr int most = 300;
    // Spread evenly where we do it; by the kernel, until each has had one.
    while (clients.size() < most && (served_by.size() < 3 || clients.size() < 30)) {
      clients.push_back(connect_to(place_of(server)));
      const auto on = asked(clients.back(), "where?");
      served_by.insert(on);
      if (by == spread::shared && served_by.size() == 1 && clients.size() > 60) break;  // one may be faster, always
    }
    if (by != spread::shared) CHECK(served_by.size() == 3);
    CHECK(served_by.contains("3") == false);
    const auto n = clients.size();
    CHECK(server.counts().open == n);
    clients.erase(clients.begin(), clients.begin() + 10);
    CHECK(soon([&] { return server.counts().open == n - 10; }));
    CHECK_FALSE(server.stop(5ms));
    CHECK(ended == int(n));
    CHECK(server.counts().open == 0);
  }
}

TEST_CASE("stream_server: a limit holds for all hubs together") {
  hub_threads hubs(3);
  std::atomic<int> open{0}, most{0};
  stream_server server(listener("127.0.0.1:0", {.reuse_port = true}),
                       [&](connection& c) {
                         const int now_open = ++open;
                         for (int seen = most; now_open > seen && !most.compare_exchange_weak(seen, now_open);) {
                         }
                         c.read_line();
                         c.write("served\n");
                         --open;
                       },
                       {.most_connections = 4, .hubs = &hubs});
  server.start();
  pool clients(40);
  int served = 0;
  for (int i = 0; i < 200; ++i)
    clients.spawn([&] {
      auto c = connect_to(place_of(server));
      c.write("x\n");
      served += c.read_line(60s) == "served";
    });
  clients.join();
  CHECK(served == 200);
  CHECK(most <= 4);
  CHECK(server.stop(20s));
}

TEST_CASE("stream_server: request_stop may come from any thread; other calls on another thread are refused") {
  stream_server server(listener("127.0.0.1:0"), echo);
  server.start();
  std::string refused;
  std::thread([&] { refused = error_of([&] { server.stop(); }); }).join();
  CHECK(contains(refused, "another thread"));
  CHECK(server.stop(10s));
  stream_server second(listener("127.0.0.1:0"), echo);
  std::thread other;
  auto begin = spawn([&] {
    CHECK(turn_until([&] { return second.accepting(); }));
    other = std::thread([&] { second.request_stop(); });
  });
  CHECK(second.serve(10s));
  begin.join();
  other.join();
}

// Both sides' descriptors would not fit one process's limit.
TEST_CASE("stream_server: 10,000 clients at once") {
  NOT_UNDER_TSAN;
  support::allow_seconds(300);
  const int clients = support::is_instrumented() ? 1000 : 10'000;
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  if (limit.rlim_max < rlim_t(clients + 100)) RINGLET_SKIP("the hard limit on descriptors is below 10,100");
  const rlimit before = limit;
  limit.rlim_cur = limit.rlim_max;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  stream_server server(listener("127.0.0.1:0"), echo);
  const std::string place = place_of(server);
  auto ends = support::make_pipe();  // its end tells the clients to go
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends.second.release());
    int right = 0;
    try {
      event go;
      std::vector<fiber<>> all;
      for (int i = 0; i < clients; ++i)
        all.push_back(spawn([&, i] {
          auto c = connect_to(place, 120s);
          const std::string mine = "client " + std::to_string(i);
          const bool first = asked(c, mine) == mine;
          go.wait();
          right += first && asked(c, mine + " again") == mine + " again";
        }));
      char byte;
      io::read(ends.first, &byte, 1);
      go.set();
      joinall(all);
    } catch (...) {
      right = -1;
    }
    ::_exit(right == clients ? 0 : 1);
  }
  ends.first.reset();
  server.start();
  std::size_t most = 0;
  const auto give_up = std::chrono::steady_clock::now() + 200s;
  while (most < std::size_t(clients) && std::chrono::steady_clock::now() < give_up) {
    sleep(10ms);
    most = std::max(most, server.counts().open);
  }
  CHECK(most == std::size_t(clients));
  ends.second.reset();
  int status = -1;
  while (::waitpid(child, &status, WNOHANG) == 0 && std::chrono::steady_clock::now() < give_up) sleep(10ms);
  CHECK(status == 0);
  CHECK(server.stop(20s));
  CHECK(server.counts().accepted == std::uint64_t(clients));
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
}
