#pragma once
// What came of fetching one URL: the record that the report writes and the frontier grows by.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace crawl {

// FNV-1a, 64 bits: equal bodies have equal hashes. Not against forgers.
class fnv1a {
 public:
  void add(std::string_view bytes) {
    for (unsigned char byte : bytes) value_ = (value_ ^ byte) * 1099511628211u;
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 14695981039346656037u;
};

struct page {
  long status = 0;           // 0: no answer
  std::string type;          // Content-Type without parameters, lower case
  std::string charset;       // of the same header, or empty
  std::uint64_t bytes = 0;   // of the body, as decoded
  std::uint64_t hash = 0;
  std::string location;      // of a redirect, as sent
  std::string base;          // href of <base>, as written
  std::vector<std::string> links;  // as written
  std::string body;          // kept only when asked for
  // What went wrong, as a class to count by: dns, connect, tls, timeout, connection, too_large, http_4xx, http_5xx,
  // protocol, robots, redirects, save, internal. Empty: nothing did.
  std::string error;
  std::string message;       // the same in words
  double milliseconds = 0;   // of the last try
  unsigned tries = 0;
};

}  // namespace crawl
