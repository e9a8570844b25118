// libuv: callbacks on one loop, no fibers; a buffer for each connection, one write at a time.

#include <uv.h>

#include <sys/un.h>

#include <deque>
#include <memory>

#include "peer.hpp"

namespace {

std::size_t bytes = 0;

struct connection {
  union {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
  };
  uv_write_t rest;
  std::unique_ptr<char[]> buffer{new char[bytes]};
};

bool is_unix = false;

int begin(connection& c) {
  return is_unix ? uv_pipe_init(uv_default_loop(), &c.pipe, 0) : uv_tcp_init(uv_default_loop(), &c.tcp);
}

void end(connection* c) {
  if (!uv_is_closing(&c->handle))
    uv_close(&c->handle, [](uv_handle_t* h) { delete static_cast<connection*>(h->data); });
}

void begin_reading(uv_stream_t* stream);

void on_read(uv_stream_t* stream, ssize_t got, const uv_buf_t* buffer) {
  auto* c = static_cast<connection*>(stream->data);
  if (got < 0) return end(c);
  if (got == 0) return;
  uv_buf_t back = uv_buf_init(buffer->base, unsigned(got));
  const int sent = uv_try_write(stream, &back, 1);
  if (sent == got) return;
  if (sent < 0 && sent != UV_EAGAIN) return end(c);
  // The rest when there is room; until then nothing may be read into the buffer.
  if (sent > 0) back = uv_buf_init(buffer->base + sent, unsigned(got - sent));
  uv_read_stop(stream);
  uv_write(&c->rest, stream, &back, 1, [](uv_write_t* w, int status) {
    status < 0 ? end(static_cast<connection*>(w->handle->data)) : begin_reading(w->handle);
  });
}

void begin_reading(uv_stream_t* stream) {
  auto give = [](uv_handle_t* h, std::size_t, uv_buf_t* b) {
    *b = uv_buf_init(static_cast<connection*>(h->data)->buffer.get(), unsigned(bytes));
  };
  uv_read_start(stream, give, on_read);
}

void on_connection(uv_stream_t* server, int status) {
  if (status < 0) return;
  auto* c = new connection;
  begin(*c);
  c->handle.data = c;
  if (uv_accept(server, &c->stream)) return end(c);
  begin_reading(&c->stream);
}

void serve(std::size_t size) {
  bytes = size;
  sockaddr address{};
  socklen_t length = sizeof address;
  ::getsockname(peer::listener, &address, &length);
  is_unix = address.sa_family == AF_UNIX;
  connection server;
  begin(server);
  if (is_unix ? uv_pipe_open(&server.pipe, peer::listener) : uv_tcp_open(&server.tcp, peer::listener))
    peer::fail("uv_open");
  if (uv_listen(&server.stream, 4096, on_connection)) peer::fail("uv_listen");
  uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}

std::size_t arm_and_cancel(std::size_t n) {
  static std::deque<uv_timer_t> others;
  auto nothing = [](uv_timer_t*) {};
  const std::uint64_t hour = 3'600'000;
  while (others.size() < peer::armed) {
    others.emplace_back();
    uv_timer_init(uv_default_loop(), &others.back());
    uv_timer_start(&others.back(), nothing, 2 * hour, 0);
  }
  uv_timer_t timer;
  uv_timer_init(uv_default_loop(), &timer);
  for (std::size_t i = 0; i < n; ++i) {
    uv_timer_start(&timer, nothing, hour, 0);
    uv_timer_stop(&timer);
  }
  uv_close(reinterpret_cast<uv_handle_t*>(&timer), nullptr);
  uv_run(uv_default_loop(), UV_RUN_NOWAIT);
  return n;
}

std::size_t sleeps(std::size_t n) {
  struct sleeper {
    uv_timer_t timer;
    std::size_t left;
  };
  static std::deque<sleeper> all(peer::crowd);
  for (auto& s : all) {
    s.left = peer::share(n, peer::crowd);
    uv_timer_init(uv_default_loop(), &s.timer);
    s.timer.data = &s;
    uv_timer_start(
        &s.timer,
        [](uv_timer_t* t) {
          if (--static_cast<sleeper*>(t->data)->left == 0) uv_close(reinterpret_cast<uv_handle_t*>(t), nullptr);
        },
        1, 1);
  }
  uv_run(uv_default_loop(), UV_RUN_DEFAULT);
  return peer::share(n, peer::crowd) * peer::crowd;
}

}  // namespace

int main(int argc, char** argv) {
  return peer::run(argc, argv, serve, {{"timer", arm_and_cancel}, {"sleep1000", sleeps}});
}
