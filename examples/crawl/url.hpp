#pragma once
// A URL that has been made comparable: two spellings of one page give the same text().
//
// A reference found in a page is cleaned the way browsers do it (blanks around it, tabs and line ends inside it, back
// slashes), resolved against its page by RFC 3986 section 5, and normalised by section 6.2.2: scheme and host in lower
// case, default port dropped, dot segments removed, escapes in upper case and only where they are needed. Reserved
// characters keep the spelling they came with, because %2F and / name different things. The fragment is dropped: it
// names a place inside a page. What is no http or https URL is no url at all.
//
// Why not a library: libcurl's URL API keeps upper-case hosts and resolves "#top" to the parent's path, and Debian 12's
// Boost is older than Boost.URL.

#include <compare>
#include <optional>
#include <string>
#include <string_view>

namespace crawl {

struct url {
  std::string scheme;  // "http" or "https"
  std::string host;    // lower case; an IPv6 address keeps its brackets
  std::string port;    // empty when it is the scheme's default
  std::string path;    // begins with '/'
  std::string query;   // without '?'
  bool has_query = false;

  bool operator==(const url&) const = default;

  std::string origin() const;  // scheme://host[:port]
  std::string target() const;  // path[?query]
  std::string text() const;    // all of it
  // The port as a number, the default one if none is written.
  std::string effective_port() const;
  // The path up to and with its last '/'.
  std::string directory() const;
  // The host is this machine by name or number: localhost, *.localhost, 127.0.0.0/8, [::1].
  bool is_loopback() const;
};

// An absolute http(s) URL, or nothing.
std::optional<url> parse_url(std::string_view text);
// What `reference` means on the page `base`, or nothing: another scheme, no host, a port out of range.
std::optional<url> resolve(const url& base, std::string_view reference);

// Escapes normalised, and everything escaped that is neither unreserved nor in `also_allowed`. robots.txt rules are
// compared in this form, too.
std::string normalise_escapes(std::string_view text, std::string_view also_allowed);
inline constexpr std::string_view path_characters = "!$&'()*+,;=:@/";
inline constexpr std::string_view query_characters = "!$&'()*+,;=:@/?";

}  // namespace crawl
