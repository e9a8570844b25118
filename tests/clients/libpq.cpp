// libpq: PQexec on a connection for each fiber.

#include <libpq-fe.h>

#include "cases.hpp"

namespace clients {
namespace {

class pq_client : public client {
 public:
  ~pq_client() override { PQfinish(connection_); }

  void connect() override {
    connect("CLIENTS_POSTGRESQL", "");
  }
  void connect(const char* port, const std::string& options) {
    PQfinish(connection_);
    const std::string place = "host=" + told("CLIENTS_HOST") + " port=" + told(port);
    const std::string where = place + " user=postgres dbname=postgres sslmode=disable" + options;
    connection_ = PQconnectdb(where.c_str());
    if (PQstatus(connection_) != CONNECTION_OK) throw failure{PQerrorMessage(connection_)};
  }
  void give_up_after(milliseconds t) override { exec("set statement_timeout = " + std::to_string(t.count())); }
  std::string ask(int id, milliseconds after) override {
    const std::string repeat = "repeat('" + one_of(id) + "', " + std::to_string(repetitions) + ")";
    return exec("select " + repeat + " from pg_sleep(" + seconds(after) + ")");
  }
  // Over a connection of its own.
  void cancel() override {
    PGcancel* how = PQgetCancel(connection_);
    char error[256];
    PQcancel(how, error, sizeof error);
    PQfreeCancel(how);
  }

 private:
  std::string exec(const std::string& query) {
    const std::unique_ptr<PGresult, decltype(&PQclear)> result(PQexec(connection_, query.c_str()), PQclear);
    const auto status = PQresultStatus(result.get());
    if (status == PGRES_TUPLES_OK) return {PQgetvalue(result.get(), 0, 0), std::size_t(PQgetlength(result.get(), 0, 0))};
    if (status == PGRES_COMMAND_OK) return {};
    const char* state = PQresultErrorField(result.get(), PG_DIAG_SQLSTATE);
    throw failure{std::string(state ? state : "no state") + " " + PQerrorMessage(connection_)};
  }
  PGconn* connection_ = nullptr;
};

// The server takes the connection and says nothing.
void connect_timeout() {
  ticker others;
  in_fibers(10, [&](int) {
    pq_client c;
    const auto begin = clock::now();
    try {
      c.connect("CLIENTS_SILENT", " connect_timeout=2");
    } catch (const failure& f) {
      expect(f.said.find("timeout expired") != std::string::npos, "it said: " + f.said);
      expect(ms_since(begin) >= 900, "it gave up at once");  // it counts whole seconds of the clock
      return;
    }
    throw std::runtime_error("it was connected");
  });
  expect(others.count() >= 50, "others did not run meanwhile");
}

std::string version() { return std::to_string(PQlibVersion() / 10000) + "." + std::to_string(PQlibVersion() % 10000); }

const bool added = add({.name = "libpq",
                        .version = version,
                        .make = [] { return std::unique_ptr<client>(new pq_client); },
                        .timed_out = {"57014 ERROR:  canceling statement due to statement timeout"},
                        .cancelled = {"57014 ERROR:  canceling statement due to user request"},
                        .interrupted = {"Operation canceled"},
                        .gone = {"57P01", "server closed the connection unexpectedly"},
                        .own = {{"connect_timeout ends ten waits for a server that is silent", connect_timeout}}});

}  // namespace
}  // namespace clients
