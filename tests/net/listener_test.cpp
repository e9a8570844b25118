// Places in words, unix sockets and their files, listeners from systemd.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>

#include <ringlet/socket.hpp>

#include "hub/on_hub.hpp"

using namespace hub_test;

namespace {
std::string words(const char* where) { return socket_address::resolve(where).front().to_string(); }
ino_t inode_of(const std::string& path) {
  struct stat s{};
  return ::lstat(path.c_str(), &s) == 0 ? s.st_ino : 0;
}
}  // namespace

TEST_CASE("socket_address: words and back") {
  CHECK(words("127.0.0.1:80") == "127.0.0.1:80");
  CHECK(words("[::1]:8080") == "[::1]:8080");
  CHECK(words("unix:/run/x.sock") == "unix:/run/x.sock");
  CHECK(words("unix:@name") == "unix:@name");
  CHECK(socket_address::resolve("127.0.0.1:80").front().port() == 80);
  CHECK(socket_address::resolve(":80", SOCK_STREAM, true).front().port() == 80);
  CHECK(socket_address::resolve("7000", SOCK_STREAM, true).front().port() == 7000);
  for (const char* bad : {"", "localhost", "::1:80", "[::1]", "[::1]80"}) CHECK_THROWS_AS(socket_address::resolve(bad), std::invalid_argument);
  CHECK_THROWS_AS(socket_address::resolve("no-such-host.invalid:80", SOCK_STREAM, false, 20s), io_error);
  CHECK_THROWS_AS(socket_address::resolve("unix:" + std::string(200, 'x')), io_error);
}

TEST_CASE("connect_to: a refused connection is told with its place") {
  std::string place;
  {
    listener l("127.0.0.1:0");
    place = l.address().to_string();
  }
  const std::string told = error_of([&] { connect_to(place, 10s); });
  CHECK(contains(told, place));
  CHECK(contains(told, "refused"));
}

TEST_CASE("listener: accepts with a deadline, and what came in time") {
  listener l("127.0.0.1:0");
  CHECK_THROWS_AS(l.accept(1ms), io_error);
  auto c = connect_to(l.address());
  auto s = l.accept(10s);
  s.write("hello");
  s.close();
  CHECK(c.read_all(10s) == "hello");
}

TEST_CASE("listener: a unix socket's file comes with its permissions and goes with the listener") {
  support::temporary_directory directory;
  const std::string path = directory.path() / "s";
  {
    listener l("unix:" + path, {.permissions = 0600});
    struct stat s{};
    REQUIRE(::lstat(path.c_str(), &s) == 0);
    CHECK((s.st_mode & 07777) == 0600);
    auto c = connect_to("unix:" + path, 10s);
    auto a = l.accept(10s);
    c.write("x\n");
    CHECK(a.read_line(10s) == "x");
    CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 1);
  }
  CHECK(inode_of(path) == 0);
}

TEST_CASE("listener: a dead server's file is replaced, a living one's is not, and no other file ever") {
  support::temporary_directory directory;
  const std::string path = directory.path() / "s";
  auto first = std::make_unique<listener>("unix:" + path);
  CHECK(contains(error_of([&] { listener again("unix:" + path); }), "another server accepts"));
  // A killed server leaves its file.
  const std::string kept = directory.path() / "kept";
  REQUIRE(::link(path.c_str(), kept.c_str()) == 0);
  first.reset();
  REQUIRE(::rename(kept.c_str(), path.c_str()) == 0);
  const ino_t dead = inode_of(path);
  REQUIRE(dead != 0);
  listener second("unix:" + path);
  CHECK(inode_of(path) != dead);
  auto c = connect_to("unix:" + path, 10s);
  second.accept(10s);
  // A successor that has taken the path keeps it.
  REQUIRE(::unlink(path.c_str()) == 0);
  listener third("unix:" + path);
  second.close();
  CHECK(inode_of(path) != 0);
  third.close();
  std::ofstream(path) << "precious";
  CHECK(contains(error_of([&] { listener over("unix:" + path); }), "no socket"));
  CHECK(std::filesystem::file_size(path) == 8);
}

TEST_CASE("listener: an abstract name has no file") {
  const std::string name = "unix:@ringlet-test-" + std::to_string(::getpid());
  listener l(name);
  CHECK(l.address().to_string() == name);
  auto c = connect_to(name, 10s);
  auto a = l.accept(10s);
  a.write("y\n");
  CHECK(c.read_line(10s) == "y");
}

TEST_CASE("listener: a unix socket's file stays as long as somebody shares it") {
  support::temporary_directory directory;
  const std::string path = directory.path() / "s";
  struct stat s;
  {
    std::optional<listener> first("unix:" + path);
    listener next = first->share();
    first.reset();
    CHECK(::lstat(path.c_str(), &s) == 0);
    auto c = connect_to("unix:" + path, 10s);
    auto accepted = next.accept(10s);
    listener moved = std::move(next), third = moved.share();
    moved.close();
    CHECK(::lstat(path.c_str(), &s) == 0);
  }
  CHECK(::lstat(path.c_str(), &s) == -1);
}

TEST_CASE("listener: a forked child's copy leaves the file alone") {
#if defined(__SANITIZE_THREAD__)
  RINGLET_SKIP("ThreadSanitizer does not follow a fork of a process with fibers");
#endif
  support::temporary_directory directory;
  const std::string path = directory.path() / "s";
  listener l("unix:" + path);
  const pid_t child = ::fork();
  if (child == 0) {
    l.close();
    ::_exit(0);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(inode_of(path) != 0);
}

TEST_CASE("listener: another on the same port only if that was asked for") {
  listener alone("127.0.0.1:0");
  CHECK_THROWS_AS(alone.another(), std::logic_error);
  listener first("127.0.0.1:0", {.reuse_port = true});
  listener second = first.another();
  CHECK(second.port() == first.port());
}

TEST_CASE("inherited_listeners: systemd's sockets, by name, once, and not inherited further") {
#if defined(__SANITIZE_THREAD__)
  RINGLET_SKIP("ThreadSanitizer does not follow a fork of a process with fibers");
#endif
  auto ends = support::make_pipe();
  listener web("127.0.0.1:0");
  const std::string place = web.address().to_string();
  const pid_t child = ::fork();
  if (child == 0) {
    int failed = 1;
    try {
      const int kept = ::fcntl(web.fd(), F_DUPFD, 100), answer = ::fcntl(ends.second, F_DUPFD, 101);
      ::dup2(kept, 3);
      ::dup2(answer, 4);  // systemd may hand over what is no socket
      ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
      ::setenv("LISTEN_FDS", "2", 1);
      ::setenv("LISTEN_FDNAMES", "web:log", 1);
      auto found = inherited_listeners();
      if (found.size() != 1 || found[0].name != "web") failed = 2;
      else if (found[0].socket.address().to_string() != place) failed = 3;
      else if (!(::fcntl(3, F_GETFD) & FD_CLOEXEC) || !(::fcntl(4, F_GETFD) & FD_CLOEXEC)) failed = 4;
      else if (std::getenv("LISTEN_FDS") || !inherited_listeners().empty()) failed = 5;
      else {
        auto c = found[0].socket.accept(20s);
        c.write("from the child\n");
        failed = 0;
      }
    } catch (...) {
    }
    ::_exit(failed);
  }
  auto c = connect_to(place, 10s);
  CHECK(c.read_line(20s) == "from the child");
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}
