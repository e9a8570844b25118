// The one rule of what waits (sync.hpp): what is there is taken, also by a fiber that was killed, or whose time has run out, a
// moment ago; the first call that has to wait tells it, and takes nothing.

#include <functional>
#include <memory>

#include <ringlet/async_result.hpp>
#include <ringlet/barrier.hpp>
#include <ringlet/channel.hpp>
#include <ringlet/shared_mutex.hpp>
#include <ringlet/timer.hpp>

#include "hub/on_hub.hpp"

using namespace hub_test;

namespace {

// What one kind of call does where it can be served at once, and where it has to wait; and whether that took anything.
struct primitive {
  const char* name;
  std::function<bool()> is_served;
  std::function<void()> waits;
  std::function<bool()> is_untouched;
};

// Each with objects of its own, that live as long as the functions. Made and looked at by the main fiber.
std::vector<primitive> all_primitives() {
  std::vector<primitive> all;
  auto untouched = [] { return true; };
  auto add = [&](const char* name, auto served, auto waits, auto after) { all.push_back({name, served, waits, after}); };
  {
    auto set = std::make_shared<event>(), clear = std::make_shared<event>();
    set->set();
    add("event", [=] { return set->wait(); }, [=] { clear->wait(); }, [=] { return !clear->is_set(); });
  }
  {
    auto one = std::make_shared<semaphore>(1), none = std::make_shared<semaphore>(0);
    add("semaphore", [=] { return one->acquire(); }, [=] { none->acquire(); },
        [=] {
          none->release();
          return none->count() == 1 && one->count() == 0;
        });
  }
  {
    auto one = std::make_shared<bounded_semaphore>(1);
    add("bounded_semaphore", [=] { return one->acquire(); }, [=] { one->acquire(); },
        [=] {
          one->release();
          return one->count() == 1;
        });
  }
  auto add_lock = [&](const char* name, auto lock) {
    auto held = lock;
    held->lock();
    auto free = std::make_shared<typename decltype(lock)::element_type>();
    add(name, [=] { free->lock(); free->unlock(); return true; }, [=] { held->lock(); },
        [=] {
          held->unlock();
          const bool is_free = held->try_lock();
          held->unlock();
          return is_free;
        });
  };
  add_lock("mutex", std::make_shared<mutex>());
  add_lock("recursive_mutex", std::make_shared<recursive_mutex>());
  add_lock("shared_mutex", std::make_shared<shared_mutex>());
  {
    auto held = std::make_shared<shared_mutex>(), read = std::make_shared<shared_mutex>();
    held->lock();
    add("shared_mutex, to read", [=] { read->lock_shared(); read->unlock_shared(); return true; }, [=] { held->lock_shared(); },
        [=] {
          held->unlock();
          return held->try_lock();
        });
  }
  {
    auto m = std::make_shared<mutex>();
    auto c = std::make_shared<condition>();
    add("condition", [=] { std::unique_lock l(*m); return c->wait(l, never, [] { return true; }); },
        [=] { std::unique_lock l(*m); c->wait(l); }, [=] { return m->try_lock(); });
  }
  {
    auto full = std::make_shared<queue<int>>(1), empty = std::make_shared<queue<int>>(1);
    full->put(1);
    add("queue::get", [=] { return full->get() == 1; }, [=] { empty->get(); },
        [=] {
          empty->put(2);
          return empty->size() == 1;
        });
    auto holds = std::make_shared<queue<int>>(1);
    holds->put(1);
    add("queue::peek", [=] { return holds->peek() == 1; }, [=] { std::make_shared<queue<int>>()->peek(); }, [=] { return holds->size() == 1; });
  }
  {
    auto full = std::make_shared<queue<int>>(1), empty = std::make_shared<queue<int>>(1);
    full->put(1);
    add("queue::put", [=] { return empty->put(2); }, [=] { full->put(3); }, [=] { return full->get() == 1 && full->empty() && empty->get() == 2; });
    auto undone = std::make_shared<queue<int>>();
    undone->put(1);
    add("queue::join", [=] { return std::make_shared<queue<int>>()->join(); }, [=] { undone->join(); }, [=] { return undone->unfinished() == 1; });
  }
  {
    auto c = std::make_shared<channel<int>>(), idle = std::make_shared<channel<int>>();
    auto sender = spawn([=] { c->send(1); });
    add("channel::receive", [=] { return c->receive() == 1; }, [=] { idle->receive(); },
        [=] {
          sender.join();
          return !idle->try_send(2);
        });
  }
  {
    auto c = std::make_shared<channel<int>>(), idle = std::make_shared<channel<int>>();
    auto receiver = spawn([=] { return *c->receive(); });
    add("channel::send", [=] { return c->send(1); }, [=] { idle->send(2); }, [=] { return receiver.get() == 1 && !idle->try_receive(); });
  }
  {
    auto a = std::make_shared<channel<int>>(), b = std::make_shared<channel<int>>();
    auto sender = spawn([=] { b->send(1); });
    add("select", [=] { std::optional<int> x, y; return select({receiving(*a, x), receiving(*b, y)}) == 1; },
        [=] { std::optional<int> x, y; select({receiving(*a, x), receiving(*b, y)}); },
        [=] {
          sender.join();
          return a->balance() == 0 && b->balance() == 0;
        });
  }
  {
    auto meets = std::make_shared<barrier>(2), alone = std::make_shared<barrier>(2);
    auto other = spawn([=] { meets->wait(); });
    add("barrier", [=] { return meets->wait() == 1; }, [=] { alone->wait(); },
        [=] {
          other.join();
          return alone->broken();
        });
  }
  {
    auto set = std::make_shared<async_result<int>>(), open = std::make_shared<async_result<int>>();
    set->set(1);
    add("async_result", [=] { return set->get() == 1; }, [=] { open->get(); }, [=] { return !open->ready(); });
    auto e = std::make_shared<event>();
    e->set();
    add("wait_any", [=] { return wait_any({*e, *open}) == 0; }, [=] { wait_any({*open}); }, untouched);
  }
  {
    auto ended = spawn([] {});
    auto stop = std::make_shared<event>();
    auto runs = spawn([=] { stop->wait(); });
    auto over = [=] {
      stop->set();
      return runs.join();
    };
    add("join", [=] { return ended.join(); }, [=] { runs.join(); }, untouched);
    add("joinall", [=] { return joinall({ended}).size() == 1; }, [=] { joinall({runs}); }, over);
  }
  {
    auto past = std::make_shared<timer>(deadline::passed(), [] {}), future = std::make_shared<timer>(1h, [] {});
    add("timer", [=] { return past->join(); }, [=] { future->join(); }, [=] { return future->cancel(); });
  }
  return all;
}

}  // namespace

HUB_CASE("interrupt: whatever waits: what is there is taken, then the kill or timeout is told where it has to wait") {
  const std::size_t count = [] {
    auto all = all_primitives();
    for (auto& p : all) {  // nobody waits: served and looked at, to end what was begun
      CHECK(p.is_served());
      p.is_untouched();
    }
    return all.size();
  }();
  for (std::size_t i = 0; i < count; ++i)
    for (const bool kills : {true, false}) {
      auto all = all_primitives();
      primitive& p = all[i];
      INFO(std::string(p.name), kills ? ", killed" : ", out of time");
      sleep(1ms);  // those who help it have begun
      event reached, go_on;
      bool served = false, told = false, went_on = false;
      auto victim = spawn([&] {
        std::optional<timeout> limit;
        if (!kills) limit.emplace(1ms);
        {
          kill_shield not_yet;
          reached.set();
          go_on.wait();
        }
        served = p.is_served();
        try {
          p.waits();
        } catch (const greenlet_exit&) {
          told = kills;
          throw;
        } catch (const timeout_expired&) {
          told = !kills;
          return;
        }
        went_on = true;
      });
      reached.wait();
      if (kills)
        victim.kill(deadline::passed());
      else
        sleep(2ms);
      go_on.set();
      victim.join();
      CHECK(served);
      CHECK(told);
      CHECK_FALSE(went_on);
      CHECK(p.is_untouched());
      for (std::size_t other = 0; other < all.size(); ++other) {
        if (other == i) continue;
        all[other].is_served();
        all[other].is_untouched();
      }
    }
}
