#include "url.hpp"

#include <algorithm>
#include <charconv>

namespace crawl {
namespace {

bool is_alpha(char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_unreserved(char c) { return is_alpha(c) || is_digit(c) || c == '-' || c == '.' || c == '_' || c == '~'; }

int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  const char lower = c | 32;
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c |= 32;
  return out;
}

// What browsers do before they parse: authors indent hrefs and break them over lines.
std::string clean(std::string_view text) {
  const auto is_blank = [](char c) { return static_cast<unsigned char>(c) <= 0x20; };
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  text = text.substr(0, text.find('#'));
  std::string out;
  out.reserve(text.size());
  bool in_query = false;
  for (char c : text) {
    if (c == '\t' || c == '\n' || c == '\r') continue;
    in_query = in_query || c == '?';
    out += c == '\\' && !in_query ? '/' : c;
  }
  return out;
}

// RFC 3986 section 5.2.4, for a path that begins with '/'.
std::string remove_dot_segments(std::string_view path) {
  std::string out;
  while (!path.empty()) {
    const auto end = std::min(path.find('/', 1), path.size());
    const auto segment = path.substr(0, end);  // with its leading '/'
    path.remove_prefix(end);
    if (segment == "/." || segment == "/..") {
      if (segment == "/..") out.erase(std::min(out.rfind('/'), out.size()));
      if (path.empty()) out += '/';
    } else {
      out += segment;
    }
  }
  return out.empty() ? "/" : out;
}

// The parts of a reference as written; what is absent is nullopt. RFC 3986 section 5.2.2 tells absent from empty.
struct parts {
  std::optional<std::string_view> scheme, authority, query;
  std::string_view path;
};

parts split(std::string_view text) {
  parts out;
  const auto end = text.find_first_of(":/?");
  if (end != text.npos && end > 0 && text[end] == ':' && is_alpha(text[0]) &&
      std::all_of(text.begin(), text.begin() + end,
                  [](char c) { return is_alpha(c) || is_digit(c) || c == '+' || c == '-' || c == '.'; })) {
    out.scheme = text.substr(0, end);
    text.remove_prefix(end + 1);
  }
  if (text.starts_with("//")) {
    text.remove_prefix(2);
    const auto stop = std::min(text.find_first_of("/?"), text.size());
    out.authority = text.substr(0, stop);
    text.remove_prefix(stop);
  }
  const auto mark = text.find('?');
  out.path = text.substr(0, mark);
  if (mark != text.npos) out.query = text.substr(mark + 1);
  return out;
}

bool set_authority(url& to, std::string_view authority) {
  if (const auto at = authority.rfind('@'); at != authority.npos) authority.remove_prefix(at + 1);
  auto colon = authority.rfind(':');
  if (const auto bracket = authority.rfind(']'); bracket != authority.npos && colon != authority.npos && colon < bracket)
    colon = authority.npos;
  to.host = lower(authority.substr(0, colon));
  to.port.clear();
  if (colon != authority.npos && colon + 1 < authority.size()) {
    const auto digits = authority.substr(colon + 1);
    unsigned number = 0;
    const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (error != std::errc() || stop != digits.data() + digits.size() || number == 0 || number > 65535) return false;
    to.port = std::to_string(number);
    if (number == (to.scheme == "https" ? 443u : 80u)) to.port.clear();
  }
  if (to.host.starts_with('[')) {
    return to.host.size() > 3 && to.host.ends_with(']') &&
           to.host.find_first_not_of("0123456789abcdef:.", 1) == to.host.size() - 1;
  }
  return !to.host.empty() && std::all_of(to.host.begin(), to.host.end(), [](char c) { return is_unreserved(c) && c != '~'; });
}

void set_path(url& to, std::string_view path) {
  // Escapes first: %2E%2E is a dot segment, too, and must not climb unseen.
  to.path = remove_dot_segments(normalise_escapes(path, path_characters));
}

void set_query(url& to, const std::optional<std::string_view>& query) {
  to.has_query = query.has_value();
  to.query = query ? normalise_escapes(*query, query_characters) : std::string();
}

std::optional<url> make(const url* base, std::string_view reference) {
  const std::string cleaned = clean(reference);
  parts given = split(cleaned);
  url out;
  if (given.scheme) {
    out.scheme = lower(*given.scheme);
    if (out.scheme != "http" && out.scheme != "https") return {};
    // "http:page.html" is an old spelling of "page.html"; RFC 3986 allows it for the base's own scheme.
    if (!given.authority && (!base || base->scheme != out.scheme)) return {};
  } else if (base) {
    out.scheme = base->scheme;
  } else {
    return {};
  }
  if (given.authority) {
    if (!set_authority(out, *given.authority)) return {};
    set_path(out, given.path.empty() ? "/" : given.path);
    set_query(out, given.query);
    return out;
  }
  out.host = base->host;
  out.port = base->port;
  if (given.path.empty()) {
    out.path = base->path;
    if (given.query) {
      set_query(out, given.query);
    } else {
      out.query = base->query;
      out.has_query = base->has_query;
    }
    return out;
  }
  if (given.path.starts_with('/'))
    set_path(out, given.path);
  else
    set_path(out, base->directory() + std::string(given.path));
  set_query(out, given.query);
  return out;
}

}  // namespace

std::string normalise_escapes(std::string_view text, std::string_view also_allowed) {
  constexpr char digits[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  const auto escape = [&](unsigned char byte) {
    out += '%';
    out += digits[byte >> 4];
    out += digits[byte & 15];
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '%' && i + 2 < text.size() && hex_value(text[i + 1]) >= 0 && hex_value(text[i + 2]) >= 0) {
      const char byte = static_cast<char>(hex_value(text[i + 1]) * 16 + hex_value(text[i + 2]));
      if (is_unreserved(byte))
        out += byte;
      else
        escape(static_cast<unsigned char>(byte));
      i += 2;
    } else if (is_unreserved(c) || also_allowed.find(c) != also_allowed.npos) {
      out += c;
    } else {
      escape(static_cast<unsigned char>(c));
    }
  }
  return out;
}

std::string url::origin() const { return scheme + "://" + host + (port.empty() ? "" : ":" + port); }
std::string url::target() const { return has_query ? path + "?" + query : path; }
std::string url::text() const { return origin() + target(); }
std::string url::effective_port() const { return !port.empty() ? port : scheme == "https" ? "443" : "80"; }
std::string url::directory() const { return path.substr(0, path.rfind('/') + 1); }

bool url::is_loopback() const {
  if (host == "localhost" || host.ends_with(".localhost") || host == "[::1]") return true;
  return host.starts_with("127.") && host.find_first_not_of("0123456789.") == host.npos;
}

std::optional<url> parse_url(std::string_view text) { return make(nullptr, text); }
std::optional<url> resolve(const url& base, std::string_view reference) { return make(&base, reference); }

}  // namespace crawl
