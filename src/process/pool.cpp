// A pool of worker processes: a fiber for each worker hands it one job after the other.
//
// The fiber (the keeper) starts its worker, waits until that has said that it is ready, takes a job from the queue that all
// keepers share, sends it over the worker's own duplex pipe and waits for the answer. As nobody else has the worker's side of
// that pipe, the worker's death is the end of the pipe, at once and however it came: the keeper reports the job as failed
// with the way the worker ended, and starts another. A job that a worker has never read (the kernel says so) was not begun,
// and is given to the next worker instead. An idle worker's death is seen by a fiber that waits for the process.
//
// Always true: a job is in the queue, or a keeper's, or has ended. Keepers run on the hub that made the pool; jobs may be
// submitted from any thread of this process.

#include <ringlet/ipc/pool_core.hpp>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <typeinfo>
#include <unistd.h>

#include <ringlet/fiber.hpp>
#include <ringlet/ipc/pipe.hpp>
#include <ringlet/process.hpp>
#include <ringlet/queue.hpp>
#include <ringlet/sync.hpp>
#include <ringlet/timeout.hpp>

#include "base/lock.hpp"
#include "process/failures.hpp"
#include "process/packets.hpp"

namespace ringlet::ipc::detail {

pool_job::~pool_job() = default;

std::string name_of_exception(const std::exception_ptr& error, std::string& what) {
  std::string type = "?";
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    type = typeid(e).name();
    what = e.what();
  } catch (...) {
    if (const std::type_info* t = abi::__cxa_current_exception_type()) type = t->name();
    what = "an exception of type ";
  }
  int status = 0;
  if (char* readable = abi::__cxa_demangle(type.c_str(), nullptr, nullptr, &status)) {
    if (status == 0) type = readable;
    std::free(readable);
  }
  if (what == "an exception of type ") what += type;
  return type;
}

namespace {

// Workers of one place that in a row end before they are ready, after which it counts as broken: 3 of those that end by
// themselves, but 30 of those that somebody kills.
constexpr unsigned false_start = 10, most_false_starts = 3 * false_start;

enum class answer : char { result, error };

// The worker's side: until the pipe ends.
int serve(byte_end& jobs, const std::function<void()>& initializer) {
  if (initializer) initializer();
  jobs.send_bytes("ready");
  try {
    while (true) {
      const auto received = jobs.receive_bytes();
      if (!received) continue;
      const std::string& job = *received;
      remote_function function;
      std::memcpy(&function, job.data(), sizeof function);
      std::string reply(1, char(answer::result));
      try {
        reply += function(std::string_view(job).substr(sizeof function));
      } catch (const process_exit&) {
        throw;
      } catch (...) {
        std::string what;
        const std::string type = name_of_exception(std::current_exception(), what);
        reply = char(answer::error) + type + '\0' + what;
      }
      jobs.send_bytes(reply);
    }
  } catch (const end_of_pipe&) {
    return 0;
  }
}

std::exception_ptr died(const process& worker, int code) {
  std::string how = code < 0 ? "was ended by signal " + std::to_string(-code) : "ended with status " + std::to_string(code);
  return std::make_exception_ptr(worker_died("ringlet: the process that did the task (" + worker.name() + ", " + std::to_string(worker.pid()) + ") " + how, code));
}

}  // namespace

struct pool_core::impl {
  process_pool_options how;
  int made_in = int(sys::call(SYS_getpid));
  ringlet::queue<std::unique_ptr<pool_job>> jobs;
  std::vector<fiber<void>> keepers;
  struct place {
    process* worker = nullptr;
    bool broken = false;  // several in a row have ended before they were ready
  };
  mutable base::lock lock;  // over the places
  std::vector<place> places;
  std::atomic<bool> closed{false}, terminated{false};
  ringlet::event closing;
  unsigned made = 0;

  explicit impl(process_pool_options options) : how(std::move(options)) {
    if (how.workers == 0) how.workers = usable_cpu_count();
    places.resize(how.workers);
  }

  void keep(std::size_t at) {
    std::unique_ptr<pool_job> pending;
    unsigned false_starts = 0;
    while (!terminated) {
      std::string why = "each ends before it is ready; does the initializer fail? (its error is on stderr)";
      try {
        if (!use_one_worker(at, pending, false_starts)) break;
      } catch (const std::exception& e) {  // no process, no fds, no memory
        false_starts += false_start;
        why = e.what();
      }
      if (false_starts == 0) continue;
      if (false_starts >= most_false_starts && all_broken(at)) {
        const auto error = std::make_exception_ptr(pool_broken("ringlet: a process pool has no workers: " + why));
        if (pending) pending->failed(error);
        pending.reset();
        fail_waiting(error);
        if (closed) return;
      } else if (closed && !pending && false_starts >= most_false_starts) {
        return;  // others still work, and do the rest
      }
      const deadline pause = std::chrono::milliseconds(5 << std::min(false_starts / false_start, 6u));
      if (closed)
        ringlet::sleep(pause);
      else
        closing.wait(pause);
    }
    if (pending) pending->failed(std::make_exception_ptr(shut_down("ringlet: the process pool was terminated before the task was done")));
  }

  // This place has no worker now. Does none have one?
  bool all_broken(std::size_t at) {
    base::lock_guard hold(lock);
    places[at].broken = true;
    return std::all_of(places.begin(), places.end(), [](const place& p) { return p.broken; });
  }

  void fail_waiting(const std::exception_ptr& error) {
    try {
      while (auto job = jobs.try_get())
        if (*job) (*job)->failed(error);
    } catch (const shut_down&) {
    }
  }

  struct in_place {
    impl& of;
    std::size_t at;
    in_place(impl& i, std::size_t n, process& worker) : of(i), at(n) {
      base::lock_guard hold(of.lock);
      of.places[at].worker = &worker;
    }
    ~in_place() {
      base::lock_guard hold(of.lock);
      of.places[at].worker = nullptr;
    }
  };

  // False: the pool has ended.
  bool use_one_worker(std::size_t at, std::unique_ptr<pool_job>& pending, unsigned& false_starts) {
    auto [ours, theirs] = byte_duplex();
    process worker({.name = "worker-" + std::to_string(++made), .daemon = true},
                   [initializer = how.initializer](byte_end end) { return serve(end, initializer); }, std::move(theirs));
    worker.start();
    in_place shown(*this, at, worker);
    try {
      ours.receive_bytes();
    } catch (const end_of_pipe&) {
      if (terminated) return false;
      worker.join();
      const int code = worker.exit_code().value_or(0);
      false_starts += code == -SIGKILL || code == -SIGTERM ? 1 : false_start;
      return true;
    }
    false_starts = 0;
    {
      base::lock_guard hold(lock);
      places[at].broken = false;
    }

    auto watcher = spawn({.name = worker.name() + "'s watcher", .daemon = true}, [&worker] { worker.join(); });
    struct end_watch {
      any_fiber f;
      ~end_watch() {
        kill_shield shield;
        f.kill();
      }
    } watched{watcher};

    for (unsigned tasks = 0; how.tasks_per_worker == 0 || tasks < how.tasks_per_worker; ++tasks) {
      try {
        while (!pending) {
          if (auto job = jobs.try_get()) {
            pending = std::move(*job);
            break;
          }
          if (watcher.ready()) return !terminated;
          ringlet::wait_any({waitable(jobs), waitable(watcher)});
        }
      } catch (const shut_down&) {
        ours.close();  // it ends by itself
        if (!worker.join(std::chrono::seconds(5))) worker.kill();
        return false;
      }
      switch (do_job(ours, worker, *pending)) {
        case outcome::ended: pending.reset(); break;
        case outcome::worker_ended: pending.reset(); return !terminated;
        case outcome::not_begun: return true;  // the next worker's
      }
    }
    ours.close();
    worker.join();
    return true;
  }

  enum class outcome { ended, worker_ended, not_begun };

  outcome do_job(byte_end& to, process& worker, pool_job& job) {
    std::string message(reinterpret_cast<const char*>(&job.function), sizeof job.function);
    message += job.arguments;
    bool unread = false;
    try {
      if (process_detail::send_packet(to.fd(), message, never, "process_pool") == process_detail::sent::yes) {
        std::string answered;
        const process_detail::received got = process_detail::receive_packet(to.fd(), answered, never, "process_pool");
        if (got.how == process_detail::received::kind::message) {
          const std::string_view reply = answered;
          if (reply[0] == char(answer::result)) {
            job.done(reply.substr(1));
          } else {
            const auto end = reply.find('\0', 1);
            job.failed(std::make_exception_ptr(remote_error(std::string(reply.substr(end + 1)), std::string(reply.substr(1, end - 1)))));
          }
          return outcome::ended;
        }
        unread = got.peer_left_unread;
      } else {
        unread = true;
      }
    } catch (const std::exception&) {  // no memory, no fd: the worker's state is not known any more
      job.failed(std::current_exception());
      worker.kill();
      return outcome::worker_ended;
    }
    worker.join();
    if (terminated) {
      job.failed(std::make_exception_ptr(shut_down("ringlet: the process pool was terminated before the task was done")));
      return outcome::worker_ended;
    }
    if (unread) return outcome::not_begun;
    job.failed(died(worker, worker.exit_code().value_or(process::lost_status)));
    return outcome::worker_ended;
  }

  void require_owner(const char* verb) const {
    if (made_in != int(sys::call(SYS_getpid)))
      throw std::logic_error(std::string("ringlet: process_pool::") + verb + " in another process than the one that made the pool; make one of its own there");
  }
};

pool_core::pool_core(process_pool_options options) : impl_(new impl(std::move(options))) {
  ringlet::detail::require_can_park("process_pool");
  for (std::size_t i = 0; i < impl_->places.size(); ++i)
    impl_->keepers.push_back(spawn({.name = "a process pool's keeper", .daemon = true}, [p = impl_.get(), i] { p->keep(i); }));
}

pool_core::~pool_core() {
  if (impl_->made_in != int(sys::call(SYS_getpid))) {
    (void)impl_.release();  // the parent's: its fibers and workers are not here
    return;
  }
  kill_shield shield;
  terminate();
  joinall(impl_->keepers);
}

void pool_core::submit(std::unique_ptr<pool_job> job) {
  impl_->require_owner("submit");
  if (impl_->closed) throw shut_down("ringlet: the process pool is closed; it takes no more tasks");
  impl_->jobs.put(std::move(job));
}

void pool_core::close() {
  impl_->require_owner("close");
  impl_->closed = true;
  impl_->jobs.shutdown();
  impl_->closing.set();
}

void pool_core::terminate() {
  impl_->require_owner("terminate");
  impl_->closed = true;
  impl_->terminated = true;
  impl_->fail_waiting(std::make_exception_ptr(shut_down("ringlet: the process pool was terminated before the task was begun")));
  impl_->jobs.shutdown();
  impl_->closing.set();
  base::lock_guard hold(impl_->lock);
  for (auto& each : impl_->places)
    if (each.worker) each.worker->kill();
}

bool pool_core::join(deadline until) {
  impl_->require_owner("join");
  if (!impl_->closed) throw std::logic_error("ringlet: process_pool::join before close or terminate: its workers would wait for tasks for ever");
  std::vector<any_fiber> all(impl_->keepers.begin(), impl_->keepers.end());
  return joinall(std::move(all), {.until = until}).size() == impl_->keepers.size();
}

std::size_t pool_core::size() const noexcept { return impl_->places.size(); }

std::vector<int> pool_core::pids() const {
  std::vector<int> result;
  base::lock_guard hold(impl_->lock);
  for (const auto& each : impl_->places)
    if (each.worker) result.push_back(each.worker->pid());
  return result;
}

}  // namespace ringlet::ipc::detail
