// OpenSSL's blocking calls over a plain socket for each fiber: TLS, and one HTTP/1.0 request.

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "cases.hpp"

namespace clients {
namespace {

// One for all, as its manual advises: it holds the certificates that are trusted.
SSL_CTX* context() {
  static SSL_CTX* const made = [] {
    SSL_CTX* c = SSL_CTX_new(TLS_client_method());
    SSL_CTX_load_verify_file(c, told("CLIENTS_CERTIFICATE").c_str());
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER, nullptr);
    return c;
  }();
  return made;
}

class tls_client : public client {
 public:
  explicit tls_client(const char* host = "localhost") : host_(host) {}
  ~tls_client() override { close(); }

  void connect() override {
    close();
    fd_ = connected_socket("CLIENTS_HTTPS");
    ssl_ = SSL_new(context());
    SSL_set_fd(ssl_, fd_);
    SSL_set1_host(ssl_, host_);
    ERR_clear_error();
    if (const int result = SSL_connect(ssl_); result != 1) fail(result);
  }
  void give_up_after(milliseconds t) override {
    const timeval limit{t.count() / 1000, t.count() % 1000 * 1000};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  std::string ask(int id, milliseconds after) override {
    const std::string request = "GET /wait?id=" + std::to_string(id) + "&s=" + seconds(after) + " HTTP/1.0\r\n\r\n";
    ERR_clear_error();
    if (const int result = SSL_write(ssl_, request.data(), int(request.size())); result <= 0) fail(result);
    std::string all;
    for (;;) {
      char some[4000];
      ERR_clear_error();
      const int got = SSL_read(ssl_, some, sizeof some);
      if (got <= 0 && SSL_get_error(ssl_, got) == SSL_ERROR_ZERO_RETURN) break;
      if (got <= 0) fail(got);
      all.append(some, std::size_t(got));
    }
    return all.substr(all.find("\r\n\r\n") + 4);
  }
  // It has no call for it: the socket is shut down, which its reader sees as an end.
  void cancel() override { ::shutdown(fd_, SHUT_RDWR); }

 private:
  // Leaves nothing in the queue of errors, which is the thread's: another fiber would find it there.
  [[noreturn]] void fail(int result) {
    const int error = errno, kind = SSL_get_error(ssl_, result);
    const unsigned long last = ERR_peek_last_error();  // earlier ones may be those of others, made while this one waited
    ERR_clear_error();
    // The connection's own, whatever has become of the queue: another fiber may clear it while this one sends its alert.
    if (const long verified = SSL_get_verify_result(ssl_); verified != X509_V_OK)
      throw failure{std::string("certificate verify failed: ") + X509_verify_cert_error_string(verified)};
    char text[200] = "";
    if (last) ERR_error_string_n(last, text, sizeof text);
    if (kind == SSL_ERROR_WANT_READ) throw failure{"SSL_ERROR_WANT_READ"};
    if (kind == SSL_ERROR_SYSCALL) throw failure{std::string("SSL_ERROR_SYSCALL: ") + std::strerror(error)};
    throw failure{"SSL error " + std::to_string(kind) + ": " + text};
  }
  void close() {
    SSL_free(ssl_);
    if (fd_ >= 0) ::close(fd_);
    ssl_ = nullptr;
    fd_ = -1;
  }
  const char* host_;  // whom the certificate must name
  int fd_ = -1;
  SSL* ssl_ = nullptr;
};

// While some wait in SSL_read, others fail: what they leave in the queue of errors, which is the thread's, would turn "not yet"
// into a failure, if they did not take it out again.
void errors_of_others() {
  constexpr int waiting = 10, failing = 10;
  in_fibers(waiting + failing, [&](int i) {
    tls_client c(i < waiting ? "localhost" : "example.invalid");
    try {
      c.connect();
      c.give_up_after(500ms);
      c.ask(i, never_in_time);
      throw failure{"an answer"};
    } catch (const failure& f) {
      const std::string wanted = i < waiting ? "SSL_ERROR_WANT_READ" : "certificate verify failed";
      expect(f.said.find(wanted) != std::string::npos, "instead of '" + wanted + "' it said: " + f.said);
    }
  });
}

const bool added = add({.name = "OpenSSL",
                        .version = [] { return std::string(OpenSSL_version(OPENSSL_VERSION_STRING)); },
                        .make = [] { return std::unique_ptr<client>(new tls_client); },
                        .timed_out = {"SSL_ERROR_WANT_READ"},
                        // The second by 3.5: its own alert meets the shut socket.
                        .cancelled = {"unexpected eof", "Broken pipe"},
                        .interrupted = {"SSL_ERROR_SYSCALL: Operation canceled"},
                        .gone = {"unexpected eof", "SSL_ERROR_SYSCALL: Connection reset by peer"},
                        .own = {{"the errors of one fiber are not another's", errors_of_others}}});

}  // namespace
}  // namespace clients
