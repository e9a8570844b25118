#pragma once
// Fetching a page: libcurl's easy interface, used exactly as in a program without fibers.
//
// A fetcher is one worker's own easy handle, made at its first use and kept, so that connections and TLS sessions are
// used again. curl_easy_perform blocks; what blocks in it (poll) parks the fiber. Redirects are not followed here: they
// go back to the frontier, where scope, robots.txt and the memory of what was seen apply to them. Errors of the kind that
// may pass are tried again after a pause that doubles; a server's Retry-After is obeyed.
//
// CURLOPT_NOSIGNAL, because libcurl would otherwise save and restore the handler of SIGPIPE around each transfer, and
// transfers of many fibers interleave.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "links.hpp"
#include "names.hpp"
#include "page.hpp"
#include "url.hpp"

namespace crawl {

struct fetch_settings {
  std::string agent;
  std::chrono::milliseconds timeout{30000};  // of one try
  std::chrono::milliseconds backoff{500};    // before the second try; doubles
  unsigned retries = 2;
  std::uint64_t max_bytes = 64 << 20;
  bool keep_body = false;
  bool thrifty = false;  // see descriptors.hpp
};

// How many transfers run now, and ran at most at one moment.
struct in_flight {
  std::size_t now = 0;
  std::size_t peak = 0;
};

class fetcher {
 public:
  fetcher(const fetch_settings& settings, names& hosts, in_flight& flights);
  ~fetcher();
  fetcher(const fetcher&) = delete;
  fetcher& operator=(const fetcher&) = delete;

  // Never throws for what a server or a network does: the page says so. Links are read only if `want_links`.
  page get(const url& where, bool want_links, bool want_body = false);

 private:
  struct callbacks;
  void prepare(const url& where);
  void attempt(const url& where);
  void classify(int code, const std::string& name_error);
  bool may_pass() const;
  std::chrono::milliseconds pause() const;
  std::size_t take_body(std::string_view piece);
  void take_header(std::string_view line);

  const fetch_settings& settings_;
  names& hosts_;
  in_flight& flights_;
  void* handle_ = nullptr;
  // The transfer that runs now.
  page page_;
  fnv1a hash_;
  std::unique_ptr<links> links_;
  bool want_links_ = false;
  bool want_body_ = false;
  bool too_large_ = false;
  long retry_after_seconds_ = 0;
  char error_text_[256];  // CURL_ERROR_SIZE
};

}  // namespace crawl
