#pragma once
// What of a process pool does not depend on the types of its tasks; users include process_pool.hpp.

#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>

namespace ringlet {

struct process_pool_options {
  unsigned workers = 0;               // 0: as many as we may use processors
  std::function<void()> initializer;  // called in each worker before its first task
  unsigned tasks_per_worker = 0;      // then it ends and another one takes its place; 0: it lives as long as the pool
};

// The process that did the task has ended before it was done: killed, crashed, or it called exit.
struct RINGLET_EXPORT worker_died : std::runtime_error {
  worker_died(const std::string& what, int code) : std::runtime_error(what), exit_code(code) {}
  int exit_code;  // as process::exit_code
};
// What a task threw in its worker; what() is what that said.
struct RINGLET_EXPORT remote_error : std::runtime_error {
  remote_error(const std::string& what, std::string thrown) : std::runtime_error(what), type(std::move(thrown)) {}
  std::string type;  // by name: "std::out_of_range"
};
// No worker can be had: the initializer fails, or the system makes no processes.
struct RINGLET_EXPORT pool_broken : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace ipc::detail {

// Called in the worker; the pointer means the same there because the worker is a fork.
using remote_function = std::string (*)(std::string_view arguments);

// What is handed to a worker in one go. Ends in one of two ways, on the thread of the pool; destroyed without: dropped.
struct RINGLET_EXPORT pool_job {
  remote_function function = nullptr;
  std::string arguments;
  pool_job() = default;
  pool_job(const pool_job&) = delete;
  pool_job& operator=(const pool_job&) = delete;
  virtual ~pool_job();
  virtual void done(std::string_view result) noexcept = 0;
  virtual void failed(const std::exception_ptr& error) noexcept = 0;
};

RINGLET_EXPORT std::string name_of_exception(const std::exception_ptr&, std::string& what);

class RINGLET_EXPORT pool_core {
 public:
  explicit pool_core(process_pool_options);
  ~pool_core();
  pool_core(const pool_core&) = delete;
  pool_core& operator=(const pool_core&) = delete;
  void submit(std::unique_ptr<pool_job>);
  void close();
  void terminate();
  bool join(deadline until);
  std::size_t size() const noexcept;
  std::vector<int> pids() const;

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace ipc::detail
}  // namespace ringlet
