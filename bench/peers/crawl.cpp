// A crawler in three ways, each with 32 of libcurl's easy handles and the same code for what is done with a page:
// `peer_crawl fibers|multi|threads URL COUNT work` fetches /0 of URL and all that it links to, COUNT pages.
//
//   fibers    a fiber a handle, curl_easy_perform as it blocks, under the hooks
//   multi     one thread, libcurl's multi interface (curl_multi_poll)
//   threads   a kernel's thread a handle, curl_easy_perform; the frontier has a lock
//
// `crawl N` (peer.hpp): crawls the site again and again until at least N pages have been fetched. Connections live on
// between the crawls.

#include <curl/curl.h>

#include <ringlet/ringlet.hpp>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "peer.hpp"

namespace {

constexpr std::size_t handles = 32;

[[noreturn]] void wrong(const std::string& what) {
  std::fprintf(stderr, "peer_crawl: %s\n", what.c_str());
  std::exit(1);
}

// What is known of the site in one crawl.
class frontier {
 public:
  explicit frontier(std::size_t pages) : seen_(pages) { add(0); }

  bool take(std::size_t& number) {
    if (next_ == found_.size()) return false;
    number = found_[next_++];
    return true;
  }
  void add(std::size_t number) {
    if (number >= seen_.size()) wrong("a link leads nowhere");
    if (seen_[number]) return;
    seen_[number] = true;
    found_.push_back(number);
  }
  void extract(std::string_view page) {
    constexpr std::string_view mark = "href=\"/";
    for (std::size_t at = 0; (at = page.find(mark, at)) != page.npos;)
      add(std::size_t(std::atoll(page.data() + (at += mark.size()))));
    ++done_;
  }
  bool finished() const { return done_ == found_.size(); }
  std::size_t done() const { return done_; }

 private:
  std::vector<bool> seen_;
  std::vector<std::size_t> found_;  // in the order met
  std::size_t next_ = 0, done_ = 0;
};

class fetcher {
 public:
  explicit fetcher(const std::string& site) : site_(site), easy(curl_easy_init()) {
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT, 20L);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &append);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, this);
  }
  ~fetcher() { curl_easy_cleanup(easy); }
  fetcher(const fetcher&) = delete;

  void aim(std::size_t number) {
    body.clear();
    curl_easy_setopt(easy, CURLOPT_URL, (site_ + std::to_string(number)).c_str());
  }
  void check(CURLcode result) const {
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (result != CURLE_OK || status != 200)
      wrong(std::string("a page does not come: ") + curl_easy_strerror(result) + ", status " + std::to_string(status));
  }
  void perform() const { check(curl_easy_perform(easy)); }

 private:
  static std::size_t append(char* data, std::size_t, std::size_t size, void* self) {
    static_cast<fetcher*>(self)->body.append(data, size);
    return size;
  }
  const std::string site_;

 public:
  CURL* const easy;
  std::string body;
};

using fetchers = std::vector<std::unique_ptr<fetcher>>;

std::size_t by_fibers(const fetchers& all, std::size_t pages) {
  ringlet::hooks::enable();
  frontier site(pages);
  ringlet::event changed;
  std::vector<ringlet::any_fiber> workers;
  for (const auto& each : all)
    workers.push_back(ringlet::spawn([&, mine = each.get()] {
      while (!site.finished()) {
        std::size_t number;
        if (!site.take(number)) {
          changed.clear();
          changed.wait();
          continue;
        }
        mine->aim(number);
        mine->perform();
        site.extract(mine->body);
        changed.set();
      }
    }));
  ringlet::joinall(workers);
  return site.done();
}

std::size_t by_multi(const fetchers& all, std::size_t pages) {
  static CURLM* const multi = curl_multi_init();
  frontier site(pages);
  std::vector<fetcher*> idle;
  for (const auto& each : all) idle.push_back(each.get());
  while (!site.finished()) {
    for (std::size_t number; !idle.empty() && site.take(number);) {
      idle.back()->aim(number);
      curl_multi_add_handle(multi, idle.back()->easy);
      idle.pop_back();
    }
    int running = 0, left = 0;
    curl_multi_perform(multi, &running);
    bool any = false;
    while (const CURLMsg* told = curl_multi_info_read(multi, &left)) {
      if (told->msg != CURLMSG_DONE) continue;
      fetcher* who = nullptr;
      curl_easy_getinfo(told->easy_handle, CURLINFO_PRIVATE, &who);
      who->check(told->data.result);
      curl_multi_remove_handle(multi, who->easy);
      site.extract(who->body);
      idle.push_back(who);
      any = true;
    }
    if (!any && running > 0) curl_multi_poll(multi, nullptr, 0, 20'000, nullptr);
  }
  return site.done();
}

std::size_t by_threads(const fetchers& all, std::size_t pages) {
  frontier site(pages);
  std::mutex lock;
  std::condition_variable changed;
  std::vector<std::thread> workers;
  for (const auto& each : all)
    workers.emplace_back([&, mine = each.get()] {
      std::unique_lock hold(lock);
      while (!site.finished()) {
        std::size_t number;
        if (!site.take(number)) {
          changed.wait(hold);
          continue;
        }
        hold.unlock();
        mine->aim(number);
        mine->perform();
        hold.lock();
        site.extract(mine->body);
        changed.notify_all();
      }
    });
  for (auto& w : workers) w.join();
  return site.done();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string how = argc > 3 ? argv[1] : "";
  const auto crawl = how == "fibers" ? by_fibers : how == "multi" ? by_multi : how == "threads" ? by_threads : nullptr;
  if (!crawl) return std::fprintf(stderr, "%s fibers|multi|threads URL COUNT work\n", argv[0]), 2;
  const std::size_t pages = std::size_t(std::atoll(argv[3]));
  curl_global_init(CURL_GLOBAL_DEFAULT);
  fetchers all;
  while (all.size() < handles) all.push_back(std::make_unique<fetcher>(argv[2]));
  return peer::run(argc - 3, argv + 3, {}, {{"crawl", [&](std::size_t n) {
                                               std::size_t done = 0;
                                               while (done < n) {
                                                 const std::size_t more = crawl(all, pages);
                                                 if (more != pages) wrong("some pages were not found");
                                                 done += more;
                                               }
                                               return done;
                                             }}});
}
