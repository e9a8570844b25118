#pragma once
// The kernel is the oracle: one case, two runs, one comparison.
//
// A case is a function of plain libc calls that writes down what it saw. It runs bare (in a real thread, hooks off) and
// hooked (in a fiber, with another fiber running); the two traces must be equal: results, errno, bytes, and whether a
// call came back at once or waited. The case names the rows it tries; table_test.cpp holds these against the table.
//
//   CONFORMANCE("recv: data before the end of file", "recv") {
//     auto s = t.stream();
//     t.did("send", ::send(s.b, "x", 1, 0));
//     ...
//   }
//
// The same cases make a plain threaded program (plain.cpp), which knows nothing of ringlet and says what it saw: run bare and
// under the launcher, the system-call door is compared, too (threads/transparency_test.py).
//
// Nothing sleeps and hopes: meanwhile() runs its function when the caller really waits (bare: the kernel says its thread
// sleeps; hooked: another fiber only runs when this one parks). Whether a call waited is judged by a lower bound; a
// machine too busy to answer at once gets two more tries, for the pace only.

#include <atomic>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <vector>

using namespace std::chrono_literals;

namespace conformance {

// Two fds that go with the case.
struct ends {
  int a = -1, b = -1;
};

// Another flow of control; run to its end by join().
struct flow {
  virtual ~flow() = default;
  virtual void join() = 0;
};
// A thread that begins when the thread that makes it sleeps, at the latest when it is joined.
std::unique_ptr<flow> thread_beside(std::function<void()>);
// The flow with this thread id (0: it has not told it yet) is in the wait that it was about to begin: its thread
// sleeps, or it is a fiber of ours, and so ran until it had to wait.
bool waits(pid_t flow);
// Looks until the fact holds, letting others run; false when that much time has passed without.
template <class Fact>
bool until(Fact fact, std::chrono::milliseconds at_most = 20s) {
  const auto give_up = std::chrono::steady_clock::now() + at_most;
  while (!fact()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    const timespec moment{0, 5000000};
    ::nanosleep(&moment, nullptr);
  }
  return true;
}
// Counts on while anybody but the case can run.
extern std::atomic<unsigned long> ticks;

class trace {
 public:
  explicit trace(bool hooked);
  ~trace();
  trace(const trace&) = delete;

  bool hooked() const { return hooked_; }

  // A call's result; below zero with errno, which must be the call's own.
  template <class T>
  T did(const char* what, T result) {
    const int error = errno;
    line(what, result < 0 ? std::to_string(result) + " " + error_name(error) : std::to_string(result));
    return result;
  }
  // A result that is an error number itself (pthread_…, clock_nanosleep).
  int said(const char* what, int error) {
    line(what, error == 0 ? "0" : error_name(error));
    return error;
  }
  void saw(const char* what, long value) { line(what, std::to_string(value)); }
  void bytes(const char* what, const void* data, std::size_t size);

  // Runs f and writes down whether it took at least this long. Hooked, another fiber must have run meanwhile.
  template <class F>
  auto waits(std::chrono::milliseconds at_least, F f) {
    const auto begin = std::chrono::steady_clock::now();
    const auto before = ticks.load();
    struct end {
      trace& t;
      std::chrono::steady_clock::time_point begin;
      std::chrono::milliseconds at_least;
      unsigned long before;
      ~end() { t.waited(begin, at_least, before); }
    } end{*this, begin, at_least, before};
    return f();
  }
  // Runs f and writes down that it came back at once.
  template <class F>
  auto at_once(F f) {
    struct end {
      trace& t;
      std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
      ~end() { t.came_back(begin); }
    } end{*this};
    return f();
  }

  // Runs f in a thread (bare) or a fiber (hooked) as soon as the caller waits; at the latest in join(). A case whose
  // locals f still uses when the caller goes on must call join() itself.
  void meanwhile(std::function<void()> f);
  // Waits for all of these.
  void join();

  // Descriptors that are closed after the case, by a real call if the case has not closed them.
  ends stream();                      // connected AF_UNIX stream sockets
  ends datagrams();                   // the same, datagrams
  ends tcp();                         // connected over 127.0.0.1
  ends pipe();                        // a reads, b writes
  int listening(unsigned short* port);  // TCP, 127.0.0.1
  int own(int fd);                    // any
  void disown(int fd);

  const std::string& text() const { return text_; }
  const std::string& pace() const { return pace_; }
  const std::string& complaint() const { return complaint_; }
  // Who was to do something meanwhile came so late that a time limit of the case may have passed first: the machine is busy.
  bool was_late() const { return late_; }

 private:
  void line(std::string_view what, std::string_view value);
  static std::string error_name(int error);
  void waited(std::chrono::steady_clock::time_point begin, std::chrono::milliseconds at_least, unsigned long ticks);
  void came_back(std::chrono::steady_clock::time_point begin);

  bool hooked_;
  std::atomic<bool> late_{false};
  std::string text_, pace_, complaint_;
  std::mutex lock_;  // of these: what is done meanwhile may begin more
  std::vector<std::unique_ptr<flow>> helpers_;
  std::vector<int> owned_;
};

// A pointer to nothing, and a number, that the compiler cannot see through: it would warn of what is tried on purpose.
void* nowhere();
int opaque(int);

using case_function = std::function<void(trace&)>;
enum class place { fiber, main_fiber };

struct registered {
  std::string name, rows;
  case_function run;
  place where = place::fiber;
  const char* file = "";
  unsigned line = 0;
};
// Every case, in the order of the files.
std::deque<registered>& cases();
bool add(registered);
// The rows that any case names.
std::vector<std::string> tried_rows();

// A case in which a door differs from bare, and why; null: it is equal there.
struct known_difference {
  const char* name = nullptr;
  const char* by_symbols = nullptr;
  const char* by_system_calls = nullptr;
};
std::span<const known_difference> known_differences();
known_difference known_difference_of(std::string_view name);  // an empty one, if none is known

// A case for each combination of the tables' entries: "{0}" in its name and its rows is the first table's entry's name; an
// entry may have rows of its own.
template <class... Tables>
struct of_each {
  registered like;
  std::tuple<const Tables&...> tables;

  template <class Run>
  bool operator<<(Run run) const {
    pick<0>(like, run);
    return true;
  }

 private:
  static void fill_in(std::string& text, std::size_t index, const char* name) {
    const std::string hole = "{" + std::to_string(index) + "}";
    for (std::size_t at; (at = text.find(hole)) != std::string::npos;) text.replace(at, hole.size(), name);
  }
  template <std::size_t index, class Run, class... Picked>
  void pick(registered of, Run run, const Picked&... picked) const {
    if constexpr (index == sizeof...(Tables)) {
      of.run = [run, picked...](trace& t) { run(t, picked...); };
      add(std::move(of));
    } else {
      for (const auto& entry : std::get<index>(tables)) {
        registered filled = of;
        fill_in(filled.name, index, entry.name);
        fill_in(filled.rows, index, entry.name);
        if constexpr (requires { entry.rows; }) filled.rows.append(" ").append(entry.rows);
        pick<index + 1>(std::move(filled), run, picked..., entry);
      }
    }
  }
};
template <class... Tables>
of_each<Tables...> each(registered like, const Tables&... tables) {
  return {std::move(like), {tables...}};
}

// Thrown by a case that this machine can't run (no IPv6): it is skipped, and shown so.
struct not_here {
  const char* reason;
};

struct result {
  std::string text, pace, complaint, not_here;
  bool late = false;
};
result run_case(const case_function&, bool hooked);
// Made by who runs the cases: whether a sanitizer or Valgrind runs, too; the flow that trace::meanwhile begins; what there
// is to do when a case is added.
bool is_instrumented();
std::unique_ptr<flow> flow_beside(std::function<void()>, bool hooked);
void added(const registered&);

}  // namespace conformance

#define CONFORMANCE_CAT2(a, b) a##b
#define CONFORMANCE_CAT(a, b) CONFORMANCE_CAT2(a, b)
#define CONFORMANCE_LIKE(...) \
  ::conformance::registered { __VA_ARGS__, __FILE__, __LINE__ }
#define CONFORMANCE_DECLARED(name, rows, where)                                                      \
  static void CONFORMANCE_CAT(case_, __LINE__)(::conformance::trace & t);                            \
  [[maybe_unused]] static const bool CONFORMANCE_CAT(added_, __LINE__) = ::conformance::add(         \
      CONFORMANCE_LIKE(name, rows, &CONFORMANCE_CAT(case_, __LINE__), ::conformance::place::where)); \
  static void CONFORMANCE_CAT(case_, __LINE__)([[maybe_unused]] ::conformance::trace & t)
#define CONFORMANCE_EACH_DECLARED(name, rows, where, ...)                                     \
  [[maybe_unused]] static const bool CONFORMANCE_CAT(added_, __LINE__) = ::conformance::each( \
      CONFORMANCE_LIKE(name, rows, nullptr, ::conformance::place::where), __VA_ARGS__) << []

#define CONFORMANCE(name, rows) CONFORMANCE_DECLARED(name, rows, fiber)
// What only the main fiber sees: signals.
#define CONFORMANCE_ON_MAIN(name, rows) CONFORMANCE_DECLARED(name, rows, main_fiber)
// One for each entry of one or more tables; the body's parameters and a semicolon follow.
#define CONFORMANCE_EACH(name, rows, ...) CONFORMANCE_EACH_DECLARED(name, rows, fiber, __VA_ARGS__)
#define CONFORMANCE_EACH_ON_MAIN(name, rows, ...) CONFORMANCE_EACH_DECLARED(name, rows, main_fiber, __VA_ARGS__)
#ifndef CONFORMANCE_PLAIN
#include <doctest/doctest.h>
#endif
