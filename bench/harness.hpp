#pragma once
// How every benchmark here measures: ratios to the raw thing, in one run, round by round.
//
// Absolute nanoseconds move by a quarter between a quiet and a busy machine; the ratio of two things measured within
// the same few milliseconds hardly does. So a table is a list of candidates, the first of them the raw cost that the
// others are held against. They take turns, in rounds of some milliseconds each, the order turned round every time, and
// what counts is the median of each round's ratio. Time is CPU time of the thread unless a table says otherwise: what
// others do on this machine meanwhile costs caches, but no time slices.
//
// The spread is half the distance between the quartiles, in percent of the median: where it is more than a few percent,
// the figure is a guess.
//
//   --quick             a tenth of the time: shows that the program works, not how fast it is
//   --json FILE         one JSON object a line and figure, appended to FILE
//   --table TEXT        only tables with TEXT in their title
//   --only TEXT         only rows with TEXT in their name (their ratio is missing if the raw one is left out)
//   --operations N      no rounds: each row does N operations, once (for callgrind, strace; see instructions.py)

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace bench {

struct settings {
  bool quick = false;
  std::string json_file;
  std::string table;
  std::string only;
  std::size_t operations = 0;
  std::vector<std::size_t> numbers;
};
const settings& asked() noexcept;
// Reads the command line; ends the program with a help text if it cannot. `numbers`: what numbers among the words are, if
// the program takes any.
void begin(int argc, char** argv, const char* program, const char* numbers = nullptr);

// Whether --only leaves any of these rows: where setting up a table is dear.
bool wanted(std::initializer_list<std::string> rows);

double thread_cpu_ns() noexcept;
double process_cpu_ns() noexcept;
double wall_ns() noexcept;

// What one go of a candidate cost. It may do a few operations more than it was asked for, but must say how many.
struct sample {
  double ns = 0;
  double operations = 0;
  double wall_ns = -1;  // shown beside, where it means something
};

struct candidate {
  std::string name;
  std::function<sample(std::size_t operations)> run;
  std::string missing = {};  // why it can't be measured here; the row says so
};

// body(n) does n operations; thread CPU time.
template <class Body>
candidate timed(std::string name, Body body) {
  return {std::move(name), [body = std::move(body)](std::size_t n) mutable {
            const double start = thread_cpu_ns();
            body(n);
            return sample{thread_cpu_ns() - start, double(n)};
          }};
}
// The same, for what runs on several threads: CPU time of the process, and the wall clock beside it.
template <class Body>
candidate timed_process(std::string name, Body body) {
  return {std::move(name), [body = std::move(body)](std::size_t n) mutable {
            const double start = process_cpu_ns(), wall_start = wall_ns();
            body(n);
            return sample{process_cpu_ns() - start, double(n), wall_ns() - wall_start};
          }};
}

struct table_options {
  const char* unit = "ns";
  int rounds = 11;
  double round_ms = 8;  // of each candidate
  std::size_t most_operations = std::size_t(1) << 40;  // in a round, where one is slow or has a memory
};
// Measures and prints.
void compare(const std::string& title, std::vector<candidate> candidates, const table_options& = {});

// One number that is no duration of rounds: printed as a line, ratio only if raw is positive.
void headline(const std::string& title);
void value(const std::string& table, const std::string& name, double number, const char* unit, double raw = 0);
// The same for --json only, by a program that prints a table of its own.
void note(const std::string& table, const std::string& name, double number, const char* unit, double ratio = 0);

// Keeps the compiler from leaving out what computes this.
template <class T>
inline void keep(T&& x) {
  asm volatile("" : : "g"(&x) : "memory");
}

// libc's own function, whatever was linked or preloaded before it.
void* libc_function(const char* name);

}  // namespace bench
