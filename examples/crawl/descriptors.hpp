#pragma once
// File descriptors: how many this process may have, and how many fibers that feeds.
//
// The soft limit is often 1024, for the sake of programs that still use select(2); we raise it to the hard one. A
// libcurl handle wants three descriptors, but only one of them is its connection: the other two wake up a wait that no
// other thread can be in, since each handle is one fiber's own. libcurl works without them when it cannot get them. So
// where three a fiber do not fit, handles are made with one each (see make_thrifty); where even that does not fit,
// the concurrency is lowered, with a word about it.

#include <cstddef>
#include <string>

namespace crawl {

class descriptors {
 public:
  // Raises the limit. `wanted` fibers; `per_fiber` more descriptors than libcurl's in each.
  descriptors(std::size_t wanted, std::size_t per_fiber);

  std::size_t fibers() const { return fibers_; }
  bool is_thrifty() const { return thrifty_; }
  const std::string& warning() const { return warning_; }  // empty: all is well

  // Lets libcurl set up the handle (a CURL*) while no descriptor can be had. The handle must have no URL yet.
  static void make_thrifty(void* handle);

 private:
  std::size_t fibers_;
  bool thrifty_ = false;
  std::string warning_;
};

}  // namespace crawl
