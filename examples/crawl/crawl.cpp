#include "crawl.hpp"

#include <algorithm>
#include <exception>
#include <vector>

#include <ringlet/fiber.hpp>

namespace crawl {

crawler::crawler(const options& wanted, int output_fd, bool progress)
    : wanted_(wanted),
      queue_(wanted.max_pages, wanted.max_depth),
      report_(output_fd, progress, queue_, flights_),
      store_(wanted.save_directory) {}

void crawler::run() {
  for (const url& each : wanted_.start) queue_.add({each});
  // Without discovery there will never be more to do than there is now.
  const std::size_t most = wanted_.discover ? wanted_.max_pages : std::min(wanted_.max_pages, queue_.queued());
  std::vector<ringlet::any_fiber> workers;
  for (std::size_t i = 0; i < std::min(wanted_.concurrency, most); ++i)
    workers.push_back(ringlet::spawn({.name = "worker"}, [this] { work(); }));
  const auto writer = ringlet::spawn({.name = "report"}, [this] { report_.run(); });
  ringlet::joinall(workers);
  report_.close();
  writer.join();
}

void crawler::work() {
  fetcher web(wanted_.fetch, names_, flights_);
  while (const auto next = queue_.take()) {
    bool fetched = true;
    try {
      fetched = visit(*next, web);
    } catch (const std::exception& failure) {
      page broken;
      broken.error = "internal";
      broken.message = failure.what();
      report_.add(*next, broken, 0, {}, {});
    }
    if (!report_.output_error().empty()) queue_.stop();
    queue_.done(fetched);
  }
}

bool crawler::visit(const item& what, fetcher& web) {
  if (!wanted_.ignore_robots) {
    const site& asked = site_of(what.where, web);
    if (!asked.rules.allows(what.where.target())) {
      page forbidden;
      forbidden.error = "robots";
      forbidden.message = asked.unreadable.empty() ? "robots.txt forbids it"
                                                   : "robots.txt could not be read, which forbids all: " + asked.unreadable;
      report_.add(what, forbidden, 0, {}, {});
      return false;
    }
  }
  page got = web.get(what.where, wanted_.discover);

  std::size_t new_links = 0;
  std::string redirect;
  if (got.status >= 300 && got.status < 400 && !got.location.empty()) {
    const auto target = resolve(what.where, got.location);
    redirect = target ? target->text() : got.location;
    if (what.hops == max_hops) {
      got.error = "redirects";
      got.message = "more than " + std::to_string(max_hops) + " redirects in a row";
    } else if (target && wanted_.discover) {
      add({*target, what.depth, what.hops + 1});
    }
  }
  url base = what.where;
  if (const auto moved = resolve(what.where, got.base); moved && !got.base.empty()) base = *moved;
  for (const std::string& each : got.links)
    if (const auto target = resolve(base, each)) new_links += add({*target, what.depth + 1});

  std::string file;
  if (!wanted_.save_directory.empty() && got.error.empty() && got.status < 300) {
    std::string failure;
    file = store_.save(what.where, got.body, failure);
    if (!failure.empty()) {
      got.error = "save";
      got.message = failure;
    }
  }
  report_.add(what, got, new_links, redirect, file);
  return true;
}

const crawler::site& crawler::site_of(const url& where, fetcher& web) {
  auto& slot = sites_[where.origin()];
  if (slot) {
    slot->known.wait();
    return *slot;
  }
  slot = std::make_unique<site>();
  site& asked = *slot;  // the map may grow, and slot move, while we wait
  asked.rules = robots::disallow_all();
  url file = where;
  file.path = "/robots.txt";
  file.has_query = false;
  file.query.clear();
  for (unsigned hops = 0;; ++hops) {
    const page got = web.get(file, false, true);
    if (got.status >= 200 && got.status < 300 && (got.error.empty() || got.error == "too_large")) {
      asked.rules = robots::parse(got.body, product_token_of(wanted_.fetch.agent));
    } else if (got.status >= 300 && got.status < 400 && !got.location.empty()) {
      const auto target = resolve(file, got.location);
      if (target && hops < robots_max_hops) {
        file = *target;
        continue;
      }
      asked.rules = robots::allow_all();  // as unavailable as a missing file, says RFC 9309
    } else if (got.status >= 400 && got.status < 500) {
      asked.rules = robots::allow_all();
    } else {
      asked.unreadable = got.error + (got.message.empty() ? ", status " + std::to_string(got.status) : ": " + got.message);
    }
    break;
  }
  asked.known.set();
  return asked;
}

bool crawler::in_scope(const url& where) const {
  if (where.text().size() > max_url_length) return false;
  return std::any_of(wanted_.start.begin(), wanted_.start.end(), [&](const url& start) {
    return start.origin() == where.origin() &&
           (wanted_.within == scope::host || where.path.starts_with(start.directory()));
  });
}

bool crawler::add(item next) {
  if (!in_scope(next.where)) {
    report_.count_out_of_scope();
    return false;
  }
  return queue_.add(std::move(next));
}

}  // namespace crawl
