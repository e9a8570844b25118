// The master has a fiber (the keeper) for each place and generation. It starts the worker with a duplex pipe between them,
// over which the worker says that it is ready and hears that it shall stop; the pipe's end is the other's death, either way.
//
// A reload starts keepers of the next generation; each, when its worker is ready, asks the one before in its place to stop, and
// the worker that it replaces is then only waited for. So at any moment each place has a worker that accepts, or has
// one that is just being started because its worker died.

#include <ringlet/prefork.hpp>

#include <fcntl.h>
#include <sys/socket.h>

#include <ringlet/io.hpp>
#include <ringlet/ipc/pipe.hpp>
#include <ringlet/pool.hpp>
#include <ringlet/process.hpp>
#include <ringlet/sync.hpp>
#include <ringlet/timeout.hpp>

#include "process/failures.hpp"

namespace ringlet {

// --- in the worker ---------------------------------------------------------------------------------------------------

struct prefork_worker::impl {
  unsigned number, generation;
  std::chrono::nanoseconds grace;
  ipc::byte_end master;
  event stop;
  group connections;
  bool told_ready = false;
};

prefork_worker::prefork_worker(impl& i) noexcept : impl_(i) {}
unsigned prefork_worker::number() const noexcept { return impl_.number; }
unsigned prefork_worker::generation() const noexcept { return impl_.generation; }
bool prefork_worker::stopping() const noexcept { return impl_.stop.is_set(); }
bool prefork_worker::wait_stopping(deadline until) { return impl_.stop.wait(until); }
std::size_t prefork_worker::connections() const noexcept { return impl_.connections.size(); }

void prefork_worker::ready() {
  if (std::exchange(impl_.told_ready, true)) return;
  try {
    impl_.master.send_bytes("ready");
  } catch (const ipc::end_of_pipe&) {  // its end is heard where we listen to it
  }
}

void prefork_worker::serve(int listener, std::function<void(int)> handle) {
  // Workers share the socket's flags: to set it for the length of a call, as io does, would be in another's way.
  const long flags = sys::call(SYS_fcntl, listener, F_GETFL, 0L);
  if (flags < 0) process_detail::fail(flags, "prefork_worker::serve: the listener");
  if (!(flags & O_NONBLOCK)) sys::call(SYS_fcntl, listener, F_SETFL, flags | O_NONBLOCK);
  long failed = 0;
  auto acceptor = spawn({.name = "acceptor"}, [&] {
    while (!stopping()) {
      const long client = sys::call(SYS_accept4, listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (client >= 0) {
        impl_.connections.spawn([&handle, fd = int(client)] {
          struct closed {
            int fd;
            ~closed() { io::close(fd); }
          } at_end{fd};
          handle(fd);
        });
        if (impl_.connections.size() % 16 == 0) yield();
        continue;
      }
      if (client == -EAGAIN) {
        const int waited = io::wait_readable(listener);
        if (waited == -ECANCELED) return;
        if (waited < 0 && waited != -EINTR) {
          failed = waited;
          return;
        }
      } else if (client == -EMFILE || client == -ENFILE || client == -ENOBUFS || client == -ENOMEM) {
        sleep(std::chrono::milliseconds(10));  // until a connection ends
      } else if (client == -EBADF || client == -EINVAL || client == -ENOTSOCK || client == -EOPNOTSUPP) {
        failed = client;
        return;
      }
    }
  });
  ready();
  wait_any({waitable(impl_.stop), waitable(acceptor)});
  acceptor.kill();
  if (failed < 0) process_detail::fail(failed, "prefork_worker::serve accepts no connections");
  if (!impl_.connections.join(deadline(impl_.grace))) impl_.connections.kill();
}

// --- in the master ---------------------------------------------------------------------------------------------------

struct prefork::impl {
  prefork_options how;
  std::function<void(prefork_worker&)> work;
  bool started = false;
  bool stopping = false;
  unsigned generation = 0;
  std::size_t deaths = 0;
  unsigned made = 0;

  struct keeper {
    unsigned place, generation;
    any_fiber fiber;
    process* worker = nullptr;
    ipc::byte_end* control = nullptr;
    event ready;       // once: its first worker is
    bool retired = false;
  };
  std::vector<std::shared_ptr<keeper>> keepers;

  std::shared_ptr<keeper> start_keeper(unsigned place) {
    auto k = std::make_shared<keeper>();
    k->place = place;
    k->generation = generation;
    keepers.push_back(k);
    k->fiber = spawn({.name = how.name + "'s keeper", .daemon = true}, [this, k] {
      keep(*k);
      std::erase(keepers, k);
    });
    return k;
  }

  void ask_to_stop(keeper& k) {
    k.retired = true;
    if (!k.control) return;
    try {
      k.control->send_bytes("stop");
    } catch (const ipc::end_of_pipe&) {  // it has ended
    }
  }

  void keep(keeper& k) {
    unsigned false_starts = 0;
    while (!k.retired && !stopping) {
      try {
        bool was_ready = false;
        run_worker(k, was_ready);
        false_starts = was_ready ? 0 : false_starts + 1;
        if (!k.retired && !stopping) ++deaths;
      } catch (const std::exception&) {  // no process, no fds
        ++false_starts;
      }
      if (k.retired || stopping) break;
      if (false_starts) sleep(std::chrono::milliseconds(10 << std::min(false_starts, 7u)));
    }
    k.ready.set();
  }

  void run_worker(keeper& k, bool& was_ready) {
    auto [ours, theirs] = ipc::byte_duplex();
    process worker({.name = how.name + "-" + std::to_string(++made)},
                   [this, number = k.place, generation = k.generation](ipc::byte_end master) { be_worker(number, generation, std::move(master)); },
                   std::move(theirs));
    worker.start();
    struct shown {
      keeper& k;
      ~shown() {
        k.worker = nullptr;
        k.control = nullptr;
      }
    } at_end{k};
    k.worker = &worker;
    k.control = &ours;
    try {
      if (k.retired || stopping) ask_to_stop(k);
      ours.receive_bytes();
      was_ready = true;
      replace_older(k);
      k.ready.set();
      while (true) ours.receive_bytes();
    } catch (const ipc::end_of_pipe&) {
    }
    worker.join();
  }

  void replace_older(const keeper& by) {
    const auto all = keepers;  // asking parks, and others may come and go
    for (const auto& each : all)
      if (each->place == by.place && each->generation < by.generation && !each->retired) ask_to_stop(*each);
  }

  void be_worker(unsigned number, unsigned its_generation, ipc::byte_end master) {
    prefork_worker::impl self{number, its_generation, how.grace, std::move(master), {}, {}};
    prefork_worker worker(self);
    auto listens = spawn({.name = "listens to its master", .daemon = true}, [&self] {
      try {
        self.master.receive_bytes();
      } catch (const ipc::end_of_pipe&) {
      }
      self.stop.set();
    });
    work(worker);
    listens.kill();
  }

  template <class Range>
  static bool all_ready(const Range& some, deadline until) {
    for (const auto& k : some)
      if (!k->ready.wait(until)) return false;
    return true;
  }
  static bool all_ended(const std::vector<std::shared_ptr<keeper>>& some, deadline until) {
    for (const auto& k : some)
      if (!k->fiber.join(until)) return false;
    return true;
  }
};

prefork::prefork(prefork_options how, std::function<void(prefork_worker&)> work) : impl_(new impl) {
  if (how.workers == 0) how.workers = usable_cpu_count();
  impl_->how = std::move(how);
  impl_->work = std::move(work);
}

prefork::~prefork() {
  kill_shield shield;
  stop();
}

bool prefork::start(deadline until) {
  if (std::exchange(impl_->started, true)) throw std::logic_error("ringlet: prefork was started already; reload() starts new workers");
  std::vector<std::shared_ptr<impl::keeper>> all;
  for (unsigned place = 0; place < impl_->how.workers; ++place) all.push_back(impl_->start_keeper(place));
  return impl::all_ready(all, until);
}

bool prefork::reload(deadline until) {
  if (!impl_->started || impl_->stopping) throw std::logic_error("ringlet: prefork::reload without workers: it was not started, or stopped");
  const auto old = impl_->keepers;
  ++impl_->generation;
  std::vector<std::shared_ptr<impl::keeper>> all;
  for (unsigned place = 0; place < impl_->how.workers; ++place) all.push_back(impl_->start_keeper(place));
  return impl::all_ready(all, until) && impl::all_ended(old, until);
}

bool prefork::stop(deadline until) {
  impl_->stopping = true;
  const auto all = impl_->keepers;
  for (const auto& k : all)
    if (!k->retired) impl_->ask_to_stop(*k);
  return impl::all_ended(all, until);
}

void prefork::kill() {
  impl_->stopping = true;
  const auto all = impl_->keepers;
  for (const auto& k : all)
    if (k->worker) k->worker->kill();
  impl::all_ended(all, never);
}

std::vector<int> prefork::pids() const {
  std::vector<int> result;
  for (const auto& k : impl_->keepers)
    if (k->worker) result.push_back(k->worker->pid());
  return result;
}

std::size_t prefork::deaths() const noexcept { return impl_->deaths; }

}  // namespace ringlet
