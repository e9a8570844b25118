// Boost.Asio, a stackful coroutine for each connection (spawn with a yield_context).

#include <utility>  // first: 1.74's headers need it and do not ask for it

#include <boost/asio.hpp>
#include <boost/asio/spawn.hpp>
#include <boost/version.hpp>

#include <sys/un.h>

#include <chrono>
#include <deque>
#include <memory>

#include "peer.hpp"

namespace asio = boost::asio;

namespace {

asio::io_context loop(1);

template <class Body>
void begin(Body body) {
#if BOOST_VERSION >= 108000
  asio::spawn(loop, std::move(body), [](std::exception_ptr e) {
    if (e) std::rethrow_exception(e);
  });
#else
  asio::spawn(loop, std::move(body));
#endif
}

template <class Socket>
void converse(Socket& socket, std::size_t bytes, asio::yield_context yield) {
  char* const buffer = static_cast<char*>(__builtin_alloca(bytes));
  while (true) {
    boost::system::error_code error;
    const std::size_t got = socket.async_read_some(asio::buffer(buffer, bytes), yield[error]);
    if (error) return;
    asio::async_write(socket, asio::buffer(buffer, got), yield[error]);
    if (error) return;
  }
}

template <class Protocol>
void accept_all(Protocol protocol, std::size_t bytes) {
  begin([=](asio::yield_context yield) {
    typename Protocol::acceptor acceptor(loop, protocol, peer::listener);
    while (true) {
      auto socket = std::make_shared<typename Protocol::socket>(loop);
      acceptor.async_accept(*socket, yield);
      begin([socket, bytes](asio::yield_context yield) { converse(*socket, bytes, yield); });
    }
  });
  loop.run();
}

void serve(std::size_t bytes) {
  sockaddr address{};
  socklen_t size = sizeof address;
  ::getsockname(peer::listener, &address, &size);
  if (address.sa_family == AF_UNIX) {
    accept_all(asio::local::stream_protocol(), bytes);
  } else {
    accept_all(asio::ip::tcp::v4(), bytes);
  }
}

template <class Each>
std::size_t together(std::size_t count, std::size_t n, Each each) {
  const std::size_t times = peer::share(n, count);
  for (std::size_t i = 0; i < count; ++i)
    begin([=](asio::yield_context yield) mutable {
      for (std::size_t i = 0; i < times; ++i) each(yield);
    });
  loop.restart();
  loop.run();
  return times * count;
}

// The 10,000 others must not keep run() from returning, so they belong to a loop of their own, which is never run.
std::size_t arm_and_cancel(std::size_t n) {
  static asio::io_context idle(1);
  static std::deque<asio::steady_timer> others;
  while (others.size() < peer::armed) others.emplace_back(idle, std::chrono::hours(2)).async_wait([](auto) {});
  for (std::size_t i = 0; i < n; ++i) {
    asio::steady_timer timer(idle, std::chrono::hours(1));
    timer.async_wait([](auto) {});
    timer.cancel();
    idle.restart();
    idle.poll();  // the handler is called with operation_aborted
  }
  return n;
}

}  // namespace

int main(int argc, char** argv) {
  auto yield = [](asio::yield_context yield) { asio::post(loop, yield); };
  return peer::run(argc, argv, serve,
                   {{"yield2", [=](std::size_t n) { return together(2, n, yield); }},
                    {"yield1000", [=](std::size_t n) { return together(peer::crowd, n, yield); }},
                    {"spawn",
                     [](std::size_t n) {
                       for (std::size_t i = 0; i < n; ++i) together(1, 1, [](auto&) {});
                       return n;
                     }},
                    {"spawn100",
                     [](std::size_t n) {
                       for (std::size_t i = 0; i < peer::share(n, 100); ++i) together(100, 100, [](auto&) {});
                       return peer::share(n, 100) * 100;
                     }},
                    {"sleep1000",
                     [](std::size_t n) {
                       return together(
                           peer::crowd, n,
                           [timer = std::shared_ptr<asio::steady_timer>()](asio::yield_context yield) mutable {
                             if (!timer) timer = std::make_shared<asio::steady_timer>(loop);
                             timer->expires_after(std::chrono::milliseconds(1));
                             timer->async_wait(yield);
                           });
                     }},
                    {"timer", arm_and_cancel}});
}
