// cpp-httplib's client, one for each fiber.

#include <httplib.h>

#include "clients.hpp"

namespace clients {
namespace {

class httplib_client : public client {
 public:
  httplib_client() : client_(told("CLIENTS_HOST"), port_of("CLIENTS_HTTP")) {
    client_.set_keep_alive(true);
    client_.set_read_timeout(120, 0);
  }
  void connect() override { ask(0, 0ms); }
  void give_up_after(milliseconds t) override { client_.set_read_timeout(t.count() / 1000, t.count() % 1000 * 1000); }
  std::string ask(int id, milliseconds after) override {
    const auto got = client_.Get(("/wait?id=" + std::to_string(id) + "&s=" + seconds(after)).c_str());
    if (!got) throw failure{"httplib::Error " + std::to_string(int(got.error())) + " " + httplib::to_string(got.error())};
    return got->body;
  }
  void cancel() override { client_.stop(); }

 private:
  httplib::Client client_;
};

static_assert(int(httplib::Error::Read) == 4);
constexpr const char* error_read = "httplib::Error 4 ";

const bool added = add({.name = "cpp-httplib",
                        .version = [] { return std::string(CPPHTTPLIB_VERSION); },
                        .make = [] { return std::unique_ptr<client>(new httplib_client); },
                        .timed_out = {error_read},
                        .cancelled = {error_read},
                        .interrupted = {error_read},
                        .gone = {error_read},
                        .reconnects_itself = true});

}  // namespace
}  // namespace clients
