#include "links.hpp"

#include <algorithm>
#include <climits>
#include <cstring>
#include <new>
#include <strings.h>

#include <libxml/HTMLparser.h>
#include <libxml/parserInternals.h>

namespace crawl {
namespace {

std::string_view attribute(const unsigned char** attributes, std::string_view name) {
  for (; attributes && attributes[0]; attributes += 2)
    if (name == reinterpret_cast<const char*>(attributes[0]))
      return attributes[1] ? reinterpret_cast<const char*>(attributes[1]) : "";
  return {};
}

bool contains_word(std::string_view words, std::string_view word) {
  while (!words.empty()) {
    const auto end = std::min(words.find_first_of(" \t\r\n\f"), words.size());
    if (end == word.size() && strncasecmp(words.data(), word.data(), end) == 0) return true;
    words.remove_prefix(std::min(end + 1, words.size()));
  }
  return false;
}

// "5; url='next.html'" -> "next.html"
std::string_view refresh_target(std::string_view content) {
  constexpr std::string_view name = "url=";
  const auto at = std::search(content.begin(), content.end(), name.begin(), name.end(),
                              [](char a, char b) { return (a | 32) == (b | 32); });
  if (at == content.end()) return {};
  auto target = content.substr(at - content.begin() + name.size());
  if (!target.empty() && (target.front() == '"' || target.front() == '\'')) {
    const char quote = target.front();
    target.remove_prefix(1);
    target = target.substr(0, target.find(quote));
  }
  return target;
}

}  // namespace

links::~links() {
  if (parser_) htmlFreeParserCtxt(parser_);
}

void links::feed(std::string_view piece) {
  if (!parser_) {
    htmlSAXHandler handler{};
    handler.startElement = &links::start_element;
    parser_ = htmlCreatePushParserCtxt(&handler, this, nullptr, 0, nullptr, XML_CHAR_ENCODING_NONE);
    if (!parser_) throw std::bad_alloc();
    if (const auto known = xmlParseCharEncoding(charset_.c_str()); !charset_.empty() && known > XML_CHAR_ENCODING_NONE)
      xmlSwitchEncoding(parser_, known);
    htmlCtxtUseOptions(parser_, HTML_PARSE_RECOVER | HTML_PARSE_NONET | HTML_PARSE_NOERROR | HTML_PARSE_NOWARNING);
  }
  // What is wrong with a page is not our business: the parser recovers, and its verdict is not asked.
  while (!piece.empty()) {
    const auto part = piece.substr(0, INT_MAX / 2);
    htmlParseChunk(parser_, part.data(), static_cast<int>(part.size()), 0);
    piece.remove_prefix(part.size());
  }
}

void links::finish() {
  if (parser_) htmlParseChunk(parser_, nullptr, 0, 1);
}

void links::start_element(void* self, const unsigned char* name, const unsigned char** attributes) noexcept {
  // noexcept: out of memory must end the program here, not unwind through the parser's C frames.
  static_cast<links*>(self)->element(reinterpret_cast<const char*>(name), attributes);
}

void links::element(std::string_view name, const unsigned char** attributes) {
  if (name == "a" || name == "area") {
    add(attribute(attributes, "href"));
  } else if (name == "frame" || name == "iframe") {
    add(attribute(attributes, "src"));
  } else if (name == "base") {
    if (base_.empty()) base_ = attribute(attributes, "href");
  } else if (name == "link") {
    const auto rel = attribute(attributes, "rel");
    for (const char* dress : {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect",
                              "dns-prefetch", "manifest", "apple-touch-icon", "mask-icon"})
      if (contains_word(rel, dress)) return;
    add(attribute(attributes, "href"));
  } else if (name == "meta") {
    if (contains_word(attribute(attributes, "http-equiv"), "refresh"))
      add(refresh_target(attribute(attributes, "content")));
  }
}

void links::add(std::string_view reference) {
  if (reference.empty() || reference.front() == '#') return;
  found_.emplace_back(reference);
}

}  // namespace crawl
