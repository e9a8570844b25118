// libcurl's easy interface, a handle for each fiber: HTTP/1.1, and HTTP/2 over TLS.

#include <curl/curl.h>

#include "cases.hpp"

namespace clients {
namespace {

const CURLcode once = curl_global_init(CURL_GLOBAL_DEFAULT);

std::string name_of(CURLcode code) {
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT: return "CURLE_OPERATION_TIMEDOUT";
    case CURLE_ABORTED_BY_CALLBACK: return "CURLE_ABORTED_BY_CALLBACK";
    case CURLE_GOT_NOTHING: return "CURLE_GOT_NOTHING";
    case CURLE_RECV_ERROR: return "CURLE_RECV_ERROR";
    case CURLE_SEND_ERROR: return "CURLE_SEND_ERROR";
    case CURLE_COULDNT_CONNECT: return "CURLE_COULDNT_CONNECT";
    case CURLE_BAD_FUNCTION_ARGUMENT: return "CURLE_BAD_FUNCTION_ARGUMENT";
    case CURLE_PARTIAL_FILE: return "CURLE_PARTIAL_FILE";
    case CURLE_HTTP2: return "CURLE_HTTP2";
    case CURLE_HTTP2_STREAM: return "CURLE_HTTP2_STREAM";
    case CURLE_SSL_CONNECT_ERROR: return "CURLE_SSL_CONNECT_ERROR";
    default: return "CURLcode " + std::to_string(code);
  }
}

extern "C" {
static std::size_t append(char* data, std::size_t size, std::size_t count, void* to) {
  static_cast<std::string*>(to)->append(data, size * count);
  return size * count;
}
static int stop_if(void* wanted, curl_off_t, curl_off_t, curl_off_t, curl_off_t) { return *static_cast<bool*>(wanted); }
}

enum class way { one, one_by_name, two };

class curl_client : public client {
 public:
  explicit curl_client(way w) : way_(w), handle_(curl_easy_init()) {
    const bool two = w == way::two;
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_ERRORBUFFER, error_);
    set(CURLOPT_WRITEFUNCTION, append);
    set(CURLOPT_WRITEDATA, &body_);
    set(CURLOPT_NOPROGRESS, 0L);
    set(CURLOPT_XFERINFOFUNCTION, stop_if);
    set(CURLOPT_XFERINFODATA, &stops_);
    set(CURLOPT_HTTP_VERSION, long(two ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1));
    set(CURLOPT_PIPEWAIT, 1L);
    if (two) set(CURLOPT_CAINFO, told("CLIENTS_CERTIFICATE").c_str());
  }
  ~curl_client() override { curl_easy_cleanup(handle_); }

  void connect() override { ask(0, 0ms); }
  void give_up_after(milliseconds t) override { set(CURLOPT_TIMEOUT_MS, long(t.count())); }
  void cancel() override { stops_ = true; }

  std::string ask(int id, milliseconds after) override {
    prepare(id, after);
    return outcome(curl_easy_perform(handle_));
  }

  CURL* handle() { return handle_; }
  void prepare(int id, milliseconds after) {
    const std::string host = way_ == way::one_by_name ? told("CLIENTS_MACHINE") : "127.0.0.1";
    // It knows localhost without looking it up.
    const std::string plain = "http://" + host + ":" + told("CLIENTS_HTTP");
    const std::string site = way_ == way::two ? "https://localhost:" + told("CLIENTS_HTTPS") : plain;
    const std::string url = site + "/wait?id=" + std::to_string(id) + "&s=" + seconds(after);
    set(CURLOPT_URL, url.c_str());
    body_.clear();
    error_[0] = 0;
  }
  std::string outcome(CURLcode code) {
    if (code != CURLE_OK) throw failure{name_of(code) + ": " + error_};
    long version = 0;
    curl_easy_getinfo(handle_, CURLINFO_HTTP_VERSION, &version);
    const long wanted = way_ == way::two ? CURL_HTTP_VERSION_2_0 : CURL_HTTP_VERSION_1_1;
    if (version != wanted) throw failure{"HTTP version " + std::to_string(version)};
    return std::move(body_);
  }

 private:
  template <class T>
  void set(CURLoption option, T value) {
    if (const CURLcode code = curl_easy_setopt(handle_, option, value)) throw failure{"setopt: " + name_of(code)};
  }
  way way_;
  bool stops_ = false;
  CURL* handle_;
  std::string body_;
  char error_[CURL_ERROR_SIZE] = {};
};

// The multi interface, in one fiber: a hundred streams of one connection.
void many_streams() {
  ticker others;
  in_fibers(1, [&](int) {
    constexpr int count = 100;
    const std::unique_ptr<CURLM, decltype(&curl_multi_cleanup)> multi(curl_multi_init(), curl_multi_cleanup);
    std::vector<std::unique_ptr<curl_client>> all;
    for (int i = 0; i < count; ++i) {
      all.push_back(std::make_unique<curl_client>(way::two));
      all.back()->prepare(i, request_takes);
      curl_multi_add_handle(multi.get(), all.back()->handle());
    }
    const auto begin = clock::now();
    for (int running = count; running > 0;) {
      expect(curl_multi_perform(multi.get(), &running) == CURLM_OK, "curl_multi_perform failed");
      expect(curl_multi_poll(multi.get(), nullptr, 0, 1000, nullptr) == CURLM_OK, "curl_multi_poll failed");
    }
    expect(ms_since(begin) < 100.0 * count / 4, "they took " + std::to_string(ms_since(begin)) + " ms");
    int left = 0, done = 0;
    long connections = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi.get(), &left)) {
      const auto is_its = [&](const auto& c) { return c->handle() == message->easy_handle; };
      const auto mine = std::find_if(all.begin(), all.end(), is_its);
      expect_answer((*mine)->outcome(message->data.result), int(mine - all.begin()));
      long opened = 0;
      curl_easy_getinfo(message->easy_handle, CURLINFO_NUM_CONNECTS, &opened);
      connections += opened;
      ++done;
    }
    for (const auto& c : all) curl_multi_remove_handle(multi.get(), c->handle());
    expect(done == count, "only " + std::to_string(done) + " have ended");
    expect(connections == 1, "there were " + std::to_string(connections) + " connections");
  });
  expect(others.count() >= 10, "others did not run meanwhile");
}

std::string version() { return curl_version_info(CURLVERSION_NOW)->version; }

// A connection that was used before and then fails is tried once more, so a server that has gone is one that refuses.
const bool added =
    // A thread of its own for each look-up.
    add({.name = "libcurl, by name",
         .version = version,
         .make = [] { return std::unique_ptr<client>(new curl_client(way::one_by_name)); }}) &&
    add({.name = "libcurl, HTTP/1.1",
         .version = version,
         .make = [] { return std::unique_ptr<client>(new curl_client(way::one)); },
         .timed_out = {"CURLE_OPERATION_TIMEDOUT"},
         .cancelled = {"CURLE_ABORTED_BY_CALLBACK"},
         .interrupted = {"CURLE_BAD_FUNCTION_ARGUMENT"},
         .gone = {"CURLE_COULDNT_CONNECT", "CURLE_GOT_NOTHING", "CURLE_RECV_ERROR"},
         .reconnects_itself = true}) &&
    add({.name = "libcurl, HTTP/2 over TLS",
         .version = version,
         .make = [] { return std::unique_ptr<client>(new curl_client(way::two)); },
         .timed_out = {"CURLE_OPERATION_TIMEDOUT"},
         .cancelled = {"CURLE_ABORTED_BY_CALLBACK"},
         .interrupted = {"CURLE_BAD_FUNCTION_ARGUMENT"},
         .gone = {"CURLE_PARTIAL_FILE", "CURLE_COULDNT_CONNECT", "CURLE_HTTP2", "CURLE_RECV_ERROR", "CURLE_SEND_ERROR"},
         .reconnects_itself = true,
         .own = {{"a hundred streams of one connection, by the multi interface", many_streams}}});

}  // namespace
}  // namespace clients
