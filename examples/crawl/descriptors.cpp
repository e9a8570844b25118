#include "descriptors.hpp"

#include <algorithm>

#include <curl/curl.h>
#include <sys/resource.h>

namespace crawl {
namespace {
constexpr std::size_t curl_descriptors = 3;  // a connection and a wake-up socket pair
constexpr std::size_t reserved = 128;        // standard streams, output, name look-ups, the event loop's own
}  // namespace

descriptors::descriptors(std::size_t wanted, std::size_t per_fiber) : fibers_(wanted) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const std::size_t ample = wanted * (curl_descriptors + per_fiber) + reserved;
  if (limit.rlim_max < ample) {
    const rlimit raised{ample, ample};  // works for root, usually
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= ample) return;
  thrifty_ = true;
  const std::size_t room = limit.rlim_cur > reserved ? limit.rlim_cur - reserved : 1;
  fibers_ = std::clamp<std::size_t>(room / (1 + per_fiber), 1, wanted);
  if (fibers_ < wanted)
    warning_ = "concurrency lowered from " + std::to_string(wanted) + " to " + std::to_string(fibers_) +
               ": the limit of open files is " + std::to_string(limit.rlim_cur) +
               "; raise the hard limit (ulimit -Hn, or nofile in /etc/security/limits.conf) to at least " +
               std::to_string(wanted * (1 + per_fiber) + reserved);
}

void descriptors::make_thrifty(void* handle) {
  // libcurl makes the wake-up pair with its private multi handle, in the first transfer, before it looks at the URL. No
  // fiber switch can happen inside: the transfer fails before it waits for anything. (A helper thread that looks up a name
  // in this very moment may fail; that is an error that may pass, and is tried again.)
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlimit none{0, limit.rlim_max};
  if (setrlimit(RLIMIT_NOFILE, &none) != 0) return;
  curl_easy_perform(handle);
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace crawl
