#pragma once
// What the cases are, and what they are written with: facts, fibers, and somebody who runs meanwhile.

#include <algorithm>
#include <chrono>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <ringlet/ringlet.hpp>

#include "clients.hpp"

namespace clients {

using clock = std::chrono::steady_clock;
struct named_case {
  std::string_view name;
  void (*run)(const library&);
};
std::span<const named_case> cases();

inline constexpr milliseconds request_takes = 100ms, never_in_time = 60s, patience = 20s;

inline void expect(bool fact, const std::string& otherwise) {
  if (!fact) throw std::runtime_error(otherwise);
}
inline double ms_since(clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(clock::now() - begin).count();
}

// Counts on while others can run.
class ticker {
 public:
  ticker() : fiber_(ringlet::spawn([this] {
    for (;; ++count_) ringlet::sleep(5ms);
  })) {}
  ~ticker() { fiber_.kill(); }
  ticker(const ticker&) = delete;
  int count() const { return count_; }

 private:
  int count_ = 0;
  ringlet::fiber<> fiber_;
};

// Looks until the fact holds; others run meanwhile.
inline void wait_until(const char* what, const std::function<bool()>& fact) {
  const ringlet::deadline give_up(patience);
  while (!fact()) {
    expect(!give_up.has_passed(), std::string("in vain waited for: ") + what);
    ringlet::sleep(5ms);
  }
}

inline void expect_answer(const std::string& got, int id) {
  if (got == answer_to(id)) return;
  const std::string size = std::to_string(got.size());
  throw std::runtime_error("request " + std::to_string(id) + " got " + size + " bytes: " + got.substr(0, 100));
}

// The most that any fiber of in_fibers() has used of its stack, in bytes.
inline std::size_t deepest_stack = 0;
// f(i) in a fiber each, all at once; the first error comes out.
inline void in_fibers(std::size_t count, const std::function<void(int)>& f) {
  std::vector<ringlet::fiber<>> all;
  for (std::size_t i = 0; i < count; ++i)
    all.push_back(ringlet::spawn([&f, i] {
      try {
        f(int(i));
      } catch (const failure& e) {
        throw std::runtime_error("request " + std::to_string(i) + ": " + e.said);
      }
      deepest_stack = std::max(deepest_stack, ringlet::current().stack().touched_bytes);
    }));
  const auto ended = ringlet::joinall(all, {.until = 2 * patience});
  std::exception_ptr first;
  for (const auto& one : ended)
    if (const auto error = one.exception(); error && !first) first = error;
  if (first) std::rethrow_exception(first);
  if (ended.size() < count) throw std::runtime_error("they hang:\n" + ringlet::hub::describe_fibers());
}

}  // namespace clients
