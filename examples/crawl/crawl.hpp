#pragma once
// The crawl itself: N fibers that each take a URL, fetch it, and add what it links to.
//
// Read work() in crawl.cpp: it is the program one would write for a single transfer after the other. All objects here
// are shared by the fibers of one thread; a fiber loses the processor only where it waits, so what lies between two
// waits needs no lock.

#include <memory>
#include <string>
#include <unordered_map>

#include <ringlet/sync.hpp>

#include "fetch.hpp"
#include "frontier.hpp"
#include "names.hpp"
#include "options.hpp"
#include "report.hpp"
#include "robots.hpp"
#include "store.hpp"

namespace crawl {

class crawler {
 public:
  crawler(const options& wanted, int output_fd, bool progress);

  // Runs to the end: all fibers spawned and joined.
  void run();
  // Ends it early: what is in flight is finished. Safe in a signal handler.
  void stop() noexcept { queue_.stop(); }
  const report& told() const { return report_; }

 private:
  static constexpr unsigned max_hops = 10;         // of redirects, per URL
  static constexpr unsigned robots_max_hops = 5;   // as many as RFC 9309 asks for
  static constexpr std::size_t max_url_length = 2083;

  struct site {
    ringlet::event known;
    robots rules;
    std::string unreadable;  // why robots.txt could not be read; empty if it could
  };

  void work();
  // True: fetched (even if badly); false: robots.txt forbids it.
  bool visit(const item& what, fetcher& web);
  // Asks for robots.txt the first time; others wait until it is known.
  const site& site_of(const url& where, fetcher& web);
  bool in_scope(const url& where) const;
  // Adds what is in scope; true if it was new.
  bool add(item next);

  const options& wanted_;
  frontier queue_;
  in_flight flights_;
  names names_;
  report report_;
  store store_;
  std::unordered_map<std::string, std::unique_ptr<site>> sites_;  // by origin
};

}  // namespace crawl
