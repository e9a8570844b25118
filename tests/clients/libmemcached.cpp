// libmemcached, a memcached_st for each fiber. The server answers at once; a proxy in front of it holds back what a `get` of
// a key "delay-MS-..." asks for.

#include <libmemcached/memcached.h>

#include "clients.hpp"

namespace clients {
namespace {

class memcached_client : public client {
 public:
  ~memcached_client() override { memcached_free(handle_); }

  void connect() override {
    memcached_free(handle_);
    handle_ = memcached_create(nullptr);
    set(MEMCACHED_BEHAVIOR_POLL_TIMEOUT, std::uint64_t(limit_.count()));
    set(MEMCACHED_BEHAVIOR_SND_TIMEOUT, 0);
    const auto port = in_port_t(port_of("CLIENTS_MEMCACHED"));
    check(memcached_server_add(handle_, told("CLIENTS_HOST").c_str(), port), "server_add");
    check(memcached_set(handle_, "hello", 5, "x", 1, 0, 0), "set");
  }
  // Each wait for the socket, not the whole request.
  void give_up_after(milliseconds t) override { set(MEMCACHED_BEHAVIOR_POLL_TIMEOUT, std::uint64_t(t.count())); }
  std::string ask(int id, milliseconds after) override {
    const std::string key = "delay-" + std::to_string(after.count()) + "-" + std::to_string(id), answer = answer_to(id);
    check(memcached_set(handle_, key.data(), key.size(), answer.data(), answer.size(), 0, 0), "set");
    std::size_t size = 0;
    std::uint32_t flags = 0;
    memcached_return_t how{};
    char* value = memcached_get(handle_, key.data(), key.size(), &size, &flags, &how);
    const std::unique_ptr<char, decltype(&std::free)> got(value, std::free);
    check(how, "get");
    return {got.get(), size};
  }

 private:
  void set(memcached_behavior_t what, std::uint64_t value) {
    check(memcached_behavior_set(handle_, what, value), "behavior_set");
  }
  void check(memcached_return_t how, const char* what) {
    if (how == MEMCACHED_SUCCESS) return;
    const std::string said = memcached_strerror(handle_, how), last = memcached_last_error_message(handle_);
    throw failure{std::string(what) + ": " + said + " (" + last + ")"};
  }
  memcached_st* handle_ = nullptr;
  milliseconds limit_ = 120s;
};

const bool added = add({.name = "libmemcached",
                        .version = [] { return std::string(memcached_lib_version()); },
                        .make = [] { return std::unique_ptr<client>(new memcached_client); },
                        .timed_out = {"A TIMEOUT OCCURRED"},
                        .cancelled = {},
                        .interrupted = {"SYSTEM ERROR", "A TIMEOUT OCCURRED", "CONNECTION FAILURE", "SERVER"},
                        .gone = {"SERVER", "CONNECTION FAILURE", "UNKNOWN READ FAILURE"}});

}  // namespace
}  // namespace clients
