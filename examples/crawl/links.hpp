#pragma once
// The links of an HTML page, found while the page is still arriving.
//
// libxml2's push parser calls back for each start tag; no tree is built, so a page costs its links and nothing else,
// and nothing recurses on a fiber's small stack. Read are: a, area, frame, iframe, and link (except what only dresses a
// page: style sheets, icons, preloads), a meta refresh, and base, which moves where the others point.
//
// One object a page: feed it the pieces, then finish. Only made for http answers that say they are HTML.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

struct _xmlParserCtxt;

namespace crawl {

class links {
 public:
  // `charset`: what the HTTP answer says, or empty; only then is the page's own word asked.
  explicit links(std::string charset = {}) : charset_(std::move(charset)) {}
  ~links();
  links(const links&) = delete;
  links& operator=(const links&) = delete;

  void feed(std::string_view piece);
  void finish();

  // As written in the page, in the order met, without those that only name a place on the same page.
  const std::vector<std::string>& found() const { return found_; }
  // The href of the first base element, or empty.
  const std::string& base() const { return base_; }

 private:
  static void start_element(void* self, const unsigned char* name, const unsigned char** attributes) noexcept;
  void element(std::string_view name, const unsigned char** attributes);
  void add(std::string_view reference);

  const std::string charset_;
  _xmlParserCtxt* parser_ = nullptr;
  std::vector<std::string> found_;
  std::string base_;
};

}  // namespace crawl
