#pragma once
// Host names to addresses, asked once a host for all fibers.
//
// libcurl starts a thread, and opens two more descriptors, for each name it looks up itself: ten thousand fibers would
// be ten thousand threads after all. So we ask getaddrinfo, which parks the fiber like any other call, and hand libcurl
// the answer (CURLOPT_RESOLVE). A name that had no answer is asked again next time.

#include <string>
#include <unordered_map>

struct curl_slist;

namespace crawl {

struct url;

class names {
 public:
  names() = default;
  ~names();
  names(const names&) = delete;
  names& operator=(const names&) = delete;

  // For CURLOPT_RESOLVE: lives as long as this; null with an empty `error` when the host is a number or localhost.
  curl_slist* addresses_of(const url& where, std::string& error);

 private:
  std::unordered_map<std::string, curl_slist*> known_;  // by host:port
};

}  // namespace crawl
