// libssh2 in its blocking mode, a session for each fiber: a command on the other side.

#include <libssh2.h>

#include "clients.hpp"

namespace clients {
namespace {

const int once = libssh2_init(0);

class ssh_client : public client {
 public:
  ~ssh_client() override { close(); }

  void connect() override {
    close();
    fd_ = connected_socket("CLIENTS_SSH");
    session_ = libssh2_session_init();
    if (libssh2_session_handshake(session_, fd_) != 0) fail();
    const std::string key = told("CLIENTS_SSH_KEY"), user = told("CLIENTS_SSH_USER");
    if (libssh2_userauth_publickey_fromfile(session_, user.c_str(), (key + ".pub").c_str(), key.c_str(), "") != 0) fail();
  }
  void give_up_after(milliseconds t) override { libssh2_session_set_timeout(session_, long(t.count())); }
  std::string ask(int id, milliseconds after) override {
    LIBSSH2_CHANNEL* channel = libssh2_channel_open_session(session_);
    if (!channel) fail();
    const std::string lines = "yes '" + one_of(id) + "' | head -n " + std::to_string(repetitions);
    const std::string command = "sleep " + seconds(after) + "; " + lines + " | tr -d '\\n'";
    if (libssh2_channel_exec(channel, command.c_str()) != 0) fail();
    std::string all;
    char some[4000];
    ssize_t got;
    while ((got = libssh2_channel_read(channel, some, sizeof some)) > 0) all.append(some, std::size_t(got));
    if (got < 0) fail();
    libssh2_channel_free(channel);
    return all;
  }
  // It has no call for it: the socket is shut down, which its reader sees as an end.
  void cancel() override { ::shutdown(fd_, SHUT_RDWR); }

 private:
  [[noreturn]] void fail() {
    char* text = nullptr;
    const int number = libssh2_session_last_error(session_, &text, nullptr, 0);
    throw failure{std::to_string(number) + " " + (text ? text : "")};
  }
  // The channels go with their session; no goodbye, for which it would wait.
  void close() {
    if (fd_ >= 0) ::shutdown(fd_, SHUT_RDWR);
    if (session_) libssh2_session_free(session_);
    if (fd_ >= 0) ::close(fd_);
    session_ = nullptr;
    fd_ = -1;
  }
  int fd_ = -1;
  LIBSSH2_SESSION* session_ = nullptr;
};

const bool added = add({.name = "libssh2",
                        .version = [] { return std::string(libssh2_version(0)); },
                        .make = [] { return std::unique_ptr<client>(new ssh_client); },
                        .timed_out = {"-9 "},
                        .cancelled = {"-43 ", "-13 "},
                        .interrupted = {"-9 ", "-43 "},
                        .gone = {"-43 ", "-13 "},
                        .at_once = 20});

}  // namespace
}  // namespace clients
