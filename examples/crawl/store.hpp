#pragma once
// The bodies of fetched pages as files below a directory: DIR/library/os.html for /library/os.html, index.html for what
// ends in '/', the query after a '?' in the name. A site may have both /a and /a/b, a file system not: whatever finds
// its place taken is stored flat, its slashes escaped. Escapes in URLs stay escaped, so that no name can climb out.

#include <string>
#include <string_view>

namespace crawl {

struct url;

class store {
 public:
  explicit store(std::string directory) : directory_(std::move(directory)) {}

  // Writes the file, and its directories. Returns the path written, or nothing and why in `error`.
  std::string save(const url& where, std::string_view body, std::string& error) const;

 private:
  std::string directory_;
};

}  // namespace crawl
