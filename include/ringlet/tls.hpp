#pragma once
// TLS over connections, by OpenSSL. Its own library: link ringlet_tls (pkg-config ringlet_tls) besides ringlet.
//
//   auto keys = ringlet::tls_context::server("chain.pem", "key.pem");
//   ringlet::stream_server server(ringlet::listener(":443"), ringlet::tls_handler(keys, [](ringlet::tls_connection& c) {
//     while (auto line = c.read_line(30s)) c.write(*line + "\n");
//   }));
//
//   auto c = ringlet::tls_connection::connect(ringlet::connect_to("example.org:443"), ringlet::tls_context::client(), "example.org");
//
// The handshake is made in the handler's fiber: a slow client keeps nobody waiting. One fiber may read while another writes; OpenSSL is
// never entered twice, for it does not wait: we do. Contexts may be shared by hubs; a connection belongs to one thread.

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>
#include <ringlet/socket.hpp>

struct ssl_st;
struct ssl_ctx_st;

namespace ringlet {

// What OpenSSL says: code() is EPROTO.
class RINGLET_EXPORT tls_error : public io_error {
 public:
  explicit tls_error(const std::string& what);
};

struct tls_client_options {
  bool verify = true;         // the peer's certificate, and its name
  std::string ca_file = {};   // whom to trust; empty: as the system does
  std::string certificate_file = {}, key_file = {};  // to show to servers that ask
};

class RINGLET_EXPORT tls_context {
 public:
  // PEM files: the certificate with its chain, and the key. tls_error names the file.
  static tls_context server(const std::string& certificate_file, const std::string& key_file);
  static tls_context client(const tls_client_options& how = {});
  // A server asks for clients' certificates, and refuses those that these do not vouch for.
  void require_client_certificates(const std::string& ca_file);
  // The protocols that may be agreed on (ALPN), best first: {"h2", "http/1.1"}.
  void offer(const std::vector<std::string>& protocols);
  // For all else that OpenSSL can do; before connections are made.
  ssl_ctx_st* native() const noexcept { return context_.get(); }

 private:
  explicit tls_context(bool is_server);
  std::shared_ptr<ssl_ctx_st> context_;
  bool is_server_;
  std::shared_ptr<std::string> protocols_;  // shared by all copies, as the context is
};

class RINGLET_EXPORT tls_connection final : public stream {
 public:
  // Take the connection over, with what it has read ahead, and make the handshake. tls_error, io_error. connect: `host` is the name or
  // address that the server's certificate has to bear; std::invalid_argument for an empty one, unless nothing is verified.
  static tls_connection accept(connection plain, const tls_context&, deadline until = never);
  static tls_connection connect(connection plain, const tls_context&, const std::string& host, deadline until = never);
  tls_connection(tls_connection&&) noexcept;
  tls_connection& operator=(tls_connection&&) noexcept;
  // Says goodbye, if that needs no waiting, and closes.
  ~tls_connection() override;

  // A write that a deadline or an interruption has cut short may have left half a record with the peer. Only its rest, from
  // io_error::done() on, can be written then; anything else, and shutdown_writing, is a tls_error, and close says no goodbye.

  // Tells the peer that no more will be written (close_notify); its reads end.
  void shutdown_writing(deadline until = never);
  void close() noexcept;
  bool is_open() const noexcept { return plain_.is_open(); }
  socket_address peer() const { return plain_.peer(); }
  std::string version() const;           // "TLSv1.3"
  std::string cipher() const;
  std::string protocol() const;          // agreed on by ALPN, or ""
  std::string peer_name() const;         // the subject of its certificate, or ""
  ssl_st* native() const noexcept { return session_.get(); }
  int fd() const noexcept { return plain_.fd(); }

 protected:
  // An end without the peer's goodbye is ECONNRESET: somebody may have cut it.
  ssize_t receive(void* buffer, std::size_t size, deadline until) override;
  ssize_t transmit(const void* data, std::size_t size, deadline until) override;
  std::string describe() const override;

 private:
  struct free_session {
    void operator()(ssl_st*) const noexcept;
  };
  tls_connection(connection plain, const tls_context&);
  void shake_hands(deadline until);
  template <class Call>
  ssize_t try_until(deadline until, Call call);
  connection plain_;
  std::unique_ptr<int> bio_error_;  // of the last system call; at one place, for OpenSSL knows it
  std::unique_ptr<ssl_st, free_session> session_;
  [[noreturn]] void refuse_to_go_on() const;
  std::string unfinished_;  // of the write that was cut short: what OpenSSL's record was made of
  unsigned streak_ = 0;
  bool broken_ = false;
};

// A handler for stream_server: the handshake, within so much time, then serve. Clients that fail at it are counted as left_early.
RINGLET_EXPORT std::function<void(connection&)> tls_handler(tls_context keys, std::function<void(tls_connection&)> serve,
                                                            std::chrono::nanoseconds handshake = std::chrono::seconds(10));

}  // namespace ringlet
