// getaddrinfo on a helper thread.
//
// libc's own resolver is asked, so answers, errors and configuration are libc's; it blocks in calls that no symbol can
// replace, hence the thread. A question that is already on its way is not asked again: all who ask it meanwhile get
// copies of the one answer (laid out as glibc's own, so freeaddrinfo(3) frees them). A caller that gives up leaves; the look-up
// goes on for the others, or for nobody.

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <pthread.h>
#include <sys/socket.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include <ringlet/io.hpp>

#include "base/lock.hpp"
#include "hub/hub.hpp"
#include "io/wait.hpp"
#include "loop/offload.hpp"

namespace ringlet::io {

namespace {
// libc's, not the hook that may carry the name in this process.
int ask_libc(const char* node, const char* service, const addrinfo* hints, addrinfo** result) {
  static const auto real = reinterpret_cast<decltype(&::getaddrinfo)>(::dlsym(RTLD_NEXT, "getaddrinfo"));
  return real(node, service, hints, result);
}
void free_with_libc(addrinfo* list) {
  static const auto real = reinterpret_cast<decltype(&::freeaddrinfo)>(::dlsym(RTLD_NEXT, "freeaddrinfo"));
  if (list) real(list);
}

struct question {
  std::string node, service;
  bool has_service, has_hints;
  int flags, family, type, protocol;
  auto operator<=>(const question&) const = default;
};

struct asker : waiter {
  addrinfo* answer = nullptr;
  int result = EAI_SYSTEM;
  int error = ECANCELED;
};

struct look_up : loop::job {
  question asked;
  base::intrusive_list<waiter> askers;
};

base::lock flights_lock;
std::map<question, std::unique_ptr<look_up>>& flights() {
  static auto* all = new std::map<question, std::unique_ptr<look_up>>;  // helper threads may outlive static objects
  return *all;
}

// A child has neither the helper threads nor the askers: its own first question is asked anew.
void before_fork() { flights_lock.acquire(); }
void after_fork_in_parent() { flights_lock.release(); }
void after_fork_in_child() {
  for (auto& [asked, flight] : flights()) {
    if (flight) flight->askers.forget_all();
    (void)flight.release();  // a helper was at it: its job's memory may be half-way through anything
  }
  flights().clear();
  flights_lock.release();
}

// A copy as glibc lays it out: the address behind its addrinfo, the name by itself.
addrinfo* copy_of(const addrinfo* list) {
  addrinfo* first = nullptr;
  addrinfo** place = &first;
  for (; list; list = list->ai_next) {
    auto* made = static_cast<addrinfo*>(std::malloc(sizeof(addrinfo) + list->ai_addrlen));
    if (!made) {
      free_with_libc(first);
      return nullptr;
    }
    *made = *list;
    made->ai_addr = list->ai_addr ? reinterpret_cast<sockaddr*>(made + 1) : nullptr;
    if (list->ai_addr) std::memcpy(made->ai_addr, list->ai_addr, list->ai_addrlen);
    made->ai_canonname = list->ai_canonname ? ::strdup(list->ai_canonname) : nullptr;
    made->ai_next = nullptr;
    *place = made;
    place = &made->ai_next;
  }
  return first;
}

void run_look_up(loop::job& j) {
  auto& flight = static_cast<look_up&>(j);
  const question& q = flight.asked;
  addrinfo hints{};
  hints.ai_flags = q.flags;
  hints.ai_family = q.family;
  hints.ai_socktype = q.type;
  hints.ai_protocol = q.protocol;
  addrinfo* answer = nullptr;
  const int result = ask_libc(q.node.c_str(), q.has_service ? q.service.c_str() : nullptr, q.has_hints ? &hints : nullptr, &answer);
  const int error = errno;
  std::unique_ptr<look_up> landed;
  {
    base::lock_guard hold(flights_lock);
    auto here = flights().find(q);
    landed = std::move(here->second);
    flights().erase(here);
    while (waiter* w = landed->askers.pop_front()) {
      auto& a = static_cast<asker&>(*w);
      a.result = result;
      a.error = error;
      if (result == 0 && !(a.answer = copy_of(answer))) a.result = EAI_MEMORY;
      hub_state::wake_anywhere(a);
    }
  }
  if (result == 0) free_with_libc(answer);
}

bool is_numeric(const char* node) {
  unsigned char address[16];
  return ::inet_pton(AF_INET, node, address) == 1 || ::inet_pton(AF_INET6, node, address) == 1;
}
}  // namespace

int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** result, deadline until) noexcept {
  hub_state& h = hub_state::here();
  if (!h.can_park() || !node || (hints && (hints->ai_flags & AI_NUMERICHOST)) || is_numeric(node))
    return ask_libc(node, service, hints, result);  // no question to anybody
  static const int once = ::pthread_atfork(&before_fork, &after_fork_in_parent, &after_fork_in_child);
  (void)once;
  asker me;
  me.what = "getaddrinfo";
  me.fiber = h.running;
  me.withdraw = [](waiter& w) {
    base::lock_guard hold(flights_lock);
    const bool still_there = w.linked();
    w.unlink();
    return still_there;
  };
  try {
    question q{node, service ? service : "", service != nullptr, hints != nullptr, 0, 0, 0, 0};
    if (hints) q.flags = hints->ai_flags, q.family = hints->ai_family, q.type = hints->ai_socktype, q.protocol = hints->ai_protocol;
    base::lock_guard hold(flights_lock);
    auto flight = flights().find(q);
    const bool first = flight == flights().end();
    if (first) {
      auto made = std::make_unique<look_up>();
      made->asked = q;
      made->run = &run_look_up;
      flight = flights().emplace(q, std::move(made)).first;  // from here on it will be begun
    }
    flight->second->askers.push_back(me);
    if (first && loop::offload(*flight->second) != 0) {
      me.unlink();
      flights().erase(flight);
      me.error = EAGAIN;
      return EAI_AGAIN;
    }
  } catch (const std::bad_alloc&) {
    return EAI_MEMORY;
  }
  ++h.foreign_work;
  const wake_reason reason = h.wait(me, until);
  --h.foreign_work;
  if (reason == wake_reason::woken) {
    if (me.result == 0) *result = me.answer;
    if (me.result == EAI_SYSTEM) errno = me.error;
    return me.result;
  }
  errno = reason == wake_reason::timed_out ? ETIMEDOUT : ECANCELED;
  return EAI_SYSTEM;
}

}  // namespace ringlet::io
