#include "names.hpp"

#include <cerrno>
#include <cstring>
#include <new>

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netdb.h>
#include <sys/socket.h>

#include "url.hpp"

namespace crawl {

names::~names() {
  for (auto& [name, list] : known_) curl_slist_free_all(list);
}

curl_slist* names::addresses_of(const url& where, std::string& error) {
  in_addr number;
  if (where.host.starts_with('[') || where.is_loopback() || inet_pton(AF_INET, where.host.c_str(), &number) == 1)
    return nullptr;
  const std::string key = where.host + ":" + where.effective_port();
  if (const auto hit = known_.find(key); hit != known_.end()) return hit->second;

  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* answer = nullptr;
  const int result = getaddrinfo(where.host.c_str(), nullptr, &hints, &answer);
  if (result != 0) {
    error = std::string("cannot look up ") + where.host + ": " +
            (result == EAI_SYSTEM ? std::strerror(errno) : gai_strerror(result));
    return nullptr;
  }
  std::string entry = key;
  char separator = ':';
  for (const addrinfo* each = answer; each; each = each->ai_next) {
    char text[INET6_ADDRSTRLEN] = "";
    const bool is_v6 = each->ai_family == AF_INET6;
    if (!is_v6 && each->ai_family != AF_INET) continue;
    const void* address = is_v6 ? static_cast<const void*>(&reinterpret_cast<sockaddr_in6*>(each->ai_addr)->sin6_addr)
                                : &reinterpret_cast<sockaddr_in*>(each->ai_addr)->sin_addr;
    inet_ntop(each->ai_family, address, text, sizeof text);
    entry += separator;
    entry += is_v6 ? "[" + std::string(text) + "]" : text;
    separator = ',';
  }
  freeaddrinfo(answer);
  // Another fiber may have asked the same meanwhile; its list may be in use, so it stays.
  auto& slot = known_[key];
  if (!slot) slot = curl_slist_append(nullptr, entry.c_str());
  if (!slot) throw std::bad_alloc();
  return slot;
}

}  // namespace crawl
