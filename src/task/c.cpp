// The flat face for C: each function is one of C++'s, with its exceptions turned into a negative errno.
//
// A C function is a fiber's or greenlet's whole body, so a kill that reaches it as -ECANCELED is its own to obey: no
// exception passes through its frames.

#include <ringlet/ringlet.h>

#include <cerrno>
#include <stdexcept>
#include <system_error>

#include <ringlet/fiber.hpp>
#include <ringlet/greenlet.hpp>
#include <ringlet/timeout.hpp>

#include "hub/hub.hpp"

struct ringlet_fiber {
  ringlet::any_fiber any;
  ringlet::fiber<void*> with_result;  // empty for one that C has not spawned
};
struct ringlet_greenlet {
  ringlet::greenlet g;
};

namespace {

using namespace ringlet;

// A killed greenlet's switch returns -ECANCELED: the exception that was thrown into it.
template <class F>
int guarded(F f) noexcept {
  try {
    return f();
  } catch (const greenlet_exit&) {
    return -ECANCELED;
  } catch (const timeout_expired&) {
    return -ECANCELED;
  } catch (const wrong_thread&) {
    return -EPERM;
  } catch (const greenlet_error&) {
    return -EPERM;
  } catch (const deadlock_error&) {
    return -EDEADLK;
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  } catch (const std::logic_error&) {
    return -EINVAL;
  } catch (const std::system_error& e) {
    return e.code().value() > 0 ? -e.code().value() : -EIO;
  } catch (...) {
    return -ECANCELED;  // an exception of another's, thrown into this one
  }
}

// The same for what needs a hub: where none can be made, that is told, and not taken for a kill's reason.
template <class F>
int guarded_on_hub(F f) noexcept {
  if (!detail::hub_state::here_or_null()) {
    try {
      detail::hub_state::here();
    } catch (const std::system_error& e) {
      return e.code().value() > 0 ? -e.code().value() : -EIO;
    } catch (const std::bad_alloc&) {
      return -ENOMEM;
    } catch (...) {
      return -ENOTSUP;
    }
  }
  return guarded(std::move(f));
}

template <class T, bool on_hub = false, class F>
T* made_or_errno(F f) noexcept {
  T* made = nullptr;
  auto make = [&] {
    made = f();
    return 0;
  };
  const int error = on_hub ? guarded_on_hub(make) : guarded(make);
  if (error != 0) errno = -error;
  return made;
}

deadline until(std::int64_t timeout_ns) {
  return timeout_ns < 0 ? never : timeout_ns == 0 ? deadline::passed() : deadline(std::chrono::nanoseconds(timeout_ns));
}

int finish(bool in_time, const ringlet_fiber* f, void** result) {
  if (!in_time) return -ETIMEDOUT;
  if (!result) return 0;
  *result = nullptr;
  if (f->with_result.empty() || f->any.exception()) return 0;
  try {
    *result = f->with_result.get(deadline::passed());
  } catch (const greenlet_exit&) {  // it was killed
  }
  return 0;
}

// What a switch brings is a void*, or nothing.
int exchanged(std::optional<void*> arrived, void** came) {
  if (came) *came = arrived.value_or(nullptr);
  return 0;
}

}  // namespace

ringlet_fiber* ringlet_spawn(void* (*f)(void*), void* argument, const ringlet_spawn_options* options) {
  return made_or_errno<ringlet_fiber, true>([&] {
    if (!f) throw std::invalid_argument("ringlet_spawn of a null function");
    spawn_options how;
    if (options && options->name) how.name = options->name;
    if (options) how.stack_size_bytes = options->stack_size_bytes;
    auto made = std::make_unique<ringlet_fiber>();
    made->with_result = spawn(how, f, argument);
    made->any = made->with_result;
    return made.release();
  });
}

int ringlet_join(ringlet_fiber* f, std::int64_t timeout_ns, void** result) {
  return guarded_on_hub([&] { return f ? finish(f->any.join(until(timeout_ns)), f, result) : -EINVAL; });
}

int ringlet_kill(ringlet_fiber* f, std::int64_t timeout_ns) {
  return guarded_on_hub([&] { return f ? finish(f->any.kill(until(timeout_ns)), f, nullptr) : -EINVAL; });
}

int ringlet_is_finished(const ringlet_fiber* f) { return f && f->any.ready(); }

ringlet_fiber* ringlet_current_fiber() {
  return made_or_errno<ringlet_fiber, true>([] { return new ringlet_fiber{current(), {}}; });
}

void ringlet_fiber_release(ringlet_fiber* f) { delete f; }

int ringlet_sleep(std::int64_t duration_ns) {
  return guarded_on_hub([&] {
    sleep(duration_ns < 0 ? never : deadline(std::chrono::nanoseconds(duration_ns)));
    return 0;
  });
}

int ringlet_yield() {
  return guarded_on_hub([] {
    yield();
    return 0;
  });
}

ringlet_greenlet* ringlet_greenlet_new(void* (*f)(void*), std::size_t stack_size_bytes) {
  return made_or_errno<ringlet_greenlet>([&] {
    if (!f) throw std::invalid_argument("ringlet_greenlet_new of a null function");
    return new ringlet_greenlet{greenlet(f, greenlet::current(), stack_size_bytes)};
  });
}

int ringlet_switch(ringlet_greenlet* to, void* value, void** came) {
  return guarded([&] { return to ? exchanged(to->g.switch_to<std::optional<void*>>(value), came) : -EINVAL; });
}

int ringlet_throw(ringlet_greenlet* into, void** came) {
  return guarded([&] { return into ? exchanged(into->g.throw_into<std::optional<void*>>(), came) : -EINVAL; });
}

ringlet_greenlet* ringlet_current() {
  return made_or_errno<ringlet_greenlet>([] { return new ringlet_greenlet{greenlet::current()}; });
}

ringlet_greenlet* ringlet_parent(const ringlet_greenlet* g) {
  if (!g || g->g.parent().empty()) return nullptr;
  return made_or_errno<ringlet_greenlet>([&] { return new ringlet_greenlet{g->g.parent()}; });
}

int ringlet_set_parent(ringlet_greenlet* g, const ringlet_greenlet* parent) {
  if (!g || !parent) return -EINVAL;
  for (greenlet at = parent->g; !at.empty(); at = at.parent())
    if (at == g->g) return -EINVAL;
  return guarded([&] {
    g->g.set_parent(parent->g);
    return 0;
  });
}

int ringlet_is_started(const ringlet_greenlet* g) { return g && g->g.started(); }
int ringlet_is_dead(const ringlet_greenlet* g) { return g && g->g.dead(); }
void ringlet_greenlet_release(ringlet_greenlet* g) { delete g; }
