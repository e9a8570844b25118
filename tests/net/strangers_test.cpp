// Real servers (nginx, Redis, PostgreSQL) behind a stream server that passes everything on, and real clients before it: every byte,
// and no connection lost at a change of servers.

#include <pwd.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ringlet/server.hpp>
#include <ringlet/subprocess.hpp>

#include "hub/on_hub.hpp"

using namespace hub_test;

namespace {

// Both ways, until both have ended.
void relay(connection& client, const std::string& to) {
  connection behind = connect_to(to, 10s);
  group back;
  back.spawn([&] {
    for (std::string some; !(some = behind.read_some()).empty();) client.write(some);
    client.shutdown_writing();
  });
  for (std::string some; !(some = client.read_some()).empty();) behind.write(some);
  behind.shutdown_writing();
  back.join();
}

std::string free_place() {
  listener l("127.0.0.1:0");
  return l.address().to_string();
}
std::string port_of(const std::string& place) { return place.substr(place.rfind(':') + 1); }

bool answers(const std::string& place) {
  const auto give_up = std::chrono::steady_clock::now() + 30s;
  while (std::chrono::steady_clock::now() < give_up) try {
      connect_to(place, 5s);
      return true;
    } catch (const io_error&) {
      sleep(5ms);
    }
  return false;
}

// Starts it, or says that it is not here.
std::unique_ptr<subprocess> started(std::vector<std::string> command) {
  try {
    return std::make_unique<subprocess>(
        std::move(command), subprocess_options{.in = redirect::null_device(), .out = redirect::null_device(), .err = redirect::null_device()});
  } catch (const start_error&) {
    return nullptr;
  }
}

// An HTTP/1.0 answer's body.
std::string fetched(const socket_address& from, const std::string& path) {
  auto c = connect_to(from, 20s);
  c.write("GET " + path + " HTTP/1.0\r\nHost: x\r\n\r\n");
  const auto status = c.read_until("\r\n", 60s);
  if (!status || !contains(*status, " 200 ")) return "status: " + status.value_or("none");
  while (c.read_until("\r\n", 60s).value_or("") != "") {
  }
  return c.read_all(60s);
}

}  // namespace

TEST_CASE("stream_server: passes on what nginx serves, whole, to fifty clients at once; a change of servers loses none") {
  support::allow_seconds(180);
  support::temporary_directory directory;
  const std::string top = directory.path(), place = free_place();
  REQUIRE(::chmod(top.c_str(), 0755) == 0);
  std::string page(300'000, 0);
  for (std::size_t i = 0; i < page.size(); ++i) page[i] = char('a' + (i * 7 + i / 251) % 26);
  files::make_directory(top + "/www");
  files::write(top + "/www/page", page);
  files::write(top + "/conf", "daemon off; master_process off; pid " + top + "/pid; error_log " + top + "/errors;\nevents {}\nhttp { access_log off; "
               "client_body_temp_path " + top + "/t1; proxy_temp_path " + top + "/t2; fastcgi_temp_path " + top + "/t3; uwsgi_temp_path " + top +
               "/t4; scgi_temp_path " + top + "/t5;\nserver { listen " + place + "; root " + top + "/www; } }\n");
  const auto nginx = started({"nginx", "-e", top + "/errors", "-p", top, "-c", top + "/conf"});
  if (!nginx) RINGLET_SKIP("nginx is not here");
  REQUIRE(answers(place));
  const server_options how{.most_connections = 20};
  listener queue("127.0.0.1:0");
  auto first = std::make_unique<stream_server>(queue.share(), [&](connection& c) { relay(c, place); }, how);
  const socket_address address = first->address();
  first->start();
  std::unique_ptr<stream_server> second;
  int right = 0, asked = 0;
  std::string wrong;
  pool clients(50);
  for (int i = 0; i < 200; ++i)
    clients.spawn([&] {
      if (++asked == 100) {  // the next generation is there before this one goes
        second = std::make_unique<stream_server>(queue.share(), [&](connection& c) { relay(c, place); }, how);
        second->start();
        first->stop(60s);
      }
      try {
        const std::string got = fetched(address, "/page");
        right += got == page;
        if (got != page) wrong = got.substr(0, 200);
      } catch (const std::exception& e) {
        wrong = e.what();
      }
    });
  clients.join();
  CHECK(right == 200);
  CHECK(wrong == "");
  CHECK(first->counts().failed == 0);
  CHECK(second->counts().failed == 0);
  CHECK(second->counts().accepted > 0);
  CHECK(first->counts().accepted + second->counts().accepted == 200);
}

TEST_CASE("stream_server: redis's own clients work through it") {
  support::temporary_directory directory;
  const std::string place = free_place();
  const auto redis = started({"redis-server", "--port", port_of(place), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory.path()});
  if (!redis) RINGLET_SKIP("redis is not here");
  REQUIRE(answers(place));
  stream_server server(listener("127.0.0.1:0"), [&](connection& c) { relay(c, place); });
  server.start();
  const std::string port = std::to_string(server.port());
  CHECK(run({"redis-cli", "-p", port, "set", "key", "some value"}, {.until = 30s}).out == "OK\n");
  CHECK(run({"redis-cli", "-p", port, "get", "key"}, {.until = 30s}).out == "some value\n");
  const auto load = run({"redis-benchmark", "-p", port, "-c", "20", "-n", "2000", "-q", "-t", "set,get"}, {.until = 50s});
  CHECK(load.status.success());
  CHECK(contains(load.out, "requests per second"));
  CHECK(server.counts().accepted >= 22);
  redis->terminate();
  CHECK(redis->wait(20s));
}

namespace {

// Debian keeps each version's programs in a folder of their own, outside of PATH.
std::string folder_of_postgresql() {
  std::error_code none;
  for (const auto& version : std::filesystem::directory_iterator("/usr/lib/postgresql", none))
    if (std::filesystem::exists(version.path() / "bin/postgres")) return version.path() / "bin/";
  return {};
}

// Its server refuses to be root.
std::vector<std::string> as_postgres(std::vector<std::string> command) {
  if (::geteuid() != 0) return command;
  std::vector<std::string> whole{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"};
  whole.insert(whole.end(), command.begin(), command.end());
  return whole;
}

}  // namespace

TEST_CASE("stream_server: PostgreSQL's own clients work through it, with much in both directions") {
  support::allow_seconds(180);
  const std::string programs = folder_of_postgresql();
  if (programs.empty()) RINGLET_SKIP("PostgreSQL is not here");
  support::temporary_directory directory;
  const std::string data = directory.path() / "data", place = free_place();
  files::make_directory(data);
  if (::geteuid() == 0) {
    const passwd* them = ::getpwnam("postgres");
    REQUIRE(them);
    REQUIRE(::chmod(directory.path().c_str(), 0755) == 0);
    REQUIRE(::chown(data.c_str(), them->pw_uid, them->pw_gid) == 0);
  }
  const auto made = run(as_postgres({programs + "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"}), {.until = 100s});
  REQUIRE_MESSAGE(made.status.success(), made.err);
  const auto server = started(as_postgres({programs + "postgres", "-D", data, "-h", "127.0.0.1", "-p", port_of(place), "-k", "", "-F"}));
  REQUIRE(server);
  REQUIRE(answers(place));

  stream_server passes_on(listener("127.0.0.1:0"), [&](connection& c) { relay(c, place); });
  passes_on.start();
  const auto client = [&](std::string program, std::vector<std::string> arguments, std::string input = "") {
    std::vector<std::string> command{programs + program, "-h", "127.0.0.1", "-p", std::to_string(passes_on.port()), "-U", "postgres"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return run(command, {.input = std::move(input), .until = 100s});
  };
  // It answers before it lets anybody in.
  for (int tries = 0; tries < 1000 && !client("pg_isready", {}).status.success(); ++tries) sleep(10ms);
  std::string rows;
  for (int i = 0; i < 50'000; ++i) rows += std::to_string(i) + "\t" + std::string(std::size_t(i % 40), 'x') + "\n";
  CHECK(client("psql", {"-qc", "create table t (n int, x text)", "postgres"}).status.success());
  CHECK(client("psql", {"-qc", "copy t from stdin", "postgres"}, rows).status.success());
  CHECK(client("psql", {"-qc", "copy (select * from t order by n) to stdout", "postgres"}).out == rows);
  CHECK(client("pgbench", {"-q", "-i", "postgres"}).status.success());
  const auto load = client("pgbench", {"-n", "-c", "10", "-t", "20", "postgres"});
  CHECK(load.status.success());
  CHECK(contains(load.out, "200/200"));
  server->send_signal(SIGINT);
  CHECK(server->wait(60s));
}
