#include "fetch.hpp"

#include <algorithm>
#include <new>
#include <strings.h>
#include <thread>

#include <curl/curl.h>

#include "descriptors.hpp"

namespace crawl {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c |= 32;
  return out;
}

bool is_html(std::string_view type) { return type == "text/html" || type == "application/xhtml+xml"; }

const char* class_of(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST: return "dns";
    case CURLE_COULDNT_CONNECT: return "connect";
    case CURLE_OPERATION_TIMEDOUT: return "timeout";
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE: return "connection";
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR: return "tls";
    default: return "protocol";
  }
}

}  // namespace

// C frames call these: an exception must not leave them. Returning another count than was given makes libcurl stop.
struct fetcher::callbacks {
  static std::size_t body(char* data, std::size_t, std::size_t size, void* self) noexcept {
    return static_cast<fetcher*>(self)->take_body({data, size});
  }
  static std::size_t header(char* data, std::size_t, std::size_t size, void* self) noexcept {
    static_cast<fetcher*>(self)->take_header({data, size});
    return size;
  }
};

fetcher::fetcher(const fetch_settings& settings, names& hosts, in_flight& flights)
    : settings_(settings), hosts_(hosts), flights_(flights) {}

fetcher::~fetcher() {
  if (handle_) curl_easy_cleanup(handle_);
}

void fetcher::prepare(const url& where) {
  if (!handle_) {
    handle_ = curl_easy_init();
    if (!handle_) throw std::bad_alloc();
    if (settings_.thrifty) descriptors::make_thrifty(handle_);
    curl_easy_setopt(handle_, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle_, CURLOPT_USERAGENT, settings_.agent.c_str());
    curl_easy_setopt(handle_, CURLOPT_ACCEPT_ENCODING, "");  // all that libcurl can decode
    curl_easy_setopt(handle_, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(handle_, CURLOPT_TIMEOUT_MS, static_cast<long>(settings_.timeout.count()));
    curl_easy_setopt(handle_, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(settings_.timeout.count()));
    curl_easy_setopt(handle_, CURLOPT_WRITEFUNCTION, &callbacks::body);
    curl_easy_setopt(handle_, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(handle_, CURLOPT_HEADERFUNCTION, &callbacks::header);
    curl_easy_setopt(handle_, CURLOPT_HEADERDATA, this);
    curl_easy_setopt(handle_, CURLOPT_ERRORBUFFER, error_text_);
    // Reading the whole certificate bundle costs each new TLS connection 25 ms of processor time; looking certificates
    // up in the hashed directory, where libcurl knows one, costs 1.4.
    if (curl_version_info(CURLVERSION_NOW)->capath)
      curl_easy_setopt(handle_, CURLOPT_CAINFO, static_cast<char*>(nullptr));
  }
  curl_easy_setopt(handle_, CURLOPT_URL, where.text().c_str());
}

page fetcher::get(const url& where, bool want_links, bool want_body) {
  want_links_ = want_links;
  want_body_ = want_body || settings_.keep_body;
  for (unsigned tries = 1;; ++tries) {
    attempt(where);
    page_.tries = tries;
    if (tries > settings_.retries || !may_pass()) return std::move(page_);
    std::this_thread::sleep_for(pause());
  }
}

void fetcher::attempt(const url& where) {
  page_ = {};
  hash_ = {};
  links_.reset();
  too_large_ = false;
  retry_after_seconds_ = 0;
  error_text_[0] = '\0';
  prepare(where);

  const auto begin = std::chrono::steady_clock::now();
  flights_.peak = std::max(flights_.peak, ++flights_.now);
  std::string name_error;
  CURLcode code = CURLE_COULDNT_RESOLVE_HOST;
  if (curl_slist* addresses = hosts_.addresses_of(where, name_error); name_error.empty()) {
    curl_easy_setopt(handle_, CURLOPT_RESOLVE, addresses);
    code = curl_easy_perform(handle_);
  }
  --flights_.now;
  page_.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();

  page_.hash = hash_.value();
  curl_easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &page_.status);
  if (links_) {
    links_->finish();
    page_.links = links_->found();
    page_.base = links_->base();
    links_.reset();
  }
  curl_off_t retry_after = 0;
  if (curl_easy_getinfo(handle_, CURLINFO_RETRY_AFTER, &retry_after) == CURLE_OK)
    retry_after_seconds_ = static_cast<long>(std::clamp<curl_off_t>(retry_after, 0, 30));
  classify(code, name_error);
}

void fetcher::classify(int code, const std::string& name_error) {
  if (too_large_) {
    page_.error = "too_large";
    page_.message = "the body is larger than " + std::to_string(settings_.max_bytes) + " bytes; see --max-bytes";
  } else if (code != CURLE_OK) {
    page_.error = class_of(static_cast<CURLcode>(code));
    page_.message = !name_error.empty() ? name_error
                    : error_text_[0]    ? error_text_
                                        : curl_easy_strerror(static_cast<CURLcode>(code));
    page_.links.clear();  // of a page that broke off; it may be tried again
  } else if (page_.status >= 400) {
    page_.error = page_.status < 500 ? "http_4xx" : "http_5xx";
  }
}

bool fetcher::may_pass() const {
  for (const char* passing : {"timeout", "connect", "connection", "dns"})
    if (page_.error == passing) return true;
  switch (page_.status) {
    case 408: case 429: case 500: case 502: case 503: case 504: return !too_large_;
    default: return false;
  }
}

std::chrono::milliseconds fetcher::pause() const {
  using std::chrono::milliseconds;
  const auto doubled = settings_.backoff * (1u << std::min(page_.tries - 1, 10u));
  // Fibers whose server failed at one moment must not all come back at one moment.
  const auto jitter = milliseconds(reinterpret_cast<std::uintptr_t>(this) / 64 % (doubled.count() / 4 + 1));
  return std::max<milliseconds>(std::min<milliseconds>(doubled + jitter, milliseconds(30000)),
                                milliseconds(retry_after_seconds_ * 1000));
}

std::size_t fetcher::take_body(std::string_view piece) {
  if (page_.bytes == 0 && want_links_) {
    long status = 0;
    curl_easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 200 && status < 300 && is_html(page_.type)) links_ = std::make_unique<links>(page_.charset);
  }
  if (page_.bytes + piece.size() > settings_.max_bytes) {
    too_large_ = true;
    return 0;
  }
  page_.bytes += piece.size();
  hash_.add(piece);
  if (want_body_) page_.body.append(piece);
  if (links_) links_->feed(piece);
  return piece.size();
}

void fetcher::take_header(std::string_view line) {
  if (line.starts_with("HTTP/")) {  // an interim answer's headers are not the final one's
    page_.type.clear();
    page_.charset.clear();
    page_.location.clear();
    return;
  }
  const auto value_of = [line](std::string_view name) -> std::string_view {
    if (line.size() <= name.size() || line[name.size()] != ':' || strncasecmp(line.data(), name.data(), name.size()) != 0)
      return {};
    auto value = line.substr(name.size() + 1);
    const auto begin = value.find_first_not_of(" \t");
    const auto end = value.find_last_not_of(" \t\r\n");
    return begin == value.npos || end < begin ? std::string_view() : value.substr(begin, end - begin + 1);
  };
  if (const auto location = value_of("location"); !location.empty()) page_.location = location;
  if (const auto type = value_of("content-type"); !type.empty()) {
    const std::string all = lower(type.substr(0, 200));
    page_.type = all.substr(0, all.find(';'));
    page_.type.erase(page_.type.find_last_not_of(" \t") + 1);
    const auto charset = all.find("charset=");
    page_.charset = charset == all.npos ? "" : all.substr(charset + 8);
    std::erase_if(page_.charset, [](char c) { return c == '"' || c == '\''; });
    page_.charset.erase(std::min(page_.charset.find_first_of("; \t"), page_.charset.size()));
  }
}

}  // namespace crawl
