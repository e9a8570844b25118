// What other threads may hold of a hub, and how they give it work.

#include "base/lock.hpp"
#include "hub/fork.hpp"
#include "hub/hub.hpp"

namespace ringlet::hub {

struct handle::shared {
  detail::hub_state* hub;
  std::weak_ptr<shared> self;
  explicit shared(detail::hub_state* h) noexcept : hub(h) {}
  ~shared();
};

namespace {
// One for all handles: they are made and dropped rarely, and a hub's end must not race with the last drop.
base::lock handles_lock;

struct posted : detail::message {
  std::function<void()> call;
  detail::hub_state* hub;
};

void deliver_posted(detail::message& m) {
  std::unique_ptr<posted> p(static_cast<posted*>(&m));
  try {
    spawn(std::move(p->call));
  } catch (...) {
    detail::report_error("post", "the hub", std::current_exception(), {"a posted function could not run"});
  }
}
}  // namespace

handle::shared::~shared() {
  base::lock_guard hold(handles_lock);
  if (!hub || hub->handle.load(std::memory_order_relaxed) != this) return;
  hub->handle.store(nullptr, std::memory_order_relaxed);
  hub->engine->wake();  // it may have nothing left to wait for
}

handle here() {
  auto& h = detail::hub_state::here();
  base::lock_guard hold(handles_lock);
  handle result;
  if (void* known = h.handle.load(std::memory_order_relaxed)) result.shared_ = static_cast<handle::shared*>(known)->self.lock();
  if (!result.shared_) {
    result.shared_ = std::make_shared<handle::shared>(&h);
    result.shared_->self = result.shared_;
    h.handle.store(result.shared_.get(), std::memory_order_relaxed);
  }
  return result;
}

bool handle::post(std::function<void()> f) const {
  if (!shared_) return false;
  auto made = std::make_unique<posted>();
  made->deliver = &deliver_posted;
  made->drop = [](detail::message& m) { delete static_cast<posted*>(&m); };
  made->call = std::move(f);
  base::lock_guard hold(handles_lock);
  if (!shared_->hub) return false;
  shared_->hub->send(*made.release());
  return true;
}

struct handle_access {
  static void leave(detail::hub_state& h) {
    base::lock_guard hold(handles_lock);
    if (void* known = h.handle.exchange(nullptr, std::memory_order_relaxed)) static_cast<handle::shared*>(known)->hub = nullptr;
  }
};

}  // namespace ringlet::hub

namespace ringlet::detail {
void leave_handle(hub_state& h) noexcept { hub::handle_access::leave(h); }
void lock_handles() noexcept { hub::handles_lock.acquire(); }
void unlock_handles() noexcept { hub::handles_lock.release(); }
void hub_state::send(message& m) {
  senders.fetch_add(1, std::memory_order_relaxed);  // who sends knows that we live until its message has arrived
  m.next = inbox.load(std::memory_order_relaxed);
  while (!inbox.compare_exchange_weak(m.next, &m, std::memory_order_seq_cst, std::memory_order_relaxed)) {
  }
  engine->wake();
  senders.fetch_sub(1, std::memory_order_release);
}

void hub_state::drop_messages() noexcept {
  message* m = inbox.exchange(nullptr, std::memory_order_acquire);
  while (m) {
    message* next = m->next;
    if (m->drop) m->drop(*m);
    m = next;
  }
}

void hub_state::deliver_messages() {
  if (!inbox.load(std::memory_order_relaxed)) return;
  message* last_first = inbox.exchange(nullptr, std::memory_order_acquire);
  message* in_order = nullptr;
  while (last_first) {
    message* next = last_first->next;
    last_first->next = in_order;
    in_order = last_first;
    last_first = next;
  }
  while (in_order) {
    message* next = in_order->next;
    in_order->deliver(*in_order);
    in_order = next;
  }
}

}  // namespace ringlet::detail
