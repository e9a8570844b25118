#pragma once
// The URLs still to be fetched, and the memory of all that ever were.
//
// Breadth first: the shallowest URL goes next. A page's depth is found by whoever links to it first, and with many
// workers that need not be the shortest way; so when a depth limit is set, a level begins only when the one before is
// finished, and the set of pages does not depend on who was quicker. Without a limit nobody waits for a level.
//
// Workers take an item, add what they find, and say done. An idle worker parks; the one that idled last is woken first,
// because its connection is the warmest. When nothing is queued and nobody is busy, nobody can add: take gives nothing,
// to all. For fibers of one thread: nothing here parks but take, so there is nothing to lock.

#include <cstddef>
#include <limits>
#include <map>
#include <deque>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include <ringlet/sync.hpp>

#include "url.hpp"

namespace crawl {

struct item {
  url where;
  unsigned depth = 0;
  unsigned hops = 0;  // redirects that led here
};

class frontier {
 public:
  static constexpr unsigned no_limit = std::numeric_limits<unsigned>::max();

  frontier(std::size_t max_pages, unsigned max_depth) : max_pages_(max_pages), max_depth_(max_depth) {}

  // False: seen before, or too deep.
  bool add(item next);
  // Waits for an item; nothing when the crawl is over. Each one taken must be done.
  std::optional<item> take();
  // `fetched`: it counts towards the maximum of pages.
  void done(bool fetched);
  // What is taken may end; nothing more is given out. Safe in a signal handler.
  void stop() noexcept { stopped_ = true; }

  std::size_t queued() const { return queued_; }
  std::size_t busy() const { return busy_; }
  std::size_t seen() const { return seen_.size(); }
  bool stopped() const { return stopped_; }

 private:
  bool has_ready() const;
  void wake_one();
  void wake_all();

  const std::size_t max_pages_;
  const unsigned max_depth_;
  std::map<unsigned, std::deque<item>> levels_;  // none is empty
  std::unordered_set<std::string> seen_;
  std::vector<ringlet::event*> idle_;
  std::size_t queued_ = 0;
  std::size_t busy_ = 0;
  std::size_t given_out_ = 0;
  unsigned level_ = 0;  // of those that are busy now, if there is a depth limit
  volatile bool stopped_ = false;
};

}  // namespace crawl
