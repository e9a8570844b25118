// libmariadb's blocking calls on a connection for each fiber.

#include <errmsg.h>
#include <mysql.h>

#include "clients.hpp"

namespace clients {
namespace {

const int once = mysql_library_init(0, nullptr, nullptr);

class mariadb_client : public client {
 public:
  ~mariadb_client() override { close(); }

  void connect() override {
    close();
    connection_ = mysql_init(nullptr);
    const unsigned limit = unsigned(limit_.count() / 1000);
    if (limit) mysql_options(connection_, MYSQL_OPT_READ_TIMEOUT, &limit);
    const my_bool verify = 0;  // newer ones want TLS of a server that has no certificate
    mysql_options(connection_, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &verify);
    const auto port = unsigned(port_of("CLIENTS_MARIADB"));
    if (!mysql_real_connect(connection_, "127.0.0.1", "root", "", nullptr, port, nullptr, 0)) fail();
  }
  // Whole seconds, and only told when it connects.
  void give_up_after(milliseconds t) override {
    limit_ = t;
    connect();
  }
  std::string ask(int id, milliseconds after) override {
    const std::string repeat = "repeat('" + one_of(id) + "', " + std::to_string(repetitions) + ")";
    query("select " + repeat + " from (select sleep(" + seconds(after) + ")) waited");
    const std::unique_ptr<MYSQL_RES, decltype(&mysql_free_result)> result(mysql_store_result(connection_), mysql_free_result);
    if (!result) fail();
    const MYSQL_ROW row = mysql_fetch_row(result.get());
    return row ? std::string(row[0], mysql_fetch_lengths(result.get())[0]) : "no row";
  }
  // Over a connection of its own.
  void cancel() override {
    mariadb_client other;
    other.connect();
    try {
      other.query("kill query " + std::to_string(mysql_thread_id(connection_)));
    } catch (const failure&) {  // it had ended
    }
  }

 private:
  void query(const std::string& text) {
    if (mysql_real_query(connection_, text.data(), text.size()) != 0) fail();
  }
  [[noreturn]] void fail() { throw failure{std::to_string(mysql_errno(connection_)) + " " + mysql_error(connection_)}; }
  void close() {
    if (connection_) mysql_close(connection_);
    connection_ = nullptr;
  }
  MYSQL* connection_ = nullptr;
  milliseconds limit_{};
};

const bool added = add({.name = "libmariadb",
                        .version = [] { return std::string(mysql_get_client_info()); },
                        .make = [] { return std::unique_ptr<client>(new mariadb_client); },
                        .timed_out = {"2013 "},
                        .cancelled = {"1317 "},
                        .interrupted = {"2013 ", "2026 "},
                        .gone = {"2013 ", "2006 ", "1053 "},
                        .shortest_limit = 1000ms});

}  // namespace
}  // namespace clients
