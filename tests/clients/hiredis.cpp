// hiredis' blocking calls on a context for each fiber.

#include <hiredis.h>
#include <sys/socket.h>

#include "clients.hpp"

namespace clients {
namespace {

class redis_client : public client {
 public:
  ~redis_client() override { close(); }

  void connect() override {
    close();
    context_ = redisConnect(told("CLIENTS_HOST").c_str(), port_of("CLIENTS_REDIS"));
    if (!context_ || context_->err) fail();
  }
  void give_up_after(milliseconds t) override { redisSetTimeout(context_, {t.count() / 1000, t.count() % 1000 * 1000}); }
  // Two commands in one go: a list that stays empty so long, then what is to be said.
  std::string ask(int id, milliseconds after) override {
    if (after > 0ms) redisAppendCommand(context_, "BLPOP nothing %s", seconds(after).c_str());
    const std::string answer = answer_to(id);
    redisAppendCommand(context_, "ECHO %b", answer.data(), answer.size());
    if (after > 0ms && reply()->type != REDIS_REPLY_NIL) return "not nothing";
    const auto said = reply();
    return {said->str, std::size_t(said->len)};
  }
  // It has no call for it: the socket is shut down, which its reader sees as an end.
  void cancel() override { ::shutdown(context_->fd, SHUT_RDWR); }

 private:
  using reply_pointer = std::unique_ptr<redisReply, void (*)(void*)>;
  reply_pointer reply() {
    void* got = nullptr;
    if (redisGetReply(context_, &got) != REDIS_OK) fail();
    return {static_cast<redisReply*>(got), freeReplyObject};
  }
  [[noreturn]] void fail() {
    if (!context_) throw failure{"no context"};
    static const char* const names[] = {"none",    "REDIS_ERR_IO",       "REDIS_ERR_OTHER", "REDIS_ERR_EOF",
                                        "REDIS_ERR_PROTOCOL", "REDIS_ERR_OOM", "REDIS_ERR_TIMEOUT"};
    throw failure{std::string(names[context_->err]) + ": " + context_->errstr};
  }
  void close() {
    if (context_) redisFree(context_);
    context_ = nullptr;
  }
  redisContext* context_ = nullptr;
};

#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)
#define VERSION TEXT(HIREDIS_MAJOR) "." TEXT(HIREDIS_MINOR) "." TEXT(HIREDIS_PATCH)
const bool added = add({.name = "hiredis",
                        .version = [] { return std::string(VERSION); },
                        .make = [] { return std::unique_ptr<client>(new redis_client); },
                        .timed_out = {"REDIS_ERR_IO: Resource temporarily unavailable", "REDIS_ERR_TIMEOUT"},
                        .cancelled = {"REDIS_ERR_EOF: Server closed the connection"},
                        .interrupted = {"REDIS_ERR_IO: Operation canceled"},
                        .gone = {"REDIS_ERR_EOF", "REDIS_ERR_IO: Connection reset by peer"}});

}  // namespace
}  // namespace clients
