#pragma once
// What the crawl tells: a JSON line a page, a progress line on a terminal, a summary at the end.
//
// Workers only append to a buffer; one fiber, run(), writes it out and redraws the progress line. So lines of two pages
// never mix, although a write to a slow pipe parks in the middle. Workers that get too far ahead of a slow reader wait.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include <ringlet/sync.hpp>

#include "fetch.hpp"
#include "frontier.hpp"
#include "page.hpp"

namespace crawl {

// The text as a JSON string with its quotes; bytes beyond ASCII are taken for Latin-1, so the result is always valid.
std::string json_string(std::string_view text);

class report {
 public:
  // Takes over `fd` for the lines; `progress`: draw on stderr.
  report(int fd, bool progress, const frontier& queue, const in_flight& flights);

  // One page's line. `redirect` and `file` may be empty.
  void add(const item& what, const page& got, std::size_t new_links, const std::string& redirect, const std::string& file);
  void count_out_of_scope() { ++out_of_scope_; }

  // The writer fiber: returns after close(), with everything written, or once the reader is gone.
  void run();
  void close();
  // Empty, or why the lines could not be written.
  const std::string& output_error() const { return output_error_; }

  // After run has ended.
  std::string summary_text() const;
  std::string summary_json() const;
  std::size_t succeeded() const { return succeeded_; }
  const std::string& first_error() const { return first_error_; }

 private:
  void flush();
  void draw() const;
  double seconds() const;

  const int fd_;
  const bool progress_;
  const frontier& queue_;
  const in_flight& flights_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::string buffer_;
  std::string output_error_;
  std::string first_error_;
  bool closed_ = false;
  ringlet::event wake_;
  ringlet::event room_;
  std::size_t fetched_ = 0;
  std::size_t succeeded_ = 0;
  std::size_t redirects_ = 0;
  std::size_t skipped_ = 0;
  std::size_t tried_again_ = 0;
  std::size_t out_of_scope_ = 0;
  std::uint64_t bytes_ = 0;
  std::map<std::string, std::size_t> errors_;
};

}  // namespace crawl
