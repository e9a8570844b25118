// TLS by OpenSSL.
//
// OpenSSL reads and writes the socket through a BIO of ours that never waits: it says "again", and OpenSSL returns to us, who wait for
// what it wants and call it again. So no fiber is ever parked inside OpenSSL, whose sessions may not be entered twice; and
// nothing needs the hooks. The BIO makes the system calls itself: io::recv, too, gives others a turn now and then.
//
// What was read ahead of the handshake (a PROXY line, STARTTLS) is the BIO's first input.
//
// A record that has gone in part has to be finished before anything else can be written: OpenSSL holds it, and would take the next
// write's first bytes for its own. So what it was made of is kept, and a write that does not go on with it is refused.

#include <ringlet/tls.hpp>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include <ringlet/io.hpp>

#include "base/sys.hpp"

namespace ringlet {

namespace {

std::string last_words() {
  std::string text;
  char line[256];
  for (unsigned long code; (code = ERR_get_error()) != 0;) {
    ERR_error_string_n(code, line, sizeof line);
    const char* reason = ERR_reason_error_string(code);
    text += (text.empty() ? "" : "; ") + std::string(reason ? reason : line);
  }
  return text.empty() ? "OpenSSL does not say why" : text;
}

void require(bool good, const std::string& doing) {
  if (!good) throw tls_error(doing + ": " + last_words());
}

struct place {
  int fd;
  int* error;
  std::string ahead;  // was read before the handshake
  std::size_t taken = 0;
};

constexpr std::size_t longest_record = SSL3_RT_MAX_PLAIN_LENGTH;

int bio_read(BIO* bio, char* data, std::size_t size, std::size_t* done) {
  auto& p = *static_cast<place*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (p.taken < p.ahead.size()) {
    *done = p.ahead.copy(data, size, p.taken);
    p.taken += *done;
    return 1;
  }
  ssize_t got;
  do got = sys::call(SYS_recvfrom, p.fd, data, size, MSG_DONTWAIT, nullptr, nullptr);
  while (got == -EINTR);
  *p.error = got < 0 && got != -EAGAIN ? int(-got) : 0;
  *done = got > 0 ? std::size_t(got) : 0;
  if (got == -EAGAIN) BIO_set_retry_read(bio);
  if (got == 0) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
  return got > 0;
}
int bio_write(BIO* bio, const char* data, std::size_t size, std::size_t* done) {
  auto& p = *static_cast<place*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  ssize_t sent;
  do sent = sys::call(SYS_sendto, p.fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL, nullptr, 0);
  while (sent == -EINTR);
  *p.error = sent < 0 && sent != -EAGAIN ? int(-sent) : 0;
  *done = sent > 0 ? std::size_t(sent) : 0;
  if (sent == -EAGAIN) BIO_set_retry_write(bio);
  return sent > 0;
}
long bio_control(BIO* bio, int what, long, void*) {
  if (what == BIO_CTRL_FLUSH) return 1;
  if (what == BIO_CTRL_EOF) return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
  return 0;
}
int bio_destroy(BIO* bio) {
  delete static_cast<place*>(BIO_get_data(bio));
  return 1;
}

const BIO_METHOD* our_bio() {
  static BIO_METHOD* const made = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ringlet socket");
    BIO_meth_set_read_ex(m, &bio_read);
    BIO_meth_set_write_ex(m, &bio_write);
    BIO_meth_set_ctrl(m, &bio_control);
    BIO_meth_set_destroy(m, &bio_destroy);
    return m;
  }();
  return made;
}

// The server's choice: its own best that the client offers.
int choose_protocol(SSL*, const unsigned char** chosen, unsigned char* length, const unsigned char* offered, unsigned offered_length, void* argument) {
  const auto& ours = *static_cast<const std::string*>(argument);
  unsigned char* found = nullptr;
  const int answer = SSL_select_next_proto(&found, length, reinterpret_cast<const unsigned char*>(ours.data()), unsigned(ours.size()), offered, offered_length);
  *chosen = found;
  return answer == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

void load_identity(SSL_CTX* context, const std::string& certificate_file, const std::string& key_file) {
  require(SSL_CTX_use_certificate_chain_file(context, certificate_file.c_str()) == 1, "the certificate in '" + certificate_file + "'");
  require(SSL_CTX_use_PrivateKey_file(context, key_file.c_str(), SSL_FILETYPE_PEM) == 1, "the key in '" + key_file + "'");
  require(SSL_CTX_check_private_key(context) == 1, "the key in '" + key_file + "' is not that of the certificate in '" + certificate_file + "'");
}

}  // namespace

tls_error::tls_error(const std::string& what) : io_error(EPROTO, what) {}

// --- contexts --------------------------------------------------------------------------------------------------------

tls_context::tls_context(bool is_server) : is_server_(is_server), protocols_(std::make_shared<std::string>()) {
  ERR_clear_error();
  context_.reset(SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method()), [](SSL_CTX* c) { SSL_CTX_free(c); });
  require(context_ != nullptr, "a TLS context");
  SSL_CTX_set_min_proto_version(context_.get(), TLS1_2_VERSION);
  SSL_CTX_set_mode(context_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
}

tls_context tls_context::server(const std::string& certificate_file, const std::string& key_file) {
  tls_context made(true);
  load_identity(made.native(), certificate_file, key_file);
  static const unsigned char name[] = "ringlet";
  SSL_CTX_set_session_id_context(made.native(), name, sizeof name - 1);
  return made;
}

tls_context tls_context::client(const tls_client_options& how) {
  tls_context made(false);
  if (!how.certificate_file.empty()) load_identity(made.native(), how.certificate_file, how.key_file);
  SSL_CTX_set_verify(made.native(), how.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  if (how.ca_file.empty())
    SSL_CTX_set_default_verify_paths(made.native());
  else
    require(SSL_CTX_load_verify_locations(made.native(), how.ca_file.c_str(), nullptr) == 1, "the trusted certificates in '" + how.ca_file + "'");
  return made;
}

void tls_context::require_client_certificates(const std::string& ca_file) {
  require(SSL_CTX_load_verify_locations(native(), ca_file.c_str(), nullptr) == 1, "the trusted certificates in '" + ca_file + "'");
  SSL_CTX_set_verify(native(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
}

void tls_context::offer(const std::vector<std::string>& protocols) {
  std::string text;
  for (const auto& each : protocols) {
    if (each.empty() || each.size() > 255) throw std::invalid_argument("ringlet: a protocol's name has 1 to 255 bytes");
    text += char(each.size()) + each;
  }
  *protocols_ = std::move(text);  // one for all copies, for they have one context, which knows its place
  if (is_server_)
    SSL_CTX_set_alpn_select_cb(native(), protocols_->empty() ? nullptr : &choose_protocol, protocols_.get());
  else
    require(SSL_CTX_set_alpn_protos(native(), reinterpret_cast<const unsigned char*>(protocols_->data()), unsigned(protocols_->size())) == 0, "the protocols");
}

// --- connections -----------------------------------------------------------------------------------------------------

void tls_connection::free_session::operator()(ssl_st* s) const noexcept { SSL_free(s); }

tls_connection::tls_connection(connection plain, const tls_context& keys)
    : plain_(std::move(plain)), bio_error_(std::make_unique<int>(0)), session_(SSL_new(keys.native())) {
  require(session_ != nullptr, "a TLS session");
  BIO* bio = BIO_new(our_bio());
  require(bio != nullptr, "a TLS session");
  BIO_set_data(bio, new place{plain_.fd(), bio_error_.get(), std::string(plain_.ahead())});
  BIO_set_init(bio, 1);
  SSL_set_bio(session_.get(), bio, bio);
}

tls_connection::tls_connection(tls_connection&&) noexcept = default;
tls_connection& tls_connection::operator=(tls_connection&& other) noexcept {
  if (this == &other) return *this;
  close();
  stream::operator=(std::move(other));
  plain_ = std::move(other.plain_);
  session_ = std::move(other.session_);
  bio_error_ = std::move(other.bio_error_);
  unfinished_ = std::move(other.unfinished_);
  broken_ = other.broken_;
  return *this;
}
tls_connection::~tls_connection() { close(); }

void tls_connection::close() noexcept {
  if (session_ && plain_.is_open() && !broken_ && SSL_is_init_finished(session_.get())) {
    ERR_clear_error();
    // TLS's own messages (tickets) that nobody has read would make the kernel reset the connection, and drop what is still to go.
    char first;
    SSL_peek(session_.get(), &first, 1);
    if (unfinished_.empty()) SSL_shutdown(session_.get());
    ERR_clear_error();
  }
  session_.reset();
  plain_.close();
}

// call() until it is done: its result. 0: the peer has said goodbye.
template <class Call>
ssize_t tls_connection::try_until(deadline until, Call call) {
  constexpr unsigned longest_streak = 64;  // of calls that need no waiting; then others have a turn
  if (++streak_ >= longest_streak) {
    streak_ = 0;
    if (const int failed = io::sleep_until(deadline::passed()); failed < 0 && failed != -EDEADLK) return failed;
  }
  if (!session_) return -EBADF;
  while (true) {
    ERR_clear_error();
    *bio_error_ = 0;
    std::size_t done = 0;
    const int answer = call(&done);
    if (answer > 0) return ssize_t(done);
    int waited;
    switch (SSL_get_error(session_.get(), answer)) {
      case SSL_ERROR_WANT_READ: waited = io::wait_readable(plain_.fd(), until); break;
      case SSL_ERROR_WANT_WRITE: waited = io::wait_writable(plain_.fd(), until); break;
      case SSL_ERROR_ZERO_RETURN: return 0;
      case SSL_ERROR_SYSCALL:
        broken_ = true;
        return *bio_error_ ? -*bio_error_ : -ECONNRESET;
      default:
        broken_ = true;
        if (*bio_error_) return -*bio_error_;
        if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) return -ECONNRESET;
        throw tls_error("TLS with " + peer().to_string() + ": " + last_words());
    }
    if (waited < 0 && waited != -EINTR) return waited;
    if (!session_) return -EBADF;  // closed meanwhile
  }
}

void tls_connection::shake_hands(deadline until) {
  const ssize_t result = try_until(until, [&](std::size_t* done) {
    *done = 1;
    return SSL_do_handshake(session_.get());
  });
  if (result <= 0) detail::throw_io_failure(result == 0 ? -ECONNRESET : result, "the TLS handshake with " + peer().to_string());
}

tls_connection tls_connection::accept(connection plain, const tls_context& keys, deadline until) {
  tls_connection made(std::move(plain), keys);
  SSL_set_accept_state(made.native());
  made.shake_hands(until);
  return made;
}

tls_connection tls_connection::connect(connection plain, const tls_context& keys, const std::string& host, deadline until) {
  // OpenSSL takes an empty name for "any", and looks at names up to a zero byte.
  if (host.find('\0') != host.npos || (host.empty() && SSL_CTX_get_verify_mode(keys.native()) != SSL_VERIFY_NONE))
    throw std::invalid_argument("ringlet: a TLS connection to a host " + std::string(host.empty() ? "without a name" : "whose name has a zero byte") +
                                ", which no certificate can be checked against. Cure: the name or address that was asked for (or tls_client_options{.verify = false})");
  tls_connection made(std::move(plain), keys);
  SSL_set_connect_state(made.native());
  X509_VERIFY_PARAM* wanted = SSL_get0_param(made.native());
  X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  if (!host.empty() && X509_VERIFY_PARAM_set1_ip_asc(wanted, host.c_str()) != 1) {
    require(X509_VERIFY_PARAM_set1_host(wanted, host.c_str(), host.size()) == 1, "the name '" + host + "'");
    require(SSL_set_tlsext_host_name(made.native(), host.c_str()) == 1, "the name '" + host + "'");  // no address is one: RFC 6066
    ERR_clear_error();
  }
  made.shake_hands(until);
  return made;
}

ssize_t tls_connection::receive(void* buffer, std::size_t size, deadline until) {
  return try_until(until, [&](std::size_t* done) { return SSL_read_ex(session_.get(), buffer, size, done); });
}
ssize_t tls_connection::transmit(const void* data, std::size_t size, deadline until) {
  size = std::min(size, longest_record);
  const char* const begin = static_cast<const char*>(data);
  if (size < unfinished_.size() || unfinished_.compare(0, unfinished_.npos, begin, unfinished_.size()) != 0) refuse_to_go_on();
  const ssize_t sent = try_until(until, [&](std::size_t* done) { return SSL_write_ex(session_.get(), data, size, done); });
  if (sent > 0) unfinished_.clear();
  else if (session_ && !broken_ && SSL_want_write(session_.get())) unfinished_.assign(begin, size);
  return sent == 0 ? -EPIPE : sent;
}
void tls_connection::refuse_to_go_on() const {
  throw tls_error("writing to " + describe() +
                  ": an earlier write was cut short, by a deadline or an interruption, in the midst of a record. Cure: go on with what it had left "
                  "(from io_error::done()), or close");
}
std::string tls_connection::describe() const { return "the TLS connection with " + peer().to_string(); }

void tls_connection::shutdown_writing(deadline until) {
  if (!unfinished_.empty()) refuse_to_go_on();
  const ssize_t result = try_until(until, [&](std::size_t* done) {
    *done = 1;
    const int answer = SSL_shutdown(session_.get());
    return answer == 0 ? 1 : answer;
  });
  if (result < 0) detail::throw_io_failure(result, "ending " + describe());
}

std::string tls_connection::version() const { return SSL_get_version(session_.get()); }
std::string tls_connection::cipher() const {
  const char* name = SSL_get_cipher_name(session_.get());
  return name ? name : "";
}
std::string tls_connection::protocol() const {
  const unsigned char* name = nullptr;
  unsigned length = 0;
  SSL_get0_alpn_selected(session_.get(), &name, &length);
  return std::string(reinterpret_cast<const char*>(name), name ? length : 0);
}
std::string tls_connection::peer_name() const {
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(SSL_get1_peer_certificate(session_.get()), &X509_free);
  if (!certificate) return "";
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> text(BIO_new(BIO_s_mem()), &BIO_free_all);
  X509_NAME_print_ex(text.get(), X509_get_subject_name(certificate.get()), 0, XN_FLAG_RFC2253);
  char* data = nullptr;
  const long size = BIO_get_mem_data(text.get(), &data);
  return std::string(data, std::size_t(std::max(size, 0L)));
}

std::function<void(connection&)> tls_handler(tls_context keys, std::function<void(tls_connection&)> serve, std::chrono::nanoseconds handshake) {
  return [keys = std::move(keys), serve = std::move(serve), handshake](connection& plain) {
    tls_connection c = tls_connection::accept(std::move(plain), keys, handshake);
    serve(c);
  };
}

}  // namespace ringlet
