#pragma once
// The command line. What is wrong is said with its cause and its cure, before anything is fetched.

#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "fetch.hpp"
#include "url.hpp"

namespace crawl {

enum class scope { directory, host };

struct options {
  std::vector<url> start;      // positional, or the list of --urls
  bool discover = true;        // false with --urls: fetch the list and follow nothing
  scope within = scope::directory;
  unsigned max_depth;          // frontier::no_limit
  std::size_t max_pages;
  std::size_t concurrency = 16;
  bool ignore_robots = false;
  bool quiet = false;
  std::string output;          // empty: stdout
  std::string save_directory;  // empty: bodies are not kept
  std::string summary_file;    // empty: none
  fetch_settings fetch;
};

// what() is one or two lines: what is wrong, and what to write instead.
struct bad_usage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Reads the arguments, and the file that --urls names. Prints and exits for --help and --version.
options parse_options(int argc, char** argv);

}  // namespace crawl
