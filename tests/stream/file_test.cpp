// Streams and files: what is read and written, by bytes and by lines; names; nobody is kept waiting.

#include "ringlet/file.hpp"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include <ringlet/socket.hpp>

#include "hub/on_hub.hpp"
#include "io/helped.hpp"
#include "io/io_support.hpp"

using namespace hub_test;
using io_test::turn_until;

namespace {
struct ends {
  file in, out;  // what is written to `out` is read from `in`
};
ends make_pipe() {
  auto p = support::make_pipe();
  return {file::adopt(p.first.release()), file::adopt(p.second.release())};
}
std::string pattern(std::size_t size) {
  std::string s(size, 0);
  for (std::size_t i = 0; i < size; ++i) s[i] = char('a' + (i * 7 + i / 251) % 26);
  return s;
}
}  // namespace

TEST_CASE("stream: lines come whole, however they were sent; the last needs no end") {
  auto [in, out] = make_pipe();
  auto writer = spawn([&out = out] {
    for (const char* piece : {"fir", "st\nsec", "ond\n", "\n", "las", "t"}) {
      out.write(piece);
      sleep(1ms);
    }
    out.close();
  });
  std::vector<std::string> lines;
  for (const std::string& line : in.lines()) lines.push_back(line);
  CHECK(lines == std::vector<std::string>{"first", "second", "", "last"});
  CHECK(in.read_line() == std::nullopt);
  writer.join();
}

TEST_CASE("stream: reads of all kinds after each other lose nothing") {
  auto [in, out] = make_pipe();
  out.write("head\r\n\r\n12345678rest of it");
  out.close();
  CHECK(in.read_until("\r\n") == "head");
  CHECK(in.read_until("\r\n") == "");
  CHECK(in.ahead() == "12345678rest of it");
  CHECK(in.read_exactly(4) == "1234");
  char two[2];
  CHECK(in.read(two, 2) == 2);
  CHECK(std::string(two, 2) == "56");
  CHECK(in.read_some(2) == "78");
  CHECK(in.read_all() == "rest of it");
  CHECK(in.read_some() == "");
  CHECK(in.read(two, 2) == 0);
}

TEST_CASE("stream: what a deadline or a timeout cuts short is there for the next read") {
  auto [in, out] = make_pipe();
  out.write("half a ");
  try {
    in.read_line(1ms);
    FAIL("a line");
  } catch (const io_error& e) {
    CHECK(e.timed_out());
  }
  {
    timeout limit(1ms);
    CHECK_THROWS_AS(in.read_exactly(100), timeout_expired);
  }
  out.write("line\n");
  CHECK(in.read_line(10s) == "half a line");
  CHECK_THROWS_AS(in.read_some(1, 1ms), io_error);
  out.write("abc");
  out.close();
  CHECK(contains(error_of([&in = in] { in.read_exactly(5); }), "3 of 5 bytes"));
  CHECK(in.read_all() == "abc");
}

TEST_CASE("stream: a line longer than allowed is refused; delimiters over the edge of a read are seen") {
  auto [in, out] = make_pipe();
  std::string line(100, 'x');
  out.write(line += '\n');
  CHECK_THROWS_AS(in.read_line(10s, 50), io_error);
  CHECK(in.read_line(10s) == std::string(100, 'x'));
  out.write("a-");
  auto reader = spawn([&in = in] { return *in.read_until("--"); });
  yield();
  yield();
  out.write("-b");
  CHECK(reader.get() == "a");
  CHECK(in.ahead().size() <= 1);
}

TEST_CASE("stream: two readers at once are told so; a reader and a writer are not") {
  auto [in, out] = make_pipe();
  auto first = spawn([&in = in] { return *in.read_line(); });
  yield();
  CHECK(contains(error_of([&in = in] { in.read_line(); }), "two fibers read"));
  out.write("mine\n");
  CHECK(first.get() == "mine");
  auto pair = support::make_socketpair();
  connection a(pair.first.release()), b(pair.second.release());
  const std::string data = pattern(400'000);
  auto to = spawn([&] { a.write(data); });
  auto fro = spawn([&] { return a.read_exactly(data.size()); });
  auto other = spawn([&] { b.write(b.read_exactly(data.size())); });
  CHECK((fro.get() == data));
  joinall({to, other});
}

TEST_CASE("stream: an fd that somebody has made non-blocking waits all the same") {
  auto p = support::make_pipe();
  ::fcntl(p.first, F_SETFL, O_NONBLOCK);
  ::fcntl(p.second, F_SETFL, O_NONBLOCK);
  auto in = file::borrow(p.first), out = file::borrow(p.second);
  const std::string data = pattern(300'000);
  auto reader = spawn([&] { return in.read_exactly(data.size()); });
  out.write(data);
  CHECK((reader.get() == data));
  CHECK_THROWS_AS(in.read_some(10, 1ms), io_error);
}

TEST_CASE("file: a pipe that nobody reads is EPIPE; a program's own SIGPIPE stays as it is") {
  ::signal(SIGPIPE, SIG_DFL);
  auto [in, out] = make_pipe();
  in.close();
  try {
    out.write("x");
    FAIL("written");
  } catch (const io_error& e) {
    CHECK(e.peer_gone());
    CHECK(e.done() == 0);
  }
  // One that breaks while somebody waits for room.
  auto q = make_pipe();
  auto writer = spawn([&] { q.out.write(pattern(1'000'000)); });
  yield();
  q.in.read_some(1000);
  q.in.close();
  CHECK(contains(error_of([&] { writer.get(); }), "Broken pipe"));
}

TEST_CASE("file: what was written is read back: streams, positions, appends, sizes") {
  support::temporary_directory directory;
  const std::string path = directory.path() / "f";
  CHECK(contains(error_of([&] { file missing(path); }), path));
  const std::string data = pattern(300'000);
  {
    file f(path, O_RDWR | O_CREAT, 0640);
    f.write(data);
    CHECK(f.position() == std::int64_t(data.size()));
    f.seek(0);
    CHECK((f.read_all() == data));
    CHECK(f.read_at(1000, 10) == data.substr(1000, 10));
    CHECK(f.read_at(std::int64_t(data.size()) - 5, 10) == data.substr(data.size() - 5));
    f.write_at(5, "HELLO");
    CHECK(f.read_at(4, 7) == data[4] + std::string("HELLO") + data[10]);
    f.sync();
    f.sync(true);
    const auto i = f.info();
    CHECK(i.type == file_type::regular);
    CHECK(i.size_bytes == data.size());
    CHECK(i.permissions == 0640);
    f.truncate(8);
    CHECK(f.info().size_bytes == 8);
  }
  {
    file a(path, O_WRONLY | O_APPEND);
    a.write("end");
  }
  CHECK(files::read(path) == data.substr(0, 5) + "HELend");
}

TEST_CASE("file: a write after lines were read goes where the lines ended") {
  support::temporary_directory directory;
  const std::string path = directory.path() / "f";
  files::write(path, "one\ntwo\nthree\n");
  file f(path, O_RDWR);
  CHECK(f.read_line() == "one");
  CHECK(f.position() == 4);
  f.write("TWO");
  CHECK(f.read_line() == "");
  CHECK(f.read_line() == "three");
  CHECK(files::read(path) == "one\nTWO\nthree\n");
}

TEST_CASE("file: a write, or a question for the position, waits for a read that is under way") {
  // Its reads never come from the page cache, so they wait for somebody else.
  const std::string path = "/proc/self/coredump_filter";
  const std::string before = files::read(path);
  file f(path, O_RDWR);
  auto reader = spawn([&] { return *f.read_line(); });
  auto asks = spawn([&] {
    f.write("0x37");
    return f.position();
  });
  yield();
  CHECK(f.ahead().empty());  // nothing has come yet
  CHECK(f.position() >= 0);
  CHECK(reader.get() + "\n" == before);
  CHECK(asks.get() >= 0);
  CHECK(files::read(path) == "00000037\n");
  files::write(path, "0x" + before);
  CHECK(files::read(path) == before);
}

TEST_CASE("file: a FIFO's open waits for the other end, and can be given up") {
  support::temporary_directory directory;
  const std::string path = directory.path() / "fifo";
  files::make_fifo(path);
  CHECK(files::info(path).type == file_type::fifo);
  CHECK_THROWS_AS(file(path, O_RDONLY, 0, 20ms), io_error);
  auto reader = spawn([&] {
    file f(path);
    return f.read_all();
  });
  auto writer = spawn([&] {
    file f(path, O_WRONLY);
    f.write("through the FIFO");
  });
  CHECK(reader.get() == "through the FIFO");
  writer.join();
}

TEST_CASE("file: a terminal is read by lines") {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0) RINGLET_SKIP("no pseudo-terminals here");
  REQUIRE(::grantpt(master) == 0);
  REQUIRE(::unlockpt(master) == 0);
  file person = file::adopt(master);
  file terminal(::ptsname(master), O_RDWR | O_NOCTTY);
  int turns = 0;
  auto other = spawn([&] {
    for (;; ++turns) yield();
  });
  auto program = spawn([&] { return *terminal.read_line(); });
  CHECK(turn_until([&] { return turns > 100; }));
  CHECK_FALSE(program.ready());
  person.write("typed\n");
  CHECK(program.get() == "typed");
  terminal.write("answer\n");
  CHECK(person.read_line(10s) == "typed\r");  // the echo
  CHECK(person.read_line(10s) == "answer\r");
  other.kill();
}

TEST_CASE("files: names are listed, renamed, removed; what is not there is told by its name") {
  support::temporary_directory directory;
  const std::string top = directory.path();
  std::set<std::string> wanted;
  for (int i = 0; i < 1000; ++i) {
    wanted.insert("file-" + std::to_string(i));
    ::close(::open((top + "/file-" + std::to_string(i)).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  }
  files::make_directory(top + "/sub");
  std::set<std::string> found;
  file_type of_sub = file_type::unknown;
  for (const auto& e : files::list(top)) (e.name == "sub" ? void(of_sub = e.type) : void(found.insert(e.name)));
  CHECK(found == wanted);
  CHECK((of_sub == file_type::directory || of_sub == file_type::unknown));
  files::rename(top + "/file-1", top + "/sub/moved");
  CHECK_FALSE(files::exists(top + "/file-1"));
  CHECK(files::exists(top + "/sub/moved"));
  CHECK(contains(error_of([&] { files::remove(top + "/sub"); }), "not empty"));
  files::remove(top + "/sub/moved");
  files::remove(top + "/sub");
  CHECK_FALSE(files::exists(top + "/sub"));
  CHECK(contains(error_of([&] { files::remove(top + "/sub"); }), top + "/sub"));
  CHECK(contains(error_of([&] { files::list(top + "/sub"); }), top + "/sub"));
  REQUIRE(::symlink("nowhere", (top + "/link").c_str()) == 0);
  CHECK(files::link_info(top + "/link").type == file_type::symlink);
  CHECK_THROWS_AS(files::info(top + "/link"), io_error);
  CHECK_FALSE(files::exists(top + "/link"));
}

TEST_CASE("files: replace leaves the old content or the new, and no other file") {
  support::temporary_directory directory;
  const std::string path = directory.path() / "settings";
  files::replace(path, "old");
  files::replace(path, pattern(100'000), 0600);
  CHECK((files::read(path) == pattern(100'000)));
  CHECK(files::info(path).permissions == 0600);
  CHECK(files::list(directory.path()).size() == 1);
  CHECK_THROWS_AS(files::replace("/no/such/folder/x", "y"), io_error);
}

TEST_CASE("files: replace is not kept from it by what a process of the same number has left behind") {
  support::temporary_directory directory;
  const std::string path = directory.path() / "settings";
  const std::string left = path + "." + std::to_string(::getpid()) + ".";
  for (int i = 0; i < 50; ++i) files::write(left + std::to_string(i) + ".new", "half");
  files::replace(path, "whole");
  CHECK(files::read(path) == "whole");
  CHECK(files::list(directory.path()).size() == 51);
}

TEST_CASE("file: a truncation that was given up does not hit another file of the same number") {
  support::temporary_directory directory;
  const std::string fifo = directory.path() / "fifo", mine = directory.path() / "mine", other = directory.path() / "other";
  files::make_fifo(fifo);
  files::write(mine, "mine");
  files::write(other, "what others need");
  file f(mine, O_RDWR);
  const int number = f.fd();
  // All helper threads are kept busy, so that the truncation waits for one.
  std::vector<fiber<int>> waiting;
  for (std::size_t i = 0; i < 80; ++i)
    waiting.push_back(spawn([&] {
      int fd = -1;
      ringlet::io::on_helper("open", never, [&fifo] { return ::open(fifo.c_str(), O_WRONLY | O_CLOEXEC); }, fd);
      return fd;
    }));
  yield();
  CHECK_THROWS_AS(f.truncate(0, 20ms), io_error);
  f.close();
  const int again = ::open(other.c_str(), O_RDWR | O_CLOEXEC);
  CHECK(again == number);
  const int reader = ::open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  for (auto& w : waiting) ::close(w.get());
  CHECK(files::info(other).size_bytes == 16);  // by a helper, after it
  CHECK(files::read(other) == "what others need");
  CHECK(files::read(mine) == "mine");  // it had not begun
  file g(mine, O_RDWR);
  g.truncate(2, 20s);
  CHECK(files::read(mine) == "mi");
  ringlet::io::close(again);
  ::close(reader);
}

TEST_CASE("file: others run while much is written and synced") {
  support::temporary_directory directory;
  const std::string path = directory.path() / "big";
  const std::string data = pattern(support::is_instrumented() ? 4'000'000 : 32'000'000);
  std::size_t turns = 0;
  bool done = false;
  auto other = spawn([&] {
    while (!done) {
      yield();
      ++turns;
    }
  });
  yield();
  const std::size_t before = turns;
  {
    file f(path, O_WRONLY | O_CREAT);
    f.write(data);
    f.sync(true);
  }
  done = true;
  other.join();
  CHECK(turns > before + 10);
  CHECK(files::info(path).size_bytes == data.size());
}
