#pragma once
// What of the manager does not depend on the types of keys and values; users include ipc/manager.hpp.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <ringlet/deadline.hpp>
#include <ringlet/export.hpp>

namespace ringlet::ipc {

// The manager's process has ended, and all that was in it is gone.
struct RINGLET_EXPORT manager_gone : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {

enum class verb : unsigned char {
  make_dict, make_list,
  size, clear, all,  // of either: `all` gives keys and values in turn, or the values
  get, set, erase, exchange, put_new,  // of a dict; exchange: key, expected (or absent), new (or absent)
  at, replace, append, insert, remove, swap,  // of a list; swap: index, expected, new
};

using fields = std::vector<std::optional<std::string>>;

// An object that lives in a manager's process.
class RINGLET_EXPORT remote_object {
 public:
  remote_object() = default;
  remote_object(std::string address, std::uint64_t id) : address_(std::move(address)), id_(id) {}
  // Empty: the object says no (there is no such key, no such index, it is not as expected).
  std::optional<fields> call(verb what, const fields& arguments = {}) const;

 protected:
  std::string address_;
  std::uint64_t id_ = 0;
};

class RINGLET_EXPORT manager_core {
 public:
  manager_core();
  ~manager_core();
  manager_core(const manager_core&) = delete;
  manager_core& operator=(const manager_core&) = delete;
  const std::string& address() const noexcept;
  int pid() const noexcept;
  std::uint64_t make(verb what) const;

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

}  // namespace detail
}  // namespace ringlet::ipc
