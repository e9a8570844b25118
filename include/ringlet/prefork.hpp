#pragma once
// prefork: a server on all cores, by processes that each have one hub and share the listening socket.
//
//   ringlet::prefork server({.workers = 4}, [listener](ringlet::prefork_worker& me) {
//     me.serve(listener, [&](int client) { ... });       // a fiber for each connection
//   });
//   server.start();          // returns when all workers are ready
//   server.reload();         // new workers first, then the old ones stop: no request is lost
//   server.stop();
//
// The socket is made before, and listens: connections wait in it while workers come and go, and each goes to one that has
// time. (With SO_REUSEPORT each worker would have a socket of its own, and those that wait in it die with it.) A
// worker that dies is replaced. A worker whose master has ended stops as if it had been asked to.
//
// To stop gracefully, a worker accepts no more, finishes the connections that it has, and ends; those that take longer than
// `grace` are killed. A handler of connections that are kept alive looks at me.stopping() between two requests.
//
// Workers are forks of the master: an fd that the master has when one starts is open in it, too, and a connection of the master's
// own does not end while it lives. So the master should serve and ask nobody itself.
//
// All members on the thread that made it. The model is gunicorn's arbiter on gevent's StreamServer.

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>

namespace ringlet {

struct prefork_options {
  unsigned workers = 0;  // 0: as many as we may use processors
  std::string name = "worker";
  std::chrono::nanoseconds grace = std::chrono::seconds(30);  // from being asked to stop until connections are killed
};

// A worker as it sees itself. On its own hub only.
class RINGLET_EXPORT prefork_worker {
 public:
  unsigned number() const noexcept;      // its place: 0 and on
  unsigned generation() const noexcept;  // how many reloads there were before it
  // It was asked to stop, or its master has ended.
  bool stopping() const noexcept;
  bool wait_stopping(deadline until = never);
  // It may have work now; serve says it by itself. A reload waits for it.
  void ready();
  // Accepts connections until it is asked to stop, and calls handle(fd) in a fiber for each; closes it afterwards. What a
  // handler throws is reported and ends its connection only. Returns when all have ended. Throws std::system_error if the
  // socket is none that listens. Sets O_NONBLOCK on the listener, for all who have it.
  void serve(int listener, std::function<void(int connection)> handle);
  std::size_t connections() const noexcept;  // those that serve has now

  struct impl;
  explicit prefork_worker(impl&) noexcept;

 private:
  impl& impl_;
};

class RINGLET_EXPORT prefork {
 public:
  // Each worker calls `work` and ends when it returns.
  prefork(prefork_options how, std::function<void(prefork_worker&)> work);
  ~prefork();  // stop()
  prefork(const prefork&) = delete;
  prefork& operator=(const prefork&) = delete;

  // Starts the workers; returns when all are ready: true; false when the deadline passed first (they go on starting).
  bool start(deadline until = never);
  // Starts a new worker for each; when it is ready, asks the old one to stop. True when all new ones are ready and all
  // old ones have ended; false when the deadline passed first (it goes on).
  bool reload(deadline until = never);
  // Asks all to stop and waits for their end: true; false when the deadline passed. No worker is started any more.
  bool stop(deadline until = never);
  // Kills them all.
  void kill();

  std::vector<int> pids() const;
  // Workers that ended without being asked to, and were replaced.
  std::size_t deaths() const noexcept;

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace ringlet
