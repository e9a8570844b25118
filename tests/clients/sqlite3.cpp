// sqlite3, a connection for each fiber. There is no server; what takes long is another process's lock on the file
// (slow_servers.py), for which sqlite waits in its busy handler. When that process dies in the middle of its change, the
// readers undo it.

#include <sqlite3.h>

#include "cases.hpp"

namespace clients {
namespace {

// While it lives, the other process has the file locked, at most so long.
class lock_elsewhere {
 public:
  explicit lock_elsewhere(milliseconds at_most) {
    const ringlet::kill_shield not_here;  // what is tried is sqlite's wait
    fd_ = connected_socket("CLIENTS_LOCK");
    const std::string wish = "hold " + seconds(at_most) + "\n";
    char held = 0;
    if (::send(fd_, wish.data(), wish.size(), MSG_NOSIGNAL) > 0 && ::recv(fd_, &held, 1, 0) == 1) return;
    ::close(fd_);
    throw failure{"the lock's holder has gone"};
  }
  ~lock_elsewhere() { ::close(fd_); }
  lock_elsewhere(const lock_elsewhere&) = delete;

 private:
  int fd_;
};

class sqlite_client : public client {
 public:
  ~sqlite_client() override { sqlite3_close(database_); }

  void connect() override {
    sqlite3_close(database_);
    if (sqlite3_open(told("CLIENTS_DATABASE").c_str(), &database_) != SQLITE_OK) fail();
    sqlite3_busy_timeout(database_, 120'000);
  }
  void give_up_after(milliseconds t) override { sqlite3_busy_timeout(database_, int(t.count())); }
  std::string ask(int id, milliseconds after) override {
    const lock_elsewhere lock(after);
    is_in_call_ = true;
    const std::string zeros = "hex(zeroblob(" + std::to_string(repetitions) + "))";
    return run("select replace(" + zeros + ", '00', word || ' " + std::to_string(id) + ";') from words");
  }
  void while_busy(int (*handler)(void*, int), void* of) { sqlite3_busy_handler(database_, handler, of); }
  // The first value of the last statement.
  std::string run(const std::string& statements) {
    std::string first;
    for (const char* rest = statements.c_str(); *rest;) {
      sqlite3_stmt* statement = nullptr;
      if (sqlite3_prepare_v2(database_, rest, -1, &statement, &rest) != SQLITE_OK) fail();
      const std::unique_ptr<sqlite3_stmt, decltype(&sqlite3_finalize)> owned(statement, sqlite3_finalize);
      const int result = sqlite3_step(statement);
      if (result != SQLITE_ROW && result != SQLITE_DONE) fail();
      if (result == SQLITE_DONE) continue;
      const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement, 0));
      first.assign(bytes, std::size_t(sqlite3_column_bytes(statement, 0)));
    }
    return first;
  }
  bool is_in_call() const override { return is_in_call_; }

 private:
  [[noreturn]] void fail() { throw failure{sqlite3_errmsg(database_)}; }
  sqlite3* database_ = nullptr;
  bool is_in_call_ = false;
};

// Its mutex is recursive, by thread; here it must be by fiber. The one who waits for the lock holds it all the time.
void one_for_all() {
  ticker others;
  sqlite_client shared;
  shared.connect();
  in_fibers(20, [&](int i) { expect_answer(shared.ask(i, request_takes), i); });
  expect(others.count() >= 10, "others did not run meanwhile");
}

// Each transaction ends in fdatasync, where the fiber parks, with the file locked and sqlite's own locks held.
void writers() {
  constexpr int fibers = 20, rows_each = 5;
  ticker others;
  sqlite_client looks;
  looks.connect();
  looks.run("create table if not exists rows (fiber int, n int); delete from rows");
  in_fibers(fibers, [&](int i) {
    sqlite_client c;
    c.connect();
    for (int n = 0; n < rows_each; ++n) c.run("insert into rows values (" + std::to_string(i) + ", " + std::to_string(n) + ")");
  });
  const std::string count = looks.run("select count(distinct fiber * 1000 + n) from rows");
  expect(count == std::to_string(fibers * rows_each), "there are " + count + " rows");
  expect(others.count() > 0, "others did not run meanwhile");
}

// A busy handler of the program's own looks whether the wait is still wanted.
void cancelled_by_handler() {
  struct still_wanted {
    bool stops = false;
    int tries = 0;
    static int goes_on(void* of, int) {
      auto& w = *static_cast<still_wanted*>(of);
      ++w.tries;
      ::usleep(5000);  // the pause between two looks, which a busy handler has to make itself
      return !w.stops;
    }
  } wish;
  in_fibers(2, [&](int i) {
    if (i == 1) {
      wait_until("a wait for the lock", [&] { return wish.tries > 3; });
      wish.stops = true;
      return;
    }
    const lock_elsewhere lock(never_in_time);
    sqlite_client c;
    c.connect();
    c.while_busy(still_wanted::goes_on, &wish);
    std::string said;
    try {
      c.run("select word from words");
    } catch (const failure& f) {
      said = f.said;
    }
    expect(said == "database is locked", "it said: " + said);
  });
}

const bool added = add({.name = "sqlite3",
                        .version = [] { return std::string(sqlite3_libversion()); },
                        .make = [] { return std::unique_ptr<client>(new sqlite_client); },
                        .timed_out = {"database is locked"},
                        .cancelled = {},
                        .interrupted = {"database is locked"},
                        .gone = {},
                        .waits_on_fds = false,
                        .own = {{"twenty fibers share one connection", one_for_all},
                                {"twenty fibers write to one file", writers},
                                {"a busy handler ends the wait for a lock", cancelled_by_handler}}});

}  // namespace
}  // namespace clients
