// The stream server as a whole: its sites are made, paused and ended together, from the thread that started it.

#include <ringlet/server.hpp>

#include <ringlet/timeout.hpp>

#include <stdexcept>

#include "base/assert.hpp"
#include "net/stream_server_state.hpp"

namespace ringlet {

void stream_server::impl::tell(const char* what, const std::exception_ptr& error) noexcept {
  try {
    if (how.on_error) return how.on_error(what, error);
  } catch (...) {
    return detail::report_error("server", how.name, std::current_exception(), {"the error handler of server '", how.name, "' failed"});
  }
  detail::report_error("server", how.name, error, {"server '", how.name, "' (", address.to_string(), "), ", what});
}

void stream_server::impl::make_sites() {
  if (!how.hubs) {
    sites.push_back(std::make_unique<site>(*this, 0));
    return;
  }
  spread by = how.by;
  if (by == spread::best) by = socket.shares_port() ? spread::reuse_port : spread::hand_off;
  for (std::size_t i = 0; i < how.hubs->size(); ++i) {
    sites.push_back(std::make_unique<site>(*this, i));
    if (by == spread::reuse_port && i > 0) sites.back()->own = socket.another();
  }
  if (by == spread::hand_off) hand_off = std::make_unique<site>(*this, sites.size());
}

bool stream_server::impl::is_handler() const {
  const any_fiber me = current();
  if (!how.hubs) return !sites.empty() && sites.front()->serving.contains(me);
  const std::size_t here = how.hubs->here();
  return here < sites.size() && sites[here]->serving.contains(me);
}

bool stream_server::impl::stop(deadline until) {
  if (in_child()) {
    socket.close();
    step = phase::stopped;
    return true;
  }
  if (step == phase::stopped) return true;
  if (is_handler())
    throw std::logic_error("ringlet: server '" + how.name + "' is stopped by one of its own handlers, which would wait for itself. Cure: request_stop");
  check_thread("stop");
  if (step == phase::made) {
    socket.close();
    step = phase::stopped;
    return true;
  }
  step = phase::stopping;
  const bool gently = until != deadline::passed();
  if (hand_off) {
    hand_off->stop_accepting();
    if (gently) hand_off->drain(until);
  } else {
    on_each_site([gently, until](site& s) {
      s.stop_accepting();
      if (gently) s.drain(until);
      return true;
    });
  }
  socket.close();
  const bool all_ended = on_each_site([until](site& s) { return s.end(until); });
  step = phase::stopped;
  return all_ended;
}

// --- the public face -------------------------------------------------------------------------------------------------

stream_server::stream_server(listener on, handler serve, server_options how) {
  if (!on.is_open()) throw std::invalid_argument("ringlet: a server on a listener that is closed (or was moved from)");
  if (!serve) throw std::invalid_argument("ringlet: a server without a handler");
  if (how.accepts_per_wake == 0) throw std::invalid_argument("ringlet: a server that accepts 0 connections per wake would accept none");
  impl_ = std::make_shared<impl>(std::move(on), std::move(serve), std::move(how));
}

stream_server::~stream_server() {
  if (impl_->step == impl::phase::stopped) return;
  if (impl_->in_child() || impl_->step == impl::phase::made) {
    impl_->stop(deadline::passed());
    return;
  }
  RINGLET_ASSERT(impl_->home == detail::hub_state::here_or_null(), "a running server is destroyed on another thread than the one that started it");
  const kill_shield to_the_end;
  impl_->stop(deadline::passed());
}

void stream_server::start() {
  impl& s = *impl_;
  if (s.step != impl::phase::made) throw std::logic_error("ringlet: server '" + s.how.name + "' is started a second time");
  detail::require_can_park("start");
  s.make_sites();
  s.home = &detail::hub_state::here();
  s.step = impl::phase::accepting;
  resume();
}

void stream_server::resume() {
  impl& s = *impl_;
  s.check_thread("resume");
  if (s.step == impl::phase::stopping || s.step == impl::phase::stopped) throw std::logic_error("ringlet: server '" + s.how.name + "' has been stopped");
  if (s.step == impl::phase::made) return start();
  s.step = impl::phase::accepting;
  const auto begin = [](impl::site& each) {
    if (each.acceptor.empty()) each.begin();
    return true;
  };
  if (s.hand_off)
    begin(*s.hand_off);
  else
    s.on_each_site(begin);
}

void stream_server::pause() {
  impl& s = *impl_;
  s.check_thread("pause");
  if (s.step != impl::phase::accepting) return;
  s.step = impl::phase::paused;
  const auto end = [](impl::site& each) {
    each.stop_accepting();
    return true;
  };
  if (s.hand_off)
    end(*s.hand_off);
  else
    s.on_each_site(end);
}

bool stream_server::serve(std::chrono::nanoseconds grace) {
  start();
  impl& s = *impl_;
  try {
    s.stop_wanted.wait();
  } catch (...) {
    stop(grace);
    throw;
  }
  const bool all_ended = stop(grace);
  if (s.broken) std::rethrow_exception(s.broken);
  return all_ended;
}

void stream_server::request_stop() noexcept { impl_->stop_wanted.set(); }
bool stream_server::stop(deadline until) { return impl_->stop(until); }
bool stream_server::accepting() const noexcept { return impl_->step == impl::phase::accepting && !impl_->is_broken; }
bool stream_server::full() const noexcept { return impl_->limited() && impl_->places.count() == 0; }
const socket_address& stream_server::address() const noexcept { return impl_->address; }

server_counts stream_server::counts() const noexcept {
  const impl& s = *impl_;
  server_counts c;
  for (const auto& each : s.sites) c.open += each->open.load(std::memory_order_relaxed);
  c.accepted = s.accepted.load(std::memory_order_relaxed);
  c.left_early = s.left_early.load(std::memory_order_relaxed);
  c.failed = s.failed.load(std::memory_order_relaxed);
  c.rests = s.rests.load(std::memory_order_relaxed);
  return c;
}

}  // namespace ringlet
