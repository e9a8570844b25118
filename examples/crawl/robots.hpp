#pragma once
// One site's robots.txt, as RFC 9309 has it.
//
// Groups that name our product token are merged; only if there is none, those for '*' are. The longest matching rule
// decides, Allow wins a tie; '*' stands for anything and a final '$' for the end. Both sides are compared with their
// escapes normalised. No file (a 4xx answer) allows everything; no answer (5xx, unreachable) forbids everything, since
// the site may have rules we could not read. Crawl-delay is no part of the standard and is not read.

#include <string>
#include <string_view>
#include <vector>

namespace crawl {

class robots {
 public:
  // Rules of the file for the product token, e.g. "ringlet-crawl" of "ringlet-crawl/0.1 (...)".
  static robots parse(std::string_view file, std::string_view product_token);
  static robots allow_all() { return {}; }
  static robots disallow_all() { return parse("User-agent: *\nDisallow: /", "*"); }

  // `target` is a path with its query. /robots.txt itself is always allowed.
  bool allows(std::string_view target) const;

  // At least this much of a file must be read; we read no more.
  static constexpr std::size_t size_limit = 512 * 1024;

 private:
  struct rule {
    std::string pattern;
    bool allow;
  };
  std::vector<rule> rules_;
};

// The letters, '-' and '_' that a user-agent string begins with.
std::string_view product_token_of(std::string_view agent);

}  // namespace crawl
