#include "frontier.hpp"

namespace crawl {

bool frontier::add(item next) {
  if (next.depth > max_depth_ || !seen_.insert(next.where.text()).second) return false;
  levels_[next.depth].push_back(std::move(next));
  ++queued_;
  if (has_ready()) wake_one();
  return true;
}

std::optional<item> frontier::take() {
  for (;;) {
    if (has_ready()) {
      const auto first = levels_.begin();
      item next = std::move(first->second.front());
      first->second.pop_front();
      if (first->second.empty()) levels_.erase(first);
      --queued_;
      ++given_out_;
      ++busy_;
      level_ = next.depth;
      return next;
    }
    if (busy_ == 0) {
      wake_all();
      return {};
    }
    ringlet::event woken;
    idle_.push_back(&woken);
    woken.wait();
  }
}

void frontier::done(bool fetched) {
  --busy_;
  if (!fetched) --given_out_;
  // The last of a level opens the next one, or ends the crawl: both concern everybody.
  if (busy_ == 0)
    wake_all();
  else if (!fetched)
    wake_one();
}

bool frontier::has_ready() const {
  if (stopped_ || levels_.empty() || given_out_ >= max_pages_) return false;
  return max_depth_ == no_limit || busy_ == 0 || levels_.begin()->first <= level_;
}

void frontier::wake_one() {
  if (idle_.empty()) return;
  idle_.back()->set();
  idle_.pop_back();
}

void frontier::wake_all() {
  while (!idle_.empty()) wake_one();
}

}  // namespace crawl
